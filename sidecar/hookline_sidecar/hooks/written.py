"""Replies as the bytes that aiohttp would send for them."""

from __future__ import annotations

import asyncio
import email.utils
import http
import time
from typing import TYPE_CHECKING, Final

from hookline_sidecar.replies import JSON, REQUEST_ID, SERVER

if TYPE_CHECKING:
    from hookline_sidecar.replies import Reply

_RAW_REQUEST_ID: Final = f"{REQUEST_ID}: ".encode()
_LENGTH: Final = f"Server: {SERVER}\r\nContent-Length: ".encode()
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus}
_DECISION: Final = _STATUS[200] + JSON.raw + _LENGTH
_MAX_KNOWN: Final = 1024


class Writer:
    """Writes replies. For one event loop, on its thread."""

    def __init__(self) -> None:
        self._end = b""
        """What ends each head in this second; empty until one is asked for."""
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
        given_id = b"" if request_id is None else b"%b%b\r\n" % (_RAW_REQUEST_ID, request_id.encode("ascii"))
        end = self._end or self._tick()
        return b"%b%b%b%b%d%b%b" % (_STATUS[status], headers.raw, given_id, _LENGTH, len(body), end, body)

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
