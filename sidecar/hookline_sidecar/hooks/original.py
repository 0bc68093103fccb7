"""The original request behind a proxy's subrequest: which headers describe it, and which of them can be believed.

A client can send every header that a proxy can, so a header does not prove who wrote it. There are two answers to
that. ``--auth-headers`` names the proxy: the headers that this proxy sets are read and have to be there, and all others
that describe an original request are the client's, and ignored. Where no proxy is named (``any``), all usual headers
are read and have to agree: whoever forges one can only have the own request refused. Both are closed: two values that
differ, or a value that can be read in two ways, is an UnclearError, before any plugin is asked.

A path is handed on in one spelling (RFC 3986, 6.2.2). What servers would read differently is refused instead of
resolved, because the application gets the path as the client sent it.

Who sets what: nginx as in ``examples/proxies``; ingress-nginx's ``rootfs/etc/nginx/template/nginx.tmpl``
(``X-Original-URL``, with scheme and host); Traefik's ``pkg/middlewares/auth/forward.go``; Caddy's ``forward_auth``;
Envoy's ``ext_authz`` with ``path_prefix``; HAProxy as its guides for forward authentication have it.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX: Final = "/v1/auth"

_URLS: Final = frozenset({"x-original-url", "x-forwarded-url", "x-rewrite-url"})
"""Headers whose value may begin with a scheme and a host."""
_WITNESSES: Final = (
    "x-forwarded-url", "x-forwarded-path", "x-original-path", "x-rewrite-url", "x-request-uri", "x-envoy-original-path",
)  # fmt: skip
"""Headers in which other programs put the path. Never believed; but where one differs, somebody is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyHeaders:
    """In which headers a proxy describes the original request. Their names are in lower case."""

    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    addresses: tuple[str, ...]
    """Where the client's address is; the first header that is there counts."""
    behind: bool = False
    """Whether it may stand in the request line: the path behind ``/v1/auth``, and the method."""
    named: bool = True
    """Whether an administrator named this proxy: then its headers are always there."""
    ignored: frozenset[str] = field(default=frozenset(), compare=False)
    """Other headers that describe an original request: they are the client's."""


_ANY: Final = ProxyHeaders(
    paths=("x-original-uri", "x-original-url", "x-forwarded-uri"),
    methods=("x-original-method", "x-forwarded-method"),
    addresses=("x-real-ip", "x-forwarded-for"),
    behind=True,
    named=False,
)
_ALL: Final = frozenset((*_ANY.paths, *_WITNESSES, *_ANY.methods, *_ANY.addresses))


def _of(paths: str, methods: str, address: str) -> ProxyHeaders:
    known = frozenset({paths, methods, address})
    return ProxyHeaders(paths=(paths,), methods=(methods,), addresses=(address,), ignored=_ALL - known)


PROXIES: Final[Mapping[str, ProxyHeaders]] = {
    "any": _ANY,
    "nginx": _of("x-original-uri", "x-original-method", "x-real-ip"),
    "ingress-nginx": _of("x-original-url", "x-original-method", "x-real-ip"),
    "traefik": _of("x-forwarded-uri", "x-forwarded-method", "x-forwarded-for"),
    "caddy": _of("x-forwarded-uri", "x-forwarded-method", "x-forwarded-for"),
    "haproxy": _of("x-forwarded-uri", "x-forwarded-method", "x-forwarded-for"),
    "envoy": ProxyHeaders(addresses=("x-real-ip",), behind=True, ignored=_ALL - {"x-real-ip"}),
}
"""The choices of ``--auth-headers``."""

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*+)*+/?")
"""What most paths are: nothing escaped, no empty segment, none that begins with a dot."""
# In no path of RFC 3986, or the end of it for some servers; \ufffd stands for bytes that are not UTF-8.
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x20\x7f\\#\ufffd]|%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]|^(?!/)|^//")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(?=/)", re.IGNORECASE)
"""Scheme and host in front of a path. A client's ``Host: x?`` must not make a query of the path behind it."""
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""A token of RFC 9110, 5.6.2; no registered method is a third as long."""
_JOINED: Final = re.compile(r"[^?]*?,(?:/|https?:)|.*,\s+(?:/|https?:)", re.IGNORECASE)
"""Where two values of a header may have become one, which some proxies do with what comes twice. A query may hold
paths with commas between."""
_USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# On decoded bytes: what servers take for a separator, and what Java's take for the end of a segment's name.
_DOT_SEGMENT: Final = re.compile(rb"[/\\]\.\.?(?:[/\\;]|$)")
_DEEPER: Final = re.compile(rb"[/\\]\.(?:\.?[/\\;]|\.$)")
"""What leads elsewhere where a path is decoded once more than usual. A single dot at its end does not."""
_NAMELESS: Final = re.compile(rb"[/\\];")
"""``/;x/admin``: some servers drop the parameter, and the empty segment with it."""
_MOST_DECODINGS: Final = 3
"""Times that a path is decoded to look for dots: what is escaped more often is refused. An application decodes once,
one behind another gateway twice (``%252F`` in Jenkins' and Maven's paths)."""
_OVERLONG: Final = ((b"\xc0\xae", b"."), (b"\xc0\xaf", b"/"), (b"\xc1\x9c", b"\\"), (b"\xe0\x80\xae", b"."))
"""What old decoders take for a dot or a separator."""
_MAX_KNOWN: Final = 512
_MAX_ADDRESS: Final = 64
"""Characters of an address with a port and a zone; anything longer is not an address."""
_BRACKETED: Final = re.compile(r"\[([^\[\]]+)\](?::[0-9]{1,5})?")
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")


ORIGINAL_HEADERS: Final = frozenset((*_ANY.paths, *_ANY.methods, *_WITNESSES))
"""All headers that describe an original request."""
_PAIRS: Final = {
    frozenset(pair): pair
    for pair in (("x-original-uri", "x-original-method"), ("x-forwarded-uri", "x-forwarded-method"))
}
"""The headers that most proxies use."""


class UnclearError(ValueError):
    """The original request can be read in more than one way: the sentence says why."""


Pairs = list[tuple[str, str]]
"""Headers that describe an original request: their names in lower case, and their values."""


def original(proxy: ProxyHeaders, method: str, target: str, pairs: Pairs) -> tuple[str | None, str | None]:
    """Method and path; None where the proxy does not say. Raises UnclearError.

    ``method`` and ``target`` are the subrequest's own; ``pairs`` has all headers of ``proxy``, and the witnesses.
    """
    paths = [(name, _path_of(name, value, proxy)) for name, value in pairs if value and name in proxy.paths]
    methods = [(name, value) for name, value in pairs if value and name in proxy.methods]
    if target != PREFIX:
        if not target.startswith(PREFIX):  # spelled otherwise, or with a host in front: what is behind it is a guess
            raise UnclearError("the path is malformed")
        behind = target[len(PREFIX) :]
        if behind[0] != "?":
            if not proxy.behind:
                raise UnclearError(
                    f"the path goes on behind {PREFIX}, and the proxy of --auth-headers tells it by a header"
                )
            paths.append(("the request line", behind))
            methods.append(("the request line", method))
    found = _agreed(_verb, methods), _agreed(canonical, paths)
    if proxy.named and (not paths or not methods):
        what = ", ".join(map(_shown, (*proxy.paths, *proxy.methods))) or f"the path behind {PREFIX}"
        raise UnclearError(f"the proxy of --auth-headers does not tell the original request: {what} is missing")
    if not proxy.named and paths:
        witnesses = [(name, _path_of(name, value, proxy)) for name, value in pairs if value and name in _WITNESSES]
        if witnesses:
            _agreed(canonical, [*paths, *witnesses])
    return found


def original_of_head(
    proxy: ProxyHeaders, method: str, target: str, headers: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """As ``original``, of headers each of which comes once. Quick for what most proxies send."""
    names = ORIGINAL_HEADERS.intersection(headers)
    if target == PREFIX and (pair := _PAIRS.get(names)) is not None and pair[0] in proxy.paths:
        path, verb = headers[pair[0]], headers[pair[1]]
        if " " not in path and verb in _USUAL_METHODS:
            path = path.partition("?")[0]
            if path and _PLAIN_PATH.fullmatch(path):
                return verb, path
    return original(proxy, method, target, [(name, headers[name]) for name in names])


def client_address(proxy: ProxyHeaders, headers: Mapping[str, str]) -> str | None:
    """The client's address in its one spelling; None where the proxy does not say, or says something else.

    Of several in ``X-Forwarded-For`` it is the last: what the nearest proxy added, when all before it may be the
    client's. Where that one is not an address, no other is taken in its place.
    """
    for name in proxy.addresses:
        value = headers.get(name)
        if value:
            last = value if name == "x-real-ip" else value.rpartition(",")[2].strip()
            return _address(last) if len(last) <= _MAX_ADDRESS else None
    return None


@functools.lru_cache(_MAX_KNOWN)
def _address(text: str) -> str | None:
    bracketed, with_port = _BRACKETED.fullmatch(text), _WITH_PORT.fullmatch(text)
    try:
        if with_port:
            return str(ipaddress.IPv4Address(with_port[1]))
        if bracketed is None and ":" not in text:
            return str(ipaddress.IPv4Address(text))
        found = ipaddress.IPv6Address((bracketed[1] if bracketed else text).partition("%")[0])
    except ValueError:  # "unknown", "_hidden", "unix:" and the like
        return None
    return str(found.ipv4_mapped or found)


def _path_of(name: str, value: str, proxy: ProxyHeaders) -> str:
    """The value of a header, without a scheme and a host where it may have them."""
    if not proxy.named and _JOINED.match(value):
        raise UnclearError(f"{_shown(name)} may hold two paths, joined by a comma: let --auth-headers name the proxy")
    if name in _URLS and not value.startswith("/"):
        match = _ORIGIN.match(value)
        if match is None:
            raise UnclearError(f"{_shown(name)} is malformed")
        return value[match.end() :]
    return value


def _agreed(spelled: Callable[[str], str], pairs: Pairs) -> str | None:
    """What all say, in its one spelling; None where nobody says anything."""
    found = source = None
    for name, each in sorted(pairs) if len(pairs) > 1 else pairs:  # the same error, in whatever order they came
        one = spelled(each)
        if found is not None and one != found:
            raise UnclearError(
                f"the original request is told twice, and differs ({_shown(source or name)}, {_shown(name)}): "
                "the proxy has to strip a client's headers, or --auth-headers to name the proxy"
            )
        found, source = one, name
    return found


def _shown(name: str) -> str:
    return re.sub(r"\bUr([il])\b", lambda match: f"UR{match[1].upper()}", name.title()) if name[:2] == "x-" else name


def _verb(method: str) -> str:
    if not _METHOD.fullmatch(method):
        raise UnclearError("the method is malformed")
    return method.upper()


def canonical(uri: str) -> str:
    """The path in the one spelling that plugins compare: RFC 3986, 6.2.2, and no empty segments.

    Dot segments are refused instead of resolved: the upstream gets the path as it came, and may read it otherwise.
    """
    path = uri.partition("?")[0]
    if path and _PLAIN_PATH.fullmatch(path):
        return path
    if _NOT_IN_PATHS.search(path):
        raise UnclearError("the path is malformed")
    _check_decoded(path)
    path = _ESCAPE.sub(_normal_escape, re.sub("//+", "/", path))
    return path if path.isascii() else urllib.parse.quote(path, safe=_VISIBLE)


def _check_decoded(path: str) -> None:
    """What a server sees that decodes the path: once, or as often as it can be."""
    raw = urllib.parse.unquote_to_bytes(path)
    try:
        text = raw.decode()
    except UnicodeDecodeError:  # overlong forms, surrogates, another character set
        raise UnclearError("the path is malformed: its escapes are not UTF-8") from None
    _check_segments(raw, _DOT_SEGMENT)
    if not text.isascii():  # full-width dots and the like: some servers map characters to those that look alike
        _check_segments(unicodedata.normalize("NFKC", text).encode(), _DOT_SEGMENT)
    for _ in range(_MOST_DECODINGS):
        if b"%" not in raw:
            return
        before, raw = raw, urllib.parse.unquote_to_bytes(raw)
        if raw == before:
            return
        for odd, meant in _OVERLONG:
            raw = raw.replace(odd, meant)
        _check_segments(raw, _DEEPER)
    raise UnclearError("the path is malformed: it is escaped again and again")


def _check_segments(raw: bytes, dots: re.Pattern[bytes]) -> None:
    if dots.search(raw):
        raise UnclearError("the path has dot segments")
    if raw[:2] in {b"//", b"/\\"} or b"\0" in raw or _NAMELESS.search(raw):
        raise UnclearError("the path is malformed")


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.match(character) else escape[0].upper()
