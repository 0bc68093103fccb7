"""``hookline check``: all that is wrong with manifests, each with its place, and nothing that is right."""

from __future__ import annotations

import pytest
import yaml

GOOD = """\
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: guard, namespace: shop}
spec:
  source:
    oci: {reference: "registry.example.com/plugins/guard:1.0.0"}
  hooks: [pre_query]
"""
BAD = """\
# A comment, so that lines count.
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: guard, lables: {a: b}}
spec:
  source:
    oci:
      reference: registry.example.com/p/guard:1.0
      pullsecrets: [{name: x}]
  hooks: [pre_quarry]
  priority: "5"
  limits:
    timeout: 2h
---
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugins
metadata: {name: other}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a manifest: text, or documents."""

    def run(content, name="plugin.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump_all(content, sort_keys=False))
        return name

    return run


def plugin(**spec):
    """A WasmPlugin."""
    source = {"oci": {"reference": "registry.example.com/plugins/guard:1.0.0"}}
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"},
        "spec": {"source": source, **spec},
    }  # fmt: skip


def said(done):
    """What ``--json`` found: level, line, column and the beginning of the sentence."""
    return [(each["level"], each["line"], each["column"], each["message"]) for each in done.json["findings"]]


def test_what_is_right_is_passed(hookline, write):
    """With exit code 0, and one line."""
    done = hookline("check", write(GOOD))
    assert (done.code, done.out) == (0, "1 document in 1 file: no problems, no warnings\n")


def test_all_that_is_wrong_is_told_with_its_place(hookline, write):
    """Not the first alone; each with line and column, and with the field that may be meant."""
    done = hookline("check", write(BAD))
    assert done.code == 1
    lines = done.out.splitlines()
    places = [line.split(": problem: ")[0] for line in lines[:-1]]
    assert places == [f"plugin.yaml:{at}" for at in ("4:25", "9:7", "10:11", "11:3", "13:5", "16:1")]
    for words, line in zip(
        ("did you mean labels?", "did you mean pullSecrets?", "'pre_quarry' is not a hook", "without quotes",
         "2h is not between 1ms and 1m", "did you mean hookline.dev/v1alpha1 WasmPlugin?"),
        lines, strict=False,
    ):  # fmt: skip
        assert words in line
    assert lines[-1] == "1 document in 1 file: 6 problems, no warnings"


def test_json_and_annotations_say_the_same(hookline, write):
    """For programs, and for a workflow at GitHub."""
    name = write(BAD)
    done = hookline("check", name, "--json")
    assert (done.code, done.json["problems"], len(done.json["findings"])) == (1, 6, 6)
    first = done.json["findings"][0]
    assert (first["file"], first["line"], first["column"], first["by"]) == (name, 4, 25, "schema")
    lines = hookline("check", name, "--output", "github").out.splitlines()
    assert lines[0].startswith("::error file=plugin.yaml,line=4,col=25::WasmPlugin 'guard': metadata.lables: ")


def test_a_file_that_cannot_be_read_has_its_line(hookline, write):
    """And other files are judged all the same."""
    write("a: b: c\n", "m/broken.yaml")
    write(GOOD, "m/good.yaml")
    done = hookline("check", "m", "--json")
    assert done.code == 1
    assert said(done)[0][:2] == ("problem", 1)
    assert "this cannot be read" in said(done)[0][3]
    assert [each["document"] for each in done.json["documents"]] == ["WasmPlugin 'guard'"]


def test_a_thousand_mistakes_take_no_minute(hookline, write):
    """To look for the names that may be meant, and for sentences that were said, grows with what is told alone."""
    name = write(GOOD + "".join(f"  zz{number}: 1\n" for number in range(20_000)))
    done = hookline("check", name, "--json")
    assert done.code == 1
    assert 100 < done.json["problems"] < 400
    assert "more, which are not told" in done.out


def test_warnings_count_where_that_is_asked_for(hookline, write):
    """What is legal and may be a mistake."""
    name = write([plugin(source={"oci": {"reference": "registry.example.com/plugins/guard"}})])
    done = hookline("check", name)
    assert done.code == 0
    assert ": warning: WasmPlugin 'guard': spec.source.oci.reference: 'latest' is looked up" in done.out
    assert hookline("check", name, "--strict").code == 1


def test_an_item_of_a_list_has_its_place(hookline, write):
    """As ``kubectl get -o yaml`` writes it."""
    done = hookline("check", write([{"apiVersion": "v1", "kind": "List", "items": [plugin(hooks=["x"])]}]), "--json")
    assert said(done)[0][:2] == ("problem", 13), done


def test_keys_of_secrets_in_the_same_files_are_looked_for(hookline, write):
    """Which keys there are is said, and no value; of objects that are elsewhere, nothing."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "hidden"}}
    names = [("s", "tokn"), ("elsewhere", "a")]
    given = [{"secretRef": {"name": name}, "key": key, "path": key} for name, key in names]
    done = hookline("check", write([secret, plugin(configFrom=given)]))
    assert done.code == 1
    assert "spec.configFrom[0].key: the Secret 's' has no key 'tokn'; did you mean token?" in done.out
    assert "hidden" not in done.out
    assert "elsewhere" not in done.out


def test_policies_of_the_same_files_are_applied(hookline, write):
    """As the operator's webhook says it."""
    policy = {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy", "metadata": {"name": "strict"},
        "spec": {"references": "Digest"},
    }  # fmt: skip
    done = hookline("check", write([policy, plugin()]), "--json")
    (finding,) = done.json["findings"]
    assert (finding["by"], finding["level"]) == ("policy", "problem")
    assert finding["message"].startswith("PluginTrustPolicy 'strict' forbids it: ")


def test_the_same_name_twice_is_told(hookline, write):
    """With the place of the first."""
    done = hookline("check", write([plugin(), plugin()]))
    assert (done.code, "also in plugin.yaml:1: the last wins" in done.out) == (0, True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", "hookline: there is no WasmPlugin and no Plugin"),
        (None, "hookline: a manifest: nothing.yaml cannot be read: No such file or directory"),
    ],
)
def test_nothing_to_check_is_a_wrong_command_line(hookline, write, content, sentence):
    """Rather than a success."""
    done = hookline("check", write(content) if content else "nothing.yaml")
    assert done.code == 2
    assert done.sentence.startswith(sentence)
