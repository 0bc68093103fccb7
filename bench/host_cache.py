"""``cache_get`` from the pod's store, against a call that asks for nothing.

Both are calls of the same guest, whole, in turn: what differs is what its input says. The guest gives memory back at
the end of each call, as one of a real toolchain does, so that its instance lasts. All of it happens on this thread, and
is its processor time, so what else runs on the machine counts little.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import wasmtime

from bench.inprocess import runtime
from bench.machine import BrokenError, open_folder
from bench.report import Figure, Options, Result, say, spread
from hookline_api.hooks import Hook
from hookline_runtime.host.cache_store import CacheStore

if TYPE_CHECKING:
    from hookline_runtime.runtime import Runtime

_MOST_US: Final = 15.0
_GUEST: Final = """
(module
  (import "hookline" "cache_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "hookline" "cache_exists" (func $exists (param i32 i32 i32 i32) (result i32)))
  (import "hookline" "cache_set" (func $set (param i32 i32 i32 i32 i32 i32 i64) (result i32)))
  (memory (export "memory") 3)
  (data (i32.const 1024) "token:0123456789abcdef0123456789abcdef")
  (data (i32.const 2048) "none:0123456789abcdef0123456789abcdef")
  (global $top (mut i32) (i32.const 65536))
  (func (export "alloc") (param $n i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $n))))
  (func (export "dealloc") (param $p i32) (param $n i32)
    (if (i32.eq (i32.add (local.get $p) (local.get $n)) (global.get $top)) (then (global.set $top (local.get $p)))))
  (func $ask (param $what i32) (result i32)
    (if (i32.eq (local.get $what) (i32.const 49))
      (then (return (i32.wrap_i64 (call $get (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 38))))))
    (if (i32.eq (local.get $what) (i32.const 50))
      (then (return (i32.wrap_i64 (call $get (i32.const 0) (i32.const 0) (i32.const 2048) (i32.const 37))))))
    (if (i32.eq (local.get $what) (i32.const 51))
      (then (return (call $exists (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 38)))))
    (if (i32.eq (local.get $what) (i32.const 52))
      (then (return (call $set (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 38)
                               (i32.const 1024) (i32.const 256) (i64.const 0)))))
    (i32.const 0))
  (func (export "custom_hook") (param $p i32) (param $n i32) (result i64)
    (i32.store8 (i32.const 512) (i32.add (i32.const 48)
      (i32.ne (call $ask (i32.load8_u (local.get $p))) (i32.const 0))))
    (global.set $top (i32.const 65536))
    (i64.const 2199023255553)))
"""
_EMPTY: Final = b"0"
_HIT: Final = b"1"
_ASKED: Final = {"a hit": _HIT, "a miss": b"2", "cache_exists": b"3", "cache_set": b"4"}


async def measure(options: Options) -> Result:
    """Hits, misses and writes of 256 bytes."""
    result = Result(
        name="host-cache", idea="A guest's cache in the pod's memory: what a call of it costs, with the call."
    )
    calls = options.pick(5_000, 40_000)
    settings = {
        "permissions": ["cache.read", "cache.write"],
        "isolation": {"mode": "Pooled", "maxCalls": 1_000_000},
        "limits": {"timeout": "1s"},
    }
    more: dict[str, list[float]] = {name: [] for name in _ASKED}
    empty: list[float] = []
    with open_folder() as folder:
        store = CacheStore(folder / "cache")
        async with runtime(("cached", bytes(wasmtime.wat2wasm(_GUEST)), settings), cache=store) as ours:
            await ours.call(Hook.CUSTOM, _ASKED["cache_set"])
            if (await ours.call(Hook.CUSTOM, _HIT))["value"] != 1:
                raise BrokenError("what was stored is not found")
            while not ours.plugins["cached"].inline:
                await ours.call(Hook.CUSTOM, _HIT)
            for number in range(options.rounds):
                say(f"host-cache: round {number + 1} of {options.rounds}")
                base = _each(ours, _EMPTY, calls)
                empty.append(base)
                for name, body in _ASKED.items():
                    more[name].append(_each(ours, body, calls) - base)
        store.close()
    for name, values in more.items():
        asked = name == "a hit"
        result.figures.append(
            Figure(
                what=f"{name}, beyond an empty call",
                asked=f"≤ {_MOST_US:g} µs" if asked else "",
                measured=spread(values, unit=" µs", digits=1),
                reached=statistics.median(values) <= _MOST_US if asked else None,
            )
        )
    result.notes.append(f"the empty call: {spread(empty, unit=' µs', digits=1)}")
    return result


def _each(ours: Runtime, body: bytes, calls: int) -> float:
    """Microseconds of processor time of one call: the median of ten parts.

    On a busy machine a write may be slow enough for the guest to leave the event loop. What it does there is not what
    is measured: it is trusted again, and nothing of that call has run.
    """
    plugin = ours.plugins["cached"]
    parts: list[float] = []
    for _ in range(10):
        answered = 0
        begin = time.thread_time_ns()
        for _ in range(calls // 10):
            if isinstance(ours.answer(Hook.CUSTOM, body), bytes):
                answered += 1
            else:
                plugin.trust()
        passed = time.thread_time_ns() - begin
        if answered < calls // 20:
            raise BrokenError("the guest does not stay on the event loop")
        parts.append(passed / answered / 1000)
    return statistics.median(parts)
