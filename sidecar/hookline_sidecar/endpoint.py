"""The hooks over HTTP: ``POST /v1/hooks/<hook>``, and ``/v1/auth`` for proxies that ask by subrequest.

A hook call is answered 200 with the decision, a block too. What is wrong with the call itself is a problem
document (RFC 9457) with 400, 404, 405, 408, 413, 415 or 417; 503 is answered only while draining. Whatever a
client sends, it is answered and not logged.

aiohttp's low-level server is used, because its application would answer malformed requests, unknown expectations
and cut-off bodies in ways of its own. Memory is bounded whatever the number of clients: a body is read in small
pieces, and only a few large ones are held at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from hookline_api.hooks import Hook, parse_hook
from hookline_runtime.errors import InputError
from hookline_sidecar import auth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_runtime.runtime import Runtime
    from hookline_sidecar.settings import Settings

PROBLEM: Final = "application/problem+json"

_HOOKS: Final = "/v1/hooks/"
_AUTH: Final = "/v1/auth"
_LARGE: Final = 256 * 1024
"""Bytes above which a body is a large one."""
_LARGE_AT_ONCE: Final = 4
_LINGER_S: Final = 0.5
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""
_LOG_PAUSE_S: Final = 10.0

log = logging.getLogger("hookline.endpoint")


class Gate:
    """What the endpoint answers from, and whether it still does."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.draining = False


class Refused(Exception):  # noqa: N818 - the call is at fault, not we
    """A call that is answered with a problem document."""

    def __init__(self, status: int, detail: str, *, field: str | None = None, allow: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.allow = allow


class Endpoint:
    """The hook endpoint of one worker."""

    def __init__(self, gate: Gate, settings: Settings) -> None:
        self._gate = gate
        self._settings = settings
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._logged_at = -_LOG_PAUSE_S

    def server(self, ended: Callable[[], None]) -> web.Server:
        """What makes the protocol of each connection; ``ended`` is called when a connection is no more."""
        return _Server(
            self.answer,
            ended,
            access_log=None,
            auto_decompress=False,  # a body that says it is compressed is refused, not unpacked
            keepalive_timeout=3600,
            max_headers=128,
            lingering_time=_LINGER_S,
        )

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        try:
            return await self._road(request)
        except Refused as refused:
            return _refusal(request, refused)
        except Exception as error:
            # A defect of ours. Never a 2xx; and logged, but not as often as a client can bring it about.
            now = time.monotonic()
            if now - self._logged_at >= _LOG_PAUSE_S:
                self._logged_at = now
                log.exception("%s %.100s could not be answered", request.method, request.path)
            return problem(500, f"the sidecar failed: {type(error).__name__}")

    async def _road(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._gate.draining:
            raise Refused(503, "the sidecar is shutting down; ask another one, or again after its restart")
        if request.path.startswith(_HOOKS):
            return await self._hook(request)
        if request.path == _AUTH or request.path.startswith(f"{_AUTH}/"):
            return await auth.answer(self._gate.runtime, request)
        hooks = ", ".join(Hook)
        raise Refused(404, f"there is nothing at {request.path:.100}; hooks are POST {_HOOKS} with one of {hooks}")

    async def _hook(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            hook = parse_hook(request.path.removeprefix(_HOOKS))
        except ValueError as error:
            raise Refused(404, str(error)) from None
        if request.method != "POST":
            raise Refused(405, f"{request.method} is not answered here; use POST", allow="POST")
        _check_media(request)
        if (request.content_length or 0) > self._settings.max_body:
            raise self._too_large()
        await _continue(request)
        async with contextlib.AsyncExitStack() as held:
            body = await self._read(request, held)
            try:
                answer = await self._gate.runtime.answer(hook, body)
            except InputError as error:
                raise Refused(400, str(error), field=error.field or None) from None
        return web.Response(body=answer, content_type="application/json")

    async def _read(self, request: web.BaseRequest, held: contextlib.AsyncExitStack) -> bytes:
        """The body. A large one takes one of few places, which ``held`` gives back after the call."""
        chunks: list[bytes] = []
        size, is_large = 0, False
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > self._settings.max_body:
                        raise self._too_large()
                    if size > _LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(408, f"the body could not be read within {self._settings.body_timeout:g} s") from None
        except (web.RequestPayloadError, ConnectionError, ValueError) as error:
            # Cut off, or chunks that are none. Where the client is gone, nobody reads this.
            raise Refused(400, f"the body was not sent whole: {error!s:.100}") from None
        return b"".join(chunks)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body has more than {self._settings.max_body} bytes")


class _Server(web.Server):
    """aiohttp's server with our words for what is no HTTP."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        ended: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._ended = ended

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by each connection, once."""
        super().connection_lost(handler, exc)
        self._ended()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed. aiohttp's own way logs each, with a traceback."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        detail = " ".join((message or str(exc) or "this is no HTTP/1.1").split())
        response = problem(status, f"the request is malformed: {_writable(detail)[:200]}")
        response.force_close()
        return response


def problem(status: int, detail: str, *, field: str | None = None) -> web.Response:
    """A problem document, https://www.rfc-editor.org/rfc/rfc9457."""
    body: dict[str, Any] = {
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": _writable(detail),
    }
    if field is not None:
        body["field"] = field
    return web.Response(status=status, body=orjson.dumps(body), content_type=PROBLEM)


def _refusal(request: web.BaseRequest, refused: Refused) -> web.Response:
    response = problem(refused.status, str(refused), field=refused.field)
    if refused.allow is not None:
        response.headers["Allow"] = refused.allow
    if not request.content.is_eof() or refused.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.force_close()  # what is still to come of the body is not read
    return response


def _check_media(request: web.BaseRequest) -> None:
    """Anything but plain JSON is refused; no header at all is taken as JSON."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(415, "compressed bodies are not read; send the JSON as it is")
    if "Content-Type" in request.headers and request.content_type != "application/json":
        raise Refused(415, f"the body is {request.content_type:.60}, and must be application/json")


async def _continue(request: web.BaseRequest) -> None:
    """RFC 9110, 10.1.1: who waits with its body is told to send it, now that nothing speaks against it."""
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise Refused(417, f"nothing is known of the expectation {expected:.60}")
    if request.version >= (1, 1) and not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # a malformed body is still answered


def _writable(text: str) -> str:
    """Bytes of a request that are not UTF-8 come as lone surrogates, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()
