"""One connection: calls and answers as bytes of HTTP/1.1, several calls in flight.

Answers come in the order of the calls. A call that nobody waits for any longer keeps its place in that order, so that
its late answer is skipped and never taken for another's. What a connection receives is checked and bounded
before anything is made of it; the first byte that is wrong ends the connection.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections import deque
from typing import Final, Protocol, cast

from hookline_client.errors import HookError, LostError, MalformedError

_MAX_HEAD: Final = 16 * 1024
_BEGINNING: Final = b"HTTP/1.1 "
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")  # RFC 9110, 5.1 and 5.5
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")

Head = tuple[int, int, bool]
"""Status, bytes of the body, and whether the connection ends with this answer."""


class Call:
    """One call under way. ``answered`` is done when ``status`` and ``body`` are there, or ``error`` is."""

    __slots__ = ("answered", "body", "connection", "data", "error", "status", "timer")

    def __init__(self, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.data = data
        self.answered: asyncio.Future[None] = loop.create_future()
        self.connection: Connection | None = None
        """Where it was sent; None while it waits."""
        self.timer: asyncio.TimerHandle | None = None
        self.error: HookError | None = None
        self.status = 0
        self.body = b""

    def fail(self, error: HookError) -> None:
        """End it. The error is kept here: the future's own would be logged where nobody waits."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.answered.done():
            self.error = error
            self.answered.set_result(None)


class Owner(Protocol):
    """Who has a connection, and learns what becomes of it."""

    def freed(self, connection: Connection) -> None:
        """It has room for another call."""

    def drop(self, connection: Connection) -> None:
        """It takes no more calls."""

    def share(self) -> None:
        """It has ended, so a new one may be opened."""


class Connection(asyncio.Protocol):
    """One connection to the sidecar. Answers of more than ``limit`` bytes end it."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, *, limit: int) -> None:
        self.calls: deque[Call] = deque()
        """Sent and not answered, in order."""
        self.is_leaving = False
        """A call on it came to its deadline: it is slow, or stuck, and gets no other call."""
        self.is_stuck = False
        """What was written last is still here: the sidecar does not read."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self._owner = owner
        self._limit = limit
        self._held = bytearray()
        self._awaited: Head | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    @property
    def is_usable(self) -> bool:
        """Whether a call may be sent now."""
        return not (self.is_leaving or self.is_stuck or self._transport.is_closing())

    @property
    def is_deserted(self) -> bool:
        """Whether nobody waits for any of its answers."""
        return all(call.answered.done() for call in self.calls)

    def send(self, call: Call) -> None:
        """Write a call, as a whole."""
        call.connection = self
        self.calls.append(call)
        self._transport.write(call.data)

    def end(self) -> None:
        """Close at once; ``ended`` follows."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        held, before = self._held, len(self.calls)
        try:
            if held:
                held += data
                del held[: self._read(held)]
            elif (read := self._read(data)) < len(data):
                held += memoryview(data)[read:]
            if len(self.calls) < before:
                # Only now: an answer too many must not find a new call that it could be taken for the answer of.
                self._owner.freed(self)
        except MalformedError as error:
            if self.calls:
                self.calls.popleft().fail(error)
            self._owner.drop(self)
            self.end()

    def eof_received(self) -> None:
        """Part of asyncio.Protocol: the transport closes itself."""
        self._owner.drop(self)

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_stuck = True

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.is_stuck = False
        self._owner.freed(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._owner.drop(self)
        why = f": {error}" if error is not None else ""
        while self.calls:
            self.calls.popleft().fail(LostError(f"the connection ended before the answer{why}"))
        self.ended.set_result(None)
        self._owner.share()

    def _read(self, data: bytes | bytearray) -> int:
        """Take whole answers; how many bytes those were. Raises MalformedError."""
        at, size = 0, len(data)
        while True:
            if self._awaited is None:
                if at == size:
                    return at
                if not self.calls:
                    raise MalformedError("there was an answer to no call")
                end = data.find(b"\r\n\r\n", at, at + _MAX_HEAD)
                if end < 0:
                    if size - at >= _MAX_HEAD or not data.startswith(_BEGINNING[: size - at], at):
                        raise MalformedError(
                            f"the answer does not begin with a head of HTTP/1.1: {bytes(data[at : at + 60])!r}"
                        )
                    return at
                self._awaited = read_head(bytes(data[at:end]))
                if self._awaited[1] > self._limit:
                    raise MalformedError(f"the answer has {self._awaited[1]} bytes; {self._limit} is the limit")
                at = end + 4
            status, length, is_last = self._awaited
            if size - at < length:
                return at
            call = self.calls.popleft()
            call.status, call.body = status, bytes(data[at : at + length])
            at += length
            self._awaited = None
            if call.timer is not None:
                call.timer.cancel()
            if not call.answered.done():
                call.answered.set_result(None)
            if is_last:
                self._owner.drop(self)
                self.end()
                return size


@functools.lru_cache(maxsize=32)  # the same thousands of times: a head changes with the clock and the body's length
def read_head(head: bytes) -> Head:
    """Read a head strictly: exactly one length, no transfer coding, nothing that two readers read differently."""
    status, *lines = head.split(b"\r\n")
    line = _STATUS.fullmatch(status)
    if line is None:
        raise MalformedError(f"the answer is not HTTP/1.1: {status[:60]!r}")
    length, is_last = None, False
    for each in lines:
        field = _FIELD.fullmatch(each)
        if field is None:
            raise MalformedError(f"the answer's head has a malformed line: {each[:60]!r}")
        name, value = field[1].lower(), field[2].strip(b" \t")
        if name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise MalformedError("the answer's Content-Length is not a number, or there are two")
            length = int(value)
        elif name == b"transfer-encoding":
            raise MalformedError("the answer is chunked, and should have a Content-Length")
        elif name == b"connection":
            is_last = is_last or b"close" in value.lower()
    if length is None:
        raise MalformedError("the answer has no Content-Length")
    return int(line[1]), length, is_last
