"""What a server may put into the bytes that arrive at once: heads and chunks are objects, and are paid for as such.

A quarter of a mebibyte of ``HTTP/1.1 100 Continue`` is ten thousand heads, and as much of chunks of one byte forty
thousand: a third of a second of the event loop, again and again, for as long as a fetch may take. So what arrives is
given to aiohttp's parser in pieces, and a server that makes more of a piece than any honest one is not listened to.
"""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import asyncio

_PIECE: Final = 4096
"""Bytes that are parsed at once: at the most 160 heads, or 700 chunks, until somebody looks."""
MAX_HEADS: Final = 16
"""Heads that wait to be read. An answer has one, and perhaps one or two of 1xx before it."""
MAX_CHUNKS: Final = 4096
"""Pieces of a body that wait to be read. What is sent as it is has one for each ``_PIECE``, and chunks of honest
servers have hundreds of bytes: of the quarter of a mebibyte that is read at once, it is chunks of 64 bytes."""


class ScatteredError(aiohttp.ClientPayloadError):
    """A server answers in more pieces than it takes."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's, with connections that look at what comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory: Any = partial(_Connection, loop=loop)


class ProxyConnector(Connector):
    """The same, for requests through proxies alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(loop, **settings)
        self._of_system = ssl.create_default_context()

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        # DANGER: an authority that a tenant gave for his registry is not the proxy's, which is shown our password.
        if req.is_ssl() and req.proxy is None:
            return self._of_system
        return super()._get_ssl_context(req)


class _Connection(ResponseHandler):
    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE) if len(data) > _PIECE else (0,):
            super().data_received(data[at : at + _PIECE])
            if len(self) > MAX_HEADS or len(getattr(self._payload, "_buffer", ())) > MAX_CHUNKS:
                self._give_up()
                return

    def _give_up(self) -> None:
        error = ScatteredError("too many heads or chunks")
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()
