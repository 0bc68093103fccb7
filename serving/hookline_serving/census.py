"""Who is connected to one server, what each connection is doing, and which one has to go.

Each connection is a ``Visit``, in one of five crowds:

- *fresh*: it came a moment ago. What its client sent may wait in the socket, so it is not blamed for its silence until
  the loop has had the time to read it, and the client to send it.
- *unproven*: it has not completed a request, or is in the middle of another head. Ends after ``HEAD_S``.
- *busy*: a request is under way. Its body has a deadline where it is read; here it ends when nobody reads the answer.
- *idle*: between two requests. Ends after ``Bounds.idle``.
- *kept*: somebody vouches for it, such as a session that has an owner, or it is watched elsewhere (a lane).

The clock is looked at twice a second for all of them together: each crowd is in the order of arrival, so only what is
over has to be looked at. That is after the sockets have been read: where this process stood still for longer than a
deadline, what came in time is in them. Whoever closes a connection here aborts it: the other side has shown that it
does not listen.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from hookline_serving.bounds import ARRIVING_OF_ONE, HEAD_S, MAX_HELD, Bounds, Closed, Reason
from hookline_serving.crowds import Crowd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import StreamReader

_LOOK_S: Final = 0.5
FRESH_S: Final = 0.05
"""Seconds for the first bytes: what a client on the same node, or in the same zone, needs to see that it is connected
and to send them."""
_TURNS: Final = 3
"""Turns of the event loop within which everything that is in the sockets has been read: one that begins to read, one
that is told of what is there, and one in which it is handed on."""
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_NOBODY: Final = ""
"""The address of a unix socket's other side."""


class Visit:
    """One connection."""

    __slots__ = (
        "_census", "_transport", "address", "arriving", "behind", "body", "crowd", "held", "is_blocked", "is_vouched",
        "queued", "since", "writes",
    )  # fmt: skip

    def __init__(self, census: Census, transport: asyncio.Transport, address: str) -> None:
        self._census = census
        self._transport = transport
        self.writes = transport
        """By which answers are written: TLS has one of its own."""
        self.address = address
        self.crowd: Crowd[Visit] | None = None
        self.since = 0.0
        """When it came into its crowd."""
        self.held = 0
        """Bytes of a head that is not whole."""
        self.arriving = 0
        """Bytes of requests that are here and not answered, as far as they count."""
        self.body: StreamReader | None = None
        """Of the request under way."""
        self.behind = 0
        """Bytes of requests that wait until it reads."""
        self.queued = 0
        """Whole requests that are here and have not begun."""
        self.is_blocked = False
        """Whether an answer waits to be read."""
        self.is_vouched = False

    def head_grows(self, count: int) -> None:
        """So many bytes came that are not a whole request, unless one is under way."""
        if self.body is None:
            self._census.head_grows(self, count)

    def arrives(self, count: int) -> bool:
        """So many bytes are here that are not answered. False where there was no room: it was closed."""
        return self._census.arrives(self, count)

    def begins(self, body: StreamReader) -> None:
        """A head is whole, and its request under way."""
        self.body = body
        self._census.moves(self, self._census.kept if self.is_vouched else self._census.busy)

    def ends(self, *, unfinished: int = 0) -> None:
        """It was answered. ``unfinished`` bytes of the next head may be here already."""
        self.body, self.is_vouched = None, False
        self._census.rests(self, unfinished)

    def vouched(self) -> None:
        """The request under way is from somebody who is known, and counted elsewhere."""
        self.arrives(0)  # what it may send is counted elsewhere, too
        self.is_vouched = True
        self._census.moves(self, self._census.kept)

    def blocks(self) -> None:
        """The client does not read."""
        self._census.blocks(self)

    def flows(self) -> None:
        """It reads again."""
        self._census.flows(self)

    def leaves(self) -> None:
        """The connection has ended."""
        self._census.leaves(self)

    def queues(self, count: int) -> None:
        """So many whole requests are here that have not begun."""
        self.queued = count
        self._census.queues(self)

    def unread(self) -> int:
        """Bytes that wait for the client."""
        return self.writes.get_write_buffer_size() + self.behind

    def send_last(self, last: bytes) -> None:
        """Send some last bytes, as far as they go at once. Over TLS nothing goes at once, and nothing is sent."""
        if self.writes is self._transport and not self.is_blocked:
            self.writes.write(last)

    def cut(self) -> None:
        """End the connection now."""
        self._transport.abort()


class Census:
    """All connections of one server. ``closed`` counts those that had to go.

    ``watches_idle`` is False where somebody else knows what is idle; then ``idlest`` is asked for one that may go
    when there are too many.
    """

    def __init__(
        self,
        bounds: Bounds,
        closed: Closed,
        *,
        watches_idle: bool = True,
        idlest: Callable[[], Visit | None] | None = None,
    ) -> None:
        self.bounds = bounds
        self.closed = closed
        self.fresh = Crowd[Visit]()
        self.unproven = Crowd[Visit]()
        self.busy = Crowd[Visit]()
        self.idle = Crowd[Visit]()
        self.kept = Crowd[Visit]()
        self._watches_idle = watches_idle
        self._idlest = idlest
        self._loop = asyncio.get_running_loop()
        self._blocked: dict[Visit, float] = {}
        """Those that do not read, and since when."""
        self._queueing: dict[Visit, None] = {}
        """Those with more than one request here."""
        self._held = 0
        self._arriving = 0
        self._watching: asyncio.TimerHandle | None = None
        self._is_ending_fresh = False
        """Whether ``_end_fresh`` will be called."""

    def __len__(self) -> int:
        return sum(len(crowd) for crowd in (self.fresh, self.unproven, self.busy, self.idle, self.kept))

    @property
    def _counted(self) -> int:
        """Those that have had their turn, and that nobody vouches for."""
        return len(self) - len(self.fresh) - (len(self.kept) if self._watches_idle else 0)

    def admit(self, transport: asyncio.Transport) -> Visit:
        """Count a new connection. Who has to go for it is seen once it has said something, or had the time to."""
        while len(self.fresh) >= self.bounds.fresh and (oldest := self.fresh.oldest()) is not None:
            self._close(oldest, "crowd")
        if self._counted >= self.bounds.every:
            self._close_one("full", None, spares_idle=True)  # before this one's bytes are there, too
        visit = Visit(self, transport, _address(transport))
        self._add(visit, self.fresh)
        if not self._is_ending_fresh:
            self._is_ending_fresh = True
            self._loop.call_later(FRESH_S, self._after_reading, self._end_fresh)
        return visit

    def head_grows(self, visit: Visit, count: int) -> None:
        """See ``Visit``."""
        if visit.crowd is None:
            return
        if visit.crowd is not self.unproven:
            self.moves(visit, self.unproven)
            self._keep_few_unproven()
        if visit.crowd is None:
            return  # it was that one
        visit.held += count
        self._held += count
        if visit.held > self.bounds.head:
            visit.send_last(_TOO_LARGE)
            self._close(visit, "head")
        while self._held > MAX_HELD and (largest := self._largest()) is not None:
            self._close(largest, "crowd")

    def arrives(self, visit: Visit, count: int) -> bool:
        """See ``Visit``."""
        if visit.crowd is None:
            return False
        if visit.is_vouched:
            return True
        count = min(count, ARRIVING_OF_ONE)
        self._arriving += count - visit.arriving
        visit.arriving = count
        if self._arriving > self.bounds.arriving:
            self._close(visit, "crowd")
        return visit.crowd is not None

    def rests(self, visit: Visit, unfinished: int) -> None:
        """See ``Visit.ends``."""
        if visit.crowd is None:
            return
        if unfinished:
            self.moves(visit, self.unproven)
            self.head_grows(visit, unfinished)
        else:
            self.moves(visit, self.idle if self._watches_idle else self.kept)
            self._keep_few(visit.address)

    def moves(self, visit: Visit, crowd: Crowd[Visit]) -> None:
        """It does something else now."""
        if visit.crowd is None:
            return
        if visit.crowd is self.fresh and (reason := self._make_room(visit.address, among=crowd)) is not None:
            self._close(visit, reason)
        if visit.crowd is not None:
            self._remove(visit)
            self._add(visit, crowd)

    def blocks(self, visit: Visit) -> None:
        """See ``Visit``."""
        if visit.crowd is None:
            return
        visit.is_blocked = True
        self._blocked[visit] = self._loop.time()
        self._watch_clock()
        waiting: defaultdict[str, dict[Visit, int]] = defaultdict(dict)
        for each in self._blocked:
            if not each.is_vouched:
                waiting[each.address][each] = each.unread()
        while sum(sum(of_one.values()) for of_one in waiting.values()) > self.bounds.unread_bytes:
            # Of whoever has the most, the one that was there first: somebody who reads is not there for long.
            most = max(waiting.values(), key=lambda of_one: sum(of_one.values()))
            slow = next(iter(most))
            del most[slow]
            self._close(slow, "unread")

    def queues(self, visit: Visit) -> None:
        """See ``Visit``."""
        if visit.queued <= 1 or visit.crowd is None:
            self._queueing.pop(visit, None)
            return
        self._queueing[visit] = None
        while len(self._queueing) > self.bounds.queueing:
            addresses = Counter(each.address for each in self._queueing)
            most = max(addresses, key=addresses.__getitem__)
            self._close(next(each for each in self._queueing if each.address == most), "unread")

    def flows(self, visit: Visit) -> None:
        """See ``Visit``."""
        visit.is_blocked = False
        self._blocked.pop(visit, None)

    def leaves(self, visit: Visit) -> None:
        """See ``Visit``."""
        if visit.crowd is not None:
            self._remove(visit)
            self.flows(visit)
            self._queueing.pop(visit, None)
            self._arriving -= visit.arriving
            visit.arriving = 0

    def end(self) -> None:
        """Stop watching the clock."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    # ── room ──

    def _make_room(self, address: str, *, among: Crowd[Visit]) -> Reason | None:
        """Close others until there is room for one more that is not fresh; else the reason to close this one."""
        bounds = self.bounds
        if among is self.unproven and address != _NOBODY and self.unproven.count(address) >= bounds.unproven_of_one:
            self._close_one("crowd", address)
        self._keep_few(address, room=1)
        # Where all are being answered, that is soon over, and whoever asks one thing more waits for no place.
        if address != _NOBODY and self._of_one(address) >= bounds.of_one + bounds.fresh:
            return "address"
        if self._counted >= bounds.every + bounds.fresh:
            return "full"
        if among is self.unproven:
            self._keep_few_unproven(room=1)
        return None

    def _of_one(self, address: str) -> int:
        return sum(crowd.count(address) for crowd in (self.unproven, self.busy, self.idle))

    def _keep_few(self, address: str, room: int = 0) -> None:
        bounds = self.bounds
        while (
            address != _NOBODY and self._of_one(address) > bounds.of_one - room and self._close_one("address", address)
        ):
            pass
        while self._counted > bounds.every - room and self._close_one("full", None):
            pass

    def _keep_few_unproven(self, room: int = 0) -> None:
        while len(self.unproven) > self.bounds.unproven - room and (oldest := self.unproven.oldest()) is not None:
            self._close(oldest, "crowd")

    def _close_one(self, reason: Reason, address: str | None, *, spares_idle: bool = False) -> bool:
        """Close the one that is missed least. False where none may be closed: all are in the middle of something."""
        for found in self._missed_least(address, spares_idle=spares_idle):
            if found is not None:
                self._close(found, reason)
                return True
        return False

    def _missed_least(self, address: str | None, *, spares_idle: bool) -> Iterator[Visit | None]:
        yield self.unproven.oldest(address)
        if not spares_idle:
            yield self._idlest() if self._idlest is not None else self.idle.oldest(address)
        mine = [each for each in self.busy.visits if address in {None, each.address}]
        yield next((each for each in mine if each.is_blocked), None)
        yield next((each for each in mine if each.body is not None and not each.body.is_eof()), None)
        yield next((each for each in mine if each.queued > 1), None)

    def _largest(self) -> Visit | None:
        """The oldest unfinished head of the address that holds the most bytes of them."""
        crowd = self.unproven.by_address.values()
        most = max(crowd, key=lambda visits: sum(each.held for each in visits), default=None)
        return None if most is None else next((each for each in most if each.held), None)

    def _close(self, visit: Visit, reason: Reason) -> None:
        """End it. It is not counted from here on, and its transport tells whoever has it."""
        if visit.crowd is None:
            return
        self.closed[reason] += 1
        is_idle = not visit.is_blocked and (visit.crowd is self.idle or visit.crowd is self.kept)
        self.leaves(visit)
        if is_idle:
            self._after_reading(lambda _: visit.cut())  # its answer may have been written in this very turn
        else:
            visit.cut()

    # ── time ──

    def _after_reading(self, then: Callable[[float], None], now: float | None = None, turns: int = _TURNS) -> None:
        """Call with this moment, once all that is in the sockets now has been read."""
        now = self._loop.time() if now is None else now
        if turns:
            self._loop.call_soon(self._after_reading, then, now, turns - 1)
        else:
            then(now)

    def _end_fresh(self, now: float) -> None:
        """Whoever had its time and sent nothing is unproven from here on."""
        for visit in self.fresh.before(now - FRESH_S):
            self.moves(visit, self.unproven)
        self._is_ending_fresh = bool(self.fresh.visits)
        if self._is_ending_fresh:
            self._loop.call_later(FRESH_S / 2, self._after_reading, self._end_fresh)

    def _close_late(self, now: float) -> None:
        for late in self.unproven.before(now - HEAD_S):
            self._close(late, "head")
        for silent in self.idle.before(now - self.bounds.idle):
            self.leaves(silent)
            silent.cut()
        for visit, since in tuple(self._blocked.items()):
            if since + self.bounds.unread <= now:
                self._close(visit, "unread")
        self._watching = None
        if self.unproven.visits or self.idle.visits or self._blocked:
            self._watch_clock()

    def _watch_clock(self) -> None:
        if self._watching is None:
            self._watching = self._loop.call_later(_LOOK_S, self._after_reading, self._close_late)

    def _add(self, visit: Visit, crowd: Crowd[Visit]) -> None:
        visit.crowd, visit.since = crowd, self._loop.time()
        crowd.add(visit)
        if crowd is self.unproven or crowd is self.idle:
            self._watch_clock()

    def _remove(self, visit: Visit) -> None:
        assert visit.crowd is not None  # noqa: S101 - whoever calls has looked
        visit.crowd.remove(visit)
        visit.crowd = None
        self._held -= visit.held
        visit.held = 0


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else _NOBODY
