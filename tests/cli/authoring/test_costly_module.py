"""A module that is made to compile for hours costs whoever calls it a bounded time."""

from __future__ import annotations

import random

import pytest
import wasmtime

pytestmark = pytest.mark.slow  # it compiles for as long as it may

LOCALS = 20_000
LOOPS = 60_000


def costly() -> bytes:
    """A plugin with a function of loops between which thousands of locals live."""
    pick = random.Random(1)
    loops = "".join(
        f"(loop (local.set {pick.randrange(LOCALS)} (local.get {pick.randrange(LOCALS)}))"
        f"(br_if 0 (local.get {pick.randrange(LOCALS)})))"
        for _ in range(LOOPS)
    )
    return bytes(
        wasmtime.wat2wasm(
            f"""(module (memory (export "memory") 1) (func (local {"i32 " * LOCALS}) {loops})
            (func (export "alloc") (param i32) (result i32) (i32.const 0))
            (func (export "pre_query") (param i32 i32) (result i64) (i64.const 0)))"""
        )
    )


@pytest.mark.parametrize("command", [("call", "costly.wasm", "pre_query", "x"), ("test", "costly.wasm")])
def test_it_is_refused_with_what_it_may_take(hookline, write, command) -> None:
    """As a sidecar does it: in a child process, whose processor time and memory end."""
    asked = {"name": "it answers", "hook": "pre_query", "input": {"query": "x"}, "expect": {"action": "continue"}}
    write("costly.wasm", costly(), cases=[asked])
    done = hookline(*command)
    assert done.code == 1
    assert "compiling took more than" in done.out + done.err
