"""What the endpoint answers, before it is put on the wire by either road."""

from __future__ import annotations

import asyncio
import email.utils
import http
import time
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

PROBLEM: Final = "application/problem+json"
SERVER: Final = "hookline"
"""Without a version: whoever can ask need not know what to look up."""


class Lines(NamedTuple):
    """Headers that many replies have, ready for both roads. No value holds anything but printable ASCII."""

    pairs: tuple[tuple[str, str], ...]
    raw: bytes


def lines(*pairs: tuple[str, str]) -> Lines:
    """Headers, in their order."""
    return Lines(pairs, "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("ascii"))


JSON: Final = lines(("Content-Type", "application/json"))
_REQUEST_ID: Final = "X-Hookline-Request-Id"
_RAW_REQUEST_ID: Final = f"{_REQUEST_ID}: ".encode()
_LENGTH: Final = f"Server: {SERVER}\r\nContent-Length: ".encode()
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus}
_MAX_KNOWN: Final = 1024
_DECISION: Final = _STATUS[200] + JSON.raw + _LENGTH


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
            response.headers[_REQUEST_ID] = self.request_id
        response.headers["Server"] = SERVER
        return response


class Refused(Exception):  # noqa: N818 - the call is at fault, not we
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


class Wire:
    """Writes replies as the bytes that aiohttp would send for them. For one event loop, on its thread."""

    def __init__(self) -> None:
        self._end = b""
        """The end of heads in this second; empty until one is asked for."""
        self._heads: dict[int, bytes] = {}
        """Of decisions in this second, by their length."""

    def decision(self, body: bytes) -> bytes:
        """200 with this JSON."""
        return (self._heads.get(len(body)) or self._head(len(body))) + body

    def reply(self, reply: Reply) -> bytes:
        """Any reply; the connection goes on."""
        status, headers, body, request_id = reply
        if headers is JSON and status == http.HTTPStatus.OK:
            return self.decision(body)
        told = b"" if request_id is None else b"%b%b\r\n" % (_RAW_REQUEST_ID, request_id.encode("ascii"))
        end = self._end or self._tick()
        return b"%b%b%b%b%d%b%b" % (_STATUS[status], headers.raw, told, _LENGTH, len(body), end, body)

    def _head(self, length: int) -> bytes:
        if len(self._heads) >= _MAX_KNOWN:
            self._heads.clear()
        head = self._heads[length] = b"%b%d%b" % (_DECISION, length, self._end or self._tick())
        return head

    def _tick(self) -> bytes:
        """The end of the head; RFC 9110, 6.6.1, asks for the date. A clock is cheaper not asked for each answer."""
        now = time.time()
        self._end = f"\r\nDate: {email.utils.formatdate(now, usegmt=True)}\r\n\r\n".encode()
        asyncio.get_running_loop().call_later(1 - now % 1, self._expire)
        return self._end

    def _expire(self) -> None:
        self._end = b""
        self._heads.clear()
