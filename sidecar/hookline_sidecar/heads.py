"""Heads of requests that are beyond doubt.

``read_head`` reads the strict core of HTTP/1.1 (RFC 9112) that proxies send, and nothing else: where it answers a
Head, every parser agrees about what the request is and where it ends. Whatever is unusual, lenient, ambiguous or
wrong is None, and somebody with more patience decides about it (``lane``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HEAD: Final = 8000
"""Bytes of a head that is read here: below aiohttp's limit of a single line."""
_MAX_HEADERS: Final = 100

# One pass, without a step back: possessive quantifiers, and classes that do not overlap with what follows them.
# No bare CR or LF, no control character, no byte above 0x7e, no line that continues another one.
_HEAD: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1"
    rb"((?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[ \t!-~]*+)*+)"
)
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]*")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")

# They change where a request ends, what follows it, or what has to be answered before its body.
_DOUBTFUL: Final = frozenset(
    {"transfer-encoding", "upgrade", "expect", "trailer", "proxy-connection", "http2-settings", "sec-websocket-key1"}
)


class Head(NamedTuple):
    """One request's head."""

    method: str
    target: str
    """It begins with a slash."""
    headers: dict[str, str]
    """Names in lower case, each once; values without the spaces around them."""
    length: int
    """Bytes of the body, which begins right behind the head."""


def read_head(raw: bytes) -> Head | None:
    """A head without the empty line that ends it; None where there is any doubt about it.

    The connection goes on after such a request: ``Connection: close`` is a doubt.
    """
    if len(raw) > MAX_HEAD:
        return None
    found = _HEAD.fullmatch(raw)
    if found is None:
        return None
    headers: dict[str, str] = {}
    lines = found[3].decode("ascii").split("\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if not len(headers) == len(lines) - 1 <= _MAX_HEADERS:  # a name that comes twice
        return None
    length = headers.get("content-length", "0")
    if (
        not _DOUBTFUL.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not _LENGTH.fullmatch(length)
        or not _HOST.fullmatch(headers.get("host", "?"))
    ):
        return None
    return Head(found[1].decode("ascii"), found[2].decode("ascii"), headers, int(length))
