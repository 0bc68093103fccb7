"""Compilation happens in a child process, once per module, and checks a plugin's settings on the way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys

import pytest
import wasmtime

from hookline_artifacts import apart
from hookline_artifacts.errors import ConfigError, LoadError, VerifyError
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.guest.engine import load_compiled

pytestmark = pytest.mark.slow  # each compiles in a child

_WASM = bytes(wasmtime.wat2wasm("(module)"))


@pytest.fixture
def job(tmp_path):
    """Makes a job for some bytes; a module that is already compiled where only the settings are the subject."""

    def make(wasm=_WASM, **fields):
        sha256 = hashlib.sha256(wasm).hexdigest()
        path = tmp_path / f"{sha256}.wasm"
        path.write_bytes(wasm)
        return Job(wasm=path, sha256=sha256, **{"fuel": False, **fields})

    return make


async def _refusal(compiler, job, kind=ConfigError) -> str:
    with pytest.raises(LoadError) as refused:
        await compiler.prepare(job)
    assert type(refused.value) is kind
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_a_module_is_compiled_once_and_can_be_loaded(tmp_path, job, monkeypatch):
    """The second time its file is enough, and the module itself is not read."""
    compiler = Compiler(tmp_path / "cache")
    made = job()
    path = await compiler.prepare(made)
    load_compiled(path, fuel=False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    made.wasm.unlink()
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert await compiler.prepare(made) == path


async def test_modules_with_and_without_fuel_are_two(tmp_path, job):
    """Counting fuel is compiled into the code."""
    compiler = Compiler(tmp_path / "cache")
    plain, counted = [await compiler.prepare(job(fuel=fuel)) for fuel in (False, True)]
    assert plain != counted
    load_compiled(counted, fuel=True)
    with pytest.raises(VerifyError):
        load_compiled(counted, fuel=False)


async def test_code_that_is_not_valid_is_refused_with_the_validators_reason(tmp_path, job):
    """Inspection does not read code; the compiler does. Nothing is left in the cache."""
    bad = b"\0asm\x01\0\0\0" + bytes.fromhex("010401600000030201000a040102000b").replace(b"\x0b", b"\xff")
    compiler = Compiler(tmp_path / "cache")
    assert "not valid WebAssembly" in await _refusal(compiler, job(bad), VerifyError)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_module_whose_file_is_gone_is_refused(tmp_path, job):
    """With the name of what is missing."""
    made = job()
    made.wasm.unlink()
    assert made.wasm.name in await _refusal(Compiler(tmp_path / "cache"), made, VerifyError)


async def test_a_compiler_that_is_killed_is_a_clear_error(tmp_path, job, monkeypatch):
    """By the kernel for its memory, say; the next module is compiled all the same."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    compiler = Compiler(tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(script))
        assert "ended by signal 9" in await _refusal(compiler, job(), VerifyError)
    await compiler.prepare(job())


async def test_a_compiler_that_takes_too_long_is_ended(tmp_path, job, monkeypatch):
    """And the child with it."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(apart, "_TIMEOUT_S", 0.5)
    children, start = [], asyncio.create_subprocess_exec

    async def watched(*arguments, **options):
        children.append(await start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    assert "not done within" in await _refusal(Compiler(tmp_path / "cache"), job(), VerifyError)
    assert [child.returncode for child in children] == [-signal.SIGKILL]


async def test_a_compilation_that_nobody_waits_for_any_more_is_ended(tmp_path, job, monkeypatch):
    """A reload that is replaced by a newer one leaves no child behind."""
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {fifo}\nexec sleep 1000\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    task = asyncio.create_task(Compiler(tmp_path / "cache").prepare(job()))
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


_SCHEMA = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "maximum": 10},
        "token": {"type": "string", "maxLength": 3},
        "deep": {"type": "array", "items": {"type": "object", "properties": {"pin": {"enum": [1, 2]}}}},
        "either": {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]},
    },
    "required": ["limit"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "config: 'limit' is a required property (so the plugin's schema says)"),
        ({"limit": 11}, "config.limit: expected at most 10, found something else, which may be a Secret's"),
        ({"limit": "hunter2"}, "config.limit: expected a whole number, found something else"),
        ({"limit": 1, "token": "hunter2"}, "config.token: expected at most 3 characters, found something else"),
        ({"limit": 1, "deep": [{}, {"pin": "hunter2"}]}, "config.deep.1.pin: expected one of 1, 2, found"),
        ({"limit": 1, "either": {"c": "hunter2"}}, "config.either: "),
        ({"limit": 1, "more": "hunter2"}, "'more'"),
    ],
)
async def test_settings_that_the_plugins_schema_refuses_are_named_and_not_quoted(tmp_path, job, config, says):
    """Where and which rule; a value may be a Secret's."""
    message = await _refusal(Compiler(tmp_path / "cache"), job(schema=_SCHEMA, config=config))
    assert says in message
    assert "hunter2" not in message


_MANY = {"properties": {"limit": {"type": "string", "pattern": "^[0-9]+$"}}}


@pytest.mark.parametrize(
    ("schema", "config", "says"),
    [
        (_MANY, {"limit": "many"}, 'config.limit: expected a string of digits, found "many"'),
        (_MANY, {"limit": 5}, "config.limit: expected a string, found 5"),
        (_MANY, {"limit": None}, "config.limit: expected a string, found null"),
        (_MANY, {"limit": ["hunter2"]}, "config.limit: expected a string, found a list"),
        (_SCHEMA, {"limit": 1.5}, "config.limit: expected a whole number, found 1.5"),
        (_SCHEMA, {"limit": 1, "deep": {"pin": "hunter2"}}, "config.deep: expected a list, found an object"),
        (_MANY, {"limit": "x" * 200}, f'found "{"x" * 60}…"'),
        (_MANY, {"limit": "a\nb\x1b[1m"}, r'found "a\nb\x1b[1m"'),
    ],
)
async def test_what_was_found_is_said_where_no_secret_is_near(tmp_path, job, schema, config, says):
    """In a few characters, on one line."""
    message = await _refusal(Compiler(tmp_path / "cache"), job(schema=schema, config=config, secret_paths=["token"]))
    assert says in message
    assert "hunter2" not in message


@pytest.mark.parametrize("secret", ["limit", "limit.deeper"])
@pytest.mark.parametrize("value", ["hunter2", {"deeper": "hunter2"}, ["hunter2"]])
async def test_of_a_secret_neither_the_value_nor_its_length_is_said(tmp_path, job, secret, value):
    """Nor of what it is in, nor of what is in it."""
    schema = {"properties": {"limit": {"enum": ["a"]}}}
    message = await _refusal(
        Compiler(tmp_path / "cache"), job(schema=schema, config={"limit": value}, secret_paths=[secret])
    )
    assert 'config.limit: expected one of "a", found something else, which may be a Secret\'s' in message
    assert "hunter2" not in message


async def test_settings_that_satisfy_the_schema_are_taken_each_time(tmp_path, job):
    """Also where the module is compiled already."""
    compiler = Compiler(tmp_path / "cache")
    for limit in (1, 2):
        await compiler.prepare(job(schema=_SCHEMA, config={"limit": limit}))
    await _refusal(compiler, job(schema=_SCHEMA, config={"limit": 30}))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"}, {"properties": 5}, {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"}, {"$ref": "#/nowhere"}, {"$ref": "#"}, {"$schema": {}}, {"$schema": 5},
        {"properties": {"a": {"pattern": "("}}}, {"$dynamicRef": "https://nowhere.invalid/x"},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)  # fmt: skip
async def test_a_schema_that_cannot_be_used_is_the_plugins_mistake_and_asks_nobody_else(tmp_path, job, schema):
    """References to a network, to files, to nowhere, in circles; nonsense; bad expressions."""
    message = await _refusal(Compiler(tmp_path / "cache"), job(schema=schema, config={"a": "hunter2"}))
    assert "schema" in message
    assert "hunter2" not in message


async def test_an_expression_that_runs_for_ever_is_cut(tmp_path, job):
    """The check has seconds of a core, the error says whose mistake it is, and the module stays compiled."""
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    compiler = Compiler(tmp_path / "cache", check_s=1)
    made = job(schema=schema, config={"a": "a" * 60 + "!"})
    message = await _refusal(compiler, made)
    assert "checking the settings against the plugin's schema" in message
    assert compiler.has(made.sha256, fuel=False)
    await compiler.prepare(job(schema=schema, config={"a": "aaa"}))


@pytest.mark.parametrize("config", [{"n": 2**70}, {"x": object()}])
async def test_settings_that_are_no_json_are_a_config_error(tmp_path, job, config):
    """A number of more than 64 bits, or what YAML makes of some words."""
    assert "JSON" in await _refusal(Compiler(tmp_path / "cache"), job(schema={}, config=config))


async def test_what_is_not_kept_is_deleted_and_what_is_young_stays(tmp_path, job):
    """Compiled code is made again quickly; what somebody may be about to use is left."""
    compiler = Compiler(tmp_path / "cache")
    kept, old, young = [
        await compiler.prepare(job(bytes(wasmtime.wat2wasm(f'(module (func (export "f{n}")))')))) for n in range(3)
    ]
    for path in (kept, old):
        os.utime(path, (1, 1))
    compiler.keep({kept.name.split(".")[0]})
    assert set(kept.parent.iterdir()) == {kept, young}
    compiler.discard(young)
    assert set(kept.parent.iterdir()) == {kept}
