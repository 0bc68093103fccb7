"""What the endpoint answers, before it is put on the wire by either road."""

from __future__ import annotations

import email.utils
import http
import time
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

PROBLEM: Final = "application/problem+json"
JSON: Final = (("Content-Type", "application/json"),)
SERVER: Final = "hookline"
"""Without a version: whoever can ask need not know what to look up."""

_DECISION: Final = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: {SERVER}\r\nContent-Length: ".encode(
    "ascii"
)
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}


class Reply(NamedTuple):
    """One answer; its length, date and server are added on the way."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def response(self) -> web.Response:
        """For aiohttp."""
        response = web.Response(status=self.status, body=self.body, headers=self.headers)
        response.headers["Server"] = SERVER
        return response


class Refused(Exception):  # noqa: N818 - the call is at fault, not we
    """A call that is answered with a problem document."""

    def __init__(self, status: int, detail: str, *, field: str | None = None, allow: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.allow = allow

    def reply(self) -> Reply:
        """The problem document."""
        headers = [("Content-Type", PROBLEM)]
        if self.allow is not None:
            headers.append(("Allow", self.allow))
        return Reply(self.status, tuple(headers), orjson.dumps(document(self.status, str(self), self.field)))


def document(status: int, detail: str, field: str | None = None) -> dict[str, Any]:
    """A problem document, https://www.rfc-editor.org/rfc/rfc9457."""
    body: dict[str, Any] = {"title": _PHRASES[status], "status": status, "detail": writable(detail)}
    if field:
        body["field"] = field
    return body


def writable(text: str) -> str:
    """Bytes of a request that are not UTF-8 come as lone surrogates, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()


class Wire:
    """Writes replies as the bytes that aiohttp would send for them."""

    def __init__(self) -> None:
        self._second = 0
        self._end = b""

    def decision(self, body: bytes) -> bytes:
        """200 with this JSON."""
        now = int(time.time())
        return b"%b%d%b%b" % (_DECISION, len(body), self._end if now == self._second else self._tick(now), body)

    def reply(self, reply: Reply) -> bytes:
        """Any reply; the connection goes on."""
        status, headers, body = reply
        if headers is JSON and status == http.HTTPStatus.OK:
            return self.decision(body)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{lines}Server: {SERVER}\r\nContent-Length: {len(body)}"
        return b"%b%b%b" % (head.encode("ascii"), self._tick(int(time.time())), body)

    def _tick(self, now: int) -> bytes:
        """The end of the head; RFC 9110, 6.6.1, asks for the date."""
        if now != self._second:
            self._second, self._end = now, f"\r\nDate: {email.utils.formatdate(now, usegmt=True)}\r\n\r\n".encode()
        return self._end
