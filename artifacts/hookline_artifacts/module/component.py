"""A component's bytes, read without an engine: what crosses its border, and what is in it.

A component is sections around core modules and other components. Core modules are read as they are elsewhere
(``sections``); of what is around them, the types of the border are read, and what would escape the runtime's limits is
refused: resources of its own, whose tables no memory limit counts, and all that is asynchronous. Every list has a
bound, and so have the depth, the components and the modules, so the work is linear in the bytes.

Format: https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hookline_api import cases
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.component_types import Types, read_extern_name
from hookline_artifacts.module.describe import MAX_DOCUMENT
from hookline_artifacts.module.reader import COMPONENT_HEADER, Buffer, MalformedError, Reader
from hookline_artifacts.module.sections import Sections

KEPT: Final = {"hookline.plugin": MAX_DOCUMENT, cases.SECTION: cases.MAX_DOCUMENT}
"""Custom sections whose content is kept, and how many bytes of each."""
_CORE_MODULE_HEADER: Final = b"\0asm\x01\0\0\0"

_MAX_DEPTH: Final = 16
"""Components within components; what toolchains make has 3."""
_MAX_COMPONENTS: Final = 1_000
_MAX_MODULES: Final = 200
"""Core modules in all; a Python component has 15."""
_MAX_MEMORIES: Final = 4
"""What limits.memory is divided among; componentize-qjs makes 2."""
_MAX_SECTIONS: Final = 20_000
_MAX_ITEMS: Final = 100_000
"""Functions, instances, types and aliases that are made in all."""

(
    _CUSTOM, _MODULE, _CORE_INSTANCE, _CORE_TYPE, _COMPONENT, _INSTANCE, _ALIAS, _TYPE, _CANON, _START, _IMPORT,
    _EXPORT,
) = range(12)  # fmt: skip
SORTS: Final = ("core", "function", "value", "type", "component", "instance")
_LIFT, _LOWER, _RESOURCE_NEW, _RESOURCE_DROP, _RESOURCE_REP = range(5)
_MAX_OPTION: Final = 5
"""String encodings, memory, realloc and post-return; those behind are asynchronous."""


@dataclass(slots=True)
class ComponentBorder:
    """What was read."""

    imports: dict[str, dict[str, str] | None] = field(default_factory=dict)
    """Interface → its functions' types; None for an import that is no instance."""
    exports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Name → sort and, for functions, the type where it is said at the border."""
    memory_pages: int = 0
    """Of all its memories, at the beginning."""
    custom: dict[str, bytes] = field(default_factory=dict)
    """Those of ``KEPT``, the first of each name."""
    case_sections: int = 0
    """How many sections of cases there are."""
    memories: int = 0
    modules: int = 0


class ComponentReader:
    """Reads one component. ``read`` is called once."""

    def __init__(self) -> None:
        self.border = ComponentBorder()
        self._components = self._sections = self._items = 0

    def read(self, data: Buffer) -> ComponentBorder:
        """Read it all. Raises VerifyError, and what ``Sections.read`` does."""
        with memoryview(data) as view:
            self._read_component(view, 8, len(view), depth=0)
        return self.border

    def _read_component(self, data: memoryview, begin: int, end: int, *, depth: int) -> None:
        self._components += 1
        if depth > _MAX_DEPTH:
            raise VerifyError(f"the component has components within components deeper than {_MAX_DEPTH}")
        if self._components > _MAX_COMPONENTS:
            raise VerifyError(f"the component has more than {_MAX_COMPONENTS} components in it")
        outer = Reader(data, begin, end)
        types = Types()
        while outer.at < end:
            self._sections += 1
            if self._sections > _MAX_SECTIONS:
                raise VerifyError(f"the component has more than {_MAX_SECTIONS} sections")
            section, size = outer.byte(), outer.number()
            if size > end - outer.at:
                raise MalformedError(f"section {section} says {size} bytes and has {end - outer.at}")
            inner = Reader(data, outer.at, outer.at + size)
            if section == _CUSTOM:
                if depth == 0:
                    self._read_custom(inner)
            elif section == _MODULE:
                self._read_module(data, inner)
            elif section == _COMPONENT:
                if bytes(data[inner.at : min(inner.at + 8, inner.end)]) != COMPONENT_HEADER:
                    raise MalformedError("a component within it has another header")
                self._read_component(data, inner.at + 8, inner.end, depth=depth + 1)
            elif section == _CANON:
                self._read_canon(inner, types)
            elif depth == 0 and section in {_ALIAS, _TYPE, _IMPORT, _EXPORT}:
                self._read_border(section, inner, types)
            elif section not in {_CORE_INSTANCE, _CORE_TYPE, _INSTANCE, _ALIAS, _TYPE, _IMPORT, _EXPORT}:
                raise VerifyError(
                    "the component has a start function or a value of its own, which Hookline does not run"
                    if section in {_START, 12}
                    else f"the component has a section of the unknown kind {section}"
                )
            else:
                self._count(Reader(data, inner.at, inner.end).number())
            outer.at += size

    def _count(self, more: int) -> None:
        self._items += more
        if self._items > _MAX_ITEMS:
            raise VerifyError(f"the component defines more than {_MAX_ITEMS} things")

    def _read_custom(self, reader: Reader) -> None:
        name = reader.name()
        self.border.case_sections += name == cases.SECTION
        if name in KEPT and name not in self.border.custom:
            # What is longer is ignored, with a note.
            self.border.custom[name] = reader.take(min(reader.end - reader.at, KEPT[name] + 1))

    def _read_module(self, data: memoryview, reader: Reader) -> None:
        border = self.border
        border.modules += 1
        if border.modules > _MAX_MODULES:
            raise VerifyError(f"the component has more than {_MAX_MODULES} core modules")
        with data[reader.at : reader.end] as module:
            if bytes(module[:8]) != _CORE_MODULE_HEADER:
                raise MalformedError("a core module within it has another header")
            sections = Sections()
            sections.read(module)
        own = sections.memories - sum(each.kind == "memory" for each in sections.imports)
        border.memories += own
        if own:
            border.memory_pages += sections.memory_pages
        if border.memories > _MAX_MEMORIES:
            raise VerifyError(
                f"the component has more than {_MAX_MEMORIES} linear memories; build it of fewer components"
            )

    def _read_canon(self, reader: Reader, types: Types) -> None:
        count = reader.count()
        self._count(count)
        for _ in range(count):
            kind = reader.byte()
            if kind in {_LIFT, _LOWER}:
                if reader.byte():
                    raise MalformedError("a function is lifted or lowered in an unknown way")
                reader.number()
                for _ in range(reader.count()):
                    option = reader.byte()
                    if option > _MAX_OPTION:
                        raise VerifyError(_ASYNC)
                    if option > 2:  # noqa: PLR2004 - the first three are encodings of strings
                        reader.number()
                if kind == _LIFT:
                    types.functions.append(types.function(reader.number()))
            elif kind == _RESOURCE_NEW:
                raise VerifyError(
                    "the component makes resources of its own (resource.new), which no limit counts; "
                    "build without --stub-wasi, or without resources in its interfaces"
                )
            elif kind in {_RESOURCE_DROP, _RESOURCE_REP}:
                reader.number()
            else:
                raise VerifyError(_ASYNC)
        if reader.at != reader.end:
            raise MalformedError("a section goes on behind its end")

    def _read_border(self, section: int, reader: Reader, types: Types) -> None:
        count = reader.count()
        self._count(count)
        for _ in range(count):
            if section == _TYPE:
                types.read_definition(reader)
            elif section == _ALIAS:
                types.read_alias(reader)
            elif section == _IMPORT:
                self._read_import(reader, types)
            else:
                self._read_export(reader, types)
        if reader.at != reader.end:
            raise MalformedError("a section goes on behind its end")

    def _read_import(self, reader: Reader, types: Types) -> None:
        name = read_extern_name(reader)
        sort, index = types.read_extern(reader)
        if name in self.border.imports:
            raise MalformedError(f"it has two imports {name[:60]!r}")
        self.border.imports[name] = types.instance(index) if sort == "instance" else None

    def _read_export(self, reader: Reader, types: Types) -> None:
        name = read_extern_name(reader)
        sort = reader.byte()
        if sort == 0:
            reader.byte()
        if sort >= len(SORTS):
            raise MalformedError(f"an export is of the unknown kind {sort}")
        index = reader.number()
        said = types.functions[index] if SORTS[sort] == "function" and index < len(types.functions) else None
        if reader.byte():
            given, given_index = types.read_extern(reader, adds=False)
            said = types.function(given_index) if given == "function" else said
        if SORTS[sort] == "type":
            types.add(None)
        elif SORTS[sort] == "function":
            types.functions.append(said)
        if name in self.border.exports:
            raise MalformedError(f"it has two exports {name[:60]!r}")
        self.border.exports[name] = (SORTS[sort], said)


_ASYNC: Final = (
    "the component needs asynchronous functions of the component model, which Hookline does not run; build for WASI "
    "0.2 (componentize-qjs: --sync)"
)
