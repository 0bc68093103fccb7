"""A connection of aiohttp's that tells the census what it is doing.

aiohttp has a time for idle connections, and none for heads; it counts nothing. What it does is seen from outside: a
request whose head is whole waits in its queue, one that begins is made by the server's ``request_factory``, one that
has ended is told to ``log_access``. What came beyond the requests that were seen is the beginning of another head.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage

    from hookline_serving.census import Census, Visit

    RequestFactory = Callable[
        [RawRequestMessage, StreamReader, web.RequestHandler, AbstractStreamWriter, asyncio.Task[None]],
        web.BaseRequest,
    ]

_END: Final = b"\r\n\r\n"
"""Of a head, and of a chunked body."""
_LINE: Final = len("  HTTP/1.1\r\n") + len("\r\n")
"""Bytes of a head beside its method, its path and its headers."""
_HEADER: Final = len(": \r\n")
_SLACK: Final = 64
"""Bytes that a request may have in blanks around its headers, or as an empty line behind it."""
_LOG_PAUSE_S: Final = 10.0
_SHOWN: Final = 200

log = logging.getLogger("hookline.serving")


class Connection(web.RequestHandler):
    """One connection, from its first byte or from the end of its TLS handshake.

    ``visit`` is there where somebody has counted it already; else that is done here, and it may be turned away.
    """

    __slots__ = ("_accounted", "_census", "_is_chunked", "_is_over", "_received", "_tail", "visit")

    _logged_at = -_LOG_PAUSE_S

    def __init__(self, manager: web.Server, census: Census, *, visit: Visit | None = None, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._census = census
        self.visit = visit
        self._received = 0
        """Bytes since the last request was answered."""
        self._accounted = 0
        """… of which so many belong to the requests that began."""
        self._tail = b""
        """The last bytes that came."""
        self._is_chunked = False
        self._is_over = False
        """Whether something came that is not HTTP: nothing behind it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        made = cast("asyncio.Transport", transport)
        if self.visit is None:
            self.visit = self._census.admit(made)
        if self.visit is not None:
            self.visit.writes = made
            super().connection_made(made)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        if self.visit is not None:
            self.visit.leaves()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand it to aiohttp, and see what it made of it."""
        if self.visit is None or self._is_over:
            return
        self._received += len(data)
        if not self.visit.arrives(self._received):
            self._is_over = True
            return
        self._tail = (self._tail + data[-4:])[-4:]
        super().data_received(data)
        queue = self._messages
        error = getattr(queue[-1][0], "exc", None) if queue else None
        if isinstance(error, Exception):
            # Behind it nothing is read: aiohttp would have another error for whatever comes. It keeps the error in a
            # circle with all that was read, until the collector comes: that counts objects, not how large they are.
            self._is_over = True
            error.__traceback__ = None
        elif queue:
            self.visit.queues(len(queue))
            if self.visit.body is None:
                self.visit.begins(queue[-1][1])
        elif data:
            self.visit.head_grows(len(data))

    def pause_writing(self) -> None:
        """The client does not read."""
        if self.visit is not None:
            self.visit.blocks()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        if self.visit is not None:
            self.visit.flows()
        super().resume_writing()

    def begins(self, message: RawRequestMessage, body: StreamReader) -> None:
        """A head is whole."""
        headers = sum(len(name) + len(value) + _HEADER for name, value in message.raw_headers)
        self._accounted += len(message.method) + len(message.path) + _LINE + headers
        self._is_chunked = message.chunked
        if self.visit is not None:
            self.visit.begins(body)

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """The request is answered, or will not be."""
        super().log_access(request, response, time)
        # Where the body is not there yet, aiohttp reads on for a moment, so that the answer is seen.
        request.content.on_eof(functools.partial(self._ends, request.content, response))

    def _ends(self, body: StreamReader, response: web.StreamResponse) -> None:
        beyond = self._received - self._accounted - body.total_bytes
        if not response.keep_alive or (self._is_chunked and self._tail == _END):
            beyond = 0  # nothing came behind the last chunk; of what the chunks were, nobody tells
        self._received, self._accounted = max(0, beyond), 0
        if self.visit is not None:
            self.visit.arrives(self._received)
            self.visit.queues(len(self._messages))
            # What waits is whole, and begins in a moment.
            self.visit.ends(unfinished=beyond if beyond > _SLACK and not self._messages else 0)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, and what failed. aiohttp logs each with a traceback: anybody could fill the log.

        A failure of ours is logged, but not as often as a client can bring it about.
        """
        if isinstance(exc, HttpProcessingError):
            self._census.closed["malformed"] += 1
        elif exc is not None:
            self._log_now_and_then(f"a request to {request.path:.100} could not be answered", exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        response = self.refusal(status, " ".join((message or "").split())[:_SHOWN])
        response.force_close()
        return response

    def refusal(self, status: int, detail: str) -> web.Response:
        """The answer to what is not HTTP, or where we failed (500, without a detail)."""
        text = f"the request is malformed: {detail}\n" if detail else "this could not be answered\n"
        return web.Response(status=status, text=text)

    def log_exception(self, *args: Any, **how: Any) -> None:
        """What aiohttp has to say about a connection; nothing about a body that is malformed, or that broke off."""
        error = how.get("exc_info")
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            self._log_now_and_then(str(args[0] if args else ""), error if isinstance(error, BaseException) else None)

    @classmethod
    def _log_now_and_then(cls, what: str, error: BaseException | None) -> None:
        now = time.monotonic()
        if now - Connection._logged_at >= _LOG_PAUSE_S:
            Connection._logged_at = now
            log.error("%.200s", what, exc_info=error)


def announcing(make: RequestFactory) -> RequestFactory:
    """A ``request_factory`` that tells connections that their request begins."""

    def made(
        message: RawRequestMessage,
        body: StreamReader,
        connection: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(connection, Connection):
            connection.begins(message, body)
        return make(message, body, connection, writer, task)

    return made


def vouch(request: web.BaseRequest) -> None:
    """Say that its sender is known, and that what it may have at a time is bounded elsewhere.

    Until it is answered, its connection does not count as a stranger's.
    """
    connection = request.protocol
    if isinstance(connection, Connection) and connection.visit is not None:
        connection.visit.vouched()
