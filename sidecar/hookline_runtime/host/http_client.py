"""The requests of one plugin: which rule allows each, redirects, what is kept, and who waits for whom.

Each hop of a redirect is judged as if the guest had asked for it, and gets the credential of its own rule. What a guest
sent for one origin is not sent to another, but for what says nothing of anybody. Equal GETs at the same time are one
request: it goes on as long as one caller waits for it, and its error is that of those who waited.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hookline_api.bundle import REDACTED
from hookline_api.outbound import EGRESS_HOST
from hookline_runtime.host.egress import Egress, Rule, Target, follow, read_url
from hookline_runtime.host.http_cache import Moment, ResponseCache, Wish, may_share
from hookline_runtime.host.http_message import REPLACED, HttpError, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hookline_api.bundle import BundlePlugin

CONCURRENCY: Final = 32
"""Requests of one plugin on their way at a time, in one worker."""
MAX_WAITING: Final = 1024
"""Those that are on their way, and those that wait to be."""
MAX_REDIRECTS: Final = 5
_OF_ITS_WAIT: Final = 0.9
"""How much of ``limits.wait`` a request may take: a guest that is told that it was too long can still decide."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOR_ANYBODY: Final = frozenset({"accept", "accept-language", "cache-control", "content-type", "user-agent"})
"""Headers that go with a redirect to another origin."""
_OF_A_BODY: Final = ("content-encoding", "content-language", "content-location", "content-type", "digest")
_NOT_MODIFIED: Final = 304
_SEE_OTHER: Final = 303
_SERVER_ERROR: Final = 500
_BAD: Final = 400
_SHORTEST_SECRET: Final = 4
"""Characters; a shorter one stands in any text."""
_LOG_PAUSE_S: Final = 10.0
"""Between two lines about hosts that no rule names."""
_FAILURES: Final = 3
"""In a row, after which a host counts as unavailable."""
_MAX_HOSTS: Final = 64

log = logging.getLogger("hookline.host")

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Outcome = Response | Exception | None
"""None where the time is over."""


class Backend(Protocol):
    """Who sends one request; ``hookline_runtime.host.backends.http``."""

    async def exchange(
        self, rule: Rule, method: str, target: Target, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send it, and read its response. Raises HttpError. Whoever cancels it ends its connection."""

    def close(self) -> None:
        """End every connection soon."""


class _Flight:
    """A request on its way, and who waits for it."""

    __slots__ = ("asked", "key", "task", "waiting")

    def __init__(self, key: _Key | None) -> None:
        self.key = key
        """By what others find it; None where it is for one alone."""
        self.asked: Target | None = None
        """Whom it asks now; None while it waits for its turn."""
        self.waiting: set[asyncio.Future[_Outcome]] = set()
        self.task: asyncio.Task[None]


class _Hop(NamedTuple):
    """One request of a trip, and the rule that allows it."""

    rule: Rule
    method: str
    target: Target
    headers: dict[str, str]
    body: bytes | None
    wish: Wish


class Reach:
    """Which hosts answer, and how that shows in ``PluginHost.unavailable``."""

    def __init__(self, plugin: BundlePlugin, unavailable: dict[str, str]) -> None:
        self._plugin = plugin.name
        self._unavailable = unavailable
        # Behind a ``*`` a guest chooses the host: it may make names of values of Secrets, and as many as it likes.
        self._named_in_rules = frozenset(rule.host.lower() for rule in plugin.egress)
        self._hides = plugin.has_secrets
        self._logged_at = -_LOG_PAUSE_S
        self._failures: OrderedDict[str, int] = OrderedDict()
        """In a row, of each host that failed last."""

    def failed(self, host: str, why: str) -> None:
        """A request got no answer."""
        count = self._failures.pop(host, 0) + 1
        self._failures[host] = count
        if len(self._failures) > _MAX_HOSTS:
            self._unavailable.pop(_named(self._failures.popitem(last=False)[0]), None)
        if count >= _FAILURES:
            if _named(host) not in self._unavailable:
                self._log(host, why)
            self._unavailable[_named(host)] = why

    def answered(self, host: str) -> None:
        """A request got an answer, whatever it says."""
        if self._failures.pop(host, None) is not None and self._unavailable.pop(_named(host), None) is not None:
            self._log(host, None)

    def _log(self, host: str, why: str | None) -> None:
        """Say that a host is away, and why, or that it answers again."""
        shown = _named(host)
        if host not in self._named_in_rules:
            now = time.monotonic()
            if now - self._logged_at < _LOG_PAUSE_S:
                return
            self._logged_at = now
            shown, why = ("a host that a rule with a * allows", why and "") if self._hides else (shown, why)
        if why is None:
            log.info("plugin '%s': %s answers again", self._plugin, shown)
        else:
            log.warning("plugin '%s': %s is unavailable%s", self._plugin, shown, f": {why}" if why else "")


class HttpClient:
    """One per plugin and process. Made on any thread; all else belongs to one event loop."""

    def __init__(
        self,
        plugin: BundlePlugin,
        unavailable: dict[str, str],
        backend: Callable[[str, Sequence[Rule], float], Backend],
    ) -> None:
        """Raises ConfigError where a rule's Secrets cannot be used."""
        self._egress = Egress(plugin.egress, plugin.credentials)
        owner = f"{plugin.namespace or ''}/{plugin.name}"
        self._backend = backend(owner, self._egress.rules, plugin.limits.wait / 1000)
        self._most_ms = plugin.limits.wait * _OF_ITS_WAIT
        self._reach = Reach(plugin, unavailable)
        self._cache = ResponseCache()
        self._flights: dict[_Key, _Flight] = {}
        """Those that others may join."""
        self._on_their_way: set[_Flight] = set()
        self._permits = asyncio.Semaphore(CONCURRENCY)
        self._waiting = 0

    def close(self) -> None:
        """End what is on its way, and every connection."""
        for flight in self._on_their_way:
            flight.task.cancel()
        self._backend.close()

    async def fetch(self, request: Request) -> Response:
        """What a request comes to. Raises HttpError."""
        target = read_url(request.url)
        rule = self._egress.rule(request.method, target)
        if rule.credential is not None and rule.credential[0] in request.headers:
            raise HttpError("denied", f"the header {rule.credential[0]} is the host's to send to {target.origin}")
        hop = _hop(rule, request.method, target, request.headers, request.body)
        most = self._most_ms if request.timeout_ms is None else min(request.timeout_ms, self._most_ms)
        kept = self._cache.find(target.url, hop.headers) if hop.wish.kept else None
        now = time.monotonic()
        if kept is not None and kept.is_fresh(hop.wish, now) and kept.response.status not in _REDIRECTS:
            return kept.served(now)
        deadline = asyncio.get_running_loop().time() + most / 1000
        key = (target.url, tuple(sorted(hop.headers.items()))) if hop.wish.kept else None
        flight = self._flights.get(key) if key is not None else None
        first = flight is None
        flight = flight or self._begin(key, hop)
        outcome = await self._wait(flight, deadline)
        if isinstance(outcome, Response) and not first and not may_share(outcome):
            flight = self._begin(None, hop)
            outcome = await self._wait(flight, deadline)
        if isinstance(outcome, Response):
            return outcome
        if isinstance(outcome, HttpError):
            raise HttpError(outcome.cause, str(outcome), unreachable=outcome.unreachable)
        raise self._late(flight, target, most) if outcome is None else outcome

    def _late(self, flight: _Flight, target: Target, most: float) -> HttpError:
        asked = flight.asked
        if asked is None:
            return HttpError("timeout", f"{target.origin} was not asked within {most:g} ms")
        error = HttpError("timeout", f"{asked.origin} did not answer within {most:g} ms", unreachable=True)
        if not flight.waiting:  # others may still get an answer
            self._reach.failed(asked.host, str(error))
        return error

    def _begin(self, key: _Key | None, hop: _Hop) -> _Flight:
        flight = _Flight(key)
        if key is not None:
            self._flights[key] = flight
        self._on_their_way.add(flight)
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight, hop))
        return flight

    async def _fly(self, flight: _Flight, hop: _Hop) -> None:
        """All of a request, and its outcome for those who wait for it."""
        outcome: _Outcome = HttpError("failed", REPLACED)  # where it is cancelled, and somebody waits all the same
        try:
            outcome = await self._travel(hop, flight)
        except HttpError as error:
            outcome = error.with_traceback(None)  # whose frames would hold it, and all that was read
        except Exception as error:  # noqa: BLE001 - theirs, whatever it is
            outcome = error
        finally:
            self._no_more(flight)
            for each in flight.waiting:
                if not each.done():
                    each.set_result(outcome)

    def _no_more(self, flight: _Flight) -> None:
        """Nobody else may join it, and it ends."""
        self._on_their_way.discard(flight)
        if flight.key is not None and self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    async def _wait(self, flight: _Flight, deadline: float) -> _Outcome:
        """What it comes to until then. Whoever leaves last ends it."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[_Outcome] = loop.create_future()
        flight.waiting.add(mine)
        timer = loop.call_at(deadline, _give_up, mine)
        try:
            return await mine
        finally:
            timer.cancel()
            flight.waiting.discard(mine)
            if not flight.waiting and not flight.task.done():
                self._no_more(flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])  # until its connection is closed: some turns of the loop

    async def _travel(self, hop: _Hop, flight: _Flight) -> Response:
        """A request, and where its redirects lead. Raises HttpError."""
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._hop(hop, flight)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None:
                return response
            here = hop.target.origin
            try:
                hop = self._redirected(hop, response.status, location)
            except HttpError as error:
                raise HttpError(error.cause, f"{here} redirects, and that is not followed: {error}") from None
        raise HttpError("limit", f"{hop.target.origin} was not asked: there were more than {MAX_REDIRECTS} redirects")

    def _redirected(self, hop: _Hop, status: int, location: str) -> _Hop:
        """The next request after a redirect: RFC 9110, 15.4. Raises HttpError."""
        there = follow(hop.target, location)
        method, headers, body = hop.method, dict(hop.headers), hop.body
        if (status == _SEE_OTHER and method != "HEAD") or (status in {301, 302} and method == "POST"):
            method, body = "GET", None
            for name in _OF_A_BODY:
                headers.pop(name, None)
        if there.origin != hop.target.origin:
            headers = {name: value for name, value in headers.items() if name in _FOR_ANYBODY}
        rule = self._egress.rule(method, there)
        if rule.credential is not None:
            headers.pop(rule.credential[0], None)
        return _hop(rule, method, there, headers, body)

    async def _hop(self, hop: _Hop, flight: _Flight) -> Response:
        url, headers, wish = hop.target.url, hop.headers, hop.wish
        kept = self._cache.find(url, headers) if wish.kept else None
        sent = time.monotonic()
        if kept is not None and kept.is_fresh(wish, sent):
            return kept.served(sent)
        if wish.only_kept:
            return Response(status=504, headers={}, body=b"")  # RFC 9111, 5.2.1.7
        conditions = {} if kept is None else kept.conditions()
        response = await self._exchange(hop, headers | conditions if conditions else headers, flight)
        moment = Moment(sent=sent, came=time.monotonic(), wall=time.time())
        if kept is not None and conditions and response.status == _NOT_MODIFIED:
            return self._cache.confirm(url, headers, kept, response, moment).served(moment.came)
        if wish.kept and response.status < _SERVER_ERROR:
            self._cache.keep(url, headers, response, moment)
        elif hop.method not in _SAFE and response.status < _BAD:
            self._forget(hop.target, response)
        return response

    def _forget(self, target: Target, response: Response) -> None:
        """What was kept of what a request may have changed: RFC 9111, 4.4."""
        self._cache.forget(target.url)
        for name in ("location", "content-location"):
            try:
                there = follow(target, response.headers.get(name, ""))
            except HttpError:
                continue
            if there.origin == target.origin:
                self._cache.forget(there.url)

    async def _exchange(self, hop: _Hop, headers: dict[str, str], flight: _Flight) -> Response:
        """Send one request in its turn, with its rule's credential. Raises HttpError."""
        rule = hop.rule
        if self._waiting >= MAX_WAITING:
            raise HttpError("limit", f"{MAX_WAITING} requests of the plugin wait already")
        if rule.credential is not None:
            headers = headers | dict([rule.credential])
        self._waiting += 1
        try:
            async with self._permits:
                flight.asked = hop.target
                response = await self._backend.exchange(rule, hop.method, hop.target, headers, hop.body)
        except HttpError as error:
            if error.unreachable:
                self._reach.failed(hop.target.host, str(error))
            raise
        finally:
            self._waiting -= 1
        flight.asked = None
        self._reach.answered(hop.target.host)
        return response if len(rule.secret) < _SHORTEST_SECRET else _without(rule.secret, response)


def _hop(rule: Rule, method: str, target: Target, headers: dict[str, str], body: bytes | None) -> _Hop:
    wish = Wish.of(method, headers, has_body=body is not None)
    return _Hop(rule=rule, method=method, target=target, headers=headers, body=body, wish=wish)


def _without(secret: str, response: Response) -> Response:
    """A response in which a server that shows what it was asked does not show the credential.

    As it was sent, that is: who writes it in another way cannot be found out.
    """
    headers = {name: value.replace(secret, REDACTED) for name, value in response.headers.items()}
    return replace(response, headers=headers, body=response.body.replace(secret.encode(), REDACTED.encode()))


def _give_up(future: asyncio.Future[_Outcome]) -> None:
    if not future.done():
        future.set_result(None)


def _named(host: str) -> str:
    return EGRESS_HOST.format(host)
