"""``HookClient``: ask the sidecar from an asyncio program, and say what happens where it cannot be asked."""

from __future__ import annotations

import asyncio
import http
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Final, Literal, Self, TypeVar, Unpack

from orjson import dumps, loads

from hookline_api.hooks import Hook
from hookline_client import inputs
from hookline_client.decisions import Action, Decision, instead, read_decision
from hookline_client.errors import Cause, FailedError, HookError, MalformedError, RefusedError
from hookline_client.pool import Bounds, Pool, host_of

Authentication = Literal["success", "denied", "defer"]
Authorization = Literal["allow", "deny", "defer"]
PreQuery = Literal["continue", "rewrite", "block", "cached"]
Rewriting = Literal["continue", "rewrite", "block"]
Routing = Literal["default", "primary", "standby", "node", "branch", "block"]
Lookup = Literal["hit", "miss"]
Storing = Literal["store", "skip"]
Custom = Literal["answered", "empty", "block"]
Accepted = Literal["accepted"]

Read = TypeVar("Read")
Asked = Coroutine[Any, Any, Decision[Action]]
"""To be awaited: a decision with these actions."""

_RECOVERED_S: Final = 1.0
"""So long after the last failure the sidecar counts as answering again."""
_INPUT_STATUSES: Final = frozenset({400, 413})
_HEADS: Final[dict[Hook | None, bytes]] = {
    hook: f"POST /v1/hooks{f'/{hook}' if hook else ':batch'} HTTP/1.1\r\nHost: hookline\r\n"
    "Content-Type: application/json\r\nContent-Length: ".encode()
    for hook in (None, *Hook)
}

log = logging.getLogger("hookline.client")


class Policy(StrEnum):
    """What a hook answers where the sidecar gave no decision; ``failure`` of the decision names the cause."""

    CLOSED = "Closed"
    """Refuse, in the words of docs/reference/hooks.md, "When a plugin fails"."""
    OPEN = "Open"
    """Go on as if no plugin had an opinion. An input that the sidecar refused is refused all the same."""
    RAISE = "Raise"
    """Raise the HookError."""


class HookClient:
    """Asks one sidecar; for one event loop.

    ``address`` is the path of a unix socket, or ``http://HOST:PORT``. ``timeout`` is in seconds and counts from the
    call, waiting for a connection included. At most ``connections`` are open, each with ``depth`` calls in
    flight; ``queue`` more calls wait. ``limit`` is in bytes, for a call and for an answer. ``policy`` is for
    all hooks or for some; without, deciding hooks are closed and observers open.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 1.0,
        connections: int = 8,
        depth: int = 4,
        queue: int = 1024,
        limit: int = 16 * 2**20,
        policy: Policy | Mapping[Hook, Policy] | None = None,
    ) -> None:
        host_of(address)  # it is refused now, not at the first call
        self.calls = 0
        """Calls so far; one of a batch counts as one."""
        self.failures: Counter[tuple[Hook, Cause, Policy]] = Counter()
        """Calls without a decision of the sidecar's, and what was done then."""
        self._address = address
        self._bounds = Bounds(timeout=timeout, connections=connections, depth=depth, queue=queue, limit=limit)
        self._policies = {hook: Policy.OPEN if hook.observes else Policy.CLOSED for hook in Hook}
        self._policies |= dict.fromkeys(Hook, policy) if isinstance(policy, Policy) else policy or {}
        self._inputs = inputs.Inputs()
        self._pool: Pool | None = None
        self._failing: int | None = None
        """Failures since the sidecar last answered; None while it does."""
        self._failed_at = 0.0

    async def __aenter__(self) -> Self:
        self._pool = Pool(self._address, self._bounds)
        return self

    async def __aexit__(self, *_: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def call(self, hook: Hook, given: Any, *, timeout: float | None = None) -> Decision[Any]:
        """Ask one hook. ``given`` is its input: a model of ``hookline_api.hooks.INPUTS``, plain data, or JSON in bytes.

        Where plain data has a request id, an answer with another one counts as malformed.
        """
        request_id: str | None = None
        self.calls += 1
        try:
            request_id, body = _encode(hook, given)
            return await self._ask(_HEADS[hook], body, timeout, partial(read_decision, hook, request_id))
        except HookError as error:
            return self._apply_policy(hook, error, request_id)

    async def batch(self, calls: Iterable[tuple[Hook, Any]], *, timeout: float | None = None) -> list[Decision[Any]]:
        """Ask several hooks at once; the decisions, in order. Each call fails by itself, as its hook's policy says.

        Where that policy is to raise, the first error is raised, and the other decisions are lost.
        """
        asked = list(calls)
        self.calls += len(asked)
        parts: list[bytes] = []
        request_ids: list[str | None] = []
        outcomes: list[Any] = []
        for hook, given in asked:
            try:
                request_id, body = _encode(hook, given)
                if isinstance(given, bytes):
                    _check_json(given)  # or it could hold the end of this call, and another one
                parts.append(b'{"hook":"%b","input":%b}' % (hook.encode(), body))
                outcomes.append(None)
            except HookError as error:
                request_id = None
                outcomes.append(error)
            request_ids.append(request_id)
        answers = iter(await self._ask_batch(parts, timeout) if parts else ())
        decisions = []
        for (hook, _), request_id, outcome in zip(asked, request_ids, outcomes, strict=True):
            try:
                decisions.append(_read(hook, outcome or next(answers), request_id))
            except HookError as error:
                decisions.append(self._apply_policy(hook, error, request_id))
        return decisions

    def authenticate(self, **given: Unpack[inputs.Authenticate]) -> Asked[Authentication]:
        """Who is this: ``success`` with an ``identity``, ``denied``, or ``defer``."""
        return self._complete(Hook.AUTHENTICATE, given)

    def authorize(self, **given: Unpack[inputs.Authorize]) -> Asked[Authorization]:
        """May they do this: ``allow``, ``deny``, or ``defer``."""
        return self._complete(Hook.AUTHORIZE, given)

    def pre_query(self, **given: Unpack[inputs.Query]) -> Asked[PreQuery]:
        """May this statement run: ``continue``, ``rewrite`` with a ``value``, ``block``, ``cached`` with ``data``."""
        return self._complete(Hook.PRE_QUERY, given)

    def rewrite(self, **given: Unpack[inputs.Query]) -> Asked[Rewriting]:
        """What is to run instead: ``continue``, ``rewrite`` with a ``value``, or ``block``."""
        return self._complete(Hook.REWRITE, given)

    def route(self, **given: Unpack[inputs.Query]) -> Asked[Routing]:
        """Where to: ``default``, ``primary``, ``standby``, ``node`` and ``branch`` with a ``target``, or ``block``."""
        return self._complete(Hook.ROUTE, given)

    def cache_get(self, **given: Unpack[inputs.CacheGet]) -> Asked[Lookup]:
        """What is the answer already: ``hit`` with ``data`` and perhaps ``ttl_ms``, or ``miss``."""
        return self._complete(Hook.CACHE_GET, given)

    def cache_set(self, **given: Unpack[inputs.CacheSet]) -> Asked[Storing]:
        """Is this to be kept: ``store``, perhaps for ``ttl_ms``, or ``skip``."""
        return self._complete(Hook.CACHE_SET, given)

    def post_query(self, **given: Unpack[inputs.PostQuery]) -> Asked[Accepted]:
        """Tell how a statement went."""
        return self._complete(Hook.POST_QUERY, given)

    def on_connect(self, **given: Unpack[inputs.Event]) -> Asked[Accepted]:
        """Tell of a client that came."""
        return self._complete(Hook.ON_CONNECT, given)

    def on_disconnect(self, **given: Unpack[inputs.Event]) -> Asked[Accepted]:
        """Tell of a client that went."""
        return self._complete(Hook.ON_DISCONNECT, given)

    def metrics(self, **given: Unpack[inputs.Event]) -> Asked[Accepted]:
        """Tell figures."""
        return self._complete(Hook.METRICS, given)

    def custom(self, given: Any, *, timeout: float | None = None) -> Asked[Custom]:
        """Ask anything: ``answered`` with a ``value``, ``empty``, or ``block``."""
        return self.call(Hook.CUSTOM, given, timeout=timeout)

    def _complete(self, hook: Hook, given: Mapping[str, Any]) -> Asked[Any]:
        return self.call(hook, self._inputs.complete(hook, given), timeout=given.get("timeout"))

    async def _ask_batch(self, parts: list[bytes], timeout: float | None) -> list[Any]:
        """For each call its answer, or the error that stands for it."""
        try:
            body = b'{"calls":[%b]}' % b",".join(parts)
            return await self._ask(_HEADS[None], body, timeout, partial(_several, len(parts)))
        except HookError as error:
            return [error] * len(parts)

    async def _ask(self, head: bytes, body: bytes, timeout: float | None, read: Callable[[Any], Read]) -> Read:
        """What ``read`` makes of the parsed body of a 200. Raises HookError."""
        pool = self._pool
        if pool is None:
            raise RuntimeError("this client is not open: use it as an asynchronous context manager")
        if len(body) > self._bounds.limit:
            raise RefusedError(f"the call has {len(body)} bytes; {self._bounds.limit} is the limit")
        if timeout is None:
            timeout = self._bounds.timeout
        call = pool.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body), timeout)
        try:
            await call.answered
        except asyncio.CancelledError:
            pool.forget(call)
            raise
        if call.error is not None:
            raise call.error
        if call.status != http.HTTPStatus.OK:
            raise _problem(call.status, _parsed(call.body))
        try:
            answer = read(loads(call.body))
        except (MalformedError, ValueError) as error:
            pool.condemn(call)  # what else comes there may be answers to other calls than it seems
            raise (
                error
                if isinstance(error, MalformedError)
                else MalformedError(f"the answer is not JSON: {error!s:.100}")
            ) from None
        if self._failing is not None and pool.loop.time() - self._failed_at >= _RECOVERED_S:
            log.warning("%s answers hooks again; %d calls had no answer", self._address, self._failing)
            self._failing = None
        return answer

    def _apply_policy(self, hook: Hook, error: HookError, request_id: str | None) -> Decision[Any]:
        """What the policy says; counted, and logged where it is news."""
        policy = self._policies[hook]
        if policy is Policy.OPEN and error.cause == "refused" and not hook.observes:
            policy = Policy.CLOSED  # or a client could have its statement let through by making it too large
        self.failures[hook, error.cause, policy] += 1
        if error.cause != "refused":
            if self._failing is None:
                log.warning("%s answers no hooks (%s: %s); its policy answers", self._address, error.cause, error)
            self._failing = (self._failing or 0) + 1
            self._failed_at = asyncio.get_running_loop().time()
        if policy is Policy.RAISE:
            raise error
        return instead(hook, error, request_id, refuses=policy is Policy.CLOSED)


def _encode(hook: Hook, given: Any) -> tuple[str | None, bytes]:
    """The request id that the answer has to bear, and the input as bytes. Raises RefusedError."""
    if isinstance(given, bytes):
        return None, given
    try:
        if type(given) is not dict:
            given = inputs.plain(given)
        return inputs.request_id_of(hook, given), dumps(given)
    except (TypeError, ValueError) as error:
        raise RefusedError(f"the input cannot be written as JSON: {str(error)[:100]}") from None


def _check_json(raw: bytes) -> None:
    try:
        loads(raw)
    except ValueError as error:
        raise RefusedError(f"the input is not JSON: {str(error)[:100]}") from None


def _parsed(raw: bytes) -> Any:
    try:
        return loads(raw)
    except ValueError:
        return None


def _several(count: int, answer: Any) -> list[Any]:
    """The answers of a batch, which has so many. Raises MalformedError."""
    found = answer.get("decisions") if isinstance(answer, dict) else None
    if not isinstance(found, list) or len(found) != count:
        raise MalformedError(f"the answer does not hold {count} decisions")
    return found


def _read(hook: Hook, answer: Any, request_id: str | None) -> Decision[Any]:
    """One answer of a batch. Raises HookError."""
    if isinstance(answer, HookError):
        raise answer
    if isinstance(answer, dict) and "action" not in answer and isinstance(answer.get("status"), int):
        raise _problem(answer["status"], answer)
    return read_decision(hook, request_id, answer)


def _problem(status: int, answer: Any) -> HookError:
    detail = answer.get("detail") if isinstance(answer, dict) else None
    kind = RefusedError if status in _INPUT_STATUSES else FailedError
    return kind(f"{status}: {detail!s:.200}")
