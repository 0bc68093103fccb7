"""Transport: one HTTP request to a server that is slow, broken or hostile, answered within bounds.

A request either fills its ``Body`` or raises FetchError. On the way it is tried again with growing pauses, goes on
where a dropped connection stopped, follows redirects, and gives up on whoever drips. Three rules keep secrets
and plain text apart: credentials go to the origin that was asked and to no other, HTTPS is never left for HTTP,
and messages show a URL without its user, query and fragment (object stores sign in the query). What somebody else
wrote as a URL is asked byte for byte (``urls``).

A request may bring a ``Cargo``. Such a one is made once, and is not redirected: what has to be sent again after a
failure, and to where, is for the caller to know.

Through a proxy (``proxies``), the same rules hold; but the proxy looks names up, so that addresses are judged only
where one is written as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import errno
import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp

from hookline_artifacts import patience
from hookline_artifacts.errors import FetchError
from hookline_artifacts.net import failures
from hookline_artifacts.net.answers import Connector, ProxyConnector, ScatteredError
from hookline_artifacts.net.certificates import MAX_KEPT, check_pem, plain_pem
from hookline_artifacts.net.names import Names
from hookline_artifacts.net.proxies import NO_PROXIES, Proxies, Proxy, is_metadata_name, is_odd, literal
from hookline_artifacts.net.urls import foreign, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohappyeyeballs import AddrInfoType
    from multidict import CIMultiDictProxy
    from yarl import URL

    from hookline_artifacts.limits import FetchLimits
    from hookline_artifacts.net.addresses import AddressPolicy
    from hookline_artifacts.net.body import Body
    from hookline_artifacts.net.cargo import Cargo

_log = logging.getLogger(__name__)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REFUSALS: Final = frozenset({400, 401, 403})
"""How servers refuse an ``Authorization``; a 400 is one only where there was an ``Authorization`` to refuse."""
_TAKEN: Final = frozenset({200, 201, 202, 204})
"""How servers take a cargo."""
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PROXY_LOGIN: Final = 407
_MAX_STEPS: Final = 32  # redirects and challenges of one attempt
_MAX_RETRY_AFTER: Final = 3600.0
_MAX_CONTEXTS: Final = 64
"""Sets of certificate authorities that are kept."""
_MAX_DATE: Final = 64
"""Characters of an HTTP date; RFC 9110 has 29 or some more."""
_TLS: Final = "tls"
"""What to do where a certificate is not trusted."""
_PLAIN: Final = "plain"
"""What to do where there is no TLS."""
OF_A_REGISTRY: Final[Mapping[int | str, str]] = {
    _TLS: "give its authority in caConfigMap",
    _PLAIN: "set insecure where it speaks plain HTTP only",
    401: "check the pull secret or the docker configuration",
    403: "check the pull secret or the docker configuration",
    404: "check the reference, and that the artifact was pushed",
    429: "wait, or pull with an account that has a higher limit",
}
OF_A_REGISTRY_BY_HAND: Final[Mapping[int | str, str]] = {
    **OF_A_REGISTRY,
    _TLS: "give its authority with --ca",
    _PLAIN: "give --insecure where it speaks plain HTTP only",
}
"""For a person at a command line."""
_OF_A_REDIRECT: Final[Mapping[int | str, str]] = {
    400: "the redirect leads to a store that does not take it; see to the store behind the server that was asked",
    401: "the redirect leads to a store that asks for a login; see to the store behind the server that was asked",
    403: "the redirect leads to a store that does not take its signature; check the clocks, and the proxies on the way",
    404: "the redirect leads to a store that does not have it; push it again",
}
OF_A_TOKEN_SERVER: Final[Mapping[int | str, str]] = {
    **OF_A_REGISTRY,
    _PLAIN: "see to the registry, which names this as its token server",
    404: "see to the registry, which names this as its token server",
    405: "see to the registry, which names this as its token server",
    429: "it may work later",
}
OF_A_URL: Final[Mapping[int | str, str]] = {
    _TLS: "the system's authorities have to know the one that issued it",
    _PLAIN: "write http:// where it speaks plain HTTP only",
    401: "the server wants a login, and none but the URL's own is sent to it; check the URL",
    403: "check the URL: what is signed into it may be wrong, or its time may be over",
    404: "check the URL, and that the file is there",
}

_OF_A_PROXY: Final[Mapping[int, str]] = {
    403: "it does not let this host be asked: have it allowed there, or name the host in NO_PROXY",
    _PROXY_LOGIN: "it wants a user and a password, or others than those in its URL",
    502: "it could not reach the host; check the name, and that the proxy knows it",
    503: "it could not reach the host; check the name, and that the proxy knows it",
    504: "the host did not answer the proxy in time",
}


class AwayError(FetchError):
    """A server did not answer at all, or not in time."""


class StatusError(FetchError):
    """A server answered with this status."""

    def __init__(self, message: str, *, status: int, transient: bool, retry_after: float | None) -> None:
        super().__init__(message, transient=transient, retry_after=retry_after)
        self.status = status


class Authorizer(Protocol):
    """Who puts credentials on requests to one origin."""

    def next_header(self) -> str | None:
        """Choose the value of ``Authorization`` for the next request."""

    async def answer_challenge(self, status: int, challenges: list[str]) -> bool:
        """After a 400, 401 or 403, prepare another header. True where there is one, and asking again is worth it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    method: str
    url: URL
    what: str
    into: Body | None
    auth: Authorizer | None
    tls: ssl.SSLContext
    headers: Mapping[str, str] | None
    form: Mapping[str, str] | None
    cargo: Cargo | None
    advice: Mapping[int | str, str]

    @property
    def verb(self) -> str:
        """What is done with it, for sentences."""
        return "fetched" if self.cargo is None else "pushed"


class Transport:
    """Makes requests. Of one event loop; the connections are opened on first use."""

    def __init__(self, limits: FetchLimits, addresses: AddressPolicy, proxies: Proxies = NO_PROXIES) -> None:
        self._limits = limits
        self._addresses = addresses
        self._proxies = proxies
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """Of those who are asked directly (False), and through a proxy (True)."""
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._closed = False

    async def close(self) -> None:
        """Close every connection; later requests are refused."""
        self._closed = True
        for session in self._sessions.values():
            await session.close()

    async def request(
        self,
        method: str,
        url: URL,
        *,
        what: str,
        into: Body | None = None,
        auth: Authorizer | None = None,
        ca_pem: str | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        cargo: Cargo | None = None,
        advice: Mapping[int | str, str] = OF_A_REGISTRY,
    ) -> CIMultiDictProxy[str]:
        """Ask until there is a 2xx answer, put its body into ``into`` and return its headers.

        With a ``cargo`` there is one attempt. ``what`` names for people what is asked for, and ``advice`` is what they
        may do. Raises FetchError (StatusError where the server said no) and VerifyError.
        """
        limits = self._limits
        request = _Request(
            method=method,
            url=url,
            what=what,
            into=into,
            auth=auth,
            tls=self._tls(ca_pem),
            headers=headers,
            form=form,
            cargo=cargo,
            advice=advice,
        )
        if cargo is not None:
            return await self._attempt(request)
        for attempt in range(1, limits.attempts + 1):
            try:
                return await self._attempt(request)
            except FetchError as error:
                pause = patience.pause_within(limits, error, attempt)
                if pause is None:
                    raise
                _log.info("attempt %d of %d: %s; next attempt in %.1f s", attempt, limits.attempts, error, pause)
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    async def _attempt(self, request: _Request) -> CIMultiDictProxy[str]:
        """Follow redirects and answer challenges until there is an answer that is neither."""
        url, what, auth = request.url, request.what, request.auth
        here, redirects, bare = url, 0, False
        for _ in range(_MAX_STEPS):
            at_home = here.origin() == url.origin()
            value = auth.next_header() if auth is not None and at_home and not bare else None
            status, answer = await self._exchange(request, here, value)
            if status in ({200, 206} if request.cargo is None else _TAKEN):
                return answer
            fixed = request.form is not None or request.cargo is not None
            if status in _REDIRECTS and redirects < self._limits.redirects and not fixed:
                redirects += 1
                here, bare = _follow(here, answer.get("Location", ""), what=what), False
            elif status in REFUSALS and here is not url and value is not None:
                bare = True  # the redirect has its own signature, and an Authorization beside it is one too many
            elif (
                status in REFUSALS
                and at_home
                and auth is not None
                and await auth.answer_challenge(status, answer.getall("WWW-Authenticate", []))
            ):
                here, bare = url, False
            else:
                advice = request.advice if at_home or request.advice is OF_A_URL else _OF_A_REDIRECT
                raise _status_error(status, answer, what=f"{what} cannot be {request.verb}", url=here, advice=advice)
        raise FetchError(f"{what} cannot be {request.verb}: {shown(url)} asks for ever more", transient=False)

    async def _exchange(
        self, request: _Request, here: URL, authorization: str | None
    ) -> tuple[int, CIMultiDictProxy[str]]:
        """One request and its answer; the body of a good one is in ``into`` then."""
        into = request.into
        headers = {**(request.headers or {}), "Accept-Encoding": "identity"}
        if authorization is not None:
            headers["Authorization"] = authorization
        if into is not None and into.length:
            headers["Range"] = f"bytes={into.length}-"
        proxy = self._proxies.of(here)
        try:
            async with self._answer(request, here, headers, proxy) as response:
                if into is not None and response.status in {200, 206, 416}:
                    await into.receive(response, sender=shown(response.url), limits=self._limits)
                if proxy is not None and response.status == _PROXY_LOGIN:
                    raise _proxy_error(request, here, proxy, response.status)
                return response.status, response.headers
        except aiohttp.ClientHttpProxyError as error:
            raise _proxy_error(request, here, proxy, error.status) from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # "from None": the exception's own text may hold a signed URL
            raise self._failure(error, request, url=here, proxy=proxy) from None

    @contextlib.asynccontextmanager
    async def _answer(
        self, request: _Request, here: URL, headers: dict[str, str], proxy: Proxy | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, directly or through a proxy; the answer's body is still to come."""
        limits, for_proxy = self._limits, None
        if proxy is not None:
            self._check_unseen(here)
            if proxy.authorization and here.scheme == "https":
                for_proxy = {"Proxy-Authorization": proxy.authorization}  # not for whoever is behind it
            elif proxy.authorization:
                headers["Proxy-Authorization"] = proxy.authorization
        # A proxy may take the connection, and say nothing of the one that it is to make.
        async with contextlib.AsyncExitStack() as stack:
            bound = await stack.enter_async_context(
                asyncio.timeout(limits.connect + limits.stall if proxy is not None else None)
            )
            data: Any = request.form
            if request.cargo is not None:
                headers |= {"Content-Length": str(request.cargo.size), "Content-Type": request.cargo.media_type}
                data = await stack.enter_async_context(request.cargo.opened(bound, limits.stall))
            asked = self._session(through=proxy is not None).request(
                request.method, here, headers=headers, data=data, allow_redirects=False, ssl=request.tls,
                proxy=proxy.url if proxy is not None else None, proxy_headers=for_proxy,
            )  # fmt: skip
            response = await stack.enter_async_context(asked)
            bound.reschedule(None)
            yield response

    def _check_unseen(self, url: URL) -> None:
        """Judge a URL whose address nobody here will see. Raises OSError."""
        host = url.raw_host or ""
        address = literal(host)
        refusal = self._addresses.refusal(str(address)) if address is not None else None
        if address is None and is_metadata_name(host):
            refusal = "clouds' metadata services are never asked"
        if is_odd(host):
            refusal = "an address that is spelt like this is never asked through a proxy; write it as 192.0.2.1 is"
        if refusal is not None:
            raise OSError(errno.EACCES, refusal)

    def _failure(self, error: Exception, request: _Request, *, url: URL, proxy: Proxy | None) -> FetchError:
        advice, what = request.advice, request.what
        late = f"it took longer than {self._limits.stall:g} s to send something, or to connect"
        why = failures.why(error, trust=advice[_TLS], plain=advice[_PLAIN], late=late)
        transient = not isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)
        if isinstance(error, ScatteredError):
            why, transient = "it answers in more pieces than any honest server; see to what answers there", False
        elif isinstance(error, OSError) and error.errno == errno.EACCES:
            why, transient = error.strerror or why, False  # what is never asked is not asked later
        elif isinstance(error, aiohttp.InvalidURL | ValueError) and not isinstance(error, OSError):
            why, transient = "this URL cannot be asked", False
        elif proxy is not None and _is_of(proxy, error):
            remedy = "its authority has to be one of the system's"
            why = f"{proxy}: {failures.why(error, trust=remedy, plain='check its URL', late=late)}"
        kind = AwayError if transient and not isinstance(error, aiohttp.ClientPayloadError) else FetchError
        way = f"cannot be {request.verb} {'from' if request.cargo is None else 'to'}"
        return kind(f"{what} {way} {shown(url)}: {why}", transient=transient)

    def _session(self, *, through: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise FetchError("the fetcher is closed", transient=False)
        session = self._sessions.get(through)
        if session is None:
            limits, loop = self._limits, asyncio.get_running_loop()
            session = self._sessions[through] = aiohttp.ClientSession(
                # DANGER: the proxy is the administrator's, and may be anywhere; nobody else is asked by that session.
                connector=ProxyConnector(loop, resolver=Names(limits.connect))
                if through
                else Connector(loop, socket_factory=self._socket, resolver=Names(limits.connect)),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.stall),
                auto_decompress=False,  # a compressed answer would be a bomb, and not what its digest names
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "hookline"},
            )
        return session

    def _socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for an address, whatever name or redirect led to it.

        DANGER: this is what keeps tenants and registries from asking a cloud's metadata service through us.
        """
        family, kind, protocol, _, address = info
        refusal = self._addresses.refusal(str(address[0]))
        if refusal is not None:
            raise OSError(errno.EACCES, refusal)
        return socket.socket(family, kind, protocol)

    def _tls(self, ca_pem: str | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_pem)
        if context is None:
            if ca_pem is not None:
                check_pem(ca_pem)
            context = ssl.create_default_context()
            if ca_pem is not None:
                try:
                    # beside the system's authorities: blobs may be redirected to a public object store
                    context.load_verify_locations(cadata=plain_pem(ca_pem))
                except (ssl.SSLError, ValueError):
                    raise FetchError(
                        "the registry's own certificate authority is not a PEM certificate; check the key ca.crt",
                        transient=False,
                    ) from None
            kept = sum(len(each or "") for each in self._contexts)
            # One has the system's authorities too; making one again costs 10 ms.
            if len(self._contexts) >= _MAX_CONTEXTS or kept + len(ca_pem or "") > MAX_KEPT:
                self._contexts.clear()
            self._contexts[ca_pem] = context
        return context


def _is_of(proxy: Proxy, error: Exception) -> bool:
    """Whether a failure is about the proxy, and not about who is asked through it."""
    at = (getattr(error, "host", None), getattr(error, "port", None))
    return isinstance(error, aiohttp.ClientProxyConnectionError) or at == (proxy.url.host, proxy.url.port)


def _proxy_error(request: _Request, url: URL, proxy: Proxy | None, status: int) -> FetchError:
    todo = _OF_A_PROXY.get(status, "see to the proxy")
    transient = status in _TRANSIENT
    kind = AwayError if transient else FetchError
    return kind(
        f"{request.what} cannot be fetched from {shown(url)}: {proxy} answered {status}; {todo}", transient=transient
    )


def _follow(here: URL, location: str, *, what: str) -> URL:
    try:
        if not location:
            raise ValueError("there is no Location")  # noqa: TRY301 - the same as one that makes no sense
        there = foreign(location, base=here).with_user(None)
    except ValueError:
        raise FetchError(
            f"{what} cannot be fetched: {shown(here)} redirects to no usable URL", transient=False
        ) from None
    if here.scheme == "https" and there.scheme != "https":
        raise FetchError(
            f"{what} cannot be fetched: {shown(here)} redirects from https to {shown(there)}, "
            "and what was asked for over TLS is not fetched without it",
            transient=False,
        )
    return there


def _status_error(
    status: int, headers: CIMultiDictProxy[str], *, what: str, url: URL, advice: Mapping[int | str, str]
) -> StatusError:
    transient = status in _TRANSIENT
    todo = advice.get(status, "it may work later" if transient else "check the URL, and what answers there")
    return StatusError(
        f"{what}: {shown(url)} answered {status}; {todo}",
        status=status,
        transient=transient,
        retry_after=retry_after(headers.get("Retry-After", ""), now=time.time()) if transient else None,
    )


def retry_after(value: str, *, now: float) -> float | None:
    """Seconds that a ``Retry-After`` asks for (a number or an HTTP date), at most an hour; None for neither."""
    value = value[: 2 * _MAX_DATE].strip()
    if len(value) > _MAX_DATE:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MAX_RETRY_AFTER)
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(until - now, 0.0), _MAX_RETRY_AFTER)
