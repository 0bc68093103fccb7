"""What is answered, before the lane or the server writes it."""

from __future__ import annotations

import http
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

PROBLEM: Final = "application/problem+json"
SERVER: Final = "hookline"
"""Without a version: whoever can ask need not know what to look up."""


class Lines(NamedTuple):
    """Headers that many replies have, ready for the lane and the server. Their values are printable ASCII."""

    pairs: tuple[tuple[str, str], ...]
    raw: bytes


def lines(*pairs: tuple[str, str]) -> Lines:
    """Headers, in their order."""
    return Lines(pairs, "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("ascii"))


JSON: Final = lines(("Content-Type", "application/json"))
REQUEST_ID: Final = "X-Hookline-Request-Id"


class Reply(NamedTuple):
    """One answer; its length, date and server are added on the way."""

    status: int
    headers: Lines
    body: bytes = b""
    request_id: str | None = None
    """A header too, where there is one: printable ASCII."""

    def response(self) -> web.Response:
        """For aiohttp."""
        response = web.Response(status=self.status, body=self.body, headers=self.headers.pairs)
        if self.request_id is not None:
            response.headers[REQUEST_ID] = self.request_id
        response.headers["Server"] = SERVER
        return response


class Problem(Exception):  # noqa: N818 - the call is at fault, not we
    """A call that is answered with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        allow: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.allow = allow
        self.headers = headers

    def reply(self) -> Reply:
        """The problem document."""
        allow = () if self.allow is None else (("Allow", self.allow),)
        problem = document(self.status, str(self), self.field)
        return Reply(self.status, lines(("Content-Type", PROBLEM), *allow, *self.headers), orjson.dumps(problem))


def document(status: int, detail: str, field: str | None = None) -> dict[str, Any]:
    """A problem document, https://www.rfc-editor.org/rfc/rfc9457."""
    body: dict[str, Any] = {"title": http.HTTPStatus(status).phrase, "status": status, "detail": writable(detail)}
    if field:
        body["field"] = field
    return body


def writable(text: str) -> str:
    """Bytes of a request that are not UTF-8 come as lone surrogates, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()
