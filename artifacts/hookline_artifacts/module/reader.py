"""Numbers, names and lists in a module's bytes, read where they lie: nothing is copied but what is asked for.

https://webassembly.github.io/spec/core/binary/values.html
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

Buffer = bytes | memoryview | mmap.mmap

COMPONENT_HEADER: Final = b"\0asm\x0d\0\x01\0"
"""How a component begins."""
MAX_NAME: Final = 100_000
"""Bytes of a name, as engines have it (https://webassembly.github.io/spec/js-api/#limits)."""


class MalformedError(Exception):
    """A module's bytes are not what the format says."""


@dataclass(slots=True)
class Reader:
    """A cursor over one section. Reading past ``end`` raises MalformedError; nothing is made before it is there."""

    data: Buffer
    at: int
    end: int

    def byte(self) -> int:
        """The next one."""
        if self.at >= self.end:
            raise MalformedError("a section ends too early")
        value = self.data[self.at]
        self.at += 1
        return value

    def number(self, bits: int = 32) -> int:
        """An unsigned LEB128 number, in no more bytes than one of so many bits may have."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                break
            shift += 7
            if shift >= bits:
                raise MalformedError("a number is too long")
        if result >> bits:
            raise MalformedError("a number is too large")
        return result

    def signed(self, bits: int = 64) -> int:
        """A signed LEB128 number, in no more bytes than one of so many bits may have."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                value = result - (1 << shift) if byte & 0x40 else result
                if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
                    raise MalformedError("a number is too large")
                return value
            if shift >= bits:
                raise MalformedError("a number is too long")

    def count(self) -> int:
        """The length of a vector; every element takes a byte at the least."""
        value = self.number()
        if value > self.end - self.at:
            raise MalformedError("a list is longer than its section")
        return value

    def skip(self, size: int) -> None:
        """Pass over that many bytes."""
        if size > self.end - self.at:
            raise MalformedError("a section ends too early")
        self.at += size

    def take(self, size: int) -> bytes:
        """That many bytes."""
        self.skip(size)
        return bytes(self.data[self.at - size : self.at])

    def name(self) -> str:
        """A text with its length in front; raises UnicodeDecodeError too."""
        size = self.number()
        if size > MAX_NAME:
            raise MalformedError(f"a name has more than {MAX_NAME} bytes")
        return self.take(size).decode()
