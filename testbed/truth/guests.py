"""Modules that let everybody in under one name, and do something else besides."""

from __future__ import annotations

import json
import time
from typing import Any

from installation import identity_module, module

__all__ = ["grows", "identity_module", "loops", "says_nonsense", "trap_at_start", "traps", "traps_sometimes"]


def _guest(name: str, before: str, *, locals_: str = "", memory: str = "2", text: str | None = None) -> bytes:
    """Runs ``before`` in each call, with the input's bytes at ``$at`` and their number in ``$size``."""
    import wasmtime  # noqa: PLC0415 - as testbed/installation.py has it

    identity: dict[str, Any] = {"user_id": name, "username": name, "roles": [], "tenant_id": None}
    said = text if text is not None else json.dumps({"action": "success", "identity": identity})
    data = "".join(f"\\{byte:02x}" for byte in said.encode())
    return bytes(
        wasmtime.wat2wasm(
            f'(module (memory (export "memory") {memory}) (data (i32.const 1024) "{data}")'
            ' (func (export "alloc") (param i32) (result i32) (i32.const 65536))'
            ' (func (export "authenticate") (param $at i32) (param $size i32) (result i64)'
            f" {locals_} {before} (i64.const {1024 << 32 | len(said.encode())})))"
        )
    )


def traps(name: str = "traps") -> bytes:
    """On each call."""
    return _guest(name, "unreachable")


def traps_sometimes(name: str, one_in: int) -> bytes:
    """On one call in so many, by the bytes of the input, among which is the request's own number."""
    return _guest(
        name,
        f"""(local.set $end (i32.add (local.get $at) (local.get $size)))
        (loop $next (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
        (if (i32.eqz (i32.rem_u (local.get $sum) (i32.const {one_in}))) (then unreachable))""",
        locals_="(local $sum i32) (local $end i32)",
    )


def loops(name: str, rounds: int | None = None) -> bytes:
    """For ever, or so many times in each call."""
    count = "" if rounds is None else f"(i32.lt_u (local.get $n) (i32.const {rounds}))"
    again = "(br $next)" if rounds is None else f"(br_if $next {count})"
    body = f"(loop $next (local.set $n (i32.add (local.get $n) (i32.const 1))) {again})"
    return _guest(name, body, locals_="(local $n i32)")


def rounds_in(seconds: float) -> int:
    """How many rounds of ``loops`` this machine's processor makes in so many seconds, at its best."""
    import wasmtime  # noqa: PLC0415 - as testbed/installation.py has it

    rounds = 5_000_000
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, loops("clock", rounds)), [])
    call = instance.exports(store)["authenticate"]
    assert isinstance(call, wasmtime.Func)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        call(store, 65536, 0)
        best = min(best, time.process_time() - began)
    return int(rounds * seconds / best)


def grows(name: str, pages: int) -> bytes:
    """Takes so many pages of 64 KiB more in each call, and traps when there are none."""
    grow = f"(memory.grow (i32.const {pages}))"
    return _guest(name, f"(if (i32.eq {grow} (i32.const -1)) (then unreachable))")


def says_nonsense(name: str = "nonsense") -> bytes:
    """What it answers is not a decision."""
    return _guest(name, "", text=json.dumps({"action": "perhaps"}))


def trap_at_start(name: str) -> bytes:
    """It traps when it is instantiated, which the operator never does."""
    return identity_module(name, more="(func $trap unreachable) (start $trap)")


def imports(name: str, *functions: str) -> bytes:
    """It imports host functions: WebAssembly text, as in ``env.kv_get (param i32 i32 i32 i32) (result i32)``."""
    more = ""
    for number, each in enumerate(functions):
        where, _, signature = each.partition(" ")
        space, _, function = where.partition(".")
        more += f'(import "{space}" "{function}" (func $i{number} {signature}))'
    identity: dict[str, Any] = {"user_id": name, "username": name, "roles": [], "tenant_id": None}
    return module({"authenticate": {"action": "success", "identity": identity}}, more=more)
