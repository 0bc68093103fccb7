"""The code of functions, walked instruction by instruction without an engine.

Whether instructions fit together is the compiler's to find out. What is found here is what Hookline runs at all: each
instruction is one of the engine's, with what belongs behind it, and none is of a proposal that is off.

The walk is a regular expression for a stretch of instructions, since a step in Python for each would take a minute for
a large module. It is possessive, so it never goes back and is linear; and a stretch is short, because an expression
holds the interpreter for as long as it runs. Where it stops, one of the few instructions follows that it cannot read,
or one that is not to be run.

Opcodes: https://webassembly.github.io/spec/core/binary/instructions.html and the proposals.
"""

from __future__ import annotations

import re
from typing import Final

from hookline_artifacts.module.proposals import Proposal, ProposalError, check_value_type
from hookline_artifacts.module.reader import Buffer, MalformedError, Reader

_STRETCH: Final = 20_000
"""Instructions that are walked at once: some milliseconds."""
_U32: Final = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_I32: Final = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x07\x78-\x7f])"
_I64: Final = rb"(?:[\x80-\xff]{0,8}[\x00-\x7f]|[\x80-\xff]{9}[\x00\x7f])"
_PLACE: Final = rb"(?:[\x00-\x3f]|[\x80-\xbf]\x80{0,3}\x00)" + _U32
"""Alignment and offset. A larger alignment names another memory (multi-memory)."""
_BLOCK: Final = rb"(?:[\x40\x7b-\x7f\x70]|[\x00-\x3f]|[\x80-\xff]{1,3}[\x00-\x3f]|[\x80-\xff]{4}[\x00-\x07])"
_INSTRUCTIONS: Final = (
    rb"[\x0c\x0d\x10\x12\x20-\x26\xd2]" + _U32,  # branches, calls, locals, globals, tables, ref.func
    rb"[\x00\x01\x05\x0b\x0f\x1a\x1b\x45-\xc4\xd1]",
    rb"\x41" + _I32,
    rb"[\x28-\x3e]" + _PLACE,
    rb"[\x02-\x04]" + _BLOCK,
    rb"\x42" + _I64,
    rb"[\x11\x13]" + _U32 + _U32,  # calls through a table
    rb"[\x3f\x40]\x00",
    rb"\x44.{8}",
    rb"\x43.{4}",
    rb"\xd0\x70",
    rb"\xfc(?:[\x00-\x07\x13-\x16]|\x0b\x00|\x0a\x00\x00|\x08" + _U32 + rb"\x00|[\x09\x0d\x0f-\x11]" + _U32
    + rb"|[\x0c\x0e]" + _U32 + _U32 + rb")",
    rb"\xfd(?:\x0c.{16}|\x0d[\x00-\x1f]{16}|[\x00-\x0b\x5c\x5d]" + _PLACE + rb"|[\x54-\x5b]" + _PLACE + rb"."
    rb"|[\x15-\x22].|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\x93]\x02"
    rb"|[\x80-\x99\x9b-\xa1\xa3\xa4\xa7-\xae\xb1\xb5-\xba\xbc-\xc1\xc3\xc4\xc7-\xce\xd1\xd5-\xe1\xe3-\xed\xef-\xff]\x01)",
)  # fmt: skip
_RUN: Final = re.compile(rb"(?:" + rb"|".join(_INSTRUCTIONS) + rb"){0,%d}+" % _STRETCH, re.DOTALL)
_ONE: Final = re.compile(rb"|".join(_INSTRUCTIONS), re.DOTALL)
_LONGEST: Final = 32
"""Bytes behind the number of a prefixed instruction, at the most."""
_NUMBERS: Final = tuple(re.compile(_U32 + rb"{%d}+" % (1 << bit)) for bit in range(14))
"""Runs of numbers, each twice as long as the one before it."""

_PREFIXED: Final = {
    0xFE: Proposal.THREADS, 0xFB: Proposal.GC,
    **dict.fromkeys((0x06, 0x07, 0x08, 0x09, 0x0A, 0x18, 0x19, 0x1F), Proposal.EXCEPTIONS),
    **dict.fromkeys((0x14, 0x15, 0xD4, 0xD5, 0xD6), Proposal.FUNCTION_REFERENCES), 0xD3: Proposal.GC,
    **dict.fromkeys(range(0xE0, 0xE7), Proposal.STACK_SWITCHING),
}  # fmt: skip
"""By the first byte of an instruction."""
_BR_TABLE, _SELECT_TYPED, _REF_NULL, _BULK, _VECTOR = 0x0E, 0x1C, 0xD0, 0xFC, 0xFD
_MULTI_MEMORY_FLAG: Final = 0x40
_NUMERIC: Final = 0x7F
_MEMORY_WORDS: Final = {0x08: (1, 1), 0x0A: (0, 2), 0x0B: (0, 1)}
"""Of the bulk instructions on memory: numbers in front of the memories' indices, and how many of those."""


def check_code(data: Buffer, at: int, end: int) -> None:
    """Walk the instructions of one function. Raises ProposalError and MalformedError."""
    if end <= at or data[end - 1] != 0x0B:  # noqa: PLR2004 - the end of every function
        raise MalformedError("a function does not end")
    while at < end:
        match = _RUN.match(data, at, end)
        walked = at if match is None else match.end()
        at = walked if walked > at else _other(Reader(data, at, end))


def _other(reader: Reader) -> int:
    """One instruction that the expression does not know; where the next one begins."""
    opcode = reader.byte()
    if opcode in _PREFIXED:
        raise ProposalError(_PREFIXED[opcode])
    if opcode == _BR_TABLE:
        skip_numbers(reader, reader.count() + 1)
        return reader.at
    if opcode == _SELECT_TYPED:
        if reader.number() != 1:
            raise MalformedError("a function selects other than one value")
        check_value_type(reader.byte())
        return reader.at
    if opcode in {0x02, 0x03, 0x04, _REF_NULL}:
        check_value_type(reader.byte(), reference=opcode == _REF_NULL)
    elif opcode in {0x3F, 0x40}:
        reader.byte()
        raise ProposalError(Proposal.MULTI_MEMORY)
    elif 0x28 <= opcode <= 0x3E:  # noqa: PLR2004 - loads and stores
        _refuse_place(reader)
    elif opcode in {_BULK, _VECTOR}:
        return _prefixed(reader, opcode)
    raise MalformedError(f"a function has the unknown instruction {opcode:#04x}, or one that is cut off")


def _prefixed(reader: Reader, opcode: int) -> int:
    number = reader.number()
    # Written in more bytes than it takes, it is the same number.
    short = bytes((opcode, number)) if number < 0x80 else bytes((opcode, number & 0x7F | 0x80, number >> 7 & 0x7F))  # noqa: PLR2004
    behind = bytes(reader.data[reader.at : min(reader.end, reader.at + _LONGEST)])
    match = _ONE.match(short + behind) if number >> 14 == 0 else None
    if match is not None:
        return reader.at + match.end() - len(short)
    if opcode == _BULK and number in _MEMORY_WORDS:
        before, memories = _MEMORY_WORDS[number]
        skip_numbers(reader, before)
        if sum(reader.number() for _ in range(memories)):  # all of them are read
            raise ProposalError(Proposal.MULTI_MEMORY)
        return reader.at
    if opcode == _VECTOR and (number <= 0x0B or 0x54 <= number <= 0x5D):  # noqa: PLR2004 - loads and stores
        _refuse_place(reader)
    raise MalformedError(f"a function has the unknown instruction {opcode:#04x} {number}, or one that is cut off")


def _refuse_place(reader: Reader) -> None:
    if reader.number() & _MULTI_MEMORY_FLAG:
        raise ProposalError(Proposal.MULTI_MEMORY)
    if reader.number(64) >> 32:
        raise ProposalError(Proposal.MEMORY64)


def skip_numbers(reader: Reader, count: int) -> None:
    """Pass over that many numbers of 32 bits."""
    longest = len(_NUMBERS) - 1
    while count:
        bit = min(count.bit_length() - 1, longest)
        match = _NUMBERS[bit].match(reader.data, reader.at, reader.end)
        if match is None:
            raise MalformedError("a section ends too early")
        reader.at = match.end()
        count -= 1 << bit
