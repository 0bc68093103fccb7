"""What JSON costs is known before it is parsed: never too little, and for honest texts not too much."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api import json_cost
from hookline_api.json_cost import CostError, check

if TYPE_CHECKING:
    from pathlib import Path

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


def _count(value: Any) -> int:
    """Values and names, counted by hand."""
    if isinstance(value, dict):
        return 1 + sum(1 + _count(each) for each in value.values())
    return 1 + (sum(map(_count, value)) if isinstance(value, list) else 0)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


@pytest.mark.slow
@given(_JSON, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=400, deadline=None)
def test_no_text_makes_more_than_was_counted(value: object, ascii_only: object, indent: int | None) -> None:
    """Whatever strings hold, and however they are escaped; and only empty containers are counted twice."""
    raw = json.dumps(value, ensure_ascii=bool(ascii_only), indent=indent).encode()
    exact = json_cost.values(raw)
    assert _count(value) <= exact
    assert exact <= 2 * _count(value)
    for levels in range(1, 6):
        assert (json_cost.depth(raw, at_most=levels) > levels) == (_depth(value) > levels)


@given(st.text('\\"[]{},:u0a1 ', max_size=60), st.integers(0, 30))
@settings(max_examples=600, deadline=None)
def test_a_broken_text_is_counted_up_to_where_it_breaks(text: str, at_most: int) -> None:
    """What a parser makes before the first mistake is in the count."""
    raw = text.encode()
    bound = json_cost.values(raw, at_most=at_most)
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return
    assert bound > at_most or _count(value) <= bound


def test_sql_full_of_commas_is_one_value() -> None:
    """Brackets, commas, colons, quotes and backslashes in strings are text."""
    query = r"INSERT INTO t VALUES " + ", ".join(f"({n}, '{{\"a\": [1]}}', E'\\\\x:')" for n in range(50_000))
    raw = orjson.dumps({"query": query, "normalized": query})
    assert raw.count(b",") > 100_000
    assert json_cost.values(raw) == 5  # the object, two names, two texts
    check(raw, what="the body", max_values=100, max_depth=1)
    check(raw.decode(), what="the body", max_values=100, max_depth=1)


@pytest.mark.parametrize(
    "unit", [b"{},", b"[],", b'{"":0},', b'"",', b"0,", b'{"a":', b"[", b'",",', b'"\\"",', b'"\\\\",']
)  # fmt: skip
def test_texts_of_many_values_are_refused_with_a_sentence(unit: bytes) -> None:
    """Each by its count, before any of it is parsed."""
    raw = b"[" + unit * 100_000
    with pytest.raises(CostError, match=rf"^the body has {len(raw)} bytes with more than 99999 values and names"):
        check(raw, what="the body", max_values=99_999)


def test_depth_is_refused_with_a_sentence() -> None:
    """Also where few brackets are deep, and not where many are side by side."""
    with pytest.raises(CostError, match=r"^the answer is nested deeper than 100, and is not parsed$"):
        check(b'{"a":' * 101 + b"1" + b"}" * 101, what="the answer", max_values=1000, max_depth=100)
    check(b"[" + b"[[]]," * 99_999 + b"[]]", what="the answer", max_values=10**6, max_depth=3)
    check(orjson.dumps({"text": "[" * 10**6}), what="the answer", max_values=10, max_depth=1)


def test_few_bytes_are_not_looked_at() -> None:
    """A text with fewer bytes than values may be in it costs a comparison."""

    class Untouched(bytes):
        def count(self, *_: object) -> int:
            raise AssertionError

    check(Untouched(b"[" * 1000), what="the body", max_values=1001)


def test_other_encodings_are_counted_by_their_bytes() -> None:
    """json.loads reads UTF-16, where half of a character may look like a quotation mark: then nothing is cut out."""
    value = ["\u2201", *([1] * 1000)]
    raw = json.dumps(value, ensure_ascii=False).encode("utf-16")
    assert json.loads(raw) == value
    with pytest.raises(CostError):
        check(raw, what="it", max_values=1000)


def test_the_look_takes_steps_in_proportion_to_the_bytes() -> None:
    """Twice the bytes are twice the pieces that strings are cut into, and no piece is looked at again."""
    counted = []
    for size in (2**17, 2**18, 2**19):
        raw = b"[" + b'"",' * size
        counted.append(sum(1 for _ in json_cost._outside(raw)))
    assert counted[1] <= 2 * counted[0] + 1
    assert counted[2] <= 2 * counted[1] + 1


@pytest.mark.parametrize("text", [
    "- " * 500 + "a", "[" * 500 + "]" * 500, "? " * 300, "{a, b, c}", "a: b\nc: d\n", "[a: b, c: d]",
    "- a\n- b\n- - c\n",
    "a:\n  - b: c\n    d: |\n      text\n", "--- a\n", "a: [,]\n", "\ufeff{a: }", "a:\r- b\r- c", "{? , ? }",
])  # fmt: skip
def test_yaml_makes_no_more_nodes_than_were_counted(text: str) -> None:
    """Compared with the nodes of PyYAML's own events."""
    yaml: Any = pytest.importorskip("yaml")
    found = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            found += isinstance(event, yaml.NodeEvent)
    except yaml.YAMLError:
        pass
    assert found <= json_cost.yaml_values(text)


_IN_A_CHILD = """
import sys
import orjson
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
with open(sys.argv[1], "rb") as file:
    raw = file.read()
orjson.loads(b"[1]")
before = peak()
kept = orjson.loads(raw)
print(peak() - before)
"""
_READING = 8
"""What orjson has beside its result while it reads, in bytes for each byte."""


@pytest.mark.parametrize(
    "value",
    [
        [{}] * 10**6,
        [[]] * 10**6,
        [{"": 0}] * 500_000,
        list(map(str, range(10**6))),
        {str(number): number + 0.5 for number in range(500_000)},
        ["a" * 2**23 + "\U0001f600"],
    ],
    ids=["objects", "arrays", "members", "texts", "names", "emoji"],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_memory_is_never_more_than_was_reckoned(value: object, escaped: object, tmp_path: Path) -> None:
    """Measured in a process of its own."""
    raw = json.dumps(value, ensure_ascii=bool(escaped), separators=(",", ":")).encode()
    (tmp_path / "raw").write_bytes(raw)
    child = [sys.executable, "-c", _IN_A_CHILD, str(tmp_path / "raw")]
    took = int(subprocess.run(child, capture_output=True, check=True).stdout)
    assert 2**20 < took <= json_cost.memory(raw) + _READING * len(raw)


def test_random_bytes_are_counted_and_nothing_else_happens() -> None:
    """No bytes make the counter fail."""
    choice = random.Random(1)
    for _ in range(2000):
        raw = bytes(choice.choices(b'\\"[]{},:\x00\xff\xfe\xef\xbb\xbf a', k=choice.randrange(40)))
        bound, deep = json_cost.values(raw), json_cost.depth(raw, at_most=3)
        assert 1 <= bound <= len(raw) + 1
        assert 0 <= deep <= len(raw)
        assert json_cost.memory(raw) >= bound * json_cost.OBJECT_BYTES


@given(_JSON)
def test_names_are_counted_where_they_are_names(value: Any) -> None:
    """However many colons stand in texts."""
    raw = json.dumps([value, "a:b:c\\", {'":': ":"}]).encode()

    def names(each: Any) -> int:
        if isinstance(each, dict):
            return len(each) + sum(map(names, each.values()))
        return sum(map(names, each)) if isinstance(each, list) else 0

    assert json_cost.names(raw, at_most=0) == names(value) + 1
    assert json_cost.names(raw, at_most=10**6) == raw.count(b":")
