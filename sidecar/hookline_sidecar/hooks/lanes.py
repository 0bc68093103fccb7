"""All lanes of one process: what they know of heads, which of them may go, and how they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hookline_serving import Census
from hookline_sidecar.hooks.heads import Head, read_head
from hookline_sidecar.hooks.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from hookline_serving import Bounds, Closed, Visit
    from hookline_sidecar.hooks.lane import Answer, Plan

_MAX_KNOWN: Final = 4096
_MAX_KNOWN_BYTES: Final = 1024
_FLUSH_S: Final = 0.01
"""How often a shutdown looks whether answers have been read: no callback tells."""
_SILENCE_S: Final = 3600.0
"""A connection that says nothing for this long between two requests is closed, twice as long at the most."""


class Lanes:
    """What all lanes of one process share."""

    def __init__(
        self,
        route: Callable[[Head], tuple[Answer | None, bool]],
        behind: Callable[[Visit | None], web.RequestHandler],
        lost: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds,
        closed: Closed,
    ) -> None:
        self.loop = loop
        self.census = Census(bounds, closed, watches_idle=False, idlest=self._choose_idle)
        self.behind = behind
        self.lost = lost
        self.connections: set[Lane] = set()
        self.under_way: set[asyncio.Task[bytes]] = set()
        self.known: dict[bytes, Plan] = {}
        """Plans by heads: a proxy sends the same few again and again."""
        self._route = route
        self._sweeping: asyncio.TimerHandle | None = None

    def new_lane(self) -> Lane:
        """Make the protocol of one more connection."""
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(_SILENCE_S, self._sweep)
        return Lane(self)

    def plan(self, raw: bytes) -> Plan | None:
        """What to do with a head that is not known yet; None where it is in doubt."""
        head = read_head(raw)
        if head is None:
            return None
        answer, keep = self._route(head)
        plan = answer, head.length
        if keep and len(raw) <= _MAX_KNOWN_BYTES:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[raw] = plan
        return plan

    def end(self) -> None:
        """Close what is idle, let calls under way end, and leave what is unfinished to aiohttp: we shut down."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.census.end()
        for lane in tuple(self.connections):
            lane.end()

    async def ended(self) -> None:
        """Return when the calls under way have ended, and clients have read their answers."""
        if self.under_way:
            await asyncio.wait(self.under_way)
        while any(lane.is_sending() for lane in self.connections):  # noqa: ASYNC110 - nothing tells; see _FLUSH_S
            await asyncio.sleep(_FLUSH_S)

    def cut(self) -> None:
        """Close what is still under way."""
        for task in tuple(self.under_way):
            task.cancel()

    def _choose_idle(self) -> Visit | None:
        """Choose one that may go where there are too many: if it can, one that sent nothing since it was last asked."""
        found = None
        for lane in self.connections:
            if lane.visit is not None and lane.visit.crowd is self.census.kept and lane.is_idle():
                if lane.begin_silence():
                    return lane.visit
                found = found or lane
        return None if found is None else found.visit

    def _sweep(self) -> None:
        self._sweeping = self.loop.call_later(_SILENCE_S, self._sweep) if self.connections else None
        for lane in tuple(self.connections):
            lane.end_if_silent()
