"""Two workers against one, at 64 connections: where the kernel spreads connections, and what limits.

On two cores the load generator takes a part of what a second worker could have, so the ratio is what is left; how
busy the generator was is said beside it. Nothing is pinned: the kernel places processes as it would in a pod.
"""

from __future__ import annotations

import statistics
from collections import Counter

from bench import guests
from bench.load import Generator, Outcome, Plan, hook_call
from bench.report import Options, Result, at_least, say
from bench.sidecar import sidecar
from bench.sockets import ANSWER, POOLED

_ASKED = 1.5
_CONCURRENCY = 64


async def measure(options: Options) -> Result:
    """One, then two, in turn."""
    result = Result(name="workers", idea=f"One small plugin on `route`, {_CONCURRENCY} connections, nothing pinned.")
    wasm = guests.guest({"route": ANSWER})
    found: dict[int, list[tuple[Outcome, float]]] = {1: [], 2: []}
    seconds = options.pick(1.0, 2.5)
    async with (
        sidecar(("quick", wasm, POOLED), workers=1) as one,
        sidecar(("quick", wasm, POOLED), workers=2) as two,
        Generator(core=None) as generator,
    ):
        plans = {
            count: Plan(
                address=ours.socket,
                asks=[hook_call("route", guests.QUERY, "node")],
                concurrency=_CONCURRENCY,
                seconds=seconds,
            )
            for count, ours in ((1, one), (2, two))
        }
        for ours in (one, two):  # a plugin on probation takes fewer calls at a time than 64
            await generator.run(Plan(address=ours.socket, asks=plans[1].asks, count=2_000))
        for number in range(-1, options.rounds):
            say(f"workers: round {number + 1} of {options.rounds}" if number >= 0 else "workers: warm-up")
            for count, ours in ((1, one), (2, two)):
                used = ours.processor_seconds()
                outcome = await generator.run(plans[count])
                used = ours.processor_seconds() - used
                result.failures += Counter(outcome.failures)
                if number >= 0:
                    found[count].append((outcome, used))
    ratios = [second.rate / first.rate for (first, _), (second, _) in zip(found[1], found[2], strict=True)]
    result.figures.append(at_least(_ASKED, f"calls/s of two workers to one's at {_CONCURRENCY}", ratios))
    result.notes += [
        f"{count} worker{'s' if count > 1 else ''}: "
        f"{statistics.median(outcome.rate for outcome, _ in each):,.0f} calls/s, "
        f"p99 {statistics.median(outcome.p99_us for outcome, _ in each):,.0f} µs; cores used: "
        f"{statistics.median(used / outcome.seconds for outcome, used in each):.2f} by the sidecar, "
        f"{statistics.median(outcome.busy for outcome, _ in each):.2f} by the generator"
        for count, each in found.items()
    ]
    return result
