"""What a module says of its own memory: where its stack is, and its data. Read from its bytes, without an engine.

An input that a guest's ``alloc`` puts on top of either is overwritten while the guest reads it, or overwrites what the
guest decides by. Linkers say where they are, in several ways, and this reads all of them:

- globals of wasm-ld, exported or named in the section ``name``: ``__stack_pointer`` (where the stack begins; it grows
  downwards), ``__stack_low``, ``__stack_high``, ``__global_base``, ``__data_end``, ``__heap_base``
  (https://lld.llvm.org/WebAssembly.html). AssemblyScript names the same behind ``~lib/memory/``.
- Where nothing names it, the stack pointer of LLVM is the first global. It is believed where something else shows that
  LLVM made the module: one of the globals above, data that begins where the stack does, or functions that begin with
  taking room from that global.
- Active data segments, whose bytes a module has from the start.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.reader import MalformedError, Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

STACK_ROOM: Final = 64 * 1024
"""Bytes below where the stack begins that are the stack's alone, or all of a smaller one."""
_LEAST_STACK_ROOM: Final = 8 * 1024
"""What is taken for the stack where a module does not say how large it is, and has data below it: static buffers may be
right there."""

Span = tuple[int, int]
"""The first address, and the one behind the last."""

_MARKS: Final = frozenset({
    "__stack_pointer", "__stack_low", "__stack_high", "__global_base", "__data_end", "__heap_base",
})  # fmt: skip
_GAP: Final = 64
"""Data that is closer together is one piece: Go's linker leaves out every few zeros, and writes 37,000 segments."""
_ALIGNMENT: Final = 16
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF
_MAX_ITEMS: Final = 1_000_000
"""Globals, exports, data segments or names that are read. The engine's own bound for globals and exports; of segments
it takes fewer, and of names the linker's come first."""
_MAX_STACK: Final = 1024
"""Values that a constant may hold at once. Compilers write three at the most."""
_I32: Final = 0x7F
_GLOBAL_NAMES: Final = 7
# global.get 0, i32.const n, i32.sub, local.tee, global.set 0; a linker may write numbers in five bytes.
_PROLOGUE: Final = re.compile(
    rb"\x23(?:\x80{4})?\x00\x41[\x80-\xff]{0,4}[\x00-\x7f]\x6b\x22[\x80-\xff]{0,4}[\x00-\x7f]\x24(?:\x80{4})?\x00"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMap:
    """Where a module has what in its memory, as far as it says so. Addresses in bytes."""

    stack: Span | None = None
    """The shadow stack, or what is known of it; its end is where it begins, and it grows downwards."""
    static: Span | None = None
    """All that the linker placed as data, with what is zero at first."""
    data: tuple[Span, ...] = ()
    """What has bytes from the start, in order."""

    def own(self, *, static: bool) -> tuple[Span, ...]:
        """What no input may touch, in order and apart from each other; ``static`` says whether all data is meant.

        Without it, data that is zero at first is not: a module may keep a buffer for inputs there.
        """
        spans = list(self.data)
        if self.stack is not None:
            spans.append((max(self.stack[0], self.stack[1] - STACK_ROOM), self.stack[1]))
        if static and self.static is not None:
            spans.append(self.static)
        return _merged(spans, gap=0)

    def to_json(self) -> bytes:
        """As ``from_json`` reads it."""
        return json.dumps([self.stack, self.static, self.data]).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> MemoryMap:
        """Raises ValueError where that is not what ``to_json`` wrote."""
        try:
            stack, static, data = json.loads(raw)
            return cls(
                stack=_span(stack) if stack else None,
                static=_span(static) if static else None,
                data=tuple(_span(each) for each in data),
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


NOTHING_SAID: Final = MemoryMap()


def read_memory_map(wasm: bytes) -> MemoryMap:
    """What a valid module says of its memory. Raises VerifyError where it cannot be read."""
    found = _Found()
    try:
        found.read(wasm)
    except (MalformedError, UnicodeDecodeError, IndexError) as error:
        raise VerifyError(f"the module's data cannot be read: {error}") from error
    return found.judge()


def _is_mark(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in _MARKS


def _span(pair: Iterable[int]) -> Span:
    begin, end = pair
    return int(begin), int(end)


def _merged(spans: Iterable[Span], *, gap: int) -> tuple[Span, ...]:
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if begin >= end:
            continue
        if merged and begin <= merged[-1][1] + gap:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return tuple(merged)


@dataclass(slots=True)
class _Found:
    """The sections that say something of memory, as they are read."""

    values: list[int | None] = field(default_factory=list)
    """Of each global: what an i32 begins with; None for others."""
    mutable: list[bool] = field(default_factory=list)
    imported: bool = False
    exported: dict[str, int] = field(default_factory=dict)
    named: dict[int, str] = field(default_factory=dict)
    segments: list[Span] = field(default_factory=list)
    takes_stack: bool = False

    def read(self, wasm: bytes) -> None:
        outer = Reader(wasm, 8, len(wasm))
        readers = {
            0: self._custom,
            2: self._imports,
            6: self._globals,
            7: self._exports,
            10: self._code,
            11: self._data,
        }
        while outer.at < outer.end:
            section, size = outer.byte(), outer.number()
            inner = Reader(wasm, outer.at, outer.at + size)
            outer.skip(size)
            if section in readers:
                readers[section](inner)

    def judge(self) -> MemoryMap:
        marks = self._marks()
        heap, data_end = marks.get("__heap_base"), marks.get("__data_end")
        # A heap that was filled ahead of time (Wizer) is in segments too, and is the allocator's to give.
        segments = _merged(((b, e if heap is None else min(e, heap)) for b, e in self.segments), gap=_GAP)
        top = marks.get("__stack_high", marks.get("__stack_pointer", self._first_global(marks, segments)))
        stack = None
        if top:
            below = [end for begin, end in segments if begin < top]
            low = marks.get("__stack_low")
            if low is None and data_end is not None:
                low = data_end if data_end <= top else 0
            elif low is None:
                low = min(max(*below, top - _LEAST_STACK_ROOM), top) if below else 0
            stack = (low, top)
        end = data_end if data_end is not None else heap
        static = None
        if end:
            first = stack[1] if stack is not None and stack[1] <= end else 0
            static = (marks.get("__global_base", first), end)
        return MemoryMap(stack=stack, static=static, data=segments)

    def _marks(self) -> dict[str, int]:
        """What the linker's names stand for; what is exported wins."""
        marks: dict[str, int] = {}
        names = [(name, index) for index, name in self.named.items()]
        for name, index in (*names, *self.exported.items()):
            value = self.values[index] if index < len(self.values) else None
            if value is not None and _is_mark(name):
                marks[name.rsplit("/", 1)[-1]] = value
        return marks

    def _first_global(self, marks: dict[str, int], segments: tuple[Span, ...]) -> int:
        """Where the stack begins if the first global is LLVM's stack pointer; else 0."""
        top = self.values[0] if self.values else None
        others = 0 in self.named or 0 in self.exported.values() or self.imported
        if not top or top % _ALIGNMENT or others or not self.mutable[0]:
            return 0
        shown = marks or self.takes_stack or any(top <= begin < top + _GAP for begin, _ in segments[:1])
        return top if shown else 0

    def _custom(self, reader: Reader) -> None:
        # A custom section may hold anything, and a module with a bad one is a valid module.
        with contextlib.suppress(MalformedError, UnicodeDecodeError):
            if reader.name() == "name":
                self._names(reader)

    def _names(self, reader: Reader) -> None:
        while reader.at < reader.end:
            kind, size = reader.byte(), reader.number()
            inner = Reader(reader.data, reader.at, reader.at + size)
            reader.skip(size)
            if kind == _GLOBAL_NAMES:
                for _ in range(min(inner.count(), _MAX_ITEMS)):
                    index, name = inner.number(), inner.name()
                    if index == 0 or _is_mark(name):
                        self.named[index] = name

    def _imports(self, reader: Reader) -> None:
        """Of globals there is one word to say: the first one of the module's own is another then."""
        for _ in range(_bounded(reader)):
            reader.skip(reader.number())
            reader.skip(reader.number())
            kind = reader.byte()
            if kind == 0:
                reader.number()
            elif kind == 3:  # noqa: PLR2004 - the format's number of a global
                self.imported = True
                self.values.append(None)
                self.mutable.append(False)
                reader.skip(2)
            else:
                return  # no module that imports anything else is run

    def _globals(self, reader: Reader) -> None:
        for _ in range(_bounded(reader)):
            kind, mutable = reader.byte(), reader.byte()
            value = self._constant(reader)
            self.values.append(value & _U32 if kind == _I32 and value is not None else None)
            self.mutable.append(bool(mutable))

    def _exports(self, reader: Reader) -> None:
        for _ in range(_bounded(reader)):
            name, kind, index = reader.name(), reader.byte(), reader.number()
            if kind == 3 and (index == 0 or _is_mark(name)):  # noqa: PLR2004
                self.exported[name] = index

    def _code(self, reader: Reader) -> None:
        self.takes_stack = _PROLOGUE.search(reader.data, reader.at, reader.end) is not None

    def _data(self, reader: Reader) -> None:
        for _ in range(_bounded(reader)):
            flags = reader.number()
            if flags == 2:  # noqa: PLR2004 - active, in a memory that is named
                reader.number()
            begin = None if flags == 1 else self._constant(reader)
            size = reader.number()
            reader.skip(size)
            if begin is not None:
                self.segments.append((begin & _U32, (begin & _U32) + size))

    def _constant(self, reader: Reader) -> int | None:
        """A constant expression; None where it is not one of whole numbers."""
        stack: list[int | None] = []
        while (opcode := reader.byte()) != 0x0B:  # noqa: PLR2004 - end; these are the format's opcodes
            match opcode:
                case 0x41 | 0x42:
                    stack.append(reader.signed())
                case 0x23:
                    index = reader.number()
                    stack.append(self.values[index] if index < len(self.values) else None)
                case 0x6A | 0x6B | 0x6C | 0x7C | 0x7D | 0x7E:
                    right, left = stack.pop(), stack.pop()
                    stack.append(None if left is None or right is None else _arithmetic(opcode, left, right))
                case 0x43 | 0x44:
                    reader.skip(4 if opcode == 0x43 else 8)  # noqa: PLR2004
                    stack.append(None)
                case 0xD0 | 0xD2:
                    reader.signed()
                    stack.append(None)
                case 0xFD:
                    reader.number()
                    reader.skip(16)
                    stack.append(None)
                case _:
                    raise MalformedError(f"a constant has the unknown instruction {opcode:#04x}")
            if len(stack) > _MAX_STACK:
                raise MalformedError(f"a constant holds more than {_MAX_STACK} values at once")
        return stack[-1] if stack else None


def _bounded(reader: Reader) -> int:
    """The length of a vector that is read to its end. Raises MalformedError where the engine would not take it."""
    count = reader.count()
    if count > _MAX_ITEMS:
        raise MalformedError(f"a section has {count} entries, and {_MAX_ITEMS} are allowed")
    return count


def _arithmetic(opcode: int, left: int, right: int) -> int:
    """In 64 bits: without a bound, a product of many numbers takes quadratic time."""
    if opcode in (0x6A, 0x7C):
        return (left + right) & _U64
    return ((left - right) if opcode in (0x6B, 0x7D) else left * right) & _U64
