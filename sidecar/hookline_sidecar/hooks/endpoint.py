"""The hooks over HTTP: ``POST /v1/hooks/<hook>``, batches of them, and ``/v1/auth`` for proxies that ask by subrequest.

A hook call is answered 200 with the decision, a block too. What is wrong with the call itself is a problem
document (RFC 9457) with 400, 404, 405, 408, 413, 415 or 417; 503 is answered only while draining. Whatever a
client sends, it is answered and not logged.

There are two roads to the same answers: requests that are beyond doubt are answered on the connection (``lane``),
all others by aiohttp. Its low-level server is used, because its application would answer malformed requests, unknown
expectations and cut-off bodies in ways of its own. Memory is bounded whatever the number of clients: a body is read
in small pieces, and only a few large ones are held at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from aiohttp import web
from yarl import URL

from hookline_api.hooks import Hook, hook_spellings, parse_hook
from hookline_runtime.errors import InputError
from hookline_runtime.plugin.backlog import Asker
from hookline_serving import Bodies, Bounds, Census, Closed, Connection, media_type
from hookline_serving.connection import announcing
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.batch import LOOKED_INTO, Batch
from hookline_sidecar.hooks.lane import Lanes
from hookline_sidecar.hooks.original import TELLINGS
from hookline_sidecar.replies import JSON, Refused, Reply, Wire, writable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage

    from hookline_runtime.chain.pipeline import Chains
    from hookline_runtime.runtime import Runtime
    from hookline_serving import Visit
    from hookline_sidecar.hooks.heads import Head
    from hookline_sidecar.hooks.lane import Answer, Lane, Later
    from hookline_sidecar.settings import Settings

    _Rest = Callable[[Asker], Awaitable[Reply]]
    """What is still to be done for a reply."""

T = TypeVar("T")

_HOOKS: Final = "/v1/hooks/"
_BATCH: Final = "/v1/hooks:batch"
_AUTH: Final = "/v1/auth"
_PLAIN_JSON: Final = frozenset(
    {"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"}
)
_LARGE: Final = LOOKED_INTO
"""Bytes above which a body is a large one."""
_LARGE_AT_ONCE: Final = 4
_SMALL_BYTES: Final = 32 * 2**20
"""Bytes of all other bodies that are not there as a whole. Where there are more, the one that came first is no longer
waited for: an honest one is on its way for a millisecond."""
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
_LOG_PAUSE_S: Final = 10.0

log = logging.getLogger("hookline.endpoint")


class Gate:
    """What the endpoint answers from, and whether it still does."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.draining = False
        self.count_unclear: Callable[[], None] = lambda: None
        """Called for each subrequest that is refused because it can be read in more than one way."""


class _Work(Protocol):
    """What takes several decisions of one bundle: a batch, a question of a proxy."""

    def advance(self, chains: Chains) -> Reply | None: ...

    async def finish(self, chains: Chains, asker: Asker) -> Reply: ...


class Endpoint:
    """The hook endpoint of one worker. Without ``lane`` all is aiohttp's, with the same answers."""

    def __init__(self, gate: Gate, settings: Settings, *, lane: bool = True) -> None:
        self._gate = gate
        self._settings = settings
        self._lane = lane
        self._telling = TELLINGS[settings.auth_headers]
        self._wire = Wire()
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._small = Bodies(most=_SMALL_BYTES)
        self._logged_at = -_LOG_PAUSE_S

    def server(self, ended: Callable[[], None]) -> _Server:
        """What makes the protocol of each connection; ``ended`` is called when a connection is no more."""
        return _Server(self.answer, ended, self.route if self._lane else None)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request, on the road of aiohttp."""
        try:
            return (await self._road(request)).response()
        except Refused as refused:
            return _refusal(request, refused)
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._defect(request.method, request.path, error).response()

    def route(self, head: Head) -> tuple[Answer | None, bool]:
        """Who answers requests with such a head on the connection; None: nobody. And whether to remember it."""
        target = head.target
        if target.startswith(_AUTH) and head.method != "HEAD":
            is_plain = len(target) == len(_AUTH) or target[len(_AUTH)] == "?" or target.startswith(f"{_AUTH}/")
            if is_plain and "#" not in target and "/." not in target:
                return functools.partial(self._auth_on_lane, head), False  # it may hold a client's credentials
        elif (
            head.method == "POST"
            and "content-encoding" not in head.headers
            and ("content-type" not in head.headers or head.headers["content-type"].lower() in _PLAIN_JSON)
            and head.length <= self._settings.max_body
        ):
            if target == _BATCH:
                return self._batch_on_lane, True
            name = target.removeprefix(_HOOKS)
            if name != target and name.lower() in hook_spellings():
                return functools.partial(self._hook_on_lane, parse_hook(name)), True
        return None, False  # also what is asked by HEAD, with whatever credentials

    def _hook_on_lane(self, hook: Hook, body: bytes) -> bytes | Later | None:
        if self._gate.draining:
            return None
        try:
            answer = self._gate.runtime.answer(hook, body)
            if isinstance(answer, bytes):
                return self._wire.decision(answer)
            return functools.partial(self._hook_later, hook, answer)
        except InputError as error:
            return self._wire.reply(_no_input(error).reply())
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._wire.reply(self._defect("POST", hook, error))

    async def _hook_later(self, hook: Hook, later: Later, asker: Asker) -> bytes:
        try:
            return self._wire.decision(await later(asker))
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._wire.reply(self._defect("POST", hook, error))

    def _batch_on_lane(self, body: bytes) -> bytes | Later | None:
        return self._on_lane(Batch, body, _BATCH)

    def _auth_on_lane(self, head: Head, _: bytes) -> bytes | Later | None:
        return self._on_lane(self._of_head, head, _AUTH)

    def _of_head(self, head: Head) -> Question:
        question = Question.of_head(self._telling, head)
        if question.unclear:
            self._gate.count_unclear()
        return question

    def _on_lane(self, make: Callable[[T], _Work], given: T, what: str) -> bytes | Later | None:
        if self._gate.draining:
            return None
        try:
            reply = self._begin(make(given))
            return self._wire.reply(reply) if isinstance(reply, Reply) else functools.partial(self._later, reply, what)
        except Refused as refused:
            return self._wire.reply(refused.reply())
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._wire.reply(self._defect("", what, error))

    async def _later(self, rest: _Rest, what: str, asker: Asker) -> bytes:
        try:
            return self._wire.reply(await rest(asker))
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._wire.reply(self._defect("", what, error))

    def _begin(self, work: _Work) -> Reply | _Rest:
        """Do what can be done at once; the reply, or what is still to be done. One bundle decides it all."""
        chains = self._gate.runtime.chains
        reply = work.advance(chains)
        if reply is not None:
            return reply
        held = contextlib.ExitStack()
        held.enter_context(chains.held())  # now, and not when somebody begins to wait
        return functools.partial(_finish, work, chains, held)

    async def _road(self, request: web.BaseRequest) -> Reply:
        if self._gate.draining:
            raise Refused(503, "the sidecar is shutting down; ask another one, or again after its restart")
        if request.path.startswith(_HOOKS):
            return await self._hook(request)
        if request.path == _BATCH:
            async with self._body(request, self._settings.max_body) as body:
                assert isinstance(body, bytes)  # noqa: S101 - more than --max-body is refused
                batch = Batch(body)
                del body  # which is kept no longer than the batch needs it
                return await self._work(batch, _asker(request))
        if request.path == _AUTH or request.path.startswith(f"{_AUTH}/"):
            question = Question.of_request(self._telling, request.method, request.raw_path, request.headers.items())
            if question.unclear:
                self._gate.count_unclear()
            return await self._work(question, _asker(request))
        hooks = ", ".join(Hook)
        raise Refused(404, f"there is nothing at {request.path:.100}; hooks are POST {_HOOKS} with one of {hooks}")

    async def _work(self, work: _Work, asker: Asker) -> Reply:
        reply = self._begin(work)
        return reply if isinstance(reply, Reply) else await reply(asker)

    async def _hook(self, request: web.BaseRequest) -> Reply:
        try:
            hook = parse_hook(request.path.removeprefix(_HOOKS))
        except ValueError as error:
            raise Refused(404, str(error)) from None
        keep = max(_LARGE, self._gate.runtime.chains.largest_input(hook))
        async with self._body(request, keep) as body:
            try:
                chains = self._gate.runtime.chains
                answer = chains.answer(hook, b"", unread=body) if isinstance(body, int) else chains.answer(hook, body)
                return Reply(200, JSON, answer if isinstance(answer, bytes) else await answer(_asker(request)))
            except InputError as error:
                raise _no_input(error) from None

    @contextlib.asynccontextmanager
    async def _body(self, request: web.BaseRequest, keep: int) -> AsyncIterator[bytes | int]:
        """The body, for as long as the context lasts; a large one has one of few places meanwhile.

        Of a body that nobody takes, with more than ``keep`` bytes, only their number: they are dropped as they come.
        """
        if request.method != "POST":
            raise Refused(405, f"{request.method} is not answered here; use POST", allow="POST")
        _check_media(request)
        if (request.content_length or 0) > self._settings.max_body:
            raise self._too_large()
        await _continue(request)
        async with contextlib.AsyncExitStack() as held:
            yield await self._read(request, keep, held)

    async def _read(self, request: web.BaseRequest, keep: int, held: contextlib.AsyncExitStack) -> bytes | int:
        """As ``_body``. A large one takes one of few places, which ``held`` gives back after the call."""
        chunks: list[bytes] = []
        size, is_large, is_kept = 0, False, (request.content_length or 0) <= keep
        try:
            async with asyncio.timeout(self._settings.body_timeout) as deadline:
                held.callback(self._small.forget, deadline)
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > self._settings.max_body:
                        raise self._too_large()
                    if size > keep or not is_kept:
                        is_kept = False
                        chunks.clear()
                        self._small.forget(deadline)
                        continue
                    if not is_large:
                        self._small.grows(deadline, len(chunk))
                    if size > _LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                        self._small.forget(deadline)
                    chunks.append(chunk)
                self._small.forget(deadline)
        except TimeoutError:
            raise Refused(408, f"the body could not be read within {self._settings.body_timeout:g} s") from None
        except (web.RequestPayloadError, ConnectionError, ValueError, RuntimeError) as error:
            # Cut off, or chunks that are none. Where the client is gone, nobody reads this.
            raise Refused(400, f"the body was not sent whole: {error!s:.100}") from None
        return b"".join(chunks) if is_kept else size

    def _too_large(self) -> Refused:
        return Refused(413, f"the body has more than {self._settings.max_body} bytes")

    def _defect(self, method: str, path: str, error: Exception) -> Reply:
        """Ours. Never a 2xx; and logged, but not as often as a client can bring it about."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = now
            log.error("%s %.100s could not be answered", method, path, exc_info=error)
        return Refused(500, f"the sidecar failed: {type(error).__name__}").reply()


async def _finish(work: _Work, chains: Chains, held: contextlib.ExitStack, asker: Asker) -> Reply:
    with held:
        return await work.finish(chains, asker)


def _asker(request: web.BaseRequest) -> Asker:
    connection = request.protocol
    assert isinstance(connection, _Connection)  # noqa: S101 - all of this server's are
    return connection.asker


class _Server(web.Server):
    """aiohttp's server with our words for what is no HTTP, and with lanes in front of it."""

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
        return self._behind(None) if self._lanes is None else self._lanes.lane()

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

    def __init__(self, manager: _Server, census: Census, *, visit: Visit | None, **settings: Any) -> None:
        super().__init__(manager, census, visit=visit, **settings)
        self.asker = Asker()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody reads the answer."""
        self.asker.leave()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client has closed the connection, or will send no more: it may still read, and is not waited for."""
        self.asker.leave()

    async def start(self) -> None:
        """Answer requests. aiohttp's own way fails, and logs it, where the connection ended before this began."""
        if self.transport is not None:
            await super().start()

    def refusal(self, status: int, detail: str) -> web.Response:
        """A problem document."""
        text = f"the request is malformed: {writable(detail or 'this is no HTTP/1.1')}"
        return Refused(status, text).reply().response()


def _no_input(error: InputError) -> Refused:
    return Refused(400, str(error), field=error.field)


def _refusal(request: web.BaseRequest, refused: Refused) -> web.Response:
    response = refused.reply().response()
    if not request.content.is_eof() or refused.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.force_close()  # what is still to come of the body is not read
    return response


def _check_media(request: web.BaseRequest) -> None:
    """Anything but plain JSON is refused; no header at all is taken as JSON."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(415, "compressed bodies are not read; send the JSON as it is")
    if "Content-Type" in request.headers and (media := media_type(request.headers)) != "application/json":
        raise Refused(415, f"the body is {writable(media):.60}, and must be application/json")


async def _continue(request: web.BaseRequest) -> None:
    """RFC 9110, 10.1.1: who waits with its body is told to send it, now that nothing speaks against it."""
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise Refused(417, f"nothing is known of the expectation {expected:.60}")
    if request.version >= (1, 1) and not request.content.is_eof():
        try:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except ConnectionError as error:
            raise Refused(400, f"the body was not sent whole: {error!s:.100}") from None  # nobody reads this
        request.writer.output_size = 0  # a malformed body is still answered
