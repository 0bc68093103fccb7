"""Heads of requests that are beyond doubt.

``read_head`` reads the strict core of HTTP/1.1 (RFC 9112) that proxies send, and nothing else: where it answers a
Head, every parser agrees about what the request is and where it ends. Whatever is unusual, lenient, ambiguous or
wrong is None, and somebody with more patience decides about it (``lane``).

Heads differ and most of their lines do not, so lines are what is remembered; but none that may be a secret.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HEAD: Final = 8000
"""Bytes of a head that is read here: below aiohttp's limit of a single line."""
_MAX_HEADERS: Final = 100
_MAX_KNOWN: Final = 1024
_MAX_KNOWN_LINE: Final = 256
_MAX_KNOWN_NAME: Final = 64

_REQUEST: Final = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]*")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")

# They change where a request ends, what follows it, or what has to be answered before its body.
_DOUBTFUL: Final = frozenset(
    {"transfer-encoding", "upgrade", "expect", "trailer", "proxy-connection", "http2-settings", "sec-websocket-key1"}
)
# What one client after the other says again. Not where secrets are: authorization, cookies, paths with their queries.
_REPEATED: Final = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-length", "content-type",
        "host", "user-agent", "via", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal", "x-forwarded-for",
        "x-forwarded-host", "x-forwarded-method", "x-forwarded-port", "x-forwarded-proto", "x-original-method",
        "x-real-ip",
    }
)  # fmt: skip


_Header = tuple[str, str]
"""One header, its name in lower case and its value without the spaces around it."""


class Head(NamedTuple):
    """One request's head."""

    method: str
    target: str
    """It begins with a slash."""
    headers: dict[str, str]
    """Their values by their names in lower case, each of which comes once."""
    length: int
    """Bytes of the body, which begins right behind the head."""


_known_lines: Final[dict[str, _Header]] = {}
_known_names: Final[dict[str, str]] = {}
"""As they are written → in lower case."""


def read_head(raw: bytes) -> Head | None:
    """A head without the empty line that ends it; None where there is any doubt about it.

    The connection goes on after such a request: ``Connection: close`` is a doubt.
    """
    if len(raw) > MAX_HEAD or not raw.isascii():
        return None
    lines = raw.decode("ascii").split("\r\n")
    request = _REQUEST.fullmatch(lines[0])
    if request is None or len(lines) - 1 > _MAX_HEADERS:
        return None
    headers: dict[str, str] = {}
    del lines[0]
    for line in lines:
        found = _known_lines.get(line) or _read_line(line)
        if found is None:
            return None
        headers[found[0]] = found[1]
    if len(headers) != len(lines) or "host" not in headers:  # a name that comes twice
        return None
    method, target = request.groups()
    length = headers.get("content-length")
    return Head(method, target, headers, 0 if length is None else int(length))


def _read_line(line: str) -> _Header | None:
    """None where there is a doubt: no bare CR or LF, no control character, no line that continues another one."""
    written, colon, value = line.partition(":")
    if not colon or not line.isprintable():
        return None
    value = value.strip(" ")
    name = _known_names.get(written) or _read_name(written)
    if name is None:
        return None
    made = name, value
    if name in _REPEATED:
        if (
            (name == "connection" and value.lower() != "keep-alive")
            or (name == "content-length" and not _LENGTH.fullmatch(value))
            or (name == "host" and not _HOST.fullmatch(value))
        ):
            return None
        if len(line) <= _MAX_KNOWN_LINE:
            if len(_known_lines) >= _MAX_KNOWN:
                _known_lines.clear()
            _known_lines[line] = made
    return made


def _read_name(written: str) -> str | None:
    name = written.lower()
    if name in _DOUBTFUL or not _NAME.fullmatch(name):
        return None
    if len(name) <= _MAX_KNOWN_NAME:
        if len(_known_names) >= _MAX_KNOWN:
            _known_names.clear()
        _known_names[written] = name
    return name
