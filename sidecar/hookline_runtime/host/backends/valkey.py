"""A client of Valkey and Redis: one connection, on which no command waits for the answer of another.

Answers come in the order of the commands, and nothing else says which is whose. So whatever is in doubt ends the
connection: a command that is not answered in time, bytes that are no answer, an answer to nobody. All that wait on it
fail then; whether they were done is not known, and none is sent again. Who stops waiting (its guest's call has ended)
leaves its place in the order, and what is answered there is thrown away.

While the server is away, commands fail at once. A task tries to connect again, after pauses that grow, and stays with
the client for as long as that lives: nobody's call pays for finding out that the server is back.

A node of a cluster answers a command for keys that another node has with that node's address, and has done nothing of
it. Then the client goes there with all commands: whoever uses one keeps to keys of one hash tag, which are on one node.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from hookline_artifacts.errors import HooklineError
from hookline_runtime.host.backends.lookups import NeverAskedError, addresses
from hookline_runtime.host.backends.resp import MAX_REPLY, GarbageError, Parser, Refusal, Reply, packed
from hookline_runtime.host.backends.valkey_server import target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.outbound import ValkeyServer

MAX_WAITING: Final = 4096
"""Commands of one client that wait for their answers."""
MAX_WAITING_BYTES: Final = 32 * 2**20
"""Of these commands."""
MAX_COMMAND: Final = 2 * 2**20
"""Bytes of one command."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
"""Between two tries to connect; each pause is twice the last, give or take a quarter."""
_LEAST_CONNECT_S: Final = 1.0
"""How long connecting may take, where ``ValkeyServer.timeout`` is less: a name, TCP, TLS and a login."""
_LEAST_STAY_S: Final = 1.0
"""Between two moves to another node of a cluster: keys of several hash tags would else make it run to and fro."""
_STEADY_S: Final = 10.0
"""How long a connection has to live for the pauses to begin anew, where its end was none of a healthy server's."""
_SECOND_LOOK_S: Final = 0.002
_PIECE: Final = 8192
"""Bytes that are read at once: two thousand answers at the most, until somebody looks whether they are wanted. A
quarter of a mebibyte of them, which may come at a time, takes 60 ms of the event loop."""
_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""Seconds after which the kernels ask whether a connection that nobody uses still leads anywhere: what forgets it on
the way (a load balancer, a NAT) would else be found out by a guest's call."""
_NOT_THE_PRIMARY: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN"})
"""Of a server that is not, or not yet, the one to ask: after a failover its name leads to another."""

_T = TypeVar("_T")
Send = Callable[..., Awaitable[Reply]]
"""``Valkey.command``, on a connection that nobody else has yet."""

log = logging.getLogger("hookline.valkey")


class ValkeyError(HooklineError):
    """A command failed. The message is one sentence, without a word of the server's."""


class ValkeyAwayError(ValkeyError):
    """There is no answer: the server is away, or went away. The command may have been done, unless ``not_sent``."""

    def __init__(self, message: str, *, not_sent: bool = False) -> None:
        super().__init__(message)
        self.not_sent = not_sent


class ValkeyReplyError(ValkeyError):
    """The server refuses the command; ``code`` is its word for it, such as ``OOM``."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class _MovedError(ValkeyError):
    """What comes first on a connection is for another node of a cluster, which is known now."""


class Script:
    """A Lua script that the server runs as one step."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - the protocol's name for it


class Valkey:
    """One server, for one plugin in one worker. Made on any thread; it is used, and connects, on one event loop.

    ``unavailable[name]`` is a sentence for as long as the server is away. ``prepare`` is awaited on each new connection
    before anybody else's command, with a function that sends one; what it raises makes the connection none. ``where``
    is the settings' path in the spec, for sentences; ``owner`` is the plugin that looks its name up. Raises ConfigError
    where the settings cannot be used.
    """

    def __init__(
        self,
        server: ValkeyServer,
        credentials: Mapping[str, str],
        unavailable: dict[str, str],
        name: str,
        *,
        owner: str = "",
        where: str = "spec.kv.valkey",
        max_reply: int = MAX_REPLY,
        prepare: Callable[[Send], Awaitable[None]] | None = None,
    ) -> None:
        self._target = target_of(server, credentials, where)
        self._timeout = server.timeout / 1000
        self._unavailable = unavailable
        self._name = name
        self._owner = owner
        self._max_reply = max_reply
        self._prepare = prepare
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._arrivals: set[asyncio.Future[_Connection]] = set()
        """Of those who wait for the first connection."""
        self._why: str | None = None
        """Why there is none; None before the first, and while one that worked is replaced."""
        self._has_worked = False
        self._node: tuple[str, int] | None = None
        """The node of a cluster that has the keys, as another has said."""
        self._moved_at = -_LEAST_STAY_S
        self._left: _Connection | None = None
        """The one to the node before, while it still has answers to give."""

    async def command(self, *parts: bytes) -> Reply:
        """Send one command; its answer.

        Raises ValkeyAwayError where there is none in time, and ValkeyReplyError where it is an error.
        """
        connection = self._connection
        if connection is None or connection.ended:
            connection = await self._arrival()
        reply = await connection.send(parts)
        if isinstance(reply, Refusal) and reply.code == "MOVED" and self._move(connection, reply):
            connection = self._connection or await self._arrival()
            reply = await connection.send(parts)
        return self._checked(reply, connection)

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Reply:
        """Run a script; its answer. It is sent whole only where the server does not have it. Raises as ``command``."""
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return await self.command(b"EVALSHA", script.digest, *rest)
        except ValkeyReplyError as error:
            if error.code != "NOSCRIPT":  # which says that nothing of it was done
                raise
        return await self.command(b"EVAL", script.text, *rest)

    def close(self) -> None:
        """End the connection, on the event loop; whoever waits is told that the server is away."""
        self._why = "the plugin has ended"
        self._unavailable.pop(self._name, None)
        if self._keeper is not None:
            self._keeper.cancel()
        for connection in (self._connection, self._left):
            if connection is not None:
                connection.end(self._why)
        self._tell_arrivals(None)

    # ── a connection ──

    async def _arrival(self) -> _Connection:
        if self._why is not None:
            raise self._away_error()
        if len(self._arrivals) >= MAX_WAITING:
            raise ValkeyAwayError(f"{MAX_WAITING} commands wait for {self._target.shown} already", not_sent=True)
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        arrival: asyncio.Future[_Connection] = asyncio.get_running_loop().create_future()
        self._arrivals.add(arrival)
        # The first calls of a worker also pay for a name, TCP, TLS and a login.
        patience = self._timeout if self._has_worked else max(self._timeout, _LEAST_CONNECT_S)
        try:
            async with asyncio.timeout(patience):
                return await arrival
        except TimeoutError:
            message = f"{self._target.shown} could not be reached within {patience:g} s"
            raise ValkeyAwayError(message, not_sent=True) from None
        finally:
            self._arrivals.discard(arrival)

    async def _keep(self) -> None:
        """Have a connection, and another whenever it ends."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(max(self._timeout, _LEAST_CONNECT_S)):
                    connection = await self._connect()
            except _MovedError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is: without this task nobody would connect again
                self._node = None
                self._is_away(self._sentence(error))
            else:
                self._is_back(connection)
                since = time.monotonic()
                reason = await connection.lost
                if self._connection is connection:
                    self._connection = None
                ended_well = connection.useful and not connection.in_doubt
                if ended_well or time.monotonic() - since > _STEADY_S:
                    pause = _FIRST_PAUSE_S
                if ended_well:  # as one does that nobody has used for long: so nobody is told, but waits a moment
                    continue
                self._is_away(reason)
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - so that not all come at once
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _connect(self) -> _Connection:
        target, loop = self._target, asyncio.get_running_loop()
        host, port = self._node or (target.host, target.port)
        error: OSError = OSError("the name has no address")
        for address in await addresses(host, port, owner=self._owner):
            connection = _Connection(target.shown, self._timeout, self._max_reply)
            try:
                await loop.create_connection(
                    lambda made=connection: made,
                    address,
                    port,
                    ssl=target.tls,
                    server_hostname=host if target.tls else None,
                )
                break
            except OSError as failed:
                error = failed
        else:  # none of them takes us
            raise error
        try:
            await self._greet(connection)
        except BaseException:
            connection.end("the greeting failed")
            raise
        return connection

    async def _greet(self, connection: _Connection) -> None:
        """Log in, and find out whether it answers: one that still loads its data, or wants a login, says so here."""

        async def send(*parts: bytes) -> Reply:
            reply = await connection.send(parts)
            if isinstance(reply, Refusal) and reply.code == "MOVED" and self._aim(reply):
                raise _MovedError
            return self._checked(reply, connection)

        for command in self._target.greeting:
            await send(*command)
        try:
            await send(b"PING")
        except ValkeyReplyError as error:
            if error.code != "NOPERM":  # a user without this right is alive
                raise
        if self._prepare is not None:
            await self._prepare(send)
        connection.useful = False

    def _is_back(self, connection: _Connection) -> None:
        if self._why is not None:
            log.info("%s: %s answers again", self._name, self._target.shown)
        self._why = None
        self._unavailable.pop(self._name, None)
        self._has_worked = True
        self._connection = connection
        self._tell_arrivals(connection)

    def _move(self, connection: _Connection, reply: Refusal) -> bool:
        """Go to the node that the answer names, unless somebody else has led us there already; whether to try there."""
        if connection is not self._connection:
            return True
        if not self._aim(reply):
            return False
        self._connection, self._left = None, connection
        connection.leave()
        return True

    def _aim(self, reply: Refusal) -> bool:
        """Let the next connection be to the node that the answer names; whether it may be."""
        host, colon, port = reply.rest.rpartition(b" ")[2].decode("latin-1").rpartition(":")
        now = time.monotonic()
        if not colon or not port.isdigit() or len(port) > 5 or now - self._moved_at < _LEAST_STAY_S:  # noqa: PLR2004 - digits
            return False
        self._moved_at = now
        self._node = host or (self._node or (self._target.host,))[0], int(port)  # no host: the same one
        return True

    def _is_away(self, why: str) -> None:
        if self._why is None:
            log.warning("%s: %s", self._name, why)
        self._why = self._unavailable[self._name] = why
        self._tell_arrivals(None)

    def _tell_arrivals(self, connection: _Connection | None) -> None:
        for arrival in self._arrivals:
            if arrival.done():
                continue
            if connection is not None:
                arrival.set_result(connection)
            else:
                _fail(arrival, self._away_error())

    # ── what went wrong ──

    def _away_error(self) -> ValkeyAwayError:
        return ValkeyAwayError(self._why or f"{self._target.shown} is away", not_sent=True)

    def _checked(self, reply: Reply, connection: _Connection) -> Reply:
        if not isinstance(reply, Refusal):
            return reply
        if reply.code in _NOT_THE_PRIMARY:
            connection.doubt(f"{self._target.shown} answers {reply.code}")
        hint = ""
        if reply.code == "MOVED":
            hint = ": it is a node of a cluster, and other nodes have these keys"
        elif reply.code in {"NOAUTH", "WRONGPASS", "NOPERM"}:
            hint = ": look at the user and the password, and at what the user may do"
        raise ValkeyReplyError(f"{self._target.shown} answers {reply.code}{hint}", code=reply.code)

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, ValkeyError):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            why = str(error.verify_message)
            why = "it is for another name" if self._target.host in why else why  # the name may be a Secret's
            return f"the certificate of {self._target.shown} is not accepted: {why}"
        if isinstance(error, ssl.SSLError):
            return f"{self._target.shown} does not speak TLS as it should: {(error.reason or 'it ended').lower()}"
        if isinstance(error, TimeoutError):
            return f"{self._target.shown} does not answer"
        if isinstance(error, NeverAskedError):
            return f"{self._target.shown} is not asked: {error.strerror}"
        if isinstance(error, socket.gaierror):
            return f"the name of {self._target.shown} is not known: {error.strerror}"
        if isinstance(error, UnicodeError):
            return f"the name of {self._target.shown} is none"
        number = getattr(error, "errno", None)
        return f"{self._target.shown} cannot be reached: {os.strerror(number) if number else type(error).__name__}"


class _Waiting:
    """A command that was sent."""

    __slots__ = ("deadline", "future", "size")

    def __init__(self, future: asyncio.Future[Reply], deadline: float, size: int) -> None:
        self.future = future
        self.deadline = deadline
        self.size = size


class _Connection(asyncio.Protocol):
    """Commands out, answers in, in one order."""

    def __init__(self, shown: str, timeout: float, max_reply: int) -> None:
        self._shown = shown
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(max_reply)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        """Of the commands that wait."""
        self._out: list[bytes] = []
        """What is sent in this turn of the loop, together."""
        self._timer: asyncio.TimerHandle | None = None
        self._suspect: _Waiting | None = None
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Why it ended, once it has."""
        self.ended = False
        self.in_doubt = False
        """It ended because of an answer that did not come, or was none."""
        self.useful = False
        """Something was answered."""
        self._is_left = False

    async def send(self, parts: Sequence[bytes]) -> Reply:
        """Send a command, and wait for its answer. Raises ValkeyAwayError."""
        data = packed(parts)
        if len(data) > MAX_COMMAND:
            raise ValkeyError(f"a command has at most {MAX_COMMAND} bytes")
        if len(self._waiting) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
            raise ValkeyAwayError(f"too many commands wait for {self._shown} already", not_sent=True)
        if self.ended:
            raise ValkeyAwayError(f"the connection to {self._shown} has ended", not_sent=True)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        waiting = _Waiting(self._loop.create_future(), self._loop.time() + self._timeout, len(data))
        self._waiting.append(waiting)
        self._bytes += len(data)
        if self._timer is None:
            self._timer = self._loop.call_at(waiting.deadline, self._look)
        return await waiting.future

    def end(self, why: str) -> None:
        """Close it now; all that wait are told why."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for each in self._waiting:
            if not each.future.done():
                _fail(each.future, ValkeyAwayError(why))
        self._waiting.clear()
        self._out.clear()
        if not self.lost.done():
            self.lost.set_result(why)

    def leave(self) -> None:
        """Nothing more is sent on it: it ends when all that wait have their answers."""
        self._is_left = True
        if not self.lost.done():
            self.lost.set_result("it was left")
        if not self._waiting:
            self.end("it was left")

    def doubt(self, why: str) -> None:
        """Close it, as what it says cannot be relied on."""
        self.in_doubt = True
        self.end(why)

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport, and with TLS a checked one."""
        self._transport = cast("asyncio.Transport", transport)
        found = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it has ended already, which is told elsewhere
            for level, option, value in _ALIVE:
                found.setsockopt(level, option, value)

    def data_received(self, data: bytes) -> None:
        """Give answers to those who wait for them."""
        for at in range(0, len(data), _PIECE):
            if not self.ended:
                self._take(data[at : at + _PIECE])

    def _take(self, data: bytes) -> None:
        try:
            replies = self._parser.feed(data)
        except GarbageError as error:
            self.doubt(f"{self._shown} sends {error}")
            return
        for reply in replies:
            if not self._waiting:
                self.doubt(f"{self._shown} sends an answer to nobody")
                return
            waiting = self._waiting.popleft()
            self._bytes -= waiting.size
            if not waiting.future.done():  # else whoever asked has gone
                waiting.future.set_result(reply)
        self.useful = True
        if self._is_left and not self._waiting:
            self.end("it was left")

    def connection_lost(self, _: Exception | None) -> None:
        """The other side has ended it."""
        self.end(f"{self._shown} has closed the connection" + (" in mid-answer" if self._waiting else ""))

    # ── of our own ──

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self) -> None:
        """The oldest command is the first whose time is over: one timer is enough for all."""
        self._timer = None
        if not self._waiting:
            return
        oldest, now = self._waiting[0], self._loop.time()
        if oldest.deadline > now:
            self._timer = self._loop.call_at(oldest.deadline, self._look)
        elif self._suspect is oldest:
            self.doubt(f"{self._shown} does not answer within {self._timeout:g} s")
        else:
            # A loop that was busy runs its timers before it reads what has come meanwhile: so it reads first.
            self._suspect = oldest
            self._timer = self._loop.call_later(_SECOND_LOOK_S, self._look)


def _fail(future: asyncio.Future[_T], error: ValkeyError) -> None:
    future.set_exception(error)
    future.exception()  # whoever waits may be cancelled in this very turn, and nobody is to be told of it then
