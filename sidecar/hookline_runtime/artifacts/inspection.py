"""What a module asks for and offers, read from its bytes without a WebAssembly engine.

The operator judges a module before any pod is told, and has no engine; the sidecar judges it again before it
compiles. Only the sections that say what crosses the module's border are read (type, import, function, table, memory,
tag, export, custom); code is the compiler's to validate.

Format: https://webassembly.github.io/spec/core/binary/modules.html. Every count and length is checked
against the bytes that are left before anything is made of it, so the work is linear in the module's size.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hookline_api.abi import (
    HOOK_TYPES,
    HOST_FUNCTIONS,
    OPTIONAL_EXPORTS,
    REQUIRED_EXPORTS,
    WASI_FUNCTIONS,
    WASI_MODULE,
)
from hookline_api.hooks import Hook
from hookline_runtime.artifacts.describe import MAX_DOCUMENT
from hookline_runtime.artifacts.proposals import (
    Proposal,
    ProposalError,
    check_limits,
    check_type_form,
    check_value_type,
)
from hookline_runtime.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAGIC: Final = b"\0asm"
_MODULE: Final = b"\x01\0\0\0"
_COMPONENT: Final = b"\x0d\0\x01\0"
_DESCRIPTION: Final = "hookline.plugin"
_MAX_NAMES: Final = 10_000
_MAX_ITEMS: Final = 1_000_000
"""Types and functions, as the engines' own limit (https://webassembly.github.io/spec/js-api/#limits)."""
_NUMBER_TYPES: Final = {0x7F: "i", 0x7E: "I", 0x7D: "f", 0x7C: "F"}
_KINDS: Final = ("function", "table", "memory", "global", "tag")

Signature = tuple[str, str]
_UNREADABLE: Final = ("?", "?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import: ``signature`` is None for anything but a function."""

    module: str
    name: str
    kind: str
    signature: Signature | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleInfo:
    """What crosses a module's border."""

    hooks: tuple[Hook, ...]
    """The hooks that it exports with a right type, in the order of the enumeration."""
    imports: tuple[Import, ...]
    exports: dict[str, tuple[str, Signature | None]]
    """Name → kind and, for functions, type."""
    memory_pages: int
    """What the module's memory starts with, in pages of 64 KiB."""
    description: bytes | None
    """The custom section ``hookline.plugin``, unparsed."""

    @property
    def needs_wasi(self) -> bool:
        """Whether a store needs a WASI context."""
        return any(entry.module == WASI_MODULE for entry in self.imports)

    @property
    def functions(self) -> tuple[str, ...]:
        """What it imports, each once, as ``module.name``."""
        return tuple(sorted({f"{entry.module}.{entry.name}" for entry in self.imports}))

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions that its imports are about."""
        functions = (HOST_FUNCTIONS.get((entry.module, entry.name)) for entry in self.imports)
        return frozenset(f.permission.value for f in functions if f and f.permission)


def inspect_module(wasm: bytes | memoryview) -> ModuleInfo:
    """Read a module's border and check it against the guest ABI.

    Raises VerifyError with the first thing that is wrong: not wasm, a component, a truncated section, a proposal that
    Hookline does not run, an unknown import, a required export that is missing or has another type, no hook at all.
    """
    data = bytes(wasm)
    if data[:4] != _MAGIC:
        raise VerifyError("this is no WebAssembly module: it does not begin with \\0asm")
    if data[4:8] == _COMPONENT:
        raise VerifyError(
            "this is a WebAssembly component, and Hookline runs core modules: "
            "build for wasm32-unknown-unknown or wasip1"
        )
    if data[4:8] != _MODULE:
        raise VerifyError(f"this is WebAssembly of an unknown version ({data[4:8].hex()})")
    sections = _Sections()
    try:
        sections.read(data)
    except (IndexError, UnicodeDecodeError, MalformedError) as error:
        raise VerifyError(f"this WebAssembly module is truncated or damaged: {error}") from error
    except ProposalError as error:
        raise VerifyError(str(error)) from error
    return judge_module(
        imports=sections.imports,
        exports=sections.exports,
        memory_pages=sections.memory_pages,
        description=sections.description,
    )


def judge_module(
    *,
    imports: Sequence[Import],
    exports: dict[str, tuple[str, Signature | None]],
    memory_pages: int,
    memory64: bool = False,
    description: bytes | None = None,
) -> ModuleInfo:
    """Check a module's border, however it was read, against the guest ABI. Raises VerifyError."""
    for entry in imports:
        _judge_import(entry)
    memory = exports.get("memory")
    if memory is None or memory[0] != "memory":
        raise VerifyError("the module does not export its linear memory as 'memory'")
    if memory64:
        raise VerifyError(Proposal.MEMORY64.sentence)
    _judge_start(exports)
    for name, wanted in (REQUIRED_EXPORTS | OPTIONAL_EXPORTS).items():
        found = exports.get(name)
        if found is None:
            if name in REQUIRED_EXPORTS:
                raise VerifyError(f"the module does not export '{name}': {_show(wanted)}")
        elif found != ("function", wanted):
            raise VerifyError(f"the module's export '{name}' is {_describe(found)}, and must be {_show(wanted)}")
    hooks = []
    for hook in Hook:
        found = exports.get(hook.value)
        if found is None:
            continue
        if found[0] != "function" or found[1] not in HOOK_TYPES:
            shapes = " or ".join(_show(shape) for shape in HOOK_TYPES)
            raise VerifyError(f"the module's hook '{hook}' is {_describe(found)}, and must be {shapes}")
        hooks.append(hook)
    if not hooks:
        raise VerifyError("the module exports no hook; the hooks are " + ", ".join(Hook))
    return ModuleInfo(
        hooks=tuple(hooks),
        imports=tuple(imports),
        exports=exports,
        memory_pages=memory_pages,
        description=description,
    )


def _judge_start(exports: dict[str, tuple[str, Signature | None]]) -> None:
    """A program that has to be started is never set up: its hooks would run without what its ``main`` does first.

    ``_start`` beside ``_initialize`` is another way in, which is not taken. A start section runs in each instance.
    """
    if exports.get("_start", ("", None))[0] == "function" and "_initialize" not in exports:
        raise VerifyError(
            "the module exports '_start' and no '_initialize': it is a program to be run once (a WASI command), and "
            "nothing would set it up for its hooks; build a reactor: C with -mexec-model=reactor, Go with "
            "-buildmode=c-shared, Rust with crate-type cdylib, TinyGo with -buildmode=c-shared, "
            "AssemblyScript with --exportStart _initialize, or without --exportStart"
        )


def _judge_import(entry: Import) -> None:
    label = repr(f"{entry.module}.{entry.name}")[:160]  # escaped: it is an artifact's text, on its way into a log
    if entry.kind != "function":
        raise VerifyError(f"the module imports the {entry.kind} {label}; Hookline offers functions only")
    if entry.module == WASI_MODULE:
        if entry.name not in WASI_FUNCTIONS:
            raise VerifyError(f"the module imports {label}, which WASI preview 1 does not have")
        return
    function = HOST_FUNCTIONS.get((entry.module, entry.name))
    if function is None:
        raise VerifyError(f"the module imports {label}, which this version of Hookline does not offer")
    wanted = (function.params, function.results)
    if entry.signature != wanted:
        raise VerifyError(f"the module imports {label} as {_show(entry.signature)}, and it is {_show(wanted)}")


def _show(signature: Signature | None) -> str:
    if signature is None or "?" in signature[0] + signature[1]:
        return "a function of another type"
    names = {"i": "i32", "I": "i64", "f": "f32", "F": "f64"}
    params, results = (", ".join(names[letter] for letter in part) for part in signature)
    return f"({params}) -> {f'({results})' if len(signature[1]) != 1 else results}"


def _describe(export: tuple[str, Signature | None]) -> str:
    return _show(export[1]) if export[0] == "function" else f"a {export[0]}"


class MalformedError(Exception):
    """A module's bytes are not what the format says."""


@dataclass(slots=True)
class Reader:
    """A cursor over one section. Reading past ``end`` raises MalformedError; nothing is made before it is there."""

    data: bytes
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
        """An unsigned LEB128 number."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                break
            shift += 7
            if shift >= bits + 6:
                raise MalformedError("a number is too long")
        if result >> bits:
            raise MalformedError("a number is too large")
        return result

    def signed(self) -> int:
        """A signed LEB128 number of 64 bits at the most."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                return result - (1 << shift) if byte & 0x40 else result
            if shift >= 70:  # noqa: PLR2004 - ten bytes of seven bits
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
        return self.data[self.at - size : self.at]

    def name(self) -> str:
        """A text with its length in front; raises UnicodeDecodeError too."""
        return self.take(self.number()).decode()


@dataclass(slots=True)
class _Sections:
    types: list[Signature] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    exports: dict[str, tuple[str, Signature | None]] = field(default_factory=dict)
    description: bytes | None = None
    memory_pages: int = 0
    memories: int = 0

    def read(self, data: bytes) -> None:
        outer = Reader(data, 8, len(data))
        readers = {
            1: self._types, 2: self._imports, 3: self._functions, 4: self._tables, 5: self._memories, 7: self._exports,
            13: self._tags,
        }  # fmt: skip
        while outer.at < outer.end:
            section = outer.byte()
            size = outer.number()
            if size > outer.end - outer.at:
                raise MalformedError(f"section {section} says {size} bytes and has {outer.end - outer.at}")
            inner = Reader(data, outer.at, outer.at + size)
            if section == 0:
                self._custom(inner)
            elif section in readers:
                readers[section](inner)
            outer.at += size

    def _custom(self, reader: Reader) -> None:
        name = reader.take(reader.number())
        if name == _DESCRIPTION.encode() and self.description is None:
            rest = reader.end - reader.at
            self.description = reader.take(min(rest, MAX_DOCUMENT + 1))  # what is longer is ignored, with a note

    def _types(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            form = check_type_form(reader.byte())
            if form != 0x60:  # noqa: PLR2004 - a function type
                raise MalformedError(f"a type is of the unknown form {form:#04x}")
            params, results = (
                "".join(_NUMBER_TYPES.get(check_value_type(reader.byte()), "?") for _ in range(reader.count()))
                for _ in range(2)
            )
            if len(self.types) >= _MAX_ITEMS:
                raise MalformedError(f"it has more than {_MAX_ITEMS} types")
            self.types.append((sys.intern(params), sys.intern(results)))

    def _type(self, index: int) -> Signature:
        return self.types[index] if index < len(self.types) else _UNREADABLE

    def _imports(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            if len(self.imports) >= _MAX_NAMES:
                raise MalformedError(f"it has more than {_MAX_NAMES} imports")
            module, name, kind = reader.name(), reader.name(), reader.byte()
            signature = None
            if kind == 0:
                index = reader.number()
                signature = self._type(index)
                self.functions.append(index)
            elif kind == 1:
                self._table(reader)
            elif kind == 2:  # noqa: PLR2004 - the format's own number, as those beside it
                self._memory(reader)
            elif kind == 3:  # noqa: PLR2004
                check_value_type(reader.byte())
                reader.byte()
            elif kind == 4:  # noqa: PLR2004
                raise ProposalError(Proposal.EXCEPTIONS)
            else:
                raise MalformedError(f"an import is of the unknown kind {kind}")
            self.imports.append(Import(module=module, name=name, kind=_KINDS[kind], signature=signature))

    def _functions(self, reader: Reader) -> None:
        count = reader.count()
        if len(self.functions) + count > _MAX_ITEMS:
            raise MalformedError(f"it has more than {_MAX_ITEMS} functions")
        self.functions.extend(reader.number() for _ in range(count))

    def _tables(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            self._table(reader)

    def _table(self, reader: Reader) -> None:
        kind = check_value_type(reader.byte())
        if kind == 0x40:  # noqa: PLR2004 - one with a value for its elements to begin with
            raise ProposalError(Proposal.FUNCTION_REFERENCES)
        self._limits(reader)

    def _memories(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            self._memory(reader)

    def _memory(self, reader: Reader) -> None:
        pages = self._limits(reader)
        self.memories += 1
        if self.memories > 1:
            raise ProposalError(Proposal.MULTI_MEMORY)
        self.memory_pages = pages

    def _tags(self, reader: Reader) -> None:
        if reader.count():
            raise ProposalError(Proposal.EXCEPTIONS)

    @staticmethod
    def _limits(reader: Reader) -> int:
        flags = check_limits(reader.byte())
        least = reader.number()
        if flags & 1:
            reader.number()
        return least

    def _exports(self, reader: Reader) -> None:
        for _ in range(reader.count()):
            if len(self.exports) >= _MAX_NAMES:
                raise MalformedError(f"it has more than {_MAX_NAMES} exports")
            name, kind, index = reader.name(), reader.byte(), reader.number()
            if kind >= len(_KINDS):
                raise MalformedError(f"an export is of the unknown kind {kind}")
            signature = None
            if kind == 0:
                if index >= len(self.functions):
                    raise MalformedError(f"the export {name!r:.60} is a function that does not exist")
                signature = self._type(self.functions[index])
            self.exports[name] = (_KINDS[kind], signature)
