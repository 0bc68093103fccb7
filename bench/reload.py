"""Reloads under load: no call fails, and p99 stays what it was.

Eight clients call one hook without a pause, in turns with and without reloads. A reload replaces the plugin's
file and waits until the new module answers. In the phases without reloads the same question is asked as often,
so that asking makes no difference.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import guests
from bench.load import Generator, Outcome, Plan, hook_call
from bench.machine import BrokenError
from bench.report import Figure, Options, Result, at_most, say
from bench.sidecar import Sidecar, sidecar
from hookline_runtime.guest import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASKED_P99_SMALL: Final = 1.5
_ASKED_P99_LARGE: Final = 1.2
_SLOW_S: Final = 1.0
_MARGIN: Final = 1.25
_TRIAL_FILLER: Final = 2_000
_PLAN: Final = [hook_call("route", guests.QUERY, "node")]


@dataclass(slots=True)
class _Found:
    ratios: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    inline: int = 0
    """Phases without reloads after which the plugin ran on the event loop: a ratio to threads proves little."""
    waits: list[float] = field(default_factory=list)
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    """Bundles that replaced another one before the load's own eyes."""

    def add(self, outcome: Outcome, deployed: set[str]) -> None:
        self.calls += outcome.calls
        self.seen += len(outcome.targets) - 1
        self.failures += Counter(outcome.failures)
        strange = {target for target in outcome.targets.values() if target not in deployed}
        if strange:
            self.failures[f"answers of modules that were never put there: {strange}"] = len(strange)


async def measure(options: Options) -> Result:
    """Small modules, and such as take more than a second to compile."""
    small = guests.guest({"route": {"action": "node", "target": guests.MARK}})
    large, seconds = await asyncio.to_thread(_calibrate)
    result = Result(name="reload", idea="Reloads under load: eight clients over TCP, keep-alive, without a pause.")
    for title, wasm, length, asked in (
        ("small modules", small, options.pick(3, 6), _ASKED_P99_SMALL),
        (f"modules that take {seconds:.1f} s to compile", large, options.pick(3, 8), _ASKED_P99_LARGE),
    ):
        found = await _measure_one(options, title, wasm, length)
        failed = found.failures.total()
        result.figures += [
            Figure(
                what=f"failed calls, {title}",
                asked="0",
                measured=f"{failed} of {found.calls:,} over {len(found.waits)} reloads",
                reached=failed == 0,
            ),
            at_most(asked, f"p99 with reloads to without, {title}", found.ratios),
        ]
        result.failures += found.failures
        result.notes.append(
            f"{title}: p99 without reloads {statistics.median(found.quiet):,.0f} µs, the plugin inline after "
            f"{found.inline} of {options.rounds} such phases; "
            f"the load saw {found.seen} new bundles; a new file answered after "
            f"{statistics.median(found.waits):.2f} s (worst {max(found.waits):.2f} s)"
        )
    return result


async def _measure_one(options: Options, title: str, wasm: bytes, seconds: float) -> _Found:
    found, numbers, deployed = _Found(), itertools.count(1), {f"v{0:06d}"}
    async with sidecar(("quick", guests.version(wasm, 0), {})) as ours, Generator() as generator:
        plan = Plan(address=ours.tcp, asks=_PLAN)
        await generator.run(Plan(address=ours.tcp, asks=_PLAN, seconds=1))  # off probation, caches warm
        for number in range(options.rounds):
            say(f"reload, {title}: round {number + 1} of {options.rounds}")
            await generator.start(plan)
            await _for(seconds, ours)
            generator.stop()
            quiet = await generator.outcome()
            found.inline += bool((await ours.state("quick"))["inline"])
            await generator.start(plan)
            found.waits += await _reload_for(seconds, ours, wasm, numbers, deployed)
            generator.stop()
            busy = await generator.outcome()
            if len(busy.targets) < 2:
                raise BrokenError("no reload was seen in a phase with reloads")
            found.add(quiet, deployed)
            found.add(busy, deployed)
            found.quiet.append(quiet.p99_us)
            found.ratios.append(busy.p99_us / quiet.p99_us)
    return found


async def _for(seconds: float, ours: Sidecar) -> None:
    end = time.monotonic() + seconds

    async def over() -> bool:
        await ours.ask("route", guests.QUERY)
        return time.monotonic() > end

    await ours.until(over, "a phase is over")


async def _reload_for(
    seconds: float, ours: Sidecar, wasm: bytes, numbers: Iterator[int], deployed: set[str]
) -> list[float]:
    """Reload again and again; the seconds that each took."""
    waits: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = next(numbers)
        wanted = f"v{number:06d}"
        deployed.add(wanted)

        async def swapped(wanted: str = wanted) -> bool:
            return bool((await ours.ask("route", guests.QUERY)).get("target") == wanted)

        ours.swap("quick", guests.version(wasm, number))
        waits.append(await ours.until(swapped, f"module {wanted} answers"))
    return waits


def _calibrate() -> tuple[bytes, float]:
    """A module that takes more than a second to compile here, and how long it takes with nothing else to do."""
    filler = _TRIAL_FILLER
    while True:
        wasm = guests.guest({"route": {"action": "node", "target": guests.MARK}}, filler=filler)
        with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
            begin = time.perf_counter()
            engine.compile_to(wasm, Path(folder) / "trial.cwasm", fuel=False)
            seconds = time.perf_counter() - begin
        if seconds >= _SLOW_S:
            return wasm, seconds
        filler = int(filler * _SLOW_S * _MARGIN / seconds) + 1
