"""A connection storm: 10,000 clients that are connected and slow, and what everybody else notices.

Each of them has sent a part of a request, and sends one more byte now and then: in all some thousand bytes a second,
each of them a packet that wakes the worker. The others are eight clients without a pause, measured in turns with and
without the storm. Memory is the sidecar's, in all of its processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from bench import guests
from bench.load import Generator, Plan, hook_call
from bench.machine import LOAD_CORE, SERVER_CORE, on
from bench.report import Figure, Options, Result, at_most, say
from bench.sidecar import Sidecar, sidecar
from bench.sockets import ANSWER, POOLED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CLIENTS: Final = 10_000
_SPARE_FILES: Final = 500
_BYTES_PER_S: Final = 1_000
_PAUSE_S: Final = 0.02
_ASKED: Final = 2.0
_ASKED_KIB: Final = 32
"""For each slow client: what was sent, and what a connection costs."""


async def measure(options: Options) -> Result:
    """With and without the storm."""
    clients = min(_CLIENTS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES)
    result = Result(
        name="storm", idea=f"{clients:,} slow clients on the unix socket; eight others call without a pause."
    )
    wasm = guests.guest({"route": ANSWER})
    ratios, alone, grown, cut = [], [], [], 0
    async with (
        sidecar(("quick", wasm, POOLED), core=SERVER_CORE) as ours,
        Generator() as generator,
    ):
        plan = Plan(
            address=ours.socket, asks=[hook_call("route", guests.QUERY, "node")], seconds=options.pick(1.0, 3.0)
        )
        await generator.run(plan)
        for number in range(options.rounds):
            say(f"storm: round {number + 1} of {options.rounds}")
            quiet = await generator.run(plan)
            before = _weight(ours)
            with on(LOAD_CORE):
                async with _storm(ours.socket, clients) as lost:
                    beside = await generator.run(plan)
                    grown.append(_weight(ours) - before)
                    cut += len(lost)
            result.failures += Counter(quiet.failures) + Counter(beside.failures)
            ratios.append(beside.p99_us / quiet.p99_us)
            alone.append(quiet)
    each = max(grown) * 1024 / clients
    result.figures += [
        at_most(_ASKED, f"p99 of the others beside {clients:,} slow clients, to alone", ratios),
        Figure(
            what="memory that the slow clients cost, of all rounds the most", asked=f"≤ {_ASKED_KIB} KiB each",
            measured=f"{max(grown):.0f} MiB, {each:.1f} KiB each", reached=each <= _ASKED_KIB,
        ),
    ]  # fmt: skip
    result.notes.append(
        f"alone: {statistics.median(each.rate for each in alone):,.0f} calls/s, "
        f"p99 {statistics.median(each.p99_us for each in alone):,.0f} µs; the slow clients send {_BYTES_PER_S:,} bytes "
        f"a second in all, each in a packet of its own, from the load generator's core; {cut} of them were cut off"
    )
    return result


def _weight(ours: Sidecar) -> float:
    return sum(weight.pss for weight in ours.weigh().values())


class _Slow(asyncio.Protocol):
    """One slow client."""

    def __init__(self, lost: list[_Slow]) -> None:
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's shape
        if self._transport is not None:
            self._lost.append(self)

    def send(self, request: bytes, count: int) -> None:
        """Some more bytes of the request, which is never whole."""
        if self._transport is not None and self._sent + count < len(request):
            self._transport.write(request[self._sent : self._sent + count])
            self._sent += count

    def close(self) -> None:
        """Go."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


@contextlib.asynccontextmanager
async def _storm(path: str, clients: int) -> AsyncIterator[list[_Slow]]:
    """Slow clients; the list of those that the server gave up."""
    loop = asyncio.get_running_loop()
    lost: list[_Slow] = []
    request = hook_call("route", guests.QUERY).request
    members: list[_Slow] = []
    for number in range(clients):
        _, member = await loop.create_unix_connection(lambda: _Slow(lost), path)
        member.send(request, 1 + number % (len(request) // 2))
        members.append(member)

    async def dribble() -> None:
        turns = itertools.cycle(members)
        while True:
            for member in itertools.islice(turns, int(_BYTES_PER_S * _PAUSE_S)):
                member.send(request, 1)
            await asyncio.sleep(_PAUSE_S)

    dribbling = loop.create_task(dribble())
    try:
        yield lost
    finally:
        dribbling.cancel()
        for member in members:
            member.close()
        await asyncio.sleep(0)
