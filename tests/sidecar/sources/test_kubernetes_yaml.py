"""A manifest folder reads YAML and JSON as ``kubectl create`` does: ``yaml_table`` is what Kubernetes makes of them."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import random
import subprocess

import orjson
import pytest
import yaml

from hookline_artifacts.documents import kubernetes_yaml
from hookline_artifacts.documents.kubernetes_yaml import (
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_FILE,
    MAX_VALUES,
    UnreadableError,
    read,
)
from hookline_operator.cluster.plugins import parse_plugin
from hookline_sidecar.control.sources.manifests import scan

FOLDER = pathlib.Path(__file__).parent / "yaml_table"
TABLE = json.loads((FOLDER / "table.json").read_text())
FUZZ = int(os.environ.get("HOOKLINE_FUZZ", "0"))
RANDOM = max(3000, FUZZ)
PIECES = [
    *("a", "b", "c: ", "a: ", "b: 1", "- ", "-", " ", "  ", "    ", "\n", "\n", "\n  ", "\n    ", "\n- ", "\n  - "),
    *(
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "? ",
        "?",
        "a?b",
        "&x ",
        "*x",
        "&y ",
        "*y",
        "<<: ",
        "<<",
        "|\n  ",
        ">\n  ",
        ">-\n  ",
    ),
    *(
        "|+\n  ",
        "|2\n",
        "'",
        '"',
        "'x y'",
        '"x\\ny"',
        '"\\ud83d"',
        "\\",
        " # c",
        "\n---\n",
        "---\n",
        "\n---",
        "\n--- x\n",
    ),
    *("\n...\n", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "!", "!!str ", "!!int ", "!!float ", "!!null ", "!!merge "),
    *("1", "1.5", "true", "null", "~", "\t", "\r\n", "\r", "\x85", "\u2028", "\ufeff", "é", "😀", "\x7f", "@", "="),
    *(
        "{a: 1}",
        "[1, 2]",
        '"a":1',
        '"a": {"b": [1,2]}',
        "{}",
        "http://x/y:z",
        "x:y",
        '"\\/"',
        "\x00",
        "0x",
        "_",
        "1e",
        ".",
    ),
    *("22:30", "2024-04-01", "9223372036854775808", "010", "y"),
]


def file_of(row):
    """The bytes of the file that a row is about."""
    if "scalar" in row:
        return f"v: {row['scalar']}\n".encode()
    return row["document"].encode() if "document" in row else base64.b64decode(row["base64"])


def answer_of(row):
    """What is read, as text: ``1`` and ``1.0`` differ, and so does the order of keys."""
    found = read(file_of(row))
    values = [each["v"] for each in found] if "scalar" in row else found
    return [orjson.dumps(value) for value in values]


def expected_of(row):
    """What the API server hands out, read and written by the JSON library that the operator has."""
    return [orjson.dumps(orjson.loads(text)) for text in row["becomes"]]


@pytest.fixture(scope="module")
def kubernetes(need, tmp_path_factory):
    """Runs the Go program on a table."""
    program = tmp_path_factory.mktemp("go") / "yaml_table"
    environment = os.environ | {
        "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false",
    }  # fmt: skip
    argv = [need("go", "golang-go"), "build", "-trimpath", "-o", program, "."]
    subprocess.run(argv, cwd=FOLDER, env=environment, check=True)
    return lambda table: subprocess.run([program], input=table, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture(params=["libyaml", "Python alone"])
def either_parser(request, monkeypatch):
    """PyYAML's two parsers: which one is there depends on how PyYAML was built."""
    parser = yaml.CSafeLoader if request.param == "libyaml" else yaml.SafeLoader
    monkeypatch.setattr(kubernetes_yaml, "_Parser", parser)
    return request.param


def test_the_table_is_what_kubernetes_own_library_says(kubernetes):
    """Made anew by the Go program, it is the same file; at least 200 of its rows are scalars."""
    path = FOLDER / "table.json"
    assert kubernetes(path.read_bytes()) == path.read_bytes()
    assert sum("scalar" in row for row in TABLE) >= 200


@pytest.mark.parametrize("row", [row for row in TABLE if "becomes" in row and "folder" not in row], ids=repr)
def test_a_file_becomes_what_kubernetes_makes_of_it(row):
    """The same JSON, down to whether a number has a point."""
    assert answer_of(row) == expected_of(row)


@pytest.mark.parametrize("row", [row for row in TABLE if "refused" in row], ids=repr)
def test_what_kubernetes_refuses_is_refused(row):
    """With a sentence."""
    with pytest.raises(UnreadableError, match=r"\w"):
        read(file_of(row))


@pytest.mark.parametrize("row", [row for row in TABLE if "folder" in row], ids=repr)
def test_where_kubernetes_drops_or_guesses_the_folder_refuses(row):
    """And says why: nothing is read otherwise than by kubectl without a word."""
    assert "becomes" in row
    with pytest.raises(UnreadableError) as caught:
        read(file_of(row))
    assert str(caught.value).startswith(row["folder"])


def test_either_of_pyyamls_parsers_gives_the_same_values(either_parser):
    """The one in Python refuses a few tabs more; it never reads a value differently."""
    refused = 0
    for row in TABLE:
        try:
            answer = answer_of(row)
        except UnreadableError:
            refused += "becomes" in row and "folder" not in row
        else:
            assert answer == expected_of(row), row
    assert refused <= (0 if either_parser == "libyaml" else 8)


def test_a_random_file_is_read_as_by_kubernetes_or_refused(kubernetes):
    """No file is there that Kubernetes refuses and the folder reads, or that both read and differ about."""
    seed = random.SystemRandom().randrange(2**32) if FUZZ else 0
    pick = random.Random(seed)
    files = ["".join(pick.choice(PIECES) for _ in range(pick.randint(1, 14))) for _ in range(RANDOM)]
    table = orjson.loads(kubernetes(orjson.dumps([{"document": each} for each in files])))
    read_by_both = 0
    for row in table:
        try:
            answer = answer_of(row)
        except UnreadableError:
            continue
        assert "becomes" in row, (seed, row)
        assert answer == expected_of(row), (seed, row)
        read_by_both += 1
    assert read_by_both > RANDOM // 10


def test_settings_are_the_same_bytes_from_a_folder_and_from_the_api(tmp_path):
    """All scalars of the table as settings: by the sidecar from a file, and by the operator from the API's JSON."""
    rows = [row for row in TABLE if "scalar" in row and "becomes" in row and "folder" not in row]
    rows = [row for row in rows if "\n" not in row["scalar"]]
    names = [f"s{number:03}" for number in range(len(rows))]
    lines = [f"    {name}: {row['scalar']}" for name, row in zip(names, rows, strict=True)]
    lines.reverse()  # the API sorts
    source = "  source: {configMap: {name: module}}\n"
    head = "apiVersion: hookline.dev/v1alpha1\nkind: WasmPlugin\nmetadata: {name: plugin}\nspec:\n" + source
    (tmp_path / "plugin.yaml").write_text(head + "  config:\n" + "\n".join(lines))
    found = scan(tmp_path)
    assert not found.problems
    config = ",".join(f'"{name}":{row["becomes"][0]}' for name, row in zip(names, rows, strict=True))
    api = f'{{"config":{{{config}}},"source":{{"configMap":{{"name":"module"}}}}}}'
    plugin = parse_plugin("default", "plugin", "uid", 1, orjson.loads(api))
    assert found.manifests["plugin"].plugin.spec.config.data == plugin.spec.config.data


def test_keys_that_become_one_key_are_refused():
    """Go's maps forget the order, so which one counts would be an accident: it differs from run to run."""
    for text in ("1: a\n1.0: b", "1: a\n'1': b", "true: a\n'true': b", "{yes: a, on: b}", '{"a": {"b": 1, "b": 1}}'):
        with pytest.raises(UnreadableError, match="is there twice"):
            read(text.encode())


WIDE = b"- &a {" + b",".join(b"k%d: 1" % number for number in range(3000)) + b"}\n"
LAUGH = b"".join(b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 9)) for n in b"abcdefgh")
TOO_MUCH = {
    "brackets": (b"[" * MAX_FILE, "nested deeper"),
    "lists": (b"- " * (MAX_FILE // 2), "nested deeper"),
    "JSON": (b'{"a":' * (MAX_FILE // 5), f"more than {MAX_VALUES} values"),
    "objects": (b'{"a":[' + b"{}," * (MAX_FILE // 4) + b"{}]}", f"more than {MAX_VALUES} values"),
    "JSON that ends": (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper"),
    "a large scalar, often": (b"- &a " + b"x" * (MAX_FILE // 2) + b"\n" + b"- *a\n" * 100, "aliases"),
    "a large mapping, often": (WIDE + b"- *a\n" * 1000, "aliases"),
    "a merge, often": (WIDE + b"- {<<: *a}\n" * 1000, "aliases"),
    "a laugh": (b"a: &a [x, x, x, x]\n" + LAUGH, "alias"),
    "itself": (b"a: &a [*a]", "part of"),
    "documents": (b"---\na\n" * (MAX_DOCUMENTS + 1), "1000 documents"),
    "JSON documents": (b"{}" * (MAX_DOCUMENTS + 1), "1000 documents"),
    "bytes": (b"#" * (MAX_FILE + 1), str(MAX_FILE)),
}


@pytest.mark.parametrize("case", TOO_MUCH)
@pytest.mark.usefixtures("either_parser")
def test_a_file_that_means_too_much_is_refused(case):
    """By either parser, and before it takes the memory."""
    raw, words = TOO_MUCH[case]
    with pytest.raises(UnreadableError, match=words):
        read(raw)


def test_aliases_and_merges_in_ordinary_numbers_are_read():
    """Five hundred of one mapping."""
    text = "x: &x {a: 1, b: [2]}\nuses:\n" + "".join(f"- {{<<: *x, c: {number}}}\n" for number in range(500))
    (found,) = read(text.encode())
    assert found["uses"] == [{"a": 1, "b": [2], "c": number} for number in range(500)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: .inf\n", 2),
        ("a: 1\na: 2\n", 2),
        ("---\n---\na: 1\n---\n\nb: !!int x\n", 6),
        ("a: 1\n--- b\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ('{"a": 1}\n---\nb: 1\nb: 2\n', 4),
        ("a: 1\r\n---\r\nb: [\r\n", 4),
        ("  a: 1\n b: 2\n", 2),
    ],
    ids=repr,
)
def test_the_line_is_that_of_the_file(text, line):
    """Though each document is read by itself."""
    with pytest.raises(UnreadableError) as caught:
        read(text.encode())
    assert caught.value.line == line


@pytest.mark.usefixtures("either_parser")
def test_the_values_of_all_documents_of_a_file_are_counted(monkeypatch):
    """Each is an object, and a byte may make one."""
    monkeypatch.setattr("hookline_artifacts.documents.kubernetes_yaml.MAX_VALUES", 100)
    assert len(read(b"---\n- a\n- b\n" * 10)) == 10
    with pytest.raises(UnreadableError, match="more than 100 values and names"):
        read(b"---\n- a\n- b\n" * 40)
