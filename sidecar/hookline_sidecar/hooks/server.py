"""The server behind the lanes: aiohttp's, with our bounds, and with our words for what is not HTTP.

Its low-level server is used, because its application would answer malformed requests, unknown expectations and cut-off
bodies in ways of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from yarl import URL

from hookline_runtime.plugin.backlog import Asker
from hookline_serving import Bounds, Census, Closed, Connection
from hookline_serving.connection import announcing
from hookline_sidecar.hooks.lanes import Lanes
from hookline_sidecar.replies import Problem, writable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage

    from hookline_serving import Visit
    from hookline_sidecar.hooks.heads import Head
    from hookline_sidecar.hooks.lane import Answer, Lane

BOUNDS: Final = Bounds(
    fresh=2048,
    unproven=2048,
    unproven_of_one=2048,
    every=4096,
    of_one=4096,
    queueing=4096,
    line=8190,
    headers=128,
    header=8190,
    head=64 * 1024,
    unread_bytes=32 * 2**20,
    arriving=64 * 2**20,
)
"""Of one worker. Proxies ask, and a question of ``/v1/auth`` has all that their client sent: nginx passes lines of 8
KiB, Envoy 100 headers and 60 KiB in all, and each adds its own. They all come from one address, or from none, open
hundreds of connections at once, and keep them. Some kilobytes each, four thousand idle ones are 20 MiB. Thirty-two
answers at their largest may wait for their reader, with what was asked behind them. Two hundred and fifty-six calls of
the size that plugins take by default may be here at once."""
_LINGER_S: Final = 0.5
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""
_CUT_S: Final = 0.01
"""How long a handler may take to see that it is cut; aiohttp waits for ever where this is 0."""


class HookServer(web.Server):
    """Makes the protocol of each connection: a lane, or without ``route`` a connection of aiohttp's."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        ended: Callable[[], None],
        route: Callable[[Head], tuple[Answer | None, bool]] | None,
    ) -> None:
        super().__init__(
            answer,
            access_log=None,
            auto_decompress=False,  # a body that says it is compressed is refused, not unpacked
            keepalive_timeout=3600,
            max_line_size=BOUNDS.line,
            max_headers=BOUNDS.headers,
            max_field_size=BOUNDS.header,
            lingering_time=_LINGER_S,
            request_factory=announcing(self._request),
        )
        self._ended = ended
        self.closed = Closed()
        """Connections that had to go."""
        self._lanes = None if route is None else Lanes(route, self._behind, ended, self._loop, BOUNDS, self.closed)
        lanes = self._lanes
        self._census = Census(BOUNDS, self.closed, watches_idle=False) if lanes is None else lanes.census

    def __call__(self) -> Lane | web.RequestHandler:  # type: ignore[override]  # a loop needs no more than a protocol
        """Make the protocol of a connection."""
        return self._behind(None) if self._lanes is None else self._lanes.new_lane()

    def _behind(self, visit: Visit | None) -> web.RequestHandler:
        return _Connection(self, self._census, visit=visit, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message.url is None:  # "CONNECT \n": aiohttp's parser takes it, and its request does not
            message = message._replace(url=URL("/"))
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by each of aiohttp's connections, once."""
        super().connection_lost(handler, exc)
        if self._lanes is None:
            self._ended()

    def pre_shutdown(self) -> None:
        """Close what is idle, and end what waits for a request."""
        if self._lanes is not None:
            self._lanes.end()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Let what is under way end, then cut what is left. aiohttp alone would wait for twice as long."""
        ended = [super().shutdown()]
        if self._lanes is not None:
            ended.append(self._lanes.ended())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*ended)
        except TimeoutError:
            if self._lanes is not None:
                self._lanes.cut()
            await super().shutdown(_CUT_S)


class _Connection(Connection):
    __slots__ = ("asker",)

    def __init__(self, manager: HookServer, census: Census, *, visit: Visit | None, **settings: Any) -> None:
        super().__init__(manager, census, visit=visit, **settings)
        self.asker = Asker()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody reads the answer."""
        self.asker.leave()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client closed the connection, or sends nothing more. It may still read, but nothing waits for it."""
        self.asker.leave()

    async def start(self) -> None:
        """Answer requests. aiohttp's own way fails, and logs it, where the connection ended before this began."""
        if self.transport is not None:
            await super().start()

    def refusal(self, status: int, detail: str) -> web.Response:
        """A problem document."""
        text = f"the request is malformed: {writable(detail or 'this is not HTTP/1.1')}"
        return Problem(status, text).reply().response()


def asker_of(request: web.BaseRequest) -> Asker:
    """Who waits for the answer to a request of this server's."""
    connection = request.protocol
    assert isinstance(connection, _Connection)  # noqa: S101 - all of this server's are
    return connection.asker
