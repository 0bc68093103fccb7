"""Modules byte by byte, as no text format would write them, and what inspection and the engine say of them."""

from __future__ import annotations


def leb(number):
    """An unsigned number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def vector(*items):
    """A list."""
    return leb(len(items)) + b"".join(items)


def section(number, body):
    """A section."""
    return bytes((number,)) + leb(len(body)) + body


def module(*parts):
    """A module of sections."""
    return b"\0asm\x01\0\0\0" + b"".join(parts)


def body(code, local_groups=b"\0"):
    """A function's code, its size in front."""
    return leb(len(local_groups) + len(code)) + local_groups + code


NO_TYPE = b"\x60\0\0"
PLAIN = (section(1, vector(NO_TYPE)), section(3, vector(b"\0")))
CODE = section(10, vector(body(b"\x0b")))


I32 = b"\x7f"
MEMORY = section(5, vector(b"\0\x01"))
