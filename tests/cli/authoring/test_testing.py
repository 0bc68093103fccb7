"""``hookline test``: a plugin is held against its cases."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest


def case(name, action="continue", **more):
    """A case of one question."""
    return {"name": name, "hook": "pre_query", "input": {"query": "SELECT 1"}, "expect": {"action": action}, **more}


@pytest.fixture
def module(guests, write):
    """A guard that goes on, and carries no cases."""
    return write("guard.wasm", guests.answering(pre_query={"action": "continue"}))


def test_cases_that_hold_take_a_line_each(hookline, guests, write):
    """Those that the module carries; a sidecar asks the same ones."""
    wasm = guests.answering(pre_query={"action": "continue"})
    write("guard.wasm", wasm, cases=[case("one"), case("two")])
    done = hookline("test", "guard.wasm")
    assert done.code == 0
    assert done.out.splitlines()[:2] == ["ok    one", "ok    two"]
    assert "2 of 2 cases hold (the section hookline.cases of guard.wasm)" in done.out


def test_a_case_that_does_not_hold_says_what_differs(hookline, guests, write):
    """What was expected, what came, and what the guest logged; what was asked with ``-v``."""
    answer = b'{"action":"block","value":"no"}'
    body = f"(drop (call $log (i32.const 2) (i32.const 2048) (i32.const 4))) (i64.const {1024 << 32 | len(answer)})"
    log = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
    write("guard.wasm", guests.module({"pre_query": body}, imports=log, data={1024: answer, 2048: b"word"}))
    write("cases.json", [case("goes on")])
    done = hookline("test", "guard.wasm", "--cases", "cases.json")
    assert done.code == 1
    assert [line.strip() for line in done.out.splitlines()] == [
        "FAIL  goes on",
        'action is "block", and should be "continue"',
        'expected: {"action": "continue"}',
        'got:      {"action": "block", "value": "no"}',
        "log info: word",
        done.out.splitlines()[-1],
    ]
    assert (
        'asked:    pre_query {"query": "SELECT 1"}' in hookline("test", "guard.wasm", "--cases", "cases.json", "-v").out
    )


def test_cases_are_chosen_by_their_names(hookline, module, write):
    """In any case of letters; where none has it, that is told."""
    write("cases.json", [case("Blocks DROP", "block"), case("goes on")])
    arguments = ("test", module, "--cases", "cases.json", "--filter")
    assert hookline(*arguments, "GOES").code == 0
    assert hookline(*arguments, "drop", "--json").json["failed"] == 1
    none = hookline(*arguments, "nothing")
    assert (none.code, none.sentence) == (2, "hookline: none of the 2 cases has 'nothing' in its name")


def test_build_servers_get_their_report(hookline, module, write, tmp_path):
    """In JUnit's form, whatever the names hold."""
    write("cases.json", [case("holds"), case('fails <&"\x1b]]>', "block")])
    done = hookline("test", module, "--cases", "cases.json", "--junit", "report.xml")
    assert done.code == 1
    suite = ET.fromstring((tmp_path / "report.xml").read_text()).find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    held, failed = suite.findall("testcase")
    assert held.find("failure") is None
    assert failed.get("name") == 'fails <&"]]>'
    assert failed.find("failure").get("message") == 'action is "continue", and should be "block"'
    assert "asked:" in failed.find("failure").text


def test_each_case_has_settings_keys_and_answers_of_its_own(hookline, guests, write):
    """And permissions and limits; what one stored is not there for the next."""
    ask = {"hook": "custom_hook", "input": {}}
    write("stored.wasm", guests.stored())
    write("cases.json", [
        {"name": "a key", **ask, "kv": {"k": '"kept"'}, "expect": {"value": "kept"}},
        {"name": "none", **ask, "expect": {"action": "empty"}},
        {"name": "denied", **ask, "kv": {"k": '"kept"'}, "permissions": [], "expect": {"action": "empty"}},
    ])  # fmt: skip
    assert hookline("test", "stored.wasm", "--cases", "cases.json").code == 0
    write("configured.wasm", guests.configured())
    write("cases.json", [{"name": "a setting", **ask, "config": {"custom_hook": 1}, "expect": {"value": 1}}])
    assert hookline("test", "configured.wasm", "--cases", "cases.json").code == 0
    write("loop.wasm", guests.module({"custom_hook": guests.forever}))
    write("cases.json", [{"name": "fuel", **ask, "limits": {"fuel": 1000}, "failure": "timeout"}])
    assert hookline("test", "loop.wasm", "--cases", "cases.json").code == 0


def test_what_cannot_be_asked_does_not_hold(hookline, guests, write):
    """A hook that is not there, settings that the schema refuses, an input that is none: each says why."""
    schema = {"type": "object", "additionalProperties": False}
    wasm = guests.answering(pre_query={"action": "continue"})
    write("guard.wasm", wasm, plugin={"name": "guard", "config_schema": schema})
    write("cases.json", [
        {"name": "hook", "hook": "route", "input": {"query": "x"}, "expect": {"action": "default"}},
        case("settings", config={"a": 1}),
        {"name": "input", "hook": "pre_query", "input": {"quer": "x"}, "expect": {"action": "continue"}},
    ])  # fmt: skip
    done = hookline("test", "guard.wasm", "--cases", "cases.json", "--json")
    assert done.code == 1
    problems = {each["name"]: each["problem"] for each in done.json["cases"]}
    assert "route is not called" in problems["hook"]
    assert "'a' was unexpected" in problems["settings"]
    assert "the input is wrong" in problems["input"]


def test_limits_are_those_of_the_projects_manifest(hookline, project):
    """Where a case says none, and they are large; a manifest that is wrong is told."""
    assert hookline("build", "guard").code == 0
    manifest = project / "wasmplugin.yaml"
    long = {"$concat": [{"$repeat": ["x", 2**20 - 1]}]}
    (project / "cases.json").write_text(
        json.dumps([case("long", "continue", input={"query": "q", "tables": [long] * 17})])
    )
    done = hookline("test", "guard")
    assert (done.code, "limits.input is 16777216" in done.out) == (1, True)
    manifest.write_text(manifest.read_text().replace("timeout: 50ms", "input: 1Ki"))
    (project / "cases.json").write_text(json.dumps([case("short", "continue", input={"query": "x" * 2000})]))
    assert hookline("test", "guard").code == 0  # one that is too small for the author's own cases refuses none
    manifest.write_text(manifest.read_text().replace("input: 1Ki", "inptu: 1Ki"))
    assert hookline("test", "guard").code == 2


def test_no_cases_are_told(hookline, module, write):
    """With how to give some."""
    done = hookline("test", module)
    assert (done.code, "give --cases FILE, or put them in with 'hookline annotate" in done.sentence) == (3, True)
    write("cases.json", [])
    assert hookline("test", module, "--cases", "cases.json").code == 2
