"""The fast lane: hook calls are answered on the connection itself, and everything else by aiohttp behind it.

aiohttp spends some thirty microseconds on a request, and most hooks one. So each connection is a ``Lane``, which
looks at what arrives, and there are three fates for its bytes:

1. **A request beyond doubt, with its whole body** is answered here: at once where its plugins are ready, else when
   they have answered; what follows it waits. The answer has the head and the body that aiohttp would have sent.
2. **A request beyond doubt that is not for here** (another path, a large body, while draining) is handed over to
   aiohttp, exactly from its first byte to its last. The lane counts along, and goes on behind it once aiohttp is idle
   again. What arrives earlier is handed over too, so answers keep the order of their requests.
3. **Anything else** (chunks, ``Expect``, ``Connection: close``, an unusual line, a head that does not arrive within a
   moment) is handed over together with all that will ever follow on the connection. From there the lane only passes
   bytes on.

Why this is safe: ``heads.read_head`` knows only heads that every parser reads the same way, so there are never two
opinions on where a request ends; and each byte is seen by one of the two, once. In doubt it is aiohttp. All limits of
a body in time, all errors, and what happens while draining are aiohttp's and ``endpoint``'s; a connection without an
aiohttp handler holds nothing but at most 64 KiB of an unfinished request for 50 ms, or the requests that wait
for a client that does not read its answers, with reading paused.

The census (``hookline_serving``) watches over connections that have not completed a request, over heads that aiohttp
was given and that do not end, and over answers that nobody reads. A connection that has asked once costs it nothing.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Protocol, cast

import aiohttp
from aiohttp import web

from hookline_runtime.plugin.backlog import Asker
from hookline_sidecar.hooks.heads import MAX_HEAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.chain.pipeline import Later
    from hookline_serving import Census, Visit

    Answer = Callable[[bytes], bytes | Later | None]
    """From a body to the whole response, at once or later. None: aiohttp is to answer, and nothing has run."""
    Plan = tuple[Answer | None, int]
    """What is done with requests that have this head: who answers, None for aiohttp, and the bytes of the body."""

_MAX_HELD: Final = 64 * 1024
"""Bytes of one request that are collected here; a larger one is aiohttp's, which reads it in pieces."""
_PATIENCE_S: Final = 0.05
"""How long a request may be incomplete here; a slower one is aiohttp's, which has the time-outs."""
_TURN: Final = 16
"""Requests that one connection may have answered before the others get their turn."""
_TURN_BYTES: Final = 64 * 1024

_CAN_TAKE_BACK: Final = aiohttp.__version__.startswith("3.") and hasattr(web.RequestHandler, "_waiter")
"""The only private thing of aiohttp's that is read: what an idle handler waits for. With another aiohttp, what is
handed over is handed over for good."""


class Shared(Protocol):
    """What all lanes of one process share."""

    loop: asyncio.AbstractEventLoop
    census: Census
    connections: set[Lane]
    under_way: set[asyncio.Task[bytes]]
    """The calls that lanes wait for."""
    known: dict[bytes, Plan]
    """Plans by heads: a proxy sends the same few again and again."""

    def plan(self, raw: bytes) -> Plan | None:
        """Decide about a head that is not in ``known``; None where it is in doubt."""

    def behind(self, visit: Visit | None) -> web.RequestHandler:
        """Make a handler of aiohttp's for one connection."""

    def lost(self) -> None:
        """Take note that a connection has ended."""


class Lane(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_asker", "_behind", "_blocked", "_came", "_ended", "_for_good", "_held", "_is_new", "_owed", "_paused",
        "_resting", "_shared", "_task", "_timer", "_transport", "visit",
    )  # fmt: skip

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._transport = cast("asyncio.Transport", None)  # until connection_made
        self._behind: web.RequestHandler | None = None
        self._for_good = False
        """Whether aiohttp has the rest of the connection."""
        self._owed = 0
        """Bytes that are still to come of the body that aiohttp reads."""
        self._held = b""
        """What is neither answered nor handed over: an incomplete request or, while resting, anything."""
        self._timer: asyncio.TimerHandle | None = None
        """Ends the patience with an incomplete request."""
        self._resting = False
        """Whether what is held waits: for a call under way, for other connections, or for the client to read."""
        self._task: asyncio.Task[bytes] | None = None
        """The call under way."""
        self._asker: Asker | None = None
        """Who waits for that, once there was one."""
        self._paused = False
        self._blocked = False
        """Whether the client does not read its answers."""
        self._ended = False
        """Whether nothing more comes, or nothing more is wanted."""
        self._came = True
        """Whether anything came since ``begin_silence``."""
        self._is_new = True
        """Whether it has not completed a request yet."""
        self.visit: Visit | None = None
        """As the census sees it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. The loop itself has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.visit = self._shared.census.admit(self._transport)
        self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it. A call under way goes on to its end, and waits for no room to be observed."""
        self._leave()
        if self.visit is not None:
            self.visit.leaves()
        self._shared.connections.discard(self)
        self._stop_timer()
        self._held = b""
        if self._behind is not None:
            self._behind.connection_lost(exc)
        self._shared.lost()

    def data_received(self, data: bytes) -> None:
        """Decide about each byte's fate."""
        self._came = True
        if self._for_good:
            self._ensure_handler().data_received(data)
        elif self._resting:
            self._held += data
            if self._blocked and self.visit is not None:
                self.visit.behind = len(self._held)
            # Not at once: as long as it is read, it is noticed when the client closes it.
            if not self._paused and len(self._held) > _MAX_HELD:
                self._paused = True
                self._transport.pause_reading()
        elif self._held:
            data, self._held = self._held + data, b""
            if self.visit is not None:
                self.visit.arrives(0)  # it is counted again where it is held, or handed over
            self._work(data)
        else:
            self._work(data)

    def eof_received(self) -> bool:
        """Answer what came whole, then close. What is aiohttp's ends as aiohttp ends it, which may be unanswered."""
        if self._for_good or self._owed:
            self._ensure_handler().eof_received()
            return False
        self._ended = True
        self._leave()
        if self._held and not self._resting:
            self._lose_patience()  # it will not be whole; but it may be malformed, which has an answer
            self._shared.loop.call_later(_PATIENCE_S, self._close_if_done)
        else:
            self._close_if_done()
        return True

    def pause_writing(self) -> None:
        """The client does not read."""
        self._blocked = True
        if self.visit is not None:
            self.visit.blocks()
        if self._behind is not None:
            self._behind.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked = False
        if self.visit is not None:
            self.visit.behind = 0
            self.visit.flows()
        if self._behind is not None:
            self._behind.resume_writing()
        if self._resting:
            self._shared.loop.call_soon(self._go_on)

    def end(self) -> None:
        """Close it after the call under way. What is incomplete is for aiohttp to answer and to close."""
        if self._for_good:
            return
        if self._resting:
            self._ended, self._held = True, b""
            self._go_on()
        elif self._held:
            self._hand_over_for_good(self._held)
        elif self._behind is None:
            self._transport.close()

    def end_if_silent(self) -> None:
        """Close it if nothing came since ``begin_silence``, and aiohttp does not watch over it.

        Nobody else watches over a client that does not read.
        """
        if self.begin_silence() and self._task is None and not self._for_good and self._take_back():
            self._transport.abort()

    def begin_silence(self) -> bool:
        """Wait for the next bytes from here on. Returns whether none came since this was last called."""
        was_silent, self._came = not self._came, False
        return was_silent

    def is_idle(self) -> bool:
        """Whether nothing is under way, and all was read."""
        waits = self._held or self._resting or self._owed or self._blocked
        return not waits and not self._transport.is_closing() and self._is_ours()

    def is_sending(self) -> bool:
        """Whether the client has not read all that was answered."""
        return self._transport.get_write_buffer_size() > 0

    def _work(self, data: bytes) -> None:  # noqa: C901 - one stretch, with nothing called that need not be
        """Answer, or hand over, request by request; what is incomplete is held."""
        known = self._shared.known
        answers: list[bytes] = []
        at, size, turn, room = 0, len(data), _TURN, _TURN_BYTES
        while at < size:
            if self._owed:
                at = self._hand_over(data, at, at + self._owed)
                continue
            if not turn or room <= 0 or (self._blocked and self._take_back()):
                self._write(answers)
                self._rest(data[at:])
                return
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                self._write(answers)
                if size - at > MAX_HEAD:
                    self._hand_over_for_good(data[at:])
                else:
                    self._hold(data[at:], is_new=at > 0)
                return
            raw = data[at:end]
            plan = known.get(raw) or self._shared.plan(raw)
            if plan is None:
                self._write(answers)
                self._hand_over_for_good(data[at:])
                return
            ask, length = plan
            body = end + 4
            stop = body + length
            if ask is not None and self._behind is not None and not self._take_back():
                ask = None  # aiohttp is not idle: this one is behind what it has
            if ask is not None and stop <= size:
                if self._is_new:
                    self._prove()
                answer = ask(data[body:stop])
                if isinstance(answer, bytes):
                    if stop == size and not answers:  # one request at a time: what most clients do
                        self._transport.write(answer)
                        break
                    answers.append(answer)
                    at, turn, room = stop, turn - 1, room - len(answer)
                    continue
                if answer is not None:
                    self._write(answers)
                    self._await(answer, data[stop:])
                    return
            elif ask is not None and stop - at <= _MAX_HELD:
                self._write(answers)
                self._hold(data[at:], is_new=at > 0)
                return
            self._write(answers)
            at = self._hand_over(data, at, stop)
        self._write(answers)
        if self._timer is not None:
            self._stop_timer()

    def _prove(self) -> None:
        """It has sent a whole request."""
        self._is_new = False
        if self.visit is not None:
            self.visit.ends()

    def _write(self, answers: list[bytes]) -> None:
        """Send what was answered, in one piece. Always before anything is handed over."""
        if answers:
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
            answers.clear()

    def _hand_over(self, data: bytes, begin: int, end: int) -> int:
        """Give aiohttp these bytes of its request, and count those that are still to come; where they end here."""
        if not _CAN_TAKE_BACK:
            self._hand_over_for_good(data[begin:])
            return len(data)
        self._read_on()
        part = data[begin:end]
        self._owed = end - begin - len(part)
        self._ensure_handler().data_received(part)
        return begin + len(part)

    def _hand_over_for_good(self, data: bytes) -> None:
        self._read_on()
        self._for_good = True
        self._held = b""
        self._stop_timer()
        self._ensure_handler().data_received(data)

    def _is_ours(self) -> bool:
        """Whether aiohttp has answered all that it was handed, and waits for the next request."""
        if self._behind is None:
            return True
        waiter = self._behind._waiter  # noqa: SLF001 - see _CAN_TAKE_BACK
        return waiter is not None and not waiter.done()

    def _take_back(self) -> bool:
        """Go on here where ``_is_ours``; else False. The clock of an idle connection is the lane's from here on."""
        if not self._is_ours():
            return False
        if self._behind is not None:
            self._behind.keep_alive(val=False)
        return True

    def _ensure_handler(self) -> web.RequestHandler:
        if self._behind is None:
            self._behind = self._shared.behind(self.visit)
            self._behind.connection_made(self._transport)
            if self._blocked:
                self._behind.pause_writing()
        return self._behind

    def _hold(self, data: bytes, *, is_new: bool) -> None:
        """Wait for the rest of a request, for a moment."""
        if self.visit is not None and not self.visit.arrives(len(data)):
            return
        self._held = data
        if is_new or self._timer is None:
            self._stop_timer()
            self._timer = self._shared.loop.call_later(_PATIENCE_S, self._lose_patience)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose_patience(self) -> None:
        self._stop_timer()
        data, self._held = self._held, b""
        end = data.find(b"\r\n\r\n")
        plan = None if end < 0 else self._shared.plan(data[:end])
        if plan is None:
            self._hand_over_for_good(data)
        else:
            self._hand_over(data, 0, end + 4 + plan[1])

    def _await(self, answer: Later, rest: bytes) -> None:
        """Let a call take its time; what follows it waits."""
        self._held, self._resting = rest, True
        self._stop_timer()
        if self._asker is None:
            self._asker = Asker()
            self._asker.gone = self._ended
        self._task = asyncio.ensure_future(answer(self._asker))
        self._shared.under_way.add(self._task)
        self._task.add_done_callback(self._answered)

    def _leave(self) -> None:
        """The client is gone, or will say nothing more: it may still read, and is not waited for."""
        if self._asker is not None:
            self._asker.leave()
        if self._behind is not None:
            self._behind.eof_received()

    def _answered(self, task: asyncio.Task[bytes]) -> None:
        self._shared.under_way.discard(task)
        self._task = None
        if task.cancelled():  # it took too long while we shut down
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(task.result())
            self._go_on()

    def _rest(self, data: bytes) -> None:
        """Let others have their turn, or the client read its answers, before the requests that are here already."""
        self._held, self._resting = data, True
        self._stop_timer()
        if self._blocked and self.visit is not None:
            self.visit.behind = len(data)
            self.visit.blocks()  # what waits behind the answers counts, too
        self._shared.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._resting or self._task is not None or self._transport.is_closing():
            return
        if self._blocked and self._held:
            return  # until resume_writing
        data, self._held, self._resting = self._held, b"", False
        if len(data) <= _MAX_HELD:
            self._read_on()
        self._work(data)
        if not self._resting:
            self._read_on()
        self._close_if_done()

    def _read_on(self) -> None:
        """Read again, if it was the lane that did not. Before anything is handed over: aiohttp may pause, too."""
        if self._paused and not self._ended:
            self._transport.resume_reading()
        self._paused = False

    def _close_if_done(self) -> None:
        """Once nothing comes any more: close when all is answered, also what aiohttp has."""
        if not self._ended or self._resting or self._transport.is_closing():
            return
        if self._for_good or self._owed or self._take_back():
            self._transport.close()
        else:
            self._shared.loop.call_later(_PATIENCE_S, self._close_if_done)
