"""One HTTP request and its response, by aiohttp: to addresses that were checked, and within bounds.

The only module of the runtime that imports aiohttp. A name is looked up once, every address that it has is judged, and
those are dialled; the socket is judged again where it is made, which is where an address in a URL comes by. What a name
has at another look-up is another connection's business. Rules that trust other authorities, or name other addresses,
have connections of their own.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl
import zlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from hookline_artifacts.errors import ConfigError, FetchError
from hookline_artifacts.net import failures
from hookline_artifacts.net.answers import Connector, ScatteredError
from hookline_artifacts.net.certificates import MAX_CERTIFICATES, MAX_PEM, plain_pem
from hookline_artifacts.net.names import Names
from hookline_artifacts.threads import on_behalf_of
from hookline_runtime.host.http_message import (
    MAX_BODY,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    REPLACED,
    HttpError,
    Response,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohappyeyeballs import AddrInfoType
    from aiohttp.client_proto import ResponseHandler

    from hookline_artifacts.net.addresses import NamedAddresses
    from hookline_runtime.host.egress import Rule, Target

CONNECTIONS_OF_A_HOST: Final = 32
MAX_IDLE: Final = 64
"""Connections of one plugin that are kept though nobody uses them, for ``_IDLE_S`` seconds at the most."""
_IDLE_S: Final = 10.0
_MAX_NAMES: Final = 64
_CODINGS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_MAX_MEMBERS: Final = 16
"""Of one gzip body; honest ones have one, and each costs a copy of what follows it."""
_ZLIB: Final = 8
"""The low half of the first byte of RFC 1950. Some servers send bare RFC 1951 as ``deflate``."""
_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers of one connection, and not of the response: RFC 9110, 7.6.1. So are those that ``Connection`` names."""
_TRUST: Final = "name its authority in the rule's caFrom"
_PLAIN: Final = "write the rule with scheme: http where it speaks plain HTTP"

_ending: Final[set[asyncio.Task[None]]] = set()
"""Sessions that are being closed."""


class NeverAskedError(OSError):
    """An address may not be asked."""

    def __init__(self, sentence: str) -> None:
        super().__init__(errno.EACCES, sentence)


class HttpBackend:
    """The connections of one plugin. Made on any thread; all else belongs to one event loop."""

    def __init__(self, owner: str, rules: Sequence[Rule], seconds: float) -> None:
        """``seconds`` is how long a name is looked up at the most, also when nobody waits for it any more.

        Raises ConfigError where a rule's authority cannot be read.
        """
        self._owner = owner
        self._seconds = seconds
        self._sessions: dict[tuple[Any, ...], aiohttp.ClientSession] = {}
        self._by_rule: dict[int, aiohttp.ClientSession] = {}
        self._contexts = {rule.ca: _context(rule.ca, rule.number) for rule in rules if rule.scheme == "https"}
        self._idle = max(2, MAX_IDLE // max(1, len({_pool(rule) for rule in rules})))
        self._closed = False

    def close(self) -> None:
        """End every connection soon; later requests fail."""
        self._closed = True
        for session in self._sessions.values():
            task = asyncio.get_running_loop().create_task(session.close())
            _ending.add(task)
            task.add_done_callback(_ending.discard)

    async def exchange(
        self, rule: Rule, method: str, target: Target, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send one request, and read its response. Raises HttpError. Whoever cancels it ends its connection."""
        try:
            async with self._session(rule).request(
                method,
                URL(target.url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._contexts.get(rule.ca, True),
            ) as response:
                came = _headers(response, target)
                coding = came.pop("content-encoding", "identity").strip().lower()
                if method == "HEAD":
                    return Response(status=response.status, headers=came, body=b"")
                came.pop("content-length", None)
                read = await _body(response, coding, target)
                return Response(status=response.status, headers=came, body=read)
        except (aiohttp.ClientError, OSError, FetchError, ValueError) as error:
            # "from None": the exception's own text may hold the URL, and what is signed into it
            raise _failure(error, target) from None

    def _session(self, rule: Rule) -> aiohttp.ClientSession:
        if self._closed:
            raise HttpError("failed", REPLACED)
        session = self._by_rule.get(rule.number) or self._sessions.get(_pool(rule))
        if session is None:
            judge = _Judge(rule.addresses, self._owner, self._seconds)
            connector = _Connector(
                asyncio.get_running_loop(),
                idle=self._idle,
                limit=0,  # the plugin's concurrency bounds them
                limit_per_host=CONNECTIONS_OF_A_HOST,
                keepalive_timeout=_IDLE_S,
                dns_cache_max_size=_MAX_NAMES,
                resolver=judge,
                socket_factory=judge.socket,
            )
            self._sessions[_pool(rule)] = session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "hookline", "Accept-Encoding": "gzip, deflate"},
                skip_auto_headers=("Content-Type",),
            )
        self._by_rule[rule.number] = session
        return session


class _Connector(Connector):
    """One that keeps a bounded number of idle connections; aiohttp's has no bound for all hosts together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, idle: int, **settings: Any) -> None:
        super().__init__(loop, **settings)
        self._most_idle = idle

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        full = sum(map(len, self._conns.values())) >= self._most_idle
        super()._release(key, protocol, should_close=should_close or full)


class _Judge(AbstractResolver):
    """Looks names up, and lets no address pass that a rule does not allow."""

    def __init__(self, addresses: NamedAddresses, owner: str, seconds: float) -> None:
        self._addresses = addresses
        self._owner = owner
        self._names = Names(seconds)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises NeverAskedError where one of them may not be asked, OSError, FetchError."""
        with on_behalf_of(self._owner):
            found = await self._names.resolve(host, port, family)
        for each in found:
            refusal = self._addresses.refusal(each["host"])
            if refusal is not None:
                raise NeverAskedError(f"its name has the address {each['host']}: {refusal}")
        return found

    async def close(self) -> None:
        """Nothing is held."""

    def socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for an address, whatever led to it.

        DANGER: this is what keeps guests from asking a cloud's metadata service through us.
        """
        family, kind, protocol, _, address = info
        refusal = self._addresses.refusal(str(address[0]))
        if refusal is not None:
            raise NeverAskedError(refusal)
        return socket.socket(family, kind, protocol)


def _pool(rule: Rule) -> tuple[Any, ...]:
    """What connections have in common that may be used for each other's requests, beside their host."""
    return rule.addresses.named, rule.ca, rule.scheme


def _context(ca: str | None, number: int) -> ssl.SSLContext:
    if ca is None:
        return _system()
    try:
        if len(ca) > MAX_PEM or ca.count("-----BEGIN") > MAX_CERTIFICATES:
            raise ValueError("too many")  # noqa: TRY301 - the same as one that cannot be read
        # DANGER: nothing at all would be taken for the system's authorities.
        return ssl.create_default_context(cadata=plain_pem(ca).strip() or "nothing")
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            f"spec.egress[{number}].caFrom is not a PEM certificate, or more than {MAX_PEM} characters of them"
        ) from None


@functools.cache
def _system() -> ssl.SSLContext:
    """The system's authorities, read once for all plugins of a process: they take 10 ms, and some mebibytes."""
    return ssl.create_default_context()


def _headers(response: aiohttp.ClientResponse, target: Target) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in response.raw_headers:
        size += len(raw_name) + len(raw_value)
        name, value = raw_name.decode("ascii", "replace").lower(), raw_value.decode("utf-8", "replace")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if len(response.raw_headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise HttpError(
            "limit",
            f"{target.origin} answered with more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them",
        )
    if not headers.keys().isdisjoint(_HOP):
        named = (each.strip().lower() for each in headers.get("connection", "").split(","))
        for name in (*_HOP, *named):
            headers.pop(name, None)
    return headers


async def _body(response: aiohttp.ClientResponse, coding: str, target: Target) -> bytes:
    if coding not in _CODINGS and coding not in {"identity", ""}:
        raise HttpError("failed", f"{target.origin} answered in the coding {coding!r:.40}, which was not asked for")
    length = response.content_length
    if length is not None and length > MAX_BODY:
        raise _too_large(target)
    if length is not None and coding not in _CODINGS:
        return await response.read()  # no more than that is read
    body, taken = bytearray(), 0
    inflate = _Inflate(coding) if coding in _CODINGS else None
    while chunk := await response.content.readany():
        taken += len(chunk)
        try:
            body += chunk if inflate is None else inflate.take(chunk, MAX_BODY + 1 - len(body))
        except zlib.error:
            raise HttpError("failed", f"{target.origin} answered with a body that is not {coding}") from None
        if taken > MAX_BODY or len(body) > MAX_BODY:
            raise _too_large(target)
    if inflate is not None and taken and not inflate.ended:
        raise HttpError("failed", f"{target.origin} answered with a {coding} body that is cut off")
    return bytes(body)


def _too_large(target: Target) -> HttpError:
    return HttpError("limit", f"{target.origin} answered with a body of more than {MAX_BODY} bytes")


class _Inflate:
    """A compressed body, never further than it is wanted: a bomb goes off nowhere."""

    def __init__(self, coding: str) -> None:
        self._bits = _CODINGS[coding]
        self._made: Any = None
        self._members = 0

    @property
    def ended(self) -> bool:
        """Whether what came is whole."""
        return bool(self._made is not None and self._made.eof)

    def take(self, data: bytes, most: int) -> bytes:
        """At most so many bytes of what comes next; fewer only where there are no more yet. Raises zlib.error."""
        if self._made is None:
            bare = self._bits == zlib.MAX_WBITS and data[0] & 0xF != _ZLIB
            self._made = zlib.decompressobj(-zlib.MAX_WBITS if bare else self._bits)
        out = bytearray()
        while data and len(out) < most:
            if self._made.eof:  # another member: RFC 1952, 2.2
                self._members += 1
                if self._members >= _MAX_MEMBERS or self._bits == zlib.MAX_WBITS:
                    raise zlib.error("too many members")
                self._made = zlib.decompressobj(self._bits)
            out += self._made.decompress(data, most - len(out))
            data = self._made.unused_data or self._made.unconsumed_tail
        return bytes(out)


def _failure(error: Exception, target: Target) -> HttpError:
    never = next((each for each in _causes(error) if isinstance(each, NeverAskedError)), None)
    if never is not None:
        return HttpError("denied", f"{target.origin} is not asked: {never.strerror}")
    if isinstance(error, ScatteredError):
        return HttpError("limit", f"{target.origin} answers in more pieces than any honest server")
    if any(isinstance(each, LineTooLong) for each in _causes(error)):
        return HttpError("limit", f"{target.origin} answered with a header that is too long")
    if isinstance(error, FetchError):
        return HttpError("limit", f"{target.origin} is not asked: too many names are being looked up")
    why = failures.why(error, trust=_TRUST, plain=_PLAIN)
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno and failures.NO_REASON in str(error.strerror):
        why = os.strerror(error.errno)  # a guest checks no address
    return HttpError("failed", f"{target.origin} cannot be asked: {why}", unreachable=True)


def _causes(error: BaseException | None) -> Sequence[BaseException]:
    """An error, and what led to it, in any of the ways in which libraries keep that."""
    found: list[BaseException] = []
    while error is not None and error not in found and len(found) < 16:  # noqa: PLR2004 - a circle, or a joke
        found.append(error)
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return found
