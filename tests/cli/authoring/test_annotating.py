"""``hookline annotate``: a description and cases become sections of a module."""

from __future__ import annotations

import json

import pytest

from hookline_artifacts.module.annotate import custom_sections
from hookline_artifacts.module.inspection import inspect_module

CASES = [{"name": "a", "hook": "pre_query", "input": {"query": "x"}, "expect": {"action": "continue"}}]


@pytest.fixture
def module(guests, write):
    """A guard that goes on."""
    return write("guard.wasm", guests.answering(pre_query={"action": "continue"}))


def test_what_is_put_in_is_what_a_host_reads(hookline, module, write, tmp_path):
    """In place of what was there; the rest of the module stays as it was, byte for byte."""
    before = (tmp_path / module).read_bytes()
    write("plugin.json", {"name": "old"})
    assert hookline("annotate", module, "--plugin", "plugin.json").code == 0
    write("plugin.json", {"name": "guard", "version": "1.0.0"})
    write("cases.json", CASES)
    done = hookline("annotate", module, "--plugin", "plugin.json", "--cases", "cases.json", "--out", "out.wasm")
    assert done.code == 0
    made = (tmp_path / "out.wasm").read_bytes()
    sections = custom_sections(made)
    assert json.loads(sections["hookline.plugin"]) == {"name": "guard", "version": "1.0.0"}
    assert json.loads(sections["hookline.cases"]) == CASES
    assert made.startswith(before)
    assert inspect_module(made).description == sections["hookline.plugin"]
    assert hookline("test", "out.wasm").code == 0


IGNORED = {
    "name": ({"name": 7}, 'it becomes "7"'),
    "a field": ({"hoks": []}, "the field 'hoks' is ignored: there is none; did you mean 'hooks'?"),
    "a hook": ({"hooks": ["pre_query", "pre_querry"]}, '"pre_querry" is ignored: there is none; did you mean \'pre'),
    "no hooks": ({"hooks": "pre_query"}, "the field 'hooks' is ignored: it has to be a list"),
    "all hooks": ({"hooks": ["x"]}, "none of its hooks is known"),
    "a permission": (
        {"permissions": ["kv_reed"]},
        "'kv_reed' cannot be granted: there is none; did you mean 'kv.read'",
    ),
    "no permissions": ({"permissions": {}}, "the field 'permissions' is ignored"),
    "an odd permission": ({"permissions": [7]}, "a permission that is not a text is ignored"),
    "a schema": ({"config_schema": []}, "the field 'config_schema' is ignored"),
    "a size": ({"resources": {"min_memory": "x"}}, "'resources.min_memory' is ignored: \"x\" is not a size"),
    "a resource": ({"resources": {"min_memry": "1Mi"}}, "did you mean 'min_memory'?"),
    "resources": ({"resources": []}, "the field 'resources' is ignored"),
    "a text that is too long": ({"license": "x" * 1000}, "the field 'license' is not taken as it is"),
    "what is not exported": ({"hooks": ["pre_query", "route"]}, "declares the hook route, which the module does not"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_a_host_would_ignore_is_told(hookline, module, write, name):
    """As a note: a plugin runs all the same."""
    document, told = IGNORED[name]
    write("plugin.json", document)
    done = hookline("annotate", module, "--plugin", "plugin.json", "--json")
    assert done.code == 0
    assert any(told in each for each in done.json["notes"]), done.json["notes"]


def test_a_description_that_says_all_has_no_notes(hookline, module, write):
    """Every field that there is."""
    document = {
        "name": "guard", "version": "1", "description": "d", "author": "a", "license": "MIT", "hooks": ["PreQuery"],
        "permissions": ["kv.read", "query.execute:orders", "custom.x"],
        "resources": {"min_memory": "1Mi", "max_memory": 65536},
        "config_schema": {"type": "object"},
    }  # fmt: skip
    write("plugin.json", document)
    assert hookline("annotate", module, "--plugin", "plugin.json", "--json").json["notes"] == []


def test_what_the_module_needs_and_does_not_ask_for_is_told(hookline, guests, write):
    """A resource that grants what a plugin asks for would not load it."""
    write("plugin.wasm", guests.stored())
    write("plugin.json", {"name": "plugin"})
    (note,) = hookline("annotate", "plugin.wasm", "--plugin", "plugin.json", "--json").json["notes"]
    assert "imports need kv.read, which it does not ask for" in note


@pytest.mark.parametrize(
    ("name", "content", "code", "told"),
    [
        ("plugin", '{"name": "x",\n "hooks": [}', 2, "plugin.json is not JSON: line 2, column 12"),
        ("plugin", "[]", 2, "plugin.json is a list, and has to be an object"),
        ("plugin", "[" * 60_000, 2, "plugin.json is not JSON"),
        ("plugin", '"' + "x" * 70_000 + '"', 2, "plugin.json has more than 65536 bytes"),
        ("plugin", None, 3, "there is no file plugin.json"),
        ("cases", "{", 2, "cases.json is not JSON: line 1, column 2"),
        ("cases", "{}", 2, "cases.json"),
        (
            "cases",
            json.dumps([{**CASES[0], "hook": "pre_querry"}]),
            2,
            "case 1 ('a'): 'pre_querry' is no hook; did you",
        ),
        ("cases", json.dumps([{**CASES[0], "expct": 1}]), 2, "there is no field 'expct'; did you mean 'expect'?"),
        ("cases", json.dumps([{**CASES[0], "limits": {"timeout": "1h"}}]), 2, "timeout"),
        ("cases", json.dumps([{"name": "b", "hook": "route", "input": 1}]), 2, "case 'b'"),
        ("cases", " " * 300_000, 2, "bytes"),
    ],
)
def test_a_document_that_is_wrong_is_told(hookline, module, tmp_path, name, content, code, told):
    """Where it is wrong; the module stays as it was."""
    before = (tmp_path / module).read_bytes()
    if content is not None:
        (tmp_path / f"{name}.json").write_text(content)
    done = hookline("annotate", module, f"--{name}", f"{name}.json")
    assert (done.code, told in done.sentence) == (code, True), done.err
    assert (tmp_path / module).read_bytes() == before


def test_nothing_to_do_is_told(hookline, module):
    """Neither a description nor cases."""
    assert hookline("annotate", module).code == 2
