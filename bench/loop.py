"""An endless loop: how soon it is cut, and what its neighbour notices.

The cut is timed inside the runtime, around one call, because that is where the promise is made. A tick that comes
late makes a cut late, so the same number of ticks is waited for by a bare thread too: what that shows beyond their
sum is the machine's, not ours.

The neighbour is measured in a real sidecar, with the circuit breaker as shipped. Each phase with the loop begins
with a breaker that is closed. A client that mixes loops with good calls keeps it closed: that is the worst that a
plugin can do, and is shown for information.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from bench import guests
from bench.inprocess import runtime
from bench.load import Generator, Plan, hook_call
from bench.machine import BrokenError
from bench.report import TIMES, Figure, Options, Result, say, spread
from bench.sidecar import Sidecar, sidecar
from hookline_api.hooks import Hook
from hookline_runtime.guest.engine import TICK_MS, deadline_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_MS: Final = 50
_BOUND_MS: Final = _TIMEOUT_MS + 2 * TICK_MS
_ASKED_P99: Final = 2.0
_CUTS_TO_BREAK: Final = 5
_LIMITS: Final = {"limits": {"timeout": f"{_TIMEOUT_MS}ms"}}
_LOOP: Final = hook_call("custom_hook", "2")
_GOOD: Final = hook_call("custom_hook", "1")
_PATTERNS: Final = {
    "a plugin that loops on each call": [_LOOP],
    "one that loops on one call in 50": [_LOOP, *[_GOOD] * 49],
}
_QUICK: Final = [hook_call("route", guests.QUERY, "node")]


async def measure(options: Options) -> Result:
    """Cuts first, then the neighbour."""
    result = Result(name="loop", idea=f"A plugin that loops for ever, with limits.timeout {_TIMEOUT_MS} ms.")
    await _cuts(options, result)
    await _neighbour(options, result)
    return result


async def _cuts(options: Options, result: Result) -> None:
    wasm = guests.guest({"custom_hook": 1}, loop_on="2")
    on_thread: list[float] = []
    inline: list[float] = []
    ticks: list[float] = []
    for number in range(options.pick(3, 10)):
        say(f"loop: cuts, round {number + 1} of {options.pick(3, 10)}")
        async with runtime(("loop", wasm, _LIMITS)) as ours:
            for _ in range(_CUTS_TO_BREAK):
                begin = time.perf_counter()
                decision = await ours.call(Hook.CUSTOM, b"2")
                on_thread.append((time.perf_counter() - begin) * 1000)
                if decision.get("failure") != "timeout":
                    raise BrokenError(f"a loop was answered with {decision}")
                ticks.append(await asyncio.to_thread(_bare_ticks))
        async with runtime(("loop", wasm, _LIMITS)) as ours:
            for _ in range(_CUTS_TO_BREAK):
                while not ours.plugins["loop"].inline:
                    await ours.call(Hook.CUSTOM, b"1")
                begin = time.perf_counter()
                await ours.call(Hook.CUSTOM, b"2")
                inline.append((time.perf_counter() - begin) * 1000)
    asked = f"≤ {_BOUND_MS} ms"
    result.figures += [
        Figure(what="cut of a loop on a thread", asked=asked, measured=_times(on_thread),
               reached=max(on_thread) <= _BOUND_MS),
        Figure(what="cut of a loop on the event loop", asked=asked, measured=_times(inline),
               reached=max(inline) <= _BOUND_MS),
    ]  # fmt: skip
    result.notes += [
        f"asked is the deadline ({_TIMEOUT_MS} ms) and two ticks ({TICK_MS} ms each), of the slowest cut",
        f"a bare thread that waits for {deadline_ticks(_TIMEOUT_MS)} ticks in the same minutes: {_times(ticks)}",
    ]


def _bare_ticks() -> float:
    never = threading.Event()
    begin = time.perf_counter()
    for _ in range(deadline_ticks(_TIMEOUT_MS)):
        never.wait(TICK_MS / 1000)
    return (time.perf_counter() - begin) * 1000


async def _neighbour(options: Options, result: Result) -> None:
    quick = guests.guest({"route": {"action": "node", "target": "somewhere"}})
    wasm = guests.guest({"custom_hook": 1}, loop_on="2")
    seconds = options.pick(2, 5)
    async with (
        sidecar(("quick", quick, {}), ("loop", wasm, _LIMITS)) as ours,
        Generator() as generator,
        Generator() as trouble,
    ):
        plan = Plan(address=ours.tcp, asks=_QUICK, seconds=seconds)
        await generator.run(Plan(address=ours.tcp, asks=_QUICK, seconds=1))
        ratios: dict[str, list[float]] = {pattern: [] for pattern in _PATTERNS}
        cuts: dict[str, int] = dict.fromkeys(_PATTERNS, 0)
        alone = []
        for number in range(options.rounds):
            say(f"loop: neighbour, round {number + 1} of {options.rounds}")
            without = await generator.run(plan)
            alone.append(without.p99_us)
            result.failures += Counter(without.failures)
            for place, (pattern, asks) in enumerate(_PATTERNS.items()):
                await _close_breaker(ours, wasm, priority=10 * number + place + 1)
                before = await _timeouts(ours)
                await trouble.start(Plan(address=ours.tcp, asks=asks, concurrency=1))
                beside = await generator.run(plan)
                trouble.stop()
                await trouble.outcome()
                cuts[pattern] += await _timeouts(ours) - before
                ratios[pattern].append(beside.p99_us / without.p99_us)
                result.failures += Counter(beside.failures)
    first, worst = _PATTERNS
    for pattern in (first, worst):
        if not cuts[pattern]:
            raise BrokenError(f"no loop was cut beside {pattern}")
    result.figures += [
        Figure(what=f"p99 beside {first}, to alone", asked=f"≤ {_ASKED_P99:.0f}{TIMES}",
               measured=spread(ratios[first]), reached=statistics.median(ratios[first]) <= _ASKED_P99),
        Figure(what=f"p99 beside {worst}, to alone", measured=spread(ratios[worst])),
    ]  # fmt: skip
    result.notes.append(
        f"p99 of the neighbour alone {statistics.median(alone):,.0f} µs; loops cut in phases of {seconds} s: "
        f"{cuts[first] / options.rounds:.0f} and {cuts[worst] / options.rounds:.0f}"
    )


async def _close_breaker(ours: Sidecar, wasm: bytes, *, priority: int) -> None:
    """A new revision of the plugin has a breaker of its own, closed."""
    ours.plugin("loop", wasm, priority=priority, **_LIMITS)

    async def changed() -> bool:
        state = await ours.state("loop")
        return bool(state["priority"] == priority and state["state"] == "Running")

    await ours.until(changed, "the loop's new revision runs")


async def _timeouts(ours: Sidecar) -> int:
    return int((await ours.state("loop"))["stats"].get("custom_hook", {}).get("failures", {}).get("timeout", 0))


def _times(times: Sequence[float]) -> str:
    return f"median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms of {len(times)}"
