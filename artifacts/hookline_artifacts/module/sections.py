"""A module's sections, read as the engine reads them, within the engine's limits and some of our own.

Every count is compared with its limit, and with the bytes that are left, before anything is made of it; of types and
functions there are numbers, and no objects. So the work is linear in the module's size, and the memory does not grow
with it. The work in Python, which is slower than the engine's by a thousand times, has bounds of its own where the
engine has none or a generous one; they are ten times and more of what large modules have (Go's runtime, CPython).

Format: https://webassembly.github.io/spec/core/binary/modules.html. The engine's limits:
https://github.com/bytecodealliance/wasm-tools/blob/main/crates/wasmparser/src/limits.rs.
"""

from __future__ import annotations

import itertools
from array import array
from dataclasses import dataclass, field
from typing import Final

from hookline_api import cases
from hookline_artifacts.module.describe import MAX_DOCUMENT
from hookline_artifacts.module.instructions import check_code
from hookline_artifacts.module.proposals import (
    Proposal,
    ProposalError,
    check_limits,
    check_type_form,
    check_value_type,
    check_value_types,
)
from hookline_artifacts.module.reader import Buffer, MalformedError, Reader

_DESCRIPTION: Final = b"hookline.plugin"
_CASES: Final = cases.SECTION.encode()
_MAX_ITEMS: Final = 1_000_000
"""Types and functions, each: the engine's limit."""
_MAX_PARAMETERS: Final = 1000
"""Of a function, and results: the engine's limit."""
_MAX_LOCALS: Final = 50_000
"""Of a function, its parameters among them: the engine's limit."""
_MAX_BODY: Final = 7_654_321
"""Bytes of a function: the engine's limit."""
_MAX_SEGMENTS: Final = 100_000
"""Of data, and of elements: the engine's limit."""
_MAX_PAGES: Final = 65_536
"""Of a memory: all that 32 bits can name."""
_MAX_TABLES: Final = 2
"""What the engine's pool has for each module (``engine.py``)."""
_MAX_TABLE: Final = 200_000
"""Elements that a table begins with at the most; the pool's too."""
_MAX_NAMES: Final = 10_000
"""Imports, and exports: ours. They are kept, and compared with the ABI one by one."""
_MAX_NAME_BYTES: Final = 4 << 20
"""Of the names of all imports and exports: ours. They are kept."""
_MAX_GLOBALS: Final = 100_000
"""Ours: each is read in Python."""
_MAX_SECTIONS: Final = 10_000
"""Ours: custom sections may be three bytes long, and twenty million."""
_MAX_ELEMENTS: Final = 1_000_000
"""In all element segments: ours, several times what all tables hold."""
_MAX_CONSTANT_STEPS: Final = 1_000_000
"""Instructions of constants, in all: ours. The usual constant has one."""
_MAX_LOCAL_GROUPS: Final = 4_000_000
"""Declarations of locals in all functions: ours. A group may be of no local at all, and two bytes long."""

_NUMBER_TYPES: Final = bytes.maketrans(bytes((0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70)), b"iIfF??")
_KINDS: Final = ("function", "table", "memory", "global", "tag")
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)
_ORDER: Final = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
"""Sections by their numbers, in the order in which they have to be."""
_PLACES: Final = {section: place for place, section in enumerate(_ORDER)}
_CODE, _DATA_COUNT, _DATA = 10, 12, 11
_FUNCTION_FORM, _FUNCREF, _I32, _I64, _END = 0x60, 0x70, 0x7F, 0x7E, 0x0B
_TABLE_WITH_VALUE: Final = 0x40
_ARITHMETIC: Final = {0x6A: _I32, 0x6B: _I32, 0x6C: _I32, 0x7C: _I64, 0x7D: _I64, 0x7E: _I64}
"""What a constant may reckon with: add, subtract, multiply."""
_FIXED: Final = 0x80
"""The mark of a global that is imported and never changes: constants may be made of those alone."""

Signature = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import: ``signature`` is None for anything but a function."""

    module: str
    name: str
    kind: str
    signature: Signature | None


@dataclass(slots=True)
class Sections:
    """What was read. All but ``read`` and the first fields is for this file."""

    imports: list[Import] = field(default_factory=list)
    exports: dict[str, tuple[str, Signature | None]] = field(default_factory=dict)
    """Name → kind and, for functions, type."""
    description: bytes | None = None
    cases: bytes | None = None
    case_sections: int = 0
    """How many sections of cases there are; ``cases`` is the first."""
    memory_pages: int = 0

    _data: Buffer = b""
    _types: array[int] = field(default_factory=lambda: array("I"))
    """Where in the bytes each type's parameters begin."""
    _arities: array[int] = field(default_factory=lambda: array("H"))
    """How many parameters each has."""
    _functions: array[int] = field(default_factory=lambda: array("I"))
    """The type of each, those that are imported first."""
    _globals: bytearray = field(default_factory=bytearray)
    """The type of each, and ``_FIXED``."""
    _signatures: dict[int, Signature] = field(default_factory=dict)
    _tables: int = 0
    _memories: int = 0
    _imported: int = 0
    """Functions that are."""
    _data_segments: int | None = None
    _name_bytes: int = 0
    _elements: int = 0
    _constant_steps: int = 0
    _local_groups: int = 0

    @property
    def memories(self) -> int:
        """How many it has, those that it imports among them."""
        return self._memories

    def read(self, data: Buffer) -> None:
        """Read it all. Raises MalformedError, UnknownTypeError, UnicodeDecodeError and ProposalError."""
        self._data = data
        outer = Reader(data, 8, len(data))
        readers = {
            1: self._read_types, 2: self._read_imports, 3: self._read_functions, 4: self._read_tables,
            5: self._read_memories, 6: self._read_globals, 7: self._read_exports, 8: self._read_start,
            9: self._read_elements, 10: self._read_code, 11: self._read_data, 12: self._read_data_count,
            13: self._read_tags,
        }  # fmt: skip
        place, seen = -1, set()
        for number in itertools.count():
            if outer.at >= outer.end:
                break
            if number >= _MAX_SECTIONS:
                raise MalformedError(f"it has more than {_MAX_SECTIONS} sections")
            section, size = outer.byte(), outer.number()
            if size > outer.end - outer.at:
                raise MalformedError(f"section {section} says {size} bytes and has {outer.end - outer.at}")
            inner = Reader(data, outer.at, outer.at + size)
            if section == 0:
                self._read_custom(inner)
            elif section not in readers:
                raise MalformedError(f"it has a section of the unknown kind {section}")
            else:
                readers[section](inner)
                if inner.at != inner.end:
                    raise MalformedError(f"section {section} goes on behind its end")
                if _PLACES[section] <= place:
                    raise MalformedError(f"section {section} comes twice, or too late")
                place = _PLACES[section]
                seen.add(section)
            outer.at += size
        self._check_functions()
        if _CODE not in seen and len(self._functions) > self._imported:
            raise MalformedError("it has functions and no code")
        if _DATA not in seen and self._data_segments:
            raise MalformedError("it says how much data it has, and has none")

    def _read_custom(self, reader: Reader) -> None:
        name, rest = reader.name().encode(), reader.end - reader.at
        if name == _DESCRIPTION and self.description is None:
            self.description = reader.take(min(rest, MAX_DOCUMENT + 1))  # what is longer is ignored, with a note
        elif name == _CASES:
            self.case_sections += 1
            if self.cases is None:
                self.cases = reader.take(min(rest, cases.MAX_DOCUMENT + 1))

    def _read_types(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            form = check_type_form(reader.byte())
            if form != _FUNCTION_FORM:
                raise MalformedError(f"a type is of the unknown form {form:#04x}")
            if len(self._types) >= _MAX_ITEMS:
                raise MalformedError(f"it has more than {_MAX_ITEMS} types")
            for index, what in enumerate(("parameters", "results")):
                count = reader.count()
                if count > _MAX_PARAMETERS:
                    raise MalformedError(f"a function type has {count} {what}, and {_MAX_PARAMETERS} are the most")
                if index == 0:
                    self._types.append(reader.at)
                    self._arities.append(count)
                check_value_types(reader.take(count))

    def _signature(self, index: int) -> Signature:
        """The type of that number."""
        found = self._signatures.get(index)
        if found is None:
            if index >= len(self._types):
                raise MalformedError("a function is of a type that does not exist")
            at = self._types[index]
            reader = Reader(self._data, at, len(self._data))
            params = reader.take(self._arities[index])
            results = reader.take(reader.count())
            found = (params.translate(_NUMBER_TYPES).decode(), results.translate(_NUMBER_TYPES).decode())
            self._signatures[index] = found
        return found

    def _check_functions(self) -> None:
        if self._functions and max(self._functions) >= len(self._types):
            raise MalformedError("a function is of a type that does not exist")

    def _read_name(self, reader: Reader) -> str:
        """A name that is kept."""
        before = reader.at
        name = reader.name()
        self._name_bytes += reader.at - before
        if self._name_bytes > _MAX_NAME_BYTES:
            raise MalformedError(f"the names of its imports and exports have more than {_MAX_NAME_BYTES} bytes")
        return name

    def _read_imports(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            if len(self.imports) >= _MAX_NAMES:
                raise MalformedError(f"it has more than {_MAX_NAMES} imports")
            module, name, kind = self._read_name(reader), self._read_name(reader), reader.byte()
            signature = None
            if kind == _FUNCTION:
                index = reader.number()
                signature = self._signature(index)
                self._functions.append(index)
                self._imported += 1
            elif kind == _TABLE:
                self._read_table(reader)
            elif kind == _MEMORY:
                self._read_memory(reader)
            elif kind == _GLOBAL:
                type_, mutable = self._read_global_type(reader)
                self._globals.append(type_ if mutable else type_ | _FIXED)
            elif kind == _TAG:
                raise ProposalError(Proposal.EXCEPTIONS)
            else:
                raise MalformedError(f"an import is of the unknown kind {kind}")
            self.imports.append(Import(module=module, name=name, kind=_KINDS[kind], signature=signature))

    def _read_functions(self, reader: Reader) -> None:
        count = reader.count()
        if len(self._functions) + count > _MAX_ITEMS:
            raise MalformedError(f"it has more than {_MAX_ITEMS} functions")
        self._functions.extend(reader.number() for _ in range(count))

    def _read_tables(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            self._read_table(reader)

    def _read_table(self, reader: Reader) -> None:
        kind = reader.byte()
        if kind == _TABLE_WITH_VALUE:
            raise ProposalError(Proposal.FUNCTION_REFERENCES)
        check_value_type(kind, reference=True)
        least, _ = self._read_limits(reader)
        self._tables += 1
        if self._tables > _MAX_TABLES:
            raise MalformedError(f"it has more than {_MAX_TABLES} tables")
        if least > _MAX_TABLE:
            raise MalformedError(f"a table begins with {least} elements, and {_MAX_TABLE} are the most")

    def _read_memories(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            self._read_memory(reader)

    def _read_memory(self, reader: Reader) -> None:
        least, most = self._read_limits(reader)
        self._memories += 1
        if self._memories > 1:
            raise ProposalError(Proposal.MULTI_MEMORY)
        if max(least, most or 0) > _MAX_PAGES:
            raise MalformedError(f"a memory has more than {_MAX_PAGES} pages")
        self.memory_pages = least

    def _read_tags(self, _: Reader) -> None:
        """A section of tags is the proposal's, be it empty."""
        raise ProposalError(Proposal.EXCEPTIONS)

    @staticmethod
    def _read_limits(reader: Reader) -> tuple[int, int | None]:
        flags = check_limits(reader.byte())
        if flags > 1:
            raise MalformedError(f"a memory or a table has the unknown flags {flags:#04x}")
        least = reader.number()
        most = reader.number() if flags else None
        if most is not None and most < least:
            raise MalformedError("a memory or a table begins with more than its most")
        return least, most

    @staticmethod
    def _read_global_type(reader: Reader) -> tuple[int, bool]:
        type_, mutable = check_value_type(reader.byte()), reader.byte()
        if mutable > 1:
            raise ProposalError(Proposal.THREADS) if mutable & 2 else MalformedError("a global has unknown flags")
        return type_, bool(mutable)

    def _read_globals(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            if len(self._globals) >= _MAX_GLOBALS:
                raise MalformedError(f"it has more than {_MAX_GLOBALS} globals")
            type_, _ = self._read_global_type(reader)
            self._read_constant(reader, type_)
            self._globals.append(type_)

    def _read_exports(self, reader: Reader) -> None:
        existing = (len(self._functions), self._tables, self._memories, len(self._globals), 0)
        for _ in range(reader.count()):
            if len(self.exports) >= _MAX_NAMES:
                raise MalformedError(f"it has more than {_MAX_NAMES} exports")
            name, kind, index = self._read_name(reader), reader.byte(), reader.number()
            if kind >= len(_KINDS):
                raise MalformedError(f"an export is of the unknown kind {kind}")
            if index >= existing[kind]:
                raise MalformedError(f"the export {name[:60]!r} is a {_KINDS[kind]} that does not exist")
            if name in self.exports:
                raise MalformedError(f"it has two exports {name[:60]!r}")
            self.exports[name] = (_KINDS[kind], self._signature(self._functions[index]) if kind == _FUNCTION else None)

    def _read_start(self, reader: Reader) -> None:
        index = reader.number()
        if index >= len(self._functions) or self._signature(self._functions[index]) != ("", ""):
            raise MalformedError("its start function has parameters or results")

    def _read_elements(self, reader: Reader) -> None:
        count = reader.count()
        if count > _MAX_SEGMENTS:
            raise MalformedError(f"it has more than {_MAX_SEGMENTS} segments of elements")
        for _ in range(count):
            flags = reader.number()
            if flags > 7:  # noqa: PLR2004 - the format's three bits
                raise MalformedError(f"a segment of elements has the unknown flags {flags:#04x}")
            if not flags & 1:
                table = reader.number() if flags & 2 else 0
                if table >= self._tables:
                    raise MalformedError("a segment of elements is for a table that does not exist")
                self._read_constant(reader, _I32)
            by_value = flags & 4
            if flags & 3:
                kind = reader.byte()
                if by_value:
                    check_value_type(kind, reference=True)
                elif kind:
                    raise MalformedError(f"a segment has elements of the unknown kind {kind:#04x}")
            items = reader.count()
            self._elements += items
            if self._elements > _MAX_ELEMENTS:
                raise MalformedError(f"it has more than {_MAX_ELEMENTS} elements for tables")
            for _ in range(items):
                if by_value:
                    self._read_constant(reader, _FUNCREF)
                elif reader.number() >= len(self._functions):
                    raise MalformedError("a segment of elements has a function that does not exist")

    def _read_data_count(self, reader: Reader) -> None:
        self._data_segments = reader.number()
        if self._data_segments > _MAX_SEGMENTS:
            raise MalformedError(f"it has more than {_MAX_SEGMENTS} segments of data")

    def _read_code(self, reader: Reader) -> None:
        self._check_functions()
        count = reader.count()
        if count != len(self._functions) - self._imported:
            raise MalformedError("it has not as much code as functions")
        for index in range(self._imported, len(self._functions)):
            size = reader.number()
            if size > _MAX_BODY:
                raise MalformedError(f"a function has {size} bytes, and {_MAX_BODY} are the most")
            begin = reader.at
            reader.skip(size)
            body = Reader(self._data, begin, reader.at)
            groups = body.count()
            self._local_groups += groups
            if self._local_groups > _MAX_LOCAL_GROUPS:
                raise MalformedError(f"its functions declare more than {_MAX_LOCAL_GROUPS} groups of locals")
            local_variables = self._arities[self._functions[index]]
            for _ in range(groups):
                local_variables += body.number()
                check_value_type(body.byte())
                if local_variables > _MAX_LOCALS:
                    raise MalformedError(f"a function has more than {_MAX_LOCALS} locals")
            check_code(self._data, body.at, body.end)

    def _read_data(self, reader: Reader) -> None:
        count = reader.count()
        if count > _MAX_SEGMENTS:
            raise MalformedError(f"it has more than {_MAX_SEGMENTS} segments of data")
        if self._data_segments not in {None, count}:
            raise MalformedError("it has not as many segments of data as it says")
        for _ in range(count):
            flags = reader.number()
            if flags > 2:  # noqa: PLR2004 - active, passive, and active in a memory that is named
                raise MalformedError(f"a segment of data has the unknown flags {flags:#04x}")
            if flags != 1:
                if (reader.number() if flags else 0) >= self._memories:
                    raise MalformedError("a segment of data is for a memory that does not exist")
                self._read_constant(reader, _I32)
            reader.skip(reader.number())

    def _read_constant(self, reader: Reader, wanted: int) -> None:
        """A constant expression of one type."""
        stack: list[int] = []
        while (opcode := reader.byte()) != _END:
            self._constant_steps += 1
            if self._constant_steps > _MAX_CONSTANT_STEPS:
                raise MalformedError(f"its constants have more than {_MAX_CONSTANT_STEPS} instructions")
            if opcode in _ARITHMETIC:
                if stack[-2:] != [_ARITHMETIC[opcode]] * 2:
                    raise MalformedError("a constant computes with something that is not a number")
                stack.pop()
            else:
                stack.append(self._read_constant_value(reader, opcode))
        if stack != [wanted]:
            raise MalformedError("a constant is not of its type")

    def _read_constant_value(self, reader: Reader, opcode: int) -> int:
        """The type of what one instruction gives."""
        match opcode:
            case 0x41 | 0x42:
                reader.signed(32 if opcode == 0x41 else 64)  # noqa: PLR2004 - these are the format's opcodes
                return _I32 if opcode == 0x41 else _I64  # noqa: PLR2004
            case 0x43 | 0x44:
                reader.skip(4 if opcode == 0x43 else 8)  # noqa: PLR2004
                return 0x7D if opcode == 0x43 else 0x7C  # noqa: PLR2004
            case 0x23:
                index = reader.number()
                if index >= len(self._globals) or not self._globals[index] & _FIXED:
                    raise MalformedError("a constant is of a global that is not imported, or may change")
                return self._globals[index] & ~_FIXED
            case 0xD0:
                return check_value_type(reader.byte(), reference=True)
            case 0xD2:
                if reader.number() >= len(self._functions):
                    raise MalformedError("a constant is a function that does not exist")
                return _FUNCREF
            case 0xFD:
                if reader.number() != 0x0C:  # noqa: PLR2004 - v128.const
                    raise MalformedError("a constant has an instruction that is not for constants")
                reader.skip(16)
                return 0x7B
            case 0xFB:
                raise ProposalError(Proposal.GC)
            case _:
                raise MalformedError(f"a constant has the unknown instruction {opcode:#04x}")
