"""What hostile plugins were found to do beside their calls, each held down."""

from __future__ import annotations

import ctypes
import hashlib
import json

import orjson
import pytest
import wasmtime

from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_artifacts.errors import ConfigError, VerifyError
from hookline_artifacts.module.inspection import inspect_module
from hookline_runtime.call.decisions import read_answer
from hookline_runtime.errors import ResultError
from hookline_runtime.guest.compiler import Job
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost


class _Memory:
    """A guest's memory with a metric's name in it."""

    def read(self, pointer, length):
        """The name, whatever was asked."""
        del pointer, length
        return b"a"


def test_a_metric_never_becomes_infinite():
    """Its sum would not be JSON, and would take every plugin's metrics down with it."""
    host = PluginHost(BundlePlugin(name="guest", permissions=["metrics"]), HostContext())
    for kind in ("metric_inc", "metric_observe"):
        call = host.functions()["hookline", kind]
        host.metrics.clear()
        assert call(_Memory(), 0, 1, 1.7e308) == 0
        assert call(_Memory(), 0, 1, 1.7e308) == -5
        assert host.metrics["a"].value == 1.7e308
        assert host.metrics["a"].count == (kind == "metric_observe")


async def test_a_schema_of_an_old_draft_does_not_quote_the_settings(compiler, tmp_path, wat):
    """An unknown type in draft 3 raises an exception whose text holds the value, which may be a Secret's."""
    schema = {"$schema": "http://json-schema.org/draft-03/schema#", "properties": {"k": {"type": "z"}}}
    wasm = tmp_path / "m.wasm"
    wasm.write_bytes(wasmtime.wat2wasm(wat.module(hooks={"route": "(i64.const 0)"})))
    sha256 = hashlib.sha256(wasm.read_bytes()).hexdigest()
    job = Job(wasm=wasm, sha256=sha256, fuel=False, schema=schema, config={"k": "S3CRET"})
    with pytest.raises(ConfigError) as refused:
        await compiler.prepare(job)
    assert "S3CRET" not in str(refused.value)


@pytest.mark.slow
def test_a_module_of_millions_of_types_is_refused_before_they_are_made():
    """As many as engines take, and no more, however they are spread over sections."""
    for section, item in ((1, b"\x60\0\0"), (3, b"\0")):
        body = b"\xc0\x84\x3d" + item * 1_000_000  # 1,000,000 in LEB128
        part = bytes([section]) + _leb(len(body)) + body
        with pytest.raises(VerifyError, match="more than 1000000"):
            inspect_module(b"\0asm\x01\0\0\0" + part + part)


def test_an_imports_name_is_escaped_where_it_is_told():
    """It is an artifact's text, and ends in logs and in the status."""
    with pytest.raises(VerifyError) as refused:
        inspect_module(bytes(wasmtime.wat2wasm('(module (import "hookline" "x\\0ay\\1b[31m" (func)))')))
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_an_answer_of_a_hundred_thousand_brackets_is_not_even_parsed():
    """Parsing it would hold the worker for longer than the guest took, outside of its deadline."""
    with pytest.raises(ResultError, match="brackets"):
        read_answer(Hook.AUTHENTICATE, b'{"action":"defer","x":[' + b"[]," * 100_000 + b"0]}")


@pytest.mark.parametrize(
    ("hook", "raw"),
    [
        (Hook.PRE_QUERY, b'{"action":"rewrite","value":"drop table a","value" :"select 1"}'),
        (Hook.PRE_QUERY, b'{"action":"continue","action"\n:"block","value":"no"}'),
        (Hook.PRE_QUERY, b'{"action":"block","value" : ":a","value":"b"}'),
        (Hook.AUTHORIZE, b'{"action":"allow","action"\t:"deny","reason":"no"}'),
        (Hook.CACHE_SET, b'{"action":"store","ttl_ms":"a","ttl_ms" :5}'),
        (Hook.CACHE_SET, b'{"action":"store","ttl_ms":7,"ttl_ms" :5}'),
    ],
)
def test_an_answer_says_each_name_once_whatever_space_a_guest_puts_around_it(hook, raw):
    """A proxy that reads the first of two values must not decide otherwise than one that reads the last."""
    answer = read_answer(hook, raw)
    assert answer is not None
    pairs = json.loads(answer.head + b"}", object_pairs_hook=list)
    assert len({name for name, _ in pairs}) == len(pairs)
    assert dict(pairs) == answer.decision == orjson.loads(raw)


async def test_exports_that_are_not_called_cost_a_call_nothing(workshop, wat):
    """Only what a call needs is looked up in a module of thousands of exports."""
    globals_ = "".join(f'(global (export "g{number}") i32 (i32.const 0))' for number in range(5000))
    runtime = await workshop.guest(wat.module(globals_, answers={"route": {"action": "primary"}}))
    assert (await runtime.call(Hook.ROUTE, json.dumps({"query": ""}).encode()))["action"] == "primary"
    plugin = runtime.plugins["guest"]
    instance = plugin._instances.guest.instantiate()
    instance.call("route", b"{}", last=True)
    if hasattr(instance, "_boxes"):  # where it is kept in which store each was found
        kept = {name: ctypes.c_uint64.from_address(box.value + 8).value for name, box in instance._boxes.items()}
        looked_up = {name for name, store in kept.items() if store}
    else:
        looked_up = instance._functions
    assert set(looked_up) == {"alloc", "route"}
    instance.close()


def _leb(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))
