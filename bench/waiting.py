"""Guests that wait: what a wait costs, how many wait at once, and what the others notice.

The host function that they wait in does nothing but sleep on the event loop, so what is measured is the way there and
back. What real servers add is in ``host_http``, ``host_valkey`` and ``host_query``.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import wasmtime

from bench.inprocess import runtime
from bench.report import Figure, Options, Result, say, spread
from hookline_api.hooks import Hook
from hookline_runtime.guest import calls
from hookline_runtime.host import functions
from hookline_runtime.host.http import HttpFunctions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hookline_runtime.runtime import Runtime

_GUEST: Final = """
(module
  (import "hookline" "http_fetch" (func $fetch (param i32 i32) (result i64)))
  (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "custom_hook") (param $p i32) (param $n i32) (result i64)
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 48)) (then (return (i64.const 0))))
    (call $fetch (local.get $p) (local.get $n))))
"""
_QUICK: Final = """
(module
  (memory (export "memory") 2)
  (data (i32.const 1024) "{\\22action\\22:\\22continue\\22}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "pre_query") (param i32 i32) (result i64) (i64.const 4398046511125)))
"""
_WAITING: Final = {
    "permissions": ["http.fetch"],
    "limits": {"concurrency": 1024, "memory": "128Ki", "wait": "60s", "timeout": "1s"},
}
_NOTHING, _TURN, _TEN_MS, _LONG = b"0", b"1", b"2", b"3"
_QUERY: Final = b'{"query":"select 1"}'
_MANY: Final = 1000
_GUESTS: Final = 100


@contextlib.contextmanager
def _sleeping() -> Iterator[asyncio.Event]:
    """Let ``http_fetch`` sleep as its argument says; what ends the longest sleep."""
    end = asyncio.Event()

    async def fetch(memory: Any, request: int, length: int) -> bytes:
        asked = memory.read(request, length)
        if asked == _TEN_MS:
            await asyncio.sleep(0.01)
        elif asked == _LONG:
            await end.wait()
        else:
            await asyncio.sleep(0)
        return b"1"

    class Sleeping(HttpFunctions):
        def functions(self) -> Mapping[str, Any]:
            return {**super().functions(), "http_fetch": fetch}

    with mock.patch.object(functions, "HttpFunctions", Sleeping):
        yield end


async def measure(options: Options) -> Result:
    """One wait; a hundred at once; a thousand, and another plugin's calls beside them."""
    result = Result(name="waiting", idea="Guests that wait for a host function, and the calls beside them.")
    with _sleeping() as end:
        for mode in ("Pooled", "PerCall"):
            result.figures += await _one_wait(options, mode)
        result.figures.append(await _hundred(options))
        result.figures += await _beside(options, end)
    return result


async def _one_wait(options: Options, mode: str) -> list[Figure]:
    settings = _WAITING | {"isolation": {"mode": mode, "maxCalls": 1_000_000}}
    count = options.pick(2_000, 10_000)
    found: dict[str, list[float]] = {"fibers": [], "threads": []}
    more = []
    for _ in range(options.rounds):
        for way, values in found.items():
            say(f"waiting: {mode}, {way}")
            unfit = calls._fibers_unfit if way == "fibers" else "measured on threads"  # noqa: SLF001
            with mock.patch.object(calls, "_fibers_unfit", unfit):
                async with runtime(("waits", bytes(wasmtime.wat2wasm(_GUEST)), settings)) as ours:
                    ours.plugins["waits"].trust()
                    each = count if way == "fibers" else count // 10
                    none, one = await _each(ours, _NOTHING, each), await _each(ours, _TURN, each)
                    values.append(one)
                    if way == "fibers":
                        more.append(one - none)
    ratios = [thread / fiber for thread, fiber in zip(found["threads"], found["fibers"], strict=True)]
    return [
        Figure(what=f"a call with one wait, {mode}", measured=spread(found["fibers"], unit=" µs", digits=1)),
        Figure(what=f"the wait alone, {mode}", measured=spread(more, unit=" µs", digits=1)),
        Figure(what=f"the same call through a thread, {mode}", measured=spread(ratios, unit="x", digits=1)),
    ]


async def _each(ours: Runtime, body: bytes, count: int) -> float:
    """Microseconds of one call, of calls one after the other."""
    for _ in range(100):
        await ours.call(Hook.CUSTOM, body)
    begin = time.perf_counter_ns()
    for _ in range(count):
        await ours.call(Hook.CUSTOM, body)
    return (time.perf_counter_ns() - begin) / count / 1000


async def _hundred(options: Options) -> Figure:
    took = []
    async with runtime(("waits", bytes(wasmtime.wat2wasm(_GUEST)), _WAITING)) as ours:
        ours.plugins["waits"].trust()
        for _ in range(options.rounds * 5):
            begin = time.perf_counter()
            await asyncio.gather(*(ours.call(Hook.CUSTOM, _TEN_MS) for _ in range(_GUESTS)))
            took.append((time.perf_counter() - begin) * 1000)
    return Figure(
        what=f"{_GUESTS} guests that each wait 10 ms, all done",
        asked="≤ 30 ms",
        measured=spread(took, unit=" ms", digits=1),
        reached=statistics.median(took) <= 30,
    )


async def _beside(options: Options, end: asyncio.Event) -> list[Figure]:
    """Calls of a plugin that does not wait, alone and while others do."""
    count = options.pick(20_000, 100_000)
    plugins = (
        ("waits", bytes(wasmtime.wat2wasm(_GUEST)), _WAITING),
        ("quick", bytes(wasmtime.wat2wasm(_QUICK)), {"isolation": {"mode": "Pooled", "maxCalls": 2**30}}),
    )
    medians, tails = [], []
    async with runtime(*plugins) as ours:
        for plugin in ours.plugins.values():
            plugin.trust()
        for _ in range(options.rounds):
            say("waiting: others' calls, alone and beside")
            alone = _quick(ours, count)
            end.clear()
            waiting = [asyncio.create_task(ours.call(Hook.CUSTOM, _LONG)) for _ in range(_MANY)]
            while ours.plugins["waits"].permits.running < _MANY:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
            beside = _quick(ours, count)
            end.set()
            await asyncio.gather(*waiting)
            medians.append(beside[0] / alone[0])
            tails.append(beside[1] / alone[1])
    return [
        Figure(
            what=f"calls beside {_MANY} that wait, to calls alone: median",
            asked="≤ 1.0x within the spread",
            measured=spread(medians, unit="x", digits=2),
        ),
        Figure(
            what=f"calls beside {_MANY} that wait, to calls alone: p99",
            asked="≤ 1.2x",
            measured=spread(tails, unit="x", digits=2),
            reached=statistics.median(tails) <= 1.2,
        ),
    ]


def _quick(ours: Runtime, count: int) -> tuple[float, float]:
    """Median and 99th percentile of one call, in nanoseconds."""
    took = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        ours.answer(Hook.PRE_QUERY, _QUERY)
        took.append(time.perf_counter_ns() - begin)
    took.sort()
    return took[count // 2], took[count * 99 // 100]
