"""An application on sockets, with bounds.

With TLS, a connection is counted when it is accepted and not when its handshake has ended: asyncio's own servers
tell nobody of a handshake, have no limit of them, and give each a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from hookline_serving.bounds import HEAD_S, TLS_BUFFER, Bounds, Closed
from hookline_serving.census import Census
from hookline_serving.connection import Connection, announcing

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG: Final = 4096
"""Connections that the kernel keeps until they are taken, where it lets us: a client that finds no room there tries
again after a second, which is all the time that a kubelet gives a probe."""
_AT_ONCE: Final = 16
"""Connections that are taken before requests on others get their turn, and before one goes where there are too many:
each may have a quarter of a mebibyte in its socket, which is read at once."""
_EXHAUSTED_S: Final = 0.1
_LOG_PAUSE_S: Final = 10.0
_FOREVER_S: Final = 86_400.0
"""The census ends idle connections, not aiohttp."""
_LINGER_S: Final = 1.0
"""How long the rest of a body that nobody wants is read, so that its sender sees the answer."""

log = logging.getLogger("hookline.serving")


class HttpServer:
    """Serves one application, on any number of listening sockets; each has the bounds for itself."""

    def __init__(
        self,
        app: web.Application,
        bounds: Bounds,
        closed: Closed,
        *,
        shutdown_timeout: float,
        handler_cancellation: bool = False,
    ) -> None:
        """``closed`` counts connections that had to go; ``shutdown_timeout`` is in seconds."""
        self._bounds = bounds
        self._closed = closed
        self._settings: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": _FOREVER_S,
            "lingering_time": _LINGER_S,
            "max_line_size": bounds.line,
            "max_headers": bounds.headers,
            "max_field_size": bounds.header,
            "auto_decompress": False,  # what is unpacked has other bounds than what came
        }
        self._runner = web.AppRunner(
            app, shutdown_timeout=shutdown_timeout, handler_cancellation=handler_cancellation, **self._settings
        )
        self._listeners: list[_Listener] = []
        self._censuses: list[Census] = []
        self._shaking: set[asyncio.Task[None]] = set()

    async def listen(self, where: socket.socket | tuple[str, int], *, tls: ssl.SSLContext | None = None) -> None:
        """Serve what comes in by this listening socket, or to this address. Raises OSError."""
        loop = asyncio.get_running_loop()
        server = self._runner.server
        if server is None:
            await self._runner.setup()
            server = self._runner.server
            assert server is not None  # noqa: S101 - it has just been made
            server.request_factory = announcing(server.request_factory)
        census = Census(self._bounds, self._closed)
        self._censuses.append(census)

        def connection() -> Connection:
            return Connection(server, census, loop=loop, **self._settings)

        def hello() -> _Hello:
            assert tls is not None  # noqa: S101 - asked for only then
            return _Hello(census, connection, tls, self._shaking)

        made: Callable[[], asyncio.Protocol] = connection if tls is None else hello
        if tls is not None:
            SSLProtocol.max_size = TLS_BUFFER
        if isinstance(where, tuple):
            family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
            where = socket.create_server(where, family=family, backlog=_BACKLOG)
        self._listeners.append(_Listener(where, made, loop))

    async def close(self) -> None:
        """Stop taking connections, give what is under way a moment to end, and end it."""
        for each in self._listeners:
            each.close()
        for task in tuple(self._shaking):
            task.cancel()
        await self._runner.cleanup()
        for census in self._censuses:
            census.end()


class _Listener:
    """A listening socket.

    libuv takes one connection in a turn of the loop: an honest one would wait behind hundreds of others for as many
    turns, in each of which requests of all that are there are answered.
    """

    def __init__(
        self, listening: socket.socket, serve: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._loop = loop
        self._arriving: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._logged_at = -_LOG_PAUSE_S
        listening.settimeout(0)
        self._watch()

    def _watch(self) -> None:
        self._again = None
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Stop taking connections. One that was just taken is served."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or no memory left: it is readable all the time, and must not spin
                now = self._loop.time()
                if now - self._logged_at >= _LOG_PAUSE_S:
                    self._logged_at = now
                    log.warning("connections cannot be accepted, and wait: %s", error.strerror)
                self._loop.remove_reader(self._listening)
                self._again = self._loop.call_later(_EXHAUSTED_S, self._watch)
                return
            task = self._loop.create_task(self._begin(connection))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._serve, connection)
        except OSError:  # it is gone already
            connection.close()


class _Hello(asyncio.Protocol):
    """A connection until its TLS stands; what comes earlier than that is told is kept for who has it then."""

    def __init__(
        self,
        census: Census,
        behind: Callable[[], Connection],
        context: ssl.SSLContext,
        shaking: set[asyncio.Task[None]],
    ) -> None:
        self._census = census
        self._behind = behind
        self._context = context
        self._shaking = shaking
        self._early: list[bytes] = []
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast("asyncio.Transport", transport)
        visit = self._census.admit(made)
        made.pause_reading()  # until there is somebody to read
        connection = self._behind()
        connection.visit = visit
        task = asyncio.get_running_loop().create_task(self._shake(made, connection))
        self._shaking.add(task)
        task.add_done_callback(self._shaking.discard)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._is_lost = True

    async def _shake(self, transport: asyncio.Transport, connection: Connection) -> None:
        tls = None
        try:
            with contextlib.suppress(OSError):  # no TLS, of another version, gone in the middle: nobody to tell
                tls = await asyncio.get_running_loop().start_tls(
                    transport, self, self._context, server_side=True,
                    ssl_handshake_timeout=HEAD_S, ssl_shutdown_timeout=HEAD_S,
                )  # fmt: skip
        finally:
            if tls is None or self._is_lost:
                if connection.visit is not None:
                    connection.visit.leaves()
                transport.abort()
        if tls is None or self._is_lost:
            return
        connection.connection_made(tls)
        tls.set_protocol(connection)
        for data in self._early:
            connection.data_received(data)
