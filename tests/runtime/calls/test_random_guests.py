"""Random hostile guests come to the same with the accelerator and without it: answers, errors, what the host sees.

They name places outside memory, grow it in every function, call the host from where they come up, trap, recurse, and
look for what an earlier instance left, or hand out their own stack and data. None loops, and time-outs are long: time
makes no difference.
"""

from __future__ import annotations

import os
import random

import pytest
import wasmtime

from hookline_api.resources import Limits
from hookline_artifacts.errors import VerifyError
from hookline_runtime.errors import CallError, OverloadError
from hookline_runtime.guest import accelerator, engine
from hookline_runtime.guest.calls import Guest

pytestmark = [
    pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused)),
    pytest.mark.skipif("HOOKLINE_CALLS" in os.environ, reason="the accelerator calls no guest there"),
]

_MODULES = max(200, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 100)
_PLAYS = 25
_IMPORT = ("hookline", "get_config")


def packed(pointer, length):
    """An answer of two i32 expressions."""
    return f"(i64.or (i64.shl (i64.extend_i32_u {pointer}) (i64.const 32)) (i64.extend_i32_u {length}))"


_END = "(i32.mul (memory.size) (i32.const 65536))"
_ECHO = packed("(local.get $p)", "(local.get $n)")
_GROW = "(drop (memory.grow (i32.const {})))"
_ASK = "(drop (call $host (i32.const {}) (i32.const {})))"
_POINTERS = [
    *(f"(i32.const {each})" for each in (0, 1, 1024, 65535, 65536, -1, -16, 0x8000_0000, 0x7FFF_FFFF)),
    _END, f"(i32.sub {_END} (i32.const 8))", f"(i32.sub {_END} (local.get $n))", f"(i32.add {_END} (i32.const 1))",
]  # fmt: skip
_EFFECTS = [
    "", "", "", _GROW.format(0), _GROW.format(1), _GROW.format(1000), _ASK.format(0, 8), _ASK.format(-8, 16),
    _ASK.format(60_000, 1_000_000), f"(drop (call $host (i32.sub {_END} (i32.const 8)) (i32.const 8)))",
]  # fmt: skip
# What stands at 60000, and what was freed; then something is planted there.
_SECRET = f"""(func $secret (result i64)
  (i64.store (i32.const 512) (i64.load (i32.const 60000)))
  (i32.store (i32.const 520) (global.get $freed))
  (i64.store (i32.const 60000) (i64.const 0x7365637265747365))
  (global.set $freed (i32.const 99))
  {packed("(i32.const 512)", "(i32.const 12)")})"""
_ENDS = [
    "(i32.const 1024)", "(i32.const 1024)", "(i32.const 4096)", f"(i32.sub {_END} (local.get $n))",
    f"(i32.sub {_END} (i32.const 64))", "(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))",
]  # fmt: skip
_REGIONS = [
    *(f"(i64.const {(at << 32) + size})" for at, size in ((70_000, 12), (1024, 12), (65_530, 6), (65_530, 60))),
    "(i64.const 0)", "(i64.const -1)", packed("(i32.const 2048)", "(i32.const 30)"),
]  # fmt: skip
# What some say of their own memory: data, and a stack.
_OWN = [
    "", "", "", '(data (i32.const 1030) "secret")', '(data (i32.const 4000) "a") (data (i32.const 4200) "b")',
    "(global $__stack_pointer (mut i32) (i32.const 65536))", '(global (export "__data_end") i32 (i32.const 5000))',
    '(global (export "__stack_low") i32 (i32.const 2000)) (global (export "__stack_high") i32 (i32.const 4100))',
]  # fmt: skip
_LENGTHS = (0, 1, 2, 5, 7, 8, 11, 12, 13, 17, 19, 23, 30, 31, 39, 64, 1000, 66_000)


def module(r: random.Random) -> str:
    """A guest; each of its answers is chosen by the first byte of its input."""

    def seldom(text):
        return text if r.random() < 0.15 else ""

    def effect():
        return r.choice(_EFFECTS)

    least = r.choice((0, 1, 1, 2, 2))
    most = r.choice(("", "", str(least), str(least + 1), "3"))
    odd = [
        f"(if (i32.eq (local.get $n) (i32.const {r.randrange(40)}))"
        f" (then {effect()} {r.choice(('unreachable', f'(return {r.choice(_POINTERS)})'))}))"
        for _ in range(r.randrange(4))
    ]
    first = r.choice(("", "(if (i32.eqz (memory.size)) (then (drop (memory.grow (i32.const 1)))))"))
    dealloc = r.choice(
        [
            "",
            f"""(func (export "dealloc") (param $p i32) (param $n i32) {effect()}
              (global.set $freed (i32.add (global.get $freed) (i32.add (local.get $n) (local.get $p)))))""",
            f"""(func (export "dealloc") (param $p i32) (param $n i32) {effect()}
              (if (i32.eq (local.get $n) (i32.const {r.randrange(20)})) (then unreachable)))""",
        ]
    )
    acts = []
    for byte in b"0123456789":
        wild = packed(r.choice(_POINTERS), r.choice([*_POINTERS, "(i32.const 8)", "(local.get $n)"]))
        act = r.choice(
            [
                "unreachable", "(return (i64.const 0))", "(return (i64.const -1))", "(return (i64.const 5))",
                f"(return {_ECHO})", f"(return {wild})", f"(return {packed(r.choice(_POINTERS), '(i32.const 8)')})",
                f"(return {packed('(local.get $p)', '(i32.const 0)')})", "(return (call $secret))", "(call $deep)",
                "(return (call $host (local.get $p) (local.get $n)))",
                "(global.set $freed (i32.add (global.get $freed) (i32.const 1)))",
            ]
        )  # fmt: skip
        if r.random() < 0.6:
            acts.append(f"(if (i32.eq (local.get $i) (i32.const {byte})) (then {effect()} {act}))")
    start = f"(func $begin {effect()} {effect()} {r.choice(('', '', 'unreachable'))}) (start $begin)"
    initialize = f'(func (export "_initialize") {effect()} {r.choice(("", "", "unreachable"))})'
    return f"""(module
  {r.choice(("", "", '(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))'))}
  (import "hookline" "get_config" (func $host (param i32 i32) (result i64)))
  (memory (export "memory") {least} {most})
  (global $freed (mut i32) (i32.const 0))
  (func (export "alloc") (param $n i32) (result i32) {effect()} {" ".join(odd)} {first} {r.choice(_ENDS)})
  {dealloc} {_SECRET} (func $deep (call $deep) (call $deep))
  {seldom(start)} {seldom(initialize)}
  {r.choice(_OWN) if least else ""}
  {seldom(f'(func (export "hookline_input") (result i64) {r.choice(_REGIONS)})')}
  (func (export "custom_hook") (param $p i32) (param $n i32) (result i64) (local $i i32)
    (local.set $i (i32.load8_u (local.get $p))) {" ".join(acts)} {_ECHO}))"""


def steps(r: random.Random) -> list[tuple]:
    """What is done with the instances of a guest, one after the other."""
    chosen = []
    for _ in range(r.randrange(3, 14)):
        kind = r.random()
        if kind < 0.35:
            chosen.append(("new", r.choice((None, 9_000, 10_000)), r.random() < 0.7))
        elif kind < 0.42:
            chosen.append(("close",))
        else:
            chosen.append(("call", bytes([r.choice(b"0123456789x")]) * r.choice(_LENGTHS), r.random() < 0.35))
    return chosen


def play(guest: Guest, chosen: list[tuple]) -> list:
    """What comes of it."""
    came, instance = [], None
    for kind, *how in chosen:
        try:
            if kind == "new":
                timeout_ms, in_place = how
                before, instance = instance, None
                if before is not None and not in_place:
                    before.close()
                instance = guest.instantiate(timeout_ms=timeout_ms, instead_of=before if in_place else None)
            elif kind == "call" and instance is not None:
                data, last = how
                came.append((instance.call("custom_hook", data, last=last), instance.calls))
                if last:
                    came.append(instance.memory)
            elif instance is not None:
                instance.close()
                instance = None
        except CallError as error:
            came.append((type(error), str(error), instance and (instance.memory, instance.calls)))
            if instance is not None:
                instance.close()
            instance = None
    if instance is not None:
        instance.close()
    return came


@pytest.mark.parametrize("seed", range(4))
def test_a_random_guest_comes_to_the_same_with_it_and_without(tmp_path, seed):
    """To the byte and the word; and what is tried comes to answers and to traps."""
    r = random.Random(seed)
    heard: list = []

    def host(memory, pointer, length):
        read = memory.read(pointer, length)
        given = memory.give(b"0123456789"[: (length & 15) % 11])
        wrote = memory.write(pointer, b"zz") if pointer & 3 == 1 else None
        if len(heard) < 3000:
            heard.append((read, given, wrote))
        return length if length == 16 else given

    kinds, overloads = set(), 0
    ticker = engine.Ticker()
    ticker.start()
    try:
        for _ in range(_MODULES // 4):
            text = module(r)
            engine.compile_to(bytes(wasmtime.wat2wasm(text)), tmp_path / "m.cwasm", fuel=False)
            compiled = engine.load_compiled(tmp_path / "m.cwasm", fuel=False)
            memory, output = r.choice((131_072, 196_608, 2**26, 2**26)), r.choice((8, 1024, 2**20, 2**20))
            limits = Limits(timeout=10_000, memory=memory, output=output)
            try:
                with_it, without = (Guest(compiled, limits=limits, host={_IMPORT: host}) for _ in range(2))
            except VerifyError:
                continue  # a region, or a memory, that no guest may have
            without.accelerated = False
            assert with_it.accelerated
            for _ in range(_PLAYS):
                chosen = steps(r)
                came = []
                for guest in (with_it, without):
                    heard.clear()
                    came.append((play(guest, chosen), heard.copy()))
                assert came[0] == came[1], (text, limits, chosen)
                overloads += sum(each[0] is OverloadError for each in came[0][0] if isinstance(each, tuple))
                kinds.update(type(each) if not isinstance(each, tuple) else type(each[0]) for each in came[0][0])
            with_it.close()
            without.close()
    finally:
        ticker.stop()
    assert {bytes, type} <= kinds
    assert overloads
