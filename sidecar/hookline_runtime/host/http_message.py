"""What a guest asks by ``http_fetch`` and what it gets, as JSON: read strictly, and bounded before it is parsed.

A request is ``{"method": "GET", "url": "https://…", "headers": {…}, "body": "text" | "bodyBase64": "…",
"timeoutMs": …}``; all but the URL may be missing. A response is ``{"status", "headers", "body" | "bodyBase64",
"fromCache"}``: names in lower case, repeated headers joined by a comma, the body as text where it is UTF-8. What went
wrong is ``{"error": {"cause", "message"}}``, with the cause ``timeout``, ``denied``, ``limit`` or ``failed``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from hookline_api import json_cost

MAX_BODY: Final = 2**20
"""Bytes of a body, of a request and of a response; of a compressed one, as it came and as it is."""
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024
"""Of all names and values of one request or response."""
MAX_URL: Final = 8192
MAX_TIMEOUT_MS: Final = 60_000
MAX_REQUEST: Final = MAX_BODY * 4 // 3 + 2 * MAX_HEADER_BYTES + 2 * MAX_URL
"""Bytes of a request as JSON: a body in base64, and room for the rest."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FIELDS: Final = frozenset({"method", "url", "headers", "body", "bodyBase64", "timeoutMs"})
_MAX_VALUES: Final = 1024
"""Values and names in a request: each field, and two for each header, and some for what is refused with a sentence."""
# https://www.rfc-editor.org/rfc/rfc9110 : 5.6.2 (a token) and 5.5 (a value), without what is beyond ASCII.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_OURS: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "accept-encoding", "http2-settings",
})  # fmt: skip
"""Headers that say where a message goes and where it ends. Two answers to that are how requests are smuggled."""

REPLACED: Final = "the plugin has been replaced, and asks nobody any more"

Cause = Literal["timeout", "denied", "limit", "failed"]


class HttpError(Exception):
    """A request gets no response. The message is one sentence, and shows neither a path nor a header's value."""

    def __init__(self, cause: Cause, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.unreachable = unreachable
        """Whether the server could not be reached, or did not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a guest asks for. The URL is not looked at yet."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    """By names in lower case."""
    body: bytes | None = None
    timeout_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    """By names in lower case, repeated ones joined. Without those of the transport, and of a coding that was undone."""
    body: bytes
    from_cache: bool = False


def read_request(raw: bytes) -> Request:
    """A request as a guest writes it. Raises HttpError."""
    given = _parsed(raw)
    if not isinstance(given, dict):
        raise HttpError("failed", "the request is not a JSON object")
    unknown = given.keys() - _FIELDS
    if unknown:
        raise HttpError("failed", f"the request has the unknown field {min(unknown)!r:.60}")
    method = given.get("method", "GET")
    if not isinstance(method, str) or method not in _METHODS:
        raise HttpError("failed", f"the method is one of {', '.join(sorted(_METHODS))}")
    timeout = given.get("timeoutMs")
    if timeout is not None and (type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT_MS):
        raise HttpError("failed", f"timeoutMs is a number from 1 to {MAX_TIMEOUT_MS}")
    return Request(
        url=checked_url(given.get("url")),
        method=method,
        headers=checked_headers(given.get("headers")),
        body=_body(given),
        timeout_ms=timeout,
    )


def checked_url(url: Any) -> str:
    """A URL, as text that is not too long. Raises HttpError."""
    if not isinstance(url, str) or not url:
        raise HttpError("failed", "the request has no url")
    if len(url) > MAX_URL:
        raise HttpError("limit", f"the url is longer than {MAX_URL} characters")
    return url


def checked_body(body: bytes) -> bytes:
    """A body that is not too large. Raises HttpError."""
    if len(body) > MAX_BODY:
        raise HttpError("limit", f"the request's body is larger than {MAX_BODY} bytes")
    return body


def checked_headers(given: Any) -> dict[str, str]:
    """The headers that a guest may send, by names in lower case. Raises HttpError."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise HttpError("failed", "headers are a JSON object of names and values")
    headers: dict[str, str] = {}
    size = 0
    for name, value in given.items():
        if not _TOKEN.fullmatch(name):
            raise HttpError("denied", f"{name!r:.60} is not a header's name")
        lower = name.lower()
        if lower in _OURS or lower.startswith("proxy-"):
            raise HttpError("denied", f"the header {lower} is the host's to send")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise HttpError("denied", f"the value of the header {lower} is not a text of printable ASCII")
        if lower in headers:
            raise HttpError("denied", f"the header {lower} is there twice")
        headers[lower] = value.strip(" \t")
        size += len(name) + len(value)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise HttpError("limit", f"the request has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them")
    return headers


def write_response(response: Response) -> bytes:
    """A response as a guest reads it."""
    written: dict[str, Any] = {"status": response.status, "headers": response.headers}
    try:
        written["body"] = response.body.decode()
    except UnicodeDecodeError:
        written["bodyBase64"] = base64.b64encode(response.body).decode("ascii")
    return orjson.dumps(written | {"fromCache": response.from_cache})


def write_error(error: HttpError) -> bytes:
    """What went wrong, as a guest reads it."""
    return orjson.dumps({"error": {"cause": error.cause, "message": str(error)}})


def _parsed(raw: bytes) -> Any:
    if len(raw) > MAX_REQUEST:
        raise HttpError("limit", f"the request is larger than {MAX_REQUEST} bytes")
    try:
        json_cost.check(raw, what="the request", max_values=_MAX_VALUES)
        return orjson.loads(raw)
    except json_cost.CostError as error:
        raise HttpError("limit", str(error)) from None
    except orjson.JSONDecodeError:
        raise HttpError("failed", "the request is not JSON") from None


def _body(given: dict[str, Any]) -> bytes | None:
    text, coded = given.get("body"), given.get("bodyBase64")
    if text is None and coded is None:
        return None
    if text is not None and coded is not None:
        raise HttpError("failed", "the request has a body and a bodyBase64, and one of them is enough")
    if text is not None:
        if not isinstance(text, str):
            raise HttpError("failed", "body is a text; give bytes as bodyBase64")
        return checked_body(text.encode())
    if not isinstance(coded, str):
        raise HttpError("failed", "bodyBase64 is not a text")
    try:
        return checked_body(base64.b64decode(coded, validate=True))
    except (binascii.Error, ValueError):
        raise HttpError("failed", "bodyBase64 is not base64") from None
