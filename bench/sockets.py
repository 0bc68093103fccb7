"""Calls over sockets: one worker against a sidecar in C with the same engine, and against bare Python servers.

Every server has one core, the same one, and the load generator the other. Servers are measured in turn, round after
round, with the same bytes; what ours and the native one answer is compared byte for byte.

The generator polls: it never sleeps. One that sleeps has to be woken by each answer of a server that is slower than it,
which costs that server more than the answer (an interrupt to another core, on a virtual machine), while the native
sidecar keeps it awake for nothing. What comes of that is given for information.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench import guests, peers
from bench.load import Address, Ask, Generator, Outcome, Plan, hook_call
from bench.machine import SERVER_CORE, BrokenError, processor_seconds
from bench.report import Figure, Options, Result, at_least, at_most, say, spread
from bench.sidecar import Sidecar, sidecar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

BATCH: Final = 32
POOLED: Final[dict[str, Any]] = {"isolation": {"mode": "Pooled", "maxCalls": 1_000_000}}
ANSWER: Final = {"action": "node", "target": "somewhere"}
_OFFERED: Final = 10_000.0

_ASK: Final = [hook_call("route", guests.QUERY, "node")]
_ASK_PEER: Final = [hook_call("route", guests.QUERY)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lane:
    """One thing that is measured."""

    address: Address
    asks: list[Ask]
    seconds_used: Callable[[], float]
    concurrency: int = 8
    rate: float | None = None
    polls: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    outcome: Outcome
    cpu_us: float
    """Processor time of the server for each request, in all of its processes."""
    utilised: float
    """The share of its core that the server used."""

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.outcome.rate

    @property
    def p99_us(self) -> float:
        """99 % of calls were answered within this."""
        return self.outcome.p99_us


_Found = dict[str, list[_Measured]]


async def measure(options: Options) -> Result:
    """All servers, in turn."""
    result = Result(
        name="sockets",
        idea="One small plugin on `route`, one worker. A server has one core, and the load generator the other.",
    )
    wasm = guests.guest({"route": ANSWER})
    async with (
        sidecar(("quick", wasm, POOLED), core=SERVER_CORE) as pooled,
        sidecar(("quick", wasm, {}), core=SERVER_CORE) as per_call,
        sidecar(("quick", wasm, POOLED), core=SERVER_CORE, environment={"HOOKLINE_ACCELERATOR": "off"}) as pure,
        peers.hello("aiohttp") as aiohttp,
        peers.hello("httptools") as httptools,
        peers.native(wasm, plugin="quick", bundle=await _bundle(pooled)) as native,
        peers.native(wasm, plugin="quick", bundle=await _bundle(per_call), per_call=True) as fresh,
        Generator() as generator,
    ):
        lanes = {
            "aiohttp hello": _peer(aiohttp),
            "httptools hello": _peer(httptools),
            "ours, unix": _ours(pooled),
            "ours, TCP": _ours(pooled, pooled.tcp),
            "native": _peer(native, _ASK),
            "ours, PerCall": _ours(per_call),
            "native, fresh instances": _peer(fresh, _ASK),
            "ours, c64": _ours(pooled, concurrency=64),
            "native, c64": _peer(native, _ASK, concurrency=64),
            "ours, PerCall, c64": _ours(per_call, concurrency=64),
            "native, fresh instances, c64": _peer(fresh, _ASK, concurrency=64),
            "ours, Python alone": _ours(pure),
            "ours, Python alone, c64": _ours(pure, concurrency=64),
            "ours, to a generator that sleeps": _ours(pooled, polls=False),
            "native, to a generator that sleeps": _peer(native, _ASK, polls=False),
            "ours, 10,000/s offered": _ours(pooled, rate=_OFFERED),
            "native, 10,000/s offered": _peer(native, _ASK, rate=_OFFERED),
        }
        batch = await _batch(pooled, generator)
        if batch is not None:
            lanes["ours, batches"] = batch
        inline: list[bool] = []

        async def look() -> None:
            inline.append(bool((await pooled.state("quick"))["inline"]))

        found = await _run(lanes, generator, options, result, look)
    if not all(inline):
        result.notes.append(f"the plugin ran on threads at the end of {inline.count(False)} of {len(inline)} rounds")
    _check_same(found, "ours, unix", "native")
    _check_same(found, "ours, PerCall", "native, fresh instances")
    result.figures += _figures(found)
    result.notes += [_note(name, measured) for name, measured in found.items()]
    return result


async def _run(
    lanes: dict[str, _Lane],
    generator: Generator,
    options: Options,
    result: Result,
    look: Callable[[], Awaitable[None]],
) -> _Found:
    found: _Found = {name: [] for name in lanes}
    seconds = options.pick(0.6, 1.8)
    for number in range(-1, options.rounds):
        say(f"sockets: round {number + 1} of {options.rounds}" if number >= 0 else "sockets: warm-up")
        for name, lane in lanes.items():
            plan = Plan(
                address=lane.address,
                asks=lane.asks,
                concurrency=lane.concurrency,
                rate=lane.rate,
                seconds=seconds,
                polls=lane.polls,
            )
            used = lane.seconds_used()
            outcome = await generator.run(plan)
            used = lane.seconds_used() - used
            result.failures += Counter({f"{name}: {what}": count for what, count in outcome.failures.items()})
            if number >= 0 and outcome.calls:
                found[name].append(
                    _Measured(
                        outcome=outcome,
                        cpu_us=used / outcome.calls * 1e6,
                        utilised=used / outcome.seconds,
                    )
                )
        await look()
    return found


def _figures(found: _Found) -> Iterable[Figure]:
    rates = _ratios(found, lambda each: each.rate)
    p99s = _ratios(found, lambda each: each.p99_us)
    cpu = _ratios(found, lambda each: each.cpu_us)
    yield at_least(4.5, "calls/s at 8, to an aiohttp hello-world", rates("ours, unix", "aiohttp hello"))
    yield at_least(0.5, "calls/s at 8, to a bare httptools hello-world", rates("ours, unix", "httptools hello"))
    yield at_most(2.0, "p99 at 8, to that hello-world's", p99s("ours, unix", "httptools hello"))
    yield at_least(1.05, "calls/s over the unix socket, to TCP", rates("ours, unix", "ours, TCP"))
    yield at_least(0.45, "calls/s at 8, to the native sidecar", rates("ours, unix", "native"))
    yield at_least(0.35, "calls/s at 64, to the native sidecar", rates("ours, c64", "native, c64"))
    yield at_most(2.5, "p99 at 8, to the native sidecar's", p99s("ours, unix", "native"))
    yield Figure(what="p99 at 64, to the native sidecar's", measured=spread(p99s("ours, c64", "native, c64")))
    yield Figure(
        what="p99 at 10,000 calls/s offered, to the native sidecar's",
        measured=spread(p99s("ours, 10,000/s offered", "native, 10,000/s offered")),
    )
    yield Figure(
        what="calls/s at 8 with a generator that sleeps between answers, to the native sidecar",
        measured=spread(rates("ours, to a generator that sleeps", "native, to a generator that sleeps")),
    )
    yield at_most(3.0, "processor time of a request at 8, to the native sidecar's", cpu("ours, unix", "native"))
    yield Figure(what="the same at 64", measured=spread(cpu("ours, c64", "native, c64")))
    yield at_least(
        0.45, "PerCall, calls/s at 8, to the native one's fresh instances",
        rates("ours, PerCall", "native, fresh instances"),
    )  # fmt: skip
    yield Figure(what="the same at 64", measured=spread(rates("ours, PerCall, c64", "native, fresh instances, c64")))
    for count, suffix in ((8, ""), (64, ", c64")):
        yield Figure(
            what=f"without the accelerator, calls/s at {count}, to the native sidecar",
            measured=spread(rates(f"ours, Python alone{suffix}", f"native{suffix}")),
        )
    yield Figure(
        what="the same, processor time of a request at 8", measured=spread(cpu("ours, Python alone", "native"))
    )
    what = f"decisions/s in batches of {BATCH}, to the native sidecar's single calls"
    if "ours, batches" in found:
        yield at_least(1.0, what, [each * BATCH for each in rates("ours, batches", "native")])
    else:
        yield Figure(what=what, asked="≥ 1", measured="not there: /v1/hooks:batch is not answered", reached=False)


def _ratios(found: _Found, value: Callable[[_Measured], float]) -> Callable[[str, str], list[float]]:
    def ratios(ours: str, peer: str) -> list[float]:
        return [value(one) / value(other) for one, other in zip(found[ours], found[peer], strict=False)]

    return ratios


def _check_same(found: _Found, ours: str, peer: str) -> None:
    """The two do the same work where they give the same bytes."""
    first, second = ({body for each in found[name] for body in each.outcome.bodies} for name in (ours, peer))
    if first != second:
        raise BrokenError(f"{ours} and {peer} answer differently: {first} and {second}")


def _note(name: str, measured: list[_Measured]) -> str:
    if not measured:
        return f"{name}: not measured"

    def middle(value: Callable[[_Measured], float]) -> float:
        return statistics.median(map(value, measured))

    return (
        f"{name}: {middle(lambda each: each.rate):,.0f} calls/s, "
        f"p50 {middle(lambda each: each.outcome.p50_us):,.0f} µs, p99 {middle(lambda each: each.p99_us):,.0f} µs, "
        f"{middle(lambda each: each.cpu_us):.1f} µs of processor time each; the server used "
        f"{middle(lambda each: each.utilised):.0%} of its core, the generator "
        f"{middle(lambda each: each.outcome.busy):.0%} of the other"
    )


def _ours(which: Sidecar, address: Address | None = None, **more: Any) -> _Lane:
    return _Lane(address=address or which.socket, asks=_ASK, seconds_used=which.processor_seconds, **more)


def _peer(which: peers.Peer, asks: list[Ask] = _ASK_PEER, **more: Any) -> _Lane:
    return _Lane(address=which.socket, asks=asks, seconds_used=lambda: processor_seconds(which.pids), **more)


async def _bundle(ours: Sidecar) -> str:
    return str((await ours.ask("route", guests.QUERY))["bundle"])


async def _batch(ours: Sidecar, generator: Generator) -> _Lane | None:
    """The calls in batches; None where they are not answered."""
    one = f'{{"hook":"route","input":{guests.QUERY}}}'
    ask = hook_call("hooks:batch", f'{{"calls":[{",".join([one] * BATCH)}]}}', "node", calls=BATCH)
    outcome = await generator.run(Plan(address=ours.socket, asks=[ask], concurrency=1, count=1))
    return None if outcome.failures else _Lane(address=ours.socket, asks=[ask], seconds_used=ours.processor_seconds)
