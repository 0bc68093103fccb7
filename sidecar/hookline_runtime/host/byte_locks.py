"""Numbers that processes share, each held by one of them: bytes of a file, locked.

The kernel gives back what a process held when it dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux, fcntl(2): type, whence, start, length, pid
_NUMBER_BITS: Final = 20
"""Of a lock's offset, for the number; 40 more are the name's. Together less than 63."""


class ByteLocks:
    """The bytes of one name in the file, and which of them are locked here.

    The locks belong to this object's open file (F_OFD_SETLK): two objects of one process exclude each other too.
    """

    def __init__(self, path: Path, key: str, size: int, *, first: int) -> None:
        digest = hashlib.sha256(key.encode()).digest()
        self._base = int.from_bytes(digest[:5]) << _NUMBER_BITS
        self._size = size
        self._first = first
        self._mine: list[int] = []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Lock a byte that nobody has locked; whether there was one."""
        return self._take_within(self._first, self._size) or self._take_within(0, self._first)

    def give(self) -> None:
        """Unlock the byte that was locked last."""
        self._ask(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, self._mine.pop())

    def check(self) -> None:
        """Close this, and raise OSError where there are no locks to be had."""
        try:
            with contextlib.suppress(BlockingIOError):  # somebody else checks
                self._ask(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 0)
        finally:
            self.close()

    def close(self) -> None:
        """Unlock all, for good."""
        self._mine.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1  # the number may be another file's by now

    def _take_within(self, at: int, end: int) -> bool:
        while at < end:
            if at in self._mine:
                at += 1
                continue
            try:
                self._ask(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, at)
            except BlockingIOError:
                at = self._behind(at)
            except OSError:  # the system has no memory for a lock: as good as taken
                return False
            else:
                self._mine.append(at)
                return True
        return False

    def _behind(self, at: int) -> int:
        """The first byte behind the locks that are in the way: a process's permits are often side by side."""
        found: tuple[int, ...] = _FLOCK.unpack(self._ask(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, at))
        kind, _, start, length, _ = found
        if kind == fcntl.F_UNLCK:
            return at + 1  # it has just been given back; whoever waits looks again
        return max(at + 1, start + length - self._base)

    def _ask(self, command: int, kind: int, at: int) -> bytes:
        return fcntl.fcntl(self._file, command, _FLOCK.pack(kind, os.SEEK_SET, self._base + at, 1, 0))
