"""Bodies that the server reads: in small pieces, bounded in bytes and time, and only a few large ones at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from hookline_serving import Bodies, media_type
from hookline_sidecar.hooks.batch import LOOKED_INTO
from hookline_sidecar.replies import Problem, writable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE: Final = LOOKED_INTO
"""Bytes above which a body is a large one."""
_LARGE_AT_ONCE: Final = 4
_SMALL_BYTES: Final = 32 * 2**20
"""Bytes of all other bodies that are not there as a whole. Where there are more, the one that came first is no longer
waited for: an honest one is on its way for a millisecond."""


class BodyReader:
    """Reads bodies of at most ``most`` bytes, each within ``seconds``."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._small = Bodies(most=_SMALL_BYTES)

    @contextlib.asynccontextmanager
    async def body(self, request: web.BaseRequest, keep: int) -> AsyncIterator[bytes | int]:
        """The body, for as long as the context lasts; a large one has one of few permits meanwhile.

        Of a body that nobody takes, with more than ``keep`` bytes, only their number: they are dropped as they come.
        Raises Problem.
        """
        if request.method != "POST":
            raise Problem(405, f"{request.method} is not answered here; use POST", allow="POST")
        _check_media(request)
        if (request.content_length or 0) > self._most:
            raise self._too_large()
        await _continue(request)
        async with contextlib.AsyncExitStack() as held:
            yield await self._read(request, keep, held)

    async def _read(self, request: web.BaseRequest, keep: int, held: contextlib.AsyncExitStack) -> bytes | int:
        """As ``body``. A large one takes one of few permits, which ``held`` gives back after the call."""
        chunks: list[bytes] = []
        size, is_large, is_kept = 0, False, (request.content_length or 0) <= keep
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                held.callback(self._small.forget, deadline)
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > self._most:
                        raise self._too_large()
                    if size > keep or not is_kept:
                        is_kept = False
                        chunks.clear()
                        self._small.forget(deadline)
                        continue
                    if not is_large:
                        self._small.grows(deadline, len(chunk))
                    if size > LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                        self._small.forget(deadline)
                    chunks.append(chunk)
                self._small.forget(deadline)
        except TimeoutError:
            raise Problem(408, f"the body could not be read within {self._seconds:g} s") from None
        except (web.RequestPayloadError, ConnectionError, ValueError, RuntimeError) as error:
            # Cut off, or chunks that are none. Where the client is gone, nobody reads this.
            raise Problem(400, f"the body was not sent whole: {error!s:.100}") from None
        return b"".join(chunks) if is_kept else size

    def _too_large(self) -> Problem:
        return Problem(413, f"the body has more than {self._most} bytes")


def _check_media(request: web.BaseRequest) -> None:
    """Anything but plain JSON is refused; no header at all is taken as JSON."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(415, "compressed bodies are not read; send the JSON as it is")
    if "Content-Type" in request.headers and (media := media_type(request.headers)) != "application/json":
        raise Problem(415, f"the body is {writable(media):.60}, and must be application/json")


async def _continue(request: web.BaseRequest) -> None:
    """RFC 9110, 10.1.1: who waits with its body is told to send it, now that nothing speaks against it."""
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise Problem(417, f"nothing is known of the expectation {expected:.60}")
    if request.version >= (1, 1) and not request.content.is_eof():
        try:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except ConnectionError as error:
            raise Problem(400, f"the body was not sent whole: {error!s:.100}") from None  # nobody reads this
        request.writer.output_size = 0  # a malformed body is still answered
