"""RESP2, the protocol of Valkey and Redis, read strictly: https://valkey.io/topics/protocol/.

A server is trusted with a plugin's keys, and with nothing else: what it sends is bounded in bytes, elements and depth,
and each byte is looked at once, however the network cuts the stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 1024
"""Bytes of a line: a number, a status, or the words of an error."""
MAX_DEPTH: Final = 8
MAX_ELEMENTS: Final = 8192
"""Of one reply, in all of its arrays."""
MAX_REPLY: Final = 4 * 2**20
"""Bytes of one reply, unless whoever asks has a smaller bound."""
_NUMBER: Final = re.compile(rb"-?[0-9]{1,20}")
_CODE: Final = re.compile(rb"[A-Z][A-Z0-9]{0,31}")
_COLON, _DOLLAR, _STAR, _PLUS, _MINUS = b":$*+-"


class GarbageError(Exception):
    """The server sends what is not RESP2, or more than is taken; the message is part of a sentence, in our words."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a reply."""

    code: str
    """The first word, such as ``OOM``; ``ERR`` where it is none."""
    rest: bytes = b""
    """What stands behind it. DANGER: it may quote the command, and with it a password or a value: never to be shown."""


Reply = bytes | int | None | Refusal | list["Reply"]


def packed(parts: Sequence[bytes]) -> bytes:
    """A command's bytes."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces.append(b"$%d\r\n" % len(part))
        pieces.append(part)
        pieces.append(b"\r\n")
    return b"".join(pieces)


class _Array:
    """One whose elements still come."""

    __slots__ = ("items", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.items: list[Reply] = []


class Parser:
    """Cuts a stream into replies."""

    def __init__(self, most_bytes: int = MAX_REPLY) -> None:
        self._most = most_bytes
        self._rest = bytearray()
        """What has come of a line, or of a string, that is not whole."""
        self._seen = 0
        """Bytes of it in which there is no end of a line."""
        self._wanted = -1
        """Bytes of the string that comes next; -1: a line."""
        self._arrays: list[_Array] = []
        self._bytes = self._elements = 0
        """Of the reply that comes, as far as it has said."""

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are whole with these bytes. Raises GarbageError, and is of no use after that."""
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
        replies: list[Reply] = []
        at = 0
        while True:
            end = self._step(source, at, replies)
            if end == at:
                break
            at = end
        if source is self._rest:
            del self._rest[:at]
        elif at < len(data):
            self._rest += data[at:]
        return replies

    def _step(self, source: bytes | bytearray, at: int, replies: list[Reply]) -> int:
        """Take one line, or one string; where what follows begins, which is ``at`` where it is not whole."""
        if self._wanted >= 0:
            end = at + self._wanted
            if len(source) < end + 2:
                return at
            if source[end : end + 2] != b"\r\n":
                raise GarbageError("a string that is longer than it said")
            self._wanted = -1
            self._put(bytes(source[at:end]), replies)
            return end + 2
        end = source.find(b"\r\n", at + self._seen)
        if end < 0:
            if len(source) - at > MAX_LINE:
                raise GarbageError(f"a line of more than {MAX_LINE} bytes")
            self._seen = max(0, len(source) - at - 1)  # the last may be half of the end
            return at
        self._seen = 0
        if end - at > MAX_LINE or end == at:
            raise GarbageError(f"a line that is empty or has more than {MAX_LINE} bytes")
        self._line(source[at], bytes(source[at + 1 : end]), replies)
        return end + 2

    def _line(self, kind: int, text: bytes, replies: list[Reply]) -> None:
        size = self._size(text) if kind in {_DOLLAR, _STAR} else 0
        self._bytes += len(text) + (size if kind == _DOLLAR and size > 0 else 0)
        if self._bytes > self._most:
            raise GarbageError(f"a reply of more than {self._most} bytes")
        if kind == _DOLLAR:
            if size < 0:
                self._put(None, replies)
            else:
                self._wanted = size
        elif kind == _COLON:
            if not _NUMBER.fullmatch(text):
                raise GarbageError("a number that is none")
            self._put(int(text), replies)
        elif kind == _PLUS:
            self._put(text, replies)
        elif kind == _MINUS:
            code, _, rest = text.partition(b" ")
            self._put(Refusal(code.decode() if _CODE.fullmatch(code) else "ERR", rest), replies)
        elif kind == _STAR:
            self._begin(size, replies)
        else:
            raise GarbageError("bytes that are not RESP2")

    def _begin(self, count: int, replies: list[Reply]) -> None:
        if count < 0:
            self._put(None, replies)
        elif count == 0:
            self._put([], replies)
        else:
            self._elements += count
            if self._elements > MAX_ELEMENTS or len(self._arrays) >= MAX_DEPTH:
                raise GarbageError(f"a reply of more than {MAX_ELEMENTS} elements, or deeper than {MAX_DEPTH}")
            self._arrays.append(_Array(count))

    def _put(self, reply: Reply, replies: list[Reply]) -> None:
        while self._arrays:
            array = self._arrays[-1]
            array.items.append(reply)
            array.left -= 1
            if array.left:
                return
            self._arrays.pop()
            reply = array.items
        self._bytes = self._elements = 0
        replies.append(reply)

    @staticmethod
    def _size(text: bytes) -> int:
        """A length or a count; -1 for the null. Raises GarbageError."""
        if text == b"-1":
            return -1
        if not text.isdigit() or len(text) > 10:  # noqa: PLR2004 - more than any bound has
            raise GarbageError("a length that is none")
        return int(text)
