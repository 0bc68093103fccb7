"""A plugin's log: what its guest says by ``log``, and what it writes to standard output and standard error.

All of it is told to the call too (``hookline_runtime.guest.said``), and has one budget of lines.
"""

from __future__ import annotations

import logging
import struct
import time
from typing import TYPE_CHECKING, Final

from hookline_api.abi import MAX_LOG_LINE
from hookline_api.bundle import REDACTED
from hookline_runtime.guest.said import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.guest.said import Said

LINES_PER_SECOND: Final = 20
# https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2
_ERRNO_BADF: Final = 8
_ERRNO_FAULT: Final = 21
_ERRNO_INVAL: Final = 28
_ERRNO_IO: Final = 29
_IOVEC: Final = struct.Struct("<II")
_MAX_IOVECS: Final = 1024
_MAX_WRITTEN: Final = 64 * 1024
"""Bytes of one ``fd_write`` that are looked at. No deadline sees into it, so the rest is counted as written."""
_MAX_LINES: Final = 64
"""Lines of one ``fd_write`` that are looked at: half of them the first, half the last."""
_U32: Final = 0xFFFFFFFF

guest_log = logging.getLogger("hookline.guest")


class GuestLog:
    """One plugin's."""

    def __init__(self, plugin: BundlePlugin) -> None:
        self._name = plugin.name
        self._secrets = plugin.secrets()
        self._second = 0
        self._lines = 0

    def without_secrets(self, text: str) -> str:
        """The text, in which each value of a Secret that stands there by mistake is replaced.

        A guest that means to can write them in another way.
        """
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text

    def say(self, said: Said, level: int, line: bytes) -> bool:
        """One line, at one of logging's levels; whether there was room for it in this second."""
        line = line[:MAX_LOG_LINE]
        said.hear(line, loud=level >= logging.WARNING)
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND:
            return False
        told = self.without_secrets(line.decode(errors="replace"))
        guest_log.log(level, "%s: %s", self._name, one_line(told, MAX_LOG_LINE))
        return True

    def write(self, said: Said, descriptor: int, data: bytes) -> bool:
        """Bytes that a guest writes to standard output (1) or standard error (2); whether there was room for all.

        Each line is one of the log, cut where it is longer; what is not ended yet waits for its end, or that of the
        call. Lines of white space alone are passed over.
        """
        room = len(data) <= _MAX_WRITTEN
        lines = data[:_MAX_WRITTEN].split(b"\n")
        lines[0] = said.unfinished(descriptor) + lines[0]
        rest = lines.pop()
        if len(lines) > _MAX_LINES:
            room = False
            lines[_MAX_LINES // 2 : -_MAX_LINES // 2] = []
        level = logging.WARNING if descriptor == _STANDARD_ERROR else logging.INFO
        for line in lines:
            if line and not line.isspace():
                room = self.say(said, level, line.rstrip()) and room
        if rest:
            said.keep(descriptor, rest, self._end)
        return room

    def _end(self, said: Said, descriptor: int, rest: bytes) -> None:
        self.write(said, descriptor, rest + b"\n")

    def fd_write(self, count_refused: Callable[[str], None]) -> Callable[[GuestMemory, int, int, int, int], int]:
        """WASI's function: it answers an errno. Where the log has no room, all is written as far as the guest knows."""

        def fd_write(memory: GuestMemory, descriptor: int, vectors: int, count: int, written: int) -> int:
            if descriptor not in {_STANDARD_OUTPUT, _STANDARD_ERROR}:
                return _ERRNO_BADF
            count &= _U32
            if count > _MAX_IOVECS:
                return _ERRNO_INVAL
            table = memory.read(vectors, count * _IOVEC.size)
            if table is None:
                return _ERRNO_FAULT
            pieces, size = [], 0
            for pointer, length in _IOVEC.iter_unpack(table):
                if size < _MAX_WRITTEN:
                    piece = memory.read(pointer, min(length, _MAX_WRITTEN - size + 1))
                    if piece is None:
                        return _ERRNO_FAULT
                    pieces.append(piece)
                size += length
            if size > _U32:
                return _ERRNO_INVAL
            if not memory.write(written, size.to_bytes(4, "little")):
                return _ERRNO_FAULT
            try:
                if not self.write(memory.said(), descriptor, b"".join(pieces)):
                    count_refused("fd_write")
            except Exception:  # noqa: BLE001 - of ours; the guest gets a code
                return _ERRNO_IO
            return 0

        return fd_write
