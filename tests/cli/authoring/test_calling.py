"""``hookline call``: a hook of a module is asked, as a sidecar would ask it."""

from __future__ import annotations

import json
import os
import stat

import pytest

CONFIG = '(import "hookline" "get_config" (func $get_config (param i32 i32) (result i64)))'
KEY = """(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))"""
LOG = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
FETCH = '(import "hookline" "http_fetch" (func $http_fetch (param i32 i32) (result i64)))'


@pytest.fixture
def guard(guests, write):
    """Goes on, and logs a line."""
    answer = b'{"action":"continue"}'
    body = f"(drop (call $log (i32.const 3) (i32.const 2048) (i32.const 5))) (i64.const {1024 << 32 | len(answer)})"
    wasm = guests.module({"pre_query": body}, imports=LOG, data={1024: answer, 2048: b"a\x1b[m!"})
    return write("guard.wasm", wasm)


@pytest.fixture
def echo(guests, write):
    """Its custom hook answers what it is asked; ``pre_query`` does too, which is no decision."""
    return write("echo.wasm", guests.module({"custom_hook": guests.echo, "pre_query": guests.echo}))


def test_the_decision_is_what_a_proxy_gets(hookline, guard):
    """With what the guest logged, escaped, and what it took."""
    done = hookline("call", guard, "pre_query", "SELECT 1")
    assert done.code == 0
    decision, log, numbers = done.out.splitlines()
    assert decision == 'continue  {"action": "continue"}'
    assert log == "  log warning: a\\x1b[m!"
    assert "µs · memory 128 KiB · host calls: log" in numbers


def test_programs_get_the_same(hookline, guard):
    """With ``--json``, fuel where it is asked for, and how calls differ where there are several."""
    found = hookline("call", guard, "pre_query", "SELECT 1", "--fuel", "--repeat", 3, "--json").json
    assert found["decision"]["action"] == "continue"
    assert found["failure"] is None
    assert found["fuel"] > 0
    assert found["hostCalls"] == {"log": 1}
    assert (found["calls"], found["failed"], found["decisions"]) == (3, 0, 1)


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        (" SELECT 1 \n", "SELECT 1"),
        ('"SELECT 1"', "SELECT 1"),
        ('{"query": "SELECT 1"}', "SELECT 1"),
        ('"a" = 1', '"a" = 1'),
    ],
)
def test_a_statement_is_an_input(hookline, guests, write, given, query):
    """As it is, as a text in JSON, or in the whole input."""
    write("guard.wasm", guests.module({"pre_query": guests.echo}))
    found = hookline("call", "guard.wasm", "pre_query", given, "--json").json
    assert json.loads(found["failure"]["answer"])["query"] == query


def test_an_input_comes_from_a_file_or_stdin(hookline, echo, write, monkeypatch, tmp_path):
    """``@FILE`` and ``-``."""
    write("input.json", '{"from": "a file"}')
    assert hookline("call", echo, "custom_hook", "@input.json", "--json").json["decision"]["value"] == {
        "from": "a file"
    }
    with (tmp_path / "input.json").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert hookline("call", echo, "custom_hook", "-", "--json").json["decision"]["action"] == "answered"


def test_settings_are_those_of_the_command_line(hookline, guests, write):
    """From JSON, from a file of JSON or YAML; and from a manifest, before which they count."""
    write("plugin.wasm", guests.configured())
    write("config.yaml", "custom_hook: yaml\n")
    write("config.json", {"custom_hook": "json"})
    write(
        "manifest.yaml",
        {
            "apiVersion": "hookline.dev/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": "plugin"},
            "spec": {
                "source": {"file": {"path": "plugin.wasm"}},
                "config": {"custom_hook": "manifest"},
                "permissions": ["config.read"],
            },
        },
    )

    def told(*options):
        return hookline("call", "plugin.wasm", "custom_hook", "{}", *options, "--json").json["decision"].get("value")

    assert told() is None
    assert told("--config", '{"custom_hook": "option"}') == "option"
    assert told("--config-file", "config.yaml") == "yaml"
    assert told("--config-file", "config.json") == "json"
    assert told("--manifest", "manifest.yaml") == "manifest"
    assert told("--manifest", "manifest.yaml", "--config", '{"custom_hook": "option"}') == "option"


def test_settings_that_the_schema_refuses_are_told_with_their_path(hookline, guests, write):
    """By the plugin's own schema, in a process of its own; also where nothing is given and something is needed."""
    schema = {"type": "object", "properties": {"limit": {"type": "integer"}}, "required": ["limit"]}
    write("plugin.wasm", guests.configured(), plugin={"name": "plugin", "config_schema": schema})
    wrong = hookline("call", "plugin.wasm", "custom_hook", "{}", "--config", '{"limit": "many"}')
    assert (wrong.code, "config.limit" in wrong.sentence) == (2, True)
    lacking = hookline("call", "plugin.wasm", "custom_hook", "{}")
    assert (lacking.code, "'limit' is a required property" in lacking.sentence) == (2, True)
    assert hookline("call", "plugin.wasm", "custom_hook", "{}", "--config", '{"limit": 3}').code == 0


def test_all_that_it_asks_for_is_granted_unless_something_else_is_said(hookline, guests, write):
    """``--permission`` and ``--no-permissions``; what is denied is told, with what would grant it."""
    write("plugin.wasm", guests.configured())
    arguments = ("call", "plugin.wasm", "custom_hook", "{}", "--config", '{"custom_hook": 7}')
    assert hookline(*arguments, "--json").json["decision"]["value"] == 7
    assert hookline(*arguments, "--permission", "config.read", "--json").json["decision"]["value"] == 7
    for denied in (("--permission", "kv.read"), ("--no-permissions",)):
        found = hookline(*arguments, *denied, "--json").json
        assert found["denied"] == {"get_config": 1}
        assert "grant it with --permission config.read" in found["failure"]["advice"]


def test_keys_are_there_at_the_beginning(hookline, guests, write):
    """``--kv``."""
    write("plugin.wasm", guests.stored())
    found = hookline("call", "plugin.wasm", "custom_hook", "{}", "--kv", 'k="kept=1"', "--json").json
    assert found["decision"]["value"] == "kept=1"


def test_what_would_ask_a_server_is_answered_by_hand(hookline, guests, write):
    """``--answers``; a question that none of them fits is told."""
    request = b'{"url":"https://api.example.com/a"}'
    wasm = guests.module(
        {"custom_hook": f"(call $http_fetch (i32.const 1024) (i32.const {len(request)}))"},
        imports=FETCH,
        data={1024: request},
    )
    write("plugin.wasm", wasm)
    write("answers.json", [{"function": "http_fetch", "when": {}, "answer": {"status": 204}}])
    arguments = ("call", "plugin.wasm", "custom_hook", "{}")
    assert hookline(*arguments, "--answers", "answers.json", "--json").json["decision"]["value"] == {"status": 204}
    done = hookline(*arguments)
    assert 'unanswered: http_fetch {"url": "https://api.example.com/a"}: give an answer in --answers' in done.out


FAILURES = {
    "trap": ("unreachable", "trap", "the guest ended the call itself"),
    "loop": ("(loop $ever (br $ever)) (i64.const 0)", "timeout", "look for a loop without an end"),
    "outside": ("(i64.const 0x7fffffff00000008)", "result", "docs/reference/hooks.md"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_that_fails_says_why_and_what_to_do(hookline, guests, write, name):
    """With exit code 1, and the decision of the failure policy, closed."""
    body, cause, advice = FAILURES[name]
    write("plugin.wasm", guests.module({"pre_query": body}))
    done = hookline("call", "plugin.wasm", "pre_query", "SELECT 1", "--limit", "timeout=20ms")
    assert done.code == 1
    assert done.out.startswith("block  ")
    assert f"failed ({cause}): " in done.out
    assert advice in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x00\xffno", "it answered: b'\\x00\\xffno'"),
        (b'{"action":"rewrite"}', 'it answered: {"action":"rewrite"}'),
        (b"", None),
    ],
)
def test_an_answer_that_is_none_is_shown(hookline, guests, write, raw, shown):
    """As text, or with its bytes escaped."""
    write("plugin.wasm", guests.module({"pre_query": f"(i64.const {1024 << 32 | len(raw)})"}, data={1024: raw}))
    done = hookline("call", "plugin.wasm", "pre_query", "SELECT 1")
    assert done.code == 1
    assert "failed (result)" in done.out
    assert ("it answered" in done.out) == (shown is not None)
    assert shown is None or shown in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pre_querry", "x"], 2, "'pre_querry' is no hook; did you mean 'pre_query'?"),
        (["nothing", "x"], 2, "'nothing' is no hook; the hooks are authenticate"),
        (["route", "x"], 2, "does not export route; it exports pre_query, custom_hook"),
        (["pre_query"], 2, "pre_query needs an input with query"),
        (["pre_query", '{"query": }'], 2, "the input is not JSON: line 1, column 11"),
        (["pre_query", '{"quer": 1}'], 2, "query: is missing; docs/reference/hooks.md"),
        (["pre_query", '{"query": 7}'], 2, "query"),
        (["pre_query", "[" * 100_000], 2, "the input is not JSON"),
        (["pre_query", "@none.json"], 3, "the input: there is no file none.json"),
        (["pre_query", "@."], 3, "the input: . is a folder"),
        (["pre_query", "x", "--permission", "kv.reed"], 2, "'kv.reed' is no permission; did you mean 'kv.read'?"),
        (["pre_query", "x", "--permission", "zzz"], 2, "the permissions are kv.read"),
        (["pre_query", "x", "--permission", "kv.read", "--no-permissions"], 2, "contradict each other"),
        (["pre_query", "x", "--limit", "timout=1s"], 2, "did you mean 'timeout'?"),
        (["pre_query", "x", "--limit", "timeout=1h"], 2, "1h is not between 1ms and 1m"),
        (["pre_query", "x", "--limit", "timeout"], 2, "write NAME=VALUE"),
        (["pre_query", "x", "--limit", "memory=64Ki"], 2, "limits.memory is 65536"),
        (["pre_query", "x", "--config", "{"], 2, "--config is not JSON: line 1, column 2"),
        (["pre_query", "x", "--config", "[]"], 2, "--config is a list, and has to be an object"),
        (["pre_query", "x", "--config", "{}", "--config-file", "a"], 2, "give one of them"),
        (["pre_query", "x", "--config-file", "none.yaml"], 3, "there is no file none.yaml"),
        (["pre_query", "x", "--answers", "plugin.wasm"], 2, "is not JSON"),
        (["pre_query", "x", "--manifest", "none.yaml"], 2, "none.yaml"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(hookline, echo, write, tmp_path, arguments, code, told):
    """Which says what to write instead."""
    (tmp_path / echo).rename(tmp_path / "plugin.wasm")
    done = hookline("call", "plugin.wasm", *arguments)
    assert done.code == code
    assert told in done.sentence


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (None, 3, "there is no file plugin.wasm"),
        (b"hello", 1, "this is not a WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", 1, "component"),
        (b"\0asm\x01\0\0\0\x01\xff", 1, "truncated or damaged"),
        (b"\0asm\x01\0\0\0", 1, "does not export its linear memory"),
    ],
)
def test_what_is_no_plugin_is_told(hookline, tmp_path, content, code, told):
    """As a host would, without running it."""
    if content is not None:
        (tmp_path / "plugin.wasm").write_bytes(content)
    done = hookline("call", "plugin.wasm", "pre_query", "x")
    assert (done.code, told in done.sentence) == (code, True)


def test_a_module_without_hooks_says_what_it_exports(hookline, guests, write):
    """And one that imports what is not there, which function may be meant."""
    other = '(func (export "pre_querry") (param i32 i32) (result i64) i64.const 0)'
    write("hookless.wasm", guests.module({}, parts=other))
    said = hookline("call", "hookless.wasm", "pre_query", "x").err
    assert "it exports alloc, memory, pre_querry (did you mean pre_query?); the hooks are" in said
    imports = '(import "hookline" "kv_lst" (func (param i32 i32) (result i64)))'
    write("importing.wasm", guests.module({"pre_query": "(i64.const 0)"}, imports=imports))
    assert "did you mean 'hookline.kv_list'?" in hookline("call", "importing.wasm", "pre_query", "x").sentence


def test_a_hook_that_is_not_declared_is_not_called(hookline, guests, write):
    """As in a sidecar; it is said where to add it."""
    wasm = guests.answering(pre_query={"action": "continue"}, route={"action": "primary"})
    write("plugin.wasm", wasm, plugin={"name": "plugin", "hooks": ["route"]})
    assert "add it to 'hooks' there" in hookline("call", "plugin.wasm", "pre_query", "x").sentence


def test_a_module_is_compiled_once(hookline, guard, tmp_path, monkeypatch):
    """Into a folder of the user's own, which nobody else may read or write."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert hookline("call", guard, "pre_query", "x").code == 0
    folder = tmp_path / "cache" / "hookline" / "modules"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (kept,) = folder.iterdir()
    before = kept.stat().st_ino
    assert hookline("call", guard, "pre_query", "x").code == 0
    assert [each.stat().st_ino for each in folder.iterdir()] == [before]


def test_a_cache_that_others_can_write_to_is_not_used(hookline, guard, tmp_path, monkeypatch):
    """What is in it would be executed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "hookline" / "modules"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    done = hookline("call", guard, "pre_query", "x")
    assert (done.code, "nobody else can write to" in done.sentence) == (2, True)
    assert list(folder.iterdir()) == []


def test_the_cache_keeps_what_was_used_last(hookline, guard, tmp_path, monkeypatch):
    """And no more than so many files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "hookline" / "modules"
    folder.mkdir(parents=True, mode=0o700)
    for number in range(70):
        (folder / f"{number}.cwasm").touch()
        os.utime(folder / f"{number}.cwasm", (number, number))
    assert hookline("call", guard, "pre_query", "x").code == 0
    kept = {each.name for each in folder.iterdir()}
    assert len(kept) == 64
    assert "69.cwasm" in kept
    assert "0.cwasm" not in kept


def test_permissions_that_are_given_are_those(hookline, project, guests):
    """In place of the manifest's: what is not among them is denied, and no manifest has to be changed first."""
    asks = '(import "env" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))'
    body = "(drop (call $set (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))) (i64.const 0)"
    (project / "guard.wasm").write_bytes(guests.module({"pre_query": body}, imports=asks))
    manifest = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"}}
    source = {"file": {"path": "guard.wasm"}}
    (project / "wasmplugin.yaml").write_text(json.dumps({**manifest, "spec": {"source": source}}))
    refused = hookline("call", "guard", "pre_query", "x")
    assert "hookline: guard/wasmplugin.yaml: the module imports" in refused.err
    granted = hookline("call", "guard", "pre_query", "x", "--permission", "kv.write", "--json")
    assert (granted.code, granted.json["hostCalls"]) == (0, {"kv_set": 1})
    denied = hookline("call", "guard", "pre_query", "x", "--permission", "kv.read", "--json")
    assert (denied.code, denied.json["denied"]) == (0, {"kv_set": 1})


def test_a_guest_that_got_no_more_memory_is_told_so(hookline, write, guests):
    """Its trap says nothing, and its memory does."""
    body = "(drop (memory.grow (i32.const 14))) (unreachable)"
    write("full.wasm", guests.module({"pre_query": body}))
    done = hookline("call", "full.wasm", "pre_query", "x", "--limit", "memory=1Mi")
    assert "its memory has 1.0 MiB of the 1.0 MiB that limits.memory allows" in done.out
    other = hookline("call", "full.wasm", "pre_query", "x")
    assert "see what it logged" in other.out
