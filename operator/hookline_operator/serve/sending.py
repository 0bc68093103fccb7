"""Sends a module to a sidecar with little of it buffered, and within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.abc import AbstractStreamWriter

    from hookline_operator.serve.blobs import Blob

_DOWNLOAD_S: Final = 300.0
"""For one module: as long as a sidecar waits for it."""
_PIECE: Final = 16 * 1024
"""Bytes of a module that are written at once. A connection that nobody reads holds these and asyncio's 64 KiB."""
_WASM: Final = {"Content-Type": "application/wasm"}


def download(request: web.Request, blob: Blob, done: Callable[[], None]) -> web.StreamResponse:
    """The response that carries a module. ``done`` is called when it has arrived, or never will."""
    return (_FromDisk if blob.data is None or "Range" in request.headers else _FromMemory)(blob, done)


class _FromDisk(web.FileResponse):
    """A module on its way; ``done`` hears when it has arrived, or never will."""

    def __init__(self, blob: Blob, done: Callable[[], None]) -> None:
        super().__init__(blob.path, headers=_WASM)
        self._done = done

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        async with _sending(request, self._done):
            return await super().prepare(request)


class _FromMemory(web.StreamResponse):
    """The same of a small one."""

    def __init__(self, blob: Blob, done: Callable[[], None]) -> None:
        super().__init__(headers=_WASM)
        self._data = blob.data or b""
        self._done = done
        self.content_length = len(self._data)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        async with _sending(request, self._done):
            writer = await super().prepare(request)
            for begin in range(0, len(self._data), _PIECE):
                await self.write(self._data[begin : begin + _PIECE])
                if writer is not None:
                    await writer.drain()
            return writer


@contextlib.asynccontextmanager
async def _sending(request: web.BaseRequest, done: Callable[[], None]) -> AsyncIterator[None]:
    """While a module is sent: how much of it waits for its reader at most, and for how long."""
    try:
        if request.transport is not None:
            # Of asyncio's half a megabyte, two thousand connections would take a gigabyte.
            request.transport.set_write_buffer_limits(_PIECE)
        async with asyncio.timeout(_DOWNLOAD_S):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # it does not read, and so would not hear that this is the end
        raise ConnectionResetError("the download took too long") from None
    except AttributeError:
        if request.transport is not None:
            raise
        # asyncio's sendfile stumbles so where TLS is gone: whoever hangs up could fill the log with stack traces.
        raise ConnectionResetError("the other side hung up") from None
    finally:
        done()
