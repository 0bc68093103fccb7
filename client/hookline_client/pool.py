"""Who gets which connection: a few that are kept, a bounded number of calls on each, a bounded queue before them.

Nothing here is a task but the opening of a connection, one at a time. A call is sent at most once: what waits in the
queue survives the end of a connection, what was written does not.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hookline_client.connection import Call, Connection
from hookline_client.errors import DeadlineError, LostError, OverloadError, UnreachableError

if TYPE_CHECKING:
    from hookline_client.errors import HookError

_PAUSE_S: Final = 0.02
"""Between the two attempts at a connection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Of one client; each is above zero, or ValueError is raised."""

    timeout: float
    """Seconds for a call, and for a connection to open."""
    connections: int
    depth: int
    """Calls in flight on one connection."""
    queue: int
    """Calls that wait for a place on a connection."""
    limit: int
    """Bytes of a call, and of an answer."""

    def __post_init__(self) -> None:
        if not all(each > 0 for each in (self.timeout, self.connections, self.depth, self.queue, self.limit)):
            raise ValueError("timeout, connections, depth, queue and limit are above zero")


class Pool:
    """The connections of one client."""

    def __init__(self, address: str, bounds: Bounds) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._host = host_of(address)
        self._bounds = bounds
        self._is_closed = False
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        """Those that have no call in flight. The one that was so for longest is next: workers share the calls."""
        self._leaving: deque[Connection] = deque()
        """No call is sent on these any longer; others still wait for answers."""
        self._queue: OrderedDict[Call, None] = OrderedDict()
        self._opening: asyncio.Task[None] | None = None
        self._is_down = False

    def ask(self, data: bytes, timeout: float) -> Call:
        """Send a request, or let it wait; ``answered`` of the call is done by its deadline."""
        call = Call(data, self.loop)
        idle = self._idle
        while idle:
            connection = idle.popleft()
            if connection.is_usable:
                call.timer = self.loop.call_later(timeout, self._expire, call, timeout)
                connection.send(call)
                return call
        if len(self._queue) >= self._bounds.queue:
            call.fail(OverloadError(f"{len(self._queue)} calls wait for the sidecar already"))
            return call
        call.timer = self.loop.call_later(timeout, self._expire, call, timeout)
        self._queue[call] = None
        self.share()
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this call any longer. On a connection it keeps its place, and its deadline."""
        if call.connection is None:
            self._queue.pop(call, None)
            call.fail(LostError("cancelled"))

    def share(self) -> None:
        """Send what waits: on a new connection where there may be one more, else behind other calls."""
        while self._queue and not self._is_closed:
            if len(self._connections) < self._bounds.connections:
                if self._opening is None:
                    self._opening = self.loop.create_task(self._open())
                return
            if not self._share_one():
                return

    def freed(self, connection: Connection) -> None:
        """Answers came: there is room for other calls on this connection."""
        while self._queue and len(connection.calls) < self._bounds.depth and connection.is_usable:
            connection.send(self._queue.popitem(last=False)[0])
        if connection.is_leaving:
            if connection.is_deserted:
                connection.end()
        elif not connection.calls and connection.is_usable:
            self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Send nothing more on this connection."""
        for held in (self._connections, self._idle, self._leaving):
            if connection in held:
                held.remove(connection)

    def condemn(self, call: Call) -> None:
        """The answer to this call was not a decision: end its connection."""
        if call.connection is not None:
            self.drop(call.connection)
            call.connection.end()

    async def close(self) -> None:
        """End all connections, and the calls on them."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self._fail_waiting(UnreachableError("the client was closed"))
        ending = [*self._connections, *self._leaving]
        for connection in ending:
            connection.end()
        await asyncio.gather(*(connection.ended for connection in ending))

    def _share_one(self) -> bool:
        usable = [each for each in self._connections if len(each.calls) < self._bounds.depth and each.is_usable]
        if not usable:
            return False
        least = min(usable, key=lambda each: len(each.calls))
        if least in self._idle:
            self._idle.remove(least)
        least.send(self._queue.popitem(last=False)[0])
        return True

    def _expire(self, call: Call, timeout: float) -> None:
        connection = call.connection
        call.fail(DeadlineError(f"there was no answer within {timeout:g} s"))
        if connection is None:
            self._queue.pop(call, None)
            return
        if not connection.is_leaving:
            # The calls behind this one may still be answered.
            self.drop(connection)
            connection.is_leaving = True
            self._leaving.append(connection)
            if len(self._leaving) > self._bounds.connections:
                self._leaving.popleft().end()
            self.share()
        if connection.is_deserted:
            connection.end()

    def _fail_waiting(self, error: HookError) -> None:
        while self._queue:
            self._queue.popitem(last=False)[0].fail(error)

    async def _open(self) -> None:
        """Open one connection; where none can be had, the calls that wait fail."""
        try:
            try:
                connection = await self._connect()
            except (OSError, ValueError):
                # Once more, in case that the sidecar is just being replaced. But not while it is known to be down.
                if self._is_down:
                    raise
                await asyncio.sleep(_PAUSE_S)
                connection = await self._connect()
        except (OSError, ValueError) as error:  # ValueError: of a path or a name that can be none
            self._is_down = not self._connections
            self._opening = None
            while self._queue and self._share_one():
                pass
            if self._is_down:
                self._fail_waiting(UnreachableError(f"there is no connection to {self._address}: {error}"))
            return
        self._opening = None
        self._is_down = False
        self._connections.append(connection)
        self.freed(connection)
        self.share()

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._bounds.timeout):
            if self._host is not None:
                _, made = await self.loop.create_connection(self._protocol, *self._host)
            else:
                # Connected here, because asyncio takes EAGAIN of a full unix socket for a connection under way.
                own = socket.socket(socket.AF_UNIX)
                try:
                    own.setblocking(False)  # noqa: FBT003 - positional only
                    own.connect(self._address)
                except BaseException:
                    own.close()
                    raise
                _, made = await self.loop.create_unix_connection(self._protocol, sock=own)
        if made.ended.done():
            raise ConnectionResetError("it was closed at once")
        return made

    def _protocol(self) -> Connection:
        return Connection(self, self.loop, limit=self._bounds.limit)


def host_of(address: str) -> tuple[str, int] | None:
    """Host and port of ``http://HOST:PORT``; None for the path of a unix socket. Raises ValueError."""
    if address.startswith("/"):
        return None
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is neither the path of a unix socket nor http://HOST:PORT")
    return parts.hostname, parts.port or 80
