"""The hooks over HTTP: ``POST /v1/hooks/<hook>``, batches of them, and ``/v1/auth`` for proxies that ask by subrequest.

A hook call is answered 200 with the decision, a block too. What is wrong with the call itself is a problem
document (RFC 9457) with 400, 404, 405, 408, 413, 415 or 417; 503 is answered only while draining. Whatever a
client sends, it is answered and not logged.

The lane and the server give the same answers: requests that are beyond doubt are answered on the connection
(``lane``), all others by aiohttp (``server``). Memory is bounded whatever the number of clients (``reading``).
"""

from __future__ import annotations

import contextlib
import functools
import http
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from hookline_api.hooks import Hook, hook_spellings, parse_hook
from hookline_runtime.errors import InputError
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.batch import Batch
from hookline_sidecar.hooks.original import PROXIES
from hookline_sidecar.hooks.reading import LARGE, BodyReader
from hookline_sidecar.hooks.server import HookServer, asker_of
from hookline_sidecar.hooks.written import Writer
from hookline_sidecar.replies import JSON, Problem, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from hookline_runtime.chain.pipeline import Chains, Later
    from hookline_runtime.plugin.backlog import Asker
    from hookline_runtime.runtime import Runtime
    from hookline_sidecar.hooks.heads import Head
    from hookline_sidecar.hooks.lane import Answer
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
_LOG_PAUSE_S: Final = 10.0

log = logging.getLogger("hookline.endpoint")


class Answering:
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

    def __init__(self, answering: Answering, settings: Settings, *, lane: bool = True) -> None:
        self._answering = answering
        self._settings = settings
        self._lane = lane
        self._proxy = PROXIES[settings.auth_headers]
        self._writer = Writer()
        self._reader = BodyReader(most=settings.max_body, seconds=settings.body_timeout)
        self._logged_at = -_LOG_PAUSE_S

    def server(self, ended: Callable[[], None]) -> HookServer:
        """What makes the protocol of each connection; ``ended`` is called when a connection has ended."""
        return HookServer(self.answer, ended, self.route if self._lane else None)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request, on the server."""
        try:
            return (await self._answer_on_server(request)).response()
        except Problem as problem:
            return _refusal(request, problem)
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._log_defect(request.method, request.path, error).response()

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
        if self._answering.draining:
            return None
        try:
            answer = self._answering.runtime.answer(hook, body)
            if isinstance(answer, bytes):
                return self._writer.decision(answer)
            return functools.partial(self._hook_later, hook, answer)
        except InputError as error:
            return self._writer.reply(_no_input(error).reply())
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._writer.reply(self._log_defect("POST", hook, error))

    async def _hook_later(self, hook: Hook, later: Later, asker: Asker) -> bytes:
        try:
            return self._writer.decision(await later(asker))
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._writer.reply(self._log_defect("POST", hook, error))

    def _batch_on_lane(self, body: bytes) -> bytes | Later | None:
        return self._on_lane(Batch, body, _BATCH)

    def _auth_on_lane(self, head: Head, _: bytes) -> bytes | Later | None:
        return self._on_lane(self._ask_by_head, head, _AUTH)

    def _ask_by_head(self, head: Head) -> Question:
        question = Question.of_head(self._proxy, head)
        if question.unclear:
            self._answering.count_unclear()
        return question

    def _on_lane(self, make: Callable[[T], _Work], given: T, what: str) -> bytes | Later | None:
        if self._answering.draining:
            return None
        try:
            reply = self._begin(make(given))
            if isinstance(reply, Reply):
                return self._writer.reply(reply)
            return functools.partial(self._later, reply, what)
        except Problem as problem:
            return self._writer.reply(problem.reply())
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._writer.reply(self._log_defect("", what, error))

    async def _later(self, rest: _Rest, what: str, asker: Asker) -> bytes:
        try:
            return self._writer.reply(await rest(asker))
        except Exception as error:  # noqa: BLE001 - logged, with its traceback
            return self._writer.reply(self._log_defect("", what, error))

    def _begin(self, work: _Work) -> Reply | _Rest:
        """Do what can be done at once; the reply, or what is still to be done. One bundle decides it all."""
        chains = self._answering.runtime.chains
        reply = work.advance(chains)
        if reply is not None:
            return reply
        held = contextlib.ExitStack()
        held.enter_context(chains.held())  # now, and not when somebody begins to wait
        return functools.partial(_finish, work, chains, held)

    async def _answer_on_server(self, request: web.BaseRequest) -> Reply:
        if self._answering.draining:
            raise Problem(503, "the sidecar is shutting down; ask another one, or again after its restart")
        if request.path.startswith(_HOOKS):
            return await self._hook(request)
        if request.path == _BATCH:
            async with self._reader.body(request, self._settings.max_body) as body:
                assert isinstance(body, bytes)  # noqa: S101 - more than --max-body is refused
                batch = Batch(body)
                del body  # which is kept no longer than the batch needs it
                return await self._work(batch, asker_of(request))
        if request.path == _AUTH or request.path.startswith(f"{_AUTH}/"):
            question = Question.of_request(self._proxy, request.method, request.raw_path, request.headers.items())
            if question.unclear:
                self._answering.count_unclear()
            return await self._work(question, asker_of(request))
        hooks = ", ".join(Hook)
        raise Problem(404, f"there is nothing at {request.path:.100}; hooks are POST {_HOOKS} with one of {hooks}")

    async def _work(self, work: _Work, asker: Asker) -> Reply:
        reply = self._begin(work)
        return reply if isinstance(reply, Reply) else await reply(asker)

    async def _hook(self, request: web.BaseRequest) -> Reply:
        try:
            hook = parse_hook(request.path.removeprefix(_HOOKS))
        except ValueError as error:
            raise Problem(404, str(error)) from None
        keep = max(LARGE, self._answering.runtime.chains.largest_input(hook))
        async with self._reader.body(request, keep) as body:
            try:
                chains = self._answering.runtime.chains
                answer = chains.answer(hook, b"", unread=body) if isinstance(body, int) else chains.answer(hook, body)
                return Reply(200, JSON, answer if isinstance(answer, bytes) else await answer(asker_of(request)))
            except InputError as error:
                raise _no_input(error) from None

    def _log_defect(self, method: str, path: str, error: Exception) -> Reply:
        """Ours. Never a 2xx; and logged, but not as often as a client can bring it about."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = now
            log.error("%s %.100s could not be answered", method, path, exc_info=error)
        return Problem(500, f"the sidecar failed: {type(error).__name__}").reply()


async def _finish(work: _Work, chains: Chains, held: contextlib.ExitStack, asker: Asker) -> Reply:
    with held:
        return await work.finish(chains, asker)


def _no_input(error: InputError) -> Problem:
    return Problem(400, str(error), field=error.field)


def _refusal(request: web.BaseRequest, problem: Problem) -> web.Response:
    response = problem.reply().response()
    if not request.content.is_eof() or problem.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        response.force_close()  # what is still to come of the body is not read
    return response
