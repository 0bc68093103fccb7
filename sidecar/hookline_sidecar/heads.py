"""Heads of requests that are beyond doubt.

``read_head`` reads the strict core of HTTP/1.1 (RFC 9112) that proxies send, and nothing else: where it answers a
Head, every parser agrees about what the request is and where it ends. Whatever is unusual, lenient, ambiguous or
wrong is None, and somebody with more patience decides about it (``lane``).

Heads differ and most of their lines do not, so lines are what is remembered; but none that may be a secret.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import orjson

MAX_HEAD: Final = 8000
"""Bytes of a head that is read here: below aiohttp's limit of a single line."""
_MAX_HEADERS: Final = 100
_MAX_KNOWN: Final = 1024
_MAX_KNOWN_BYTES: Final = 256

# Without a step back: possessive quantifiers, and classes that do not overlap with what follows them.
# No bare CR or LF, no control character, no byte above 0x7e, no line that continues another one.
_REQUEST: Final = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1")
_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):([ \t!-~]*+)")
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


class Header(NamedTuple):
    """One header, its name in lower case and its value without the spaces around it."""

    name: str
    value: str
    json: bytes
    """Both as a member of an object."""


class Head(NamedTuple):
    """One request's head."""

    method: str
    target: str
    """It begins with a slash."""
    headers: dict[str, Header]
    """By their names, each of which comes once."""
    length: int
    """Bytes of the body, which begins right behind the head."""


_known: Final[dict[bytes, Header]] = {}


def header(name: str, value: str) -> Header:
    """A header of a request from anywhere; the name is in lower case, and neither has a lone surrogate."""
    return Header(name, value, b"%b:%b" % (orjson.dumps(name), orjson.dumps(value)))


def read_head(raw: bytes) -> Head | None:
    """A head without the empty line that ends it; None where there is any doubt about it.

    The connection goes on after such a request: ``Connection: close`` is a doubt.
    """
    lines = raw.split(b"\r\n")
    request = _REQUEST.fullmatch(lines[0])
    if request is None or len(raw) > MAX_HEAD or len(lines) - 1 > _MAX_HEADERS:
        return None
    headers: dict[str, Header] = {}
    del lines[0]
    for line in lines:
        found = _known.get(line) or _read_line(line)
        if found is None:
            return None
        headers[found.name] = found
    if len(headers) != len(lines) or "host" not in headers:  # a name that comes twice
        return None
    method, target = request.groups()
    length = headers.get("content-length")
    return Head(method.decode(), target.decode(), headers, 0 if length is None else int(length.value))


def _read_line(line: bytes) -> Header | None:
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    name, value = found[1].decode().lower(), found[2].decode().strip(" \t")
    if (
        name in _DOUBTFUL
        or (name == "connection" and value.lower() != "keep-alive")
        or (name == "content-length" and not _LENGTH.fullmatch(value))
        or (name == "host" and not _HOST.fullmatch(value))
    ):
        return None
    made = header(name, value)
    if name in _REPEATED and len(line) <= _MAX_KNOWN_BYTES:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[line] = made
    return made
