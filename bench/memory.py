"""What a sidecar weighs, and whether it grows.

One worker and ten small plugins, each on a hook of its own; half of them pooled, half with a fresh instance per
call, and some that call a host function. Weighed is the sum over all processes of the sidecar of what the kernel
calls PSS: shared pages count once. The compiler's child is there for a moment at a time and is waited for.

Flat means that the line through the weights after the warm-up rises by less than 5 MiB and less than 5 % of the
whole. Growth is taken without pages of files, because a file's page weighs less while others have it mapped too;
a module that stays mapped shows in the number of mappings.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from bench import guests
from bench.load import Generator, Plan, hook_call
from bench.report import Figure, Options, Result, say
from bench.sidecar import Sidecar, Weight, sidecar

if TYPE_CHECKING:
    from collections.abc import Sequence

_ASKED_MIB: Final = 150
_FLAT_MIB: Final = 5.0
_FLAT_SHARE: Final = 0.05
_FLAT_HANDLES: Final = 8
_CYCLE: Final = 2
_NEW_EACH: Final = 11
_SETTLE_S: Final = 0.7  # a worker reports each half second

Weights = dict[str, Weight]


async def measure(options: Options) -> Result:
    """Calls first, then reloads."""
    result = Result(name="memory", idea="A sidecar with one worker and ten small plugins.")
    asks = [hook_call(name, body, action) for name, (body, _, action) in guests.HOOKS.items()]
    async with sidecar(*_plugins()) as ours, Generator() as generator:
        calls = options.pick(50_000, 1_000_000)
        reloads = options.pick(50, 1_000)
        parts = options.pick(5, 10)
        at_rest = await _settled(ours)
        say(f"memory: warm-up, {calls // parts:,} calls")
        part = Plan(address=ours.tcp, asks=asks, count=calls // parts)
        result.failures += Counter((await generator.run(part)).failures)
        over_calls = [await _settled(ours)]
        for chunk in range(parts):
            say(f"memory: {calls:,} calls, part {chunk + 1} of {parts}")
            result.failures += Counter((await generator.run(part)).failures)
            over_calls.append(await _settled(ours))
        number = 0
        over_reloads: list[Weights] = []
        for chunk in range(parts + 1):
            say(f"memory: {reloads:,} reloads, part {chunk} of {parts}" if chunk else "memory: warm-up, reloads")
            await generator.start(Plan(address=ours.tcp, asks=asks, concurrency=1))
            for _ in range(reloads // parts):
                number += 1
                await _reload(ours, number)
            generator.stop()
            result.failures += Counter((await generator.outcome()).failures)
            over_reloads.append(await _settled(ours))
    heaviest = max(_sum(weights, "pss") for weights in (at_rest, *over_calls, *over_reloads))
    result.figures += [
        Figure(
            what="resident memory (PSS), heaviest of all moments", asked=f"≤ {_ASKED_MIB} MiB",
            measured=f"{heaviest:.0f} MiB; {_sum(at_rest, 'pss'):.0f} MiB at the start "
            f"(RSS {_sum(at_rest, 'rss'):.0f} MiB)",
            reached=heaviest <= _ASKED_MIB,
        ),
        _flat(f"growth over {calls:,} calls", over_calls),
        _flat(f"growth over {reloads:,} reloads", over_reloads),
        _handles([*over_calls, *over_reloads]),
    ]  # fmt: skip
    result.notes += [
        f"private and shared memory without files, over calls: {_by_process(over_calls)}",
        f"over reloads: {_by_process(over_reloads)}",
        f"one reload in {_NEW_EACH} is of a module that was never compiled before",
    ]
    return result


def _plugins() -> list[tuple[str, bytes, dict[str, Any]]]:
    plugins = []
    for place, hook in enumerate(guests.HOOKS):
        isolation = {"isolation": {"mode": "Pooled", "maxCalls": 1000}} if place % 2 else {}
        plugins.append((_name(hook), _module(hook, 0), isolation))
    return plugins


def _name(hook: str) -> str:
    return hook.replace("_", "-")


def _module(hook: str, number: int) -> bytes:
    """Version of a hook's plugin; every third asks the host for the time."""
    place = list(guests.HOOKS).index(hook)
    return guests.version(guests.guest({hook: guests.HOOKS[hook][1]}, host_calls=int(place % 3 == 0)), number)


async def _reload(ours: Sidecar, number: int) -> None:
    """Change one of the plugins, and wait until another bundle answers."""
    hook = list(guests.HOOKS)[number % len(guests.HOOKS)]
    before = (await ours.ask("route", guests.QUERY))["bundle"]
    version = 100 + number if number % _NEW_EACH == 0 else 1 + number // len(guests.HOOKS) % _CYCLE
    ours.swap(_name(hook), _module(hook, version))
    ours.reread()

    async def changed() -> bool:
        return bool((await ours.ask("route", guests.QUERY))["bundle"] != before)

    await ours.until(changed, f"reload {number}, of {hook}, is seen")


async def _settled(ours: Sidecar) -> Weights:
    async def quiet() -> bool:
        await asyncio.sleep(_SETTLE_S)
        return "compiler" not in ours.weigh()

    await ours.until(quiet, "no compiler runs")
    return ours.weigh()


def _sum(weights: Weights, what: str) -> float:
    return float(sum(getattr(weight, what) for weight in weights.values()))


def _flat(what: str, moments: Sequence[Weights]) -> Figure:
    weights = [_sum(each, "own") for each in moments]
    slope = statistics.linear_regression(range(len(weights)), weights).slope
    growth = slope * (len(weights) - 1)
    return Figure(
        what=what,
        asked="flat",
        measured=f"{growth:+.1f} MiB by its slope ({weights[0]:.1f} to {weights[-1]:.1f} MiB after warm-up)",
        reached=growth < min(_FLAT_MIB, _FLAT_SHARE * _sum(moments[0], "pss")),
    )


def _handles(moments: Sequence[Weights]) -> Figure:
    bounds = {
        "threads": _FLAT_HANDLES,
        "files": _FLAT_HANDLES,
        "mappings": _FLAT_SHARE * _sum(moments[0], "mappings"),
    }
    counts = {what: (_sum(moments[0], what), _sum(moments[-1], what)) for what in bounds}
    return Figure(
        what="threads, open files and mappings over both",
        asked="flat",
        measured=", ".join(f"{what} {first:.0f} to {last:.0f}" for what, (first, last) in counts.items()),
        reached=all(last - first <= bounds[what] for what, (first, last) in counts.items()),
    )


def _by_process(moments: Sequence[Weights]) -> str:
    ends = (moments[0], moments[len(moments) // 2], moments[-1])
    return ", ".join(f"{name} {' → '.join(f'{each[name].own:.1f}' for each in ends)}" for name in moments[0])
