"""Counts what comes in on a WebSocket before it is parsed.

The library hands out whole messages. Empty fragments, pings and halves of frames cost work all the same, and nobody
sees them. So frames and bytes are counted as they come. Too many bytes make the sender wait. Too many frames, or a
message that does not end, close the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from hookline_operator.rations import Ration

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

_FRAMES: Final = 500
"""Frames at once: ten seconds of a sidecar that reports each change of a thousand plugins at its start."""
_FRAMES_EACH_SECOND: Final = 100
"""Frames in each second: twice as many as a sidecar sends, which rests for 20 ms after each report."""
_BYTES: Final = 4 * 2**20
"""Bytes at once: four reports of the greatest size."""
_BYTES_EACH_SECOND: Final = 2**20
"""Bytes in each second. More wait in the network, and their sender waits with them."""
_UNFINISHED_S: Final = 20.0
"""Seconds for a message, from its first byte to its last. It holds its bytes, and a mebibyte takes one second."""

FLOOD: Final = "flood"
UNFINISHED: Final = "unfinished"


class FrameGate:
    """Takes the place of a connection's parser, and feeds the parser."""

    def __init__(self, parser: Any, transport: asyncio.Transport, refused: Callable[[str], None]) -> None:
        """``refused`` is called once with why nothing more is let through: ``FLOOD`` or ``UNFINISHED``."""
        self._parser = parser
        self._transport = transport
        self._refused = refused
        self._frames = Ration(burst=_FRAMES, each_second=_FRAMES_EACH_SECOND)
        self._bytes = Ration(burst=_BYTES, each_second=_BYTES_EACH_SECOND)
        self._head = bytearray()
        """Of a frame that is not complete."""
        self._rest = 0
        """Bytes that are missing of the frame's payload."""
        self._fragmented = False
        self._is_shut = False
        self._unfinished: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None

    @classmethod
    def install(cls, request: web.Request, refused: Callable[[str], None]) -> FrameGate | None:
        """Put a gate before the parser of a prepared WebSocket. Returns None where the connection is gone already."""
        protocol, transport = request.protocol, request.transport
        # aiohttp has no place for this: what it calls for each piece of data does not get the data.
        parser = protocol._payload_parser  # noqa: SLF001
        if parser is None or not isinstance(transport, asyncio.Transport):
            return None
        gate = protocol._payload_parser = cls(parser, transport, refused)  # noqa: SLF001
        return gate

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """As a parser."""
        if self._is_shut:
            return False, b""
        if not self._count(data):
            self._shut(FLOOD)
            return False, b""
        owed = self._bytes.spend(len(data))
        if owed and self._pause is None:
            self._transport.pause_reading()
            self._pause = asyncio.get_running_loop().call_later(owed, self._go_on)
        ended, tail = self._parser.feed_data(data)
        return bool(ended), bytes(tail)

    def feed_eof(self) -> None:
        """As a parser."""
        self.close()
        self._parser.feed_eof()

    def close(self) -> None:
        """The connection ends: cancel the timers."""
        for timer in (self._unfinished, self._pause):
            if timer is not None:
                timer.cancel()
        self._unfinished = self._pause = None

    def _go_on(self) -> None:
        self._pause = None
        if not self._is_shut and not self._transport.is_closing():
            self._transport.resume_reading()

    def _shut(self, why: str) -> None:
        """Read nothing more. What is said to the other side is its owner's to say."""
        self.close()
        self._is_shut = True
        self._transport.pause_reading()
        self._refused(why)

    def _count(self, data: bytes) -> bool:
        """Follow the frames (RFC 6455, section 5.2). Whether there may be so many; it ends with the first too many."""
        position, size, head = 0, len(data), self._head
        while position < size:
            if self._rest:
                passed = min(self._rest, size - position)
                self._rest -= passed
                position += passed
                continue
            wanted = _head_size(head) - len(head)
            head += data[position : position + wanted]
            position += wanted
            if len(head) < _head_size(head):
                continue
            if not self._frames.take():
                return False
            if not head[0] & 0x08:  # a control frame may stand in the middle of a message
                self._fragmented = not head[0] & 0x80
            self._rest = _payload_size(head)
            head.clear()
        if not (self._rest or head or self._fragmented):
            if self._unfinished is not None:
                self._unfinished.cancel()
                self._unfinished = None
        elif self._unfinished is None:
            self._unfinished = asyncio.get_running_loop().call_later(_UNFINISHED_S, self._shut, UNFINISHED)
        return True


def _head_size(head: bytearray) -> int:
    """Bytes of a frame's head, as far as is known of it."""
    if len(head) < 2:  # noqa: PLR2004
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 0x7F, 0) + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytearray) -> int:
    short = head[1] & 0x7F
    return int.from_bytes(head[2:4] if short == 126 else head[2:10]) if short >= 126 else short  # noqa: PLR2004
