"""The types of a component's border, as WIT writes them.

Only what Hookline's own interface is made of is spelled out: numbers, texts, options, results and lists of them. Of all
else it is enough that it is read to its end.
"""

from __future__ import annotations

from typing import Final

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.reader import MalformedError, Reader

_MAX_TYPES: Final = 100_000
"""In all, over all that is nested."""
_MAX_NESTED: Final = 8
"""Types of components and instances within each other."""
_MAX_TEXT: Final = 500
"""Characters of a type that is spelled out: a type of types of types could double with each step."""

_PRIMITIVES: Final = {
    0x7F: "bool", 0x7E: "s8", 0x7D: "u8", 0x7C: "s16", 0x7B: "u16", 0x7A: "s32", 0x79: "u32", 0x78: "s64", 0x77: "u64",
    0x76: "f32", 0x75: "f64", 0x74: "char", 0x73: "string", 0x64: "error-context",
}  # fmt: skip
_UNKNOWN: Final = "?"
_EXTERNS: Final = ("core", "function", "value", "type", "component", "instance")
_CORE_EXTERN: Final = 0x11
_FUNC, _COMPONENT, _INSTANCE, _RESOURCE, _ASYNC_FUNC = 0x40, 0x41, 0x42, 0x3F, 0x43

Type = str | dict[str, str] | None
"""A value's or a function's type as text, an instance's by its functions' names, or nothing that is needed."""


def read_extern_name(reader: Reader) -> str:
    """The name of an import or an export."""
    if reader.byte() > 1:
        raise VerifyError("the component has a name with attributes, which this version of Hookline does not read")
    return reader.name()


class Types:
    """One space of types, and at the border one of functions."""

    def __init__(self, depth: int = 0, made: list[int] | None = None) -> None:
        self._types: list[Type] = []
        self._depth = depth
        self._made = [0] if made is None else made
        """How many there are in all spaces."""
        self.functions: list[str | None] = []
        """The types of the functions that there are, where they are known."""

    def add(self, made: Type) -> None:
        """One more type."""
        self._made[0] += 1
        if self._made[0] > _MAX_TYPES:
            raise VerifyError(f"the component has more than {_MAX_TYPES} types")
        self._types.append(made)

    def function(self, index: int) -> str | None:
        """A function's type by its number, where it is one that is spelled out."""
        found = self._types[index] if index < len(self._types) else None
        return found if isinstance(found, str) else None

    def instance(self, index: int) -> dict[str, str]:
        """An instance's functions by the number of its type."""
        found = self._types[index] if index < len(self._types) else None
        if not isinstance(found, dict):
            raise MalformedError("an import is of an instance type that does not exist")
        return found

    def read_definition(self, reader: Reader) -> None:
        """One type, which is added."""
        form = reader.byte()
        if form in {_FUNC, _ASYNC_FUNC}:
            made: Type = self._read_function(reader)
            self.add(_UNKNOWN if form == _ASYNC_FUNC else made)
        elif form in {_COMPONENT, _INSTANCE}:
            made = self._read_declarations(reader, is_component=form == _COMPONENT)
            self.add(made if form == _INSTANCE else None)
        elif form == _RESOURCE:
            raise VerifyError(
                "the component has resources of its own, which no limit counts; build without --stub-wasi, or without "
                "resources in its interfaces"
            )
        else:
            self.add(self._read_value(reader, form))

    def read_alias(self, reader: Reader) -> None:
        """One alias; a type is added where it is of one."""
        sort = reader.byte()
        core = reader.byte() if sort == 0 else None
        target = reader.byte()
        if target in {0, 1}:
            reader.number()
            reader.name()
        elif target == 2:  # noqa: PLR2004 - of a component around this one
            reader.number()
            reader.number()
        else:
            raise MalformedError(f"an alias is of the unknown kind {target}")
        if sort == 3:  # noqa: PLR2004 - a type
            self.add(None)
        elif sort == 1:
            self.functions.append(None)
        elif sort >= len(_EXTERNS) or (core is not None and core > 0x14):  # noqa: PLR2004 - the last of the core's
            raise MalformedError(f"an alias is of the unknown sort {sort}")

    def read_extern(self, reader: Reader, *, adds: bool = True) -> tuple[str, int]:
        """What an import or an export is: its sort, and the number of its type."""
        kind = reader.byte()
        if kind >= len(_EXTERNS) or (kind == 0 and reader.byte() != _CORE_EXTERN):
            raise MalformedError(f"an import or an export is of the unknown kind {kind}")
        sort = _EXTERNS[kind]
        if sort == "value":
            raise VerifyError("the component imports or exports values, which Hookline does not run")
        if sort != "type":
            index = reader.number()
            if sort == "function" and adds:
                self.functions.append(self.function(index))
            return sort, index
        bound = reader.byte()
        index = reader.number() if bound == 0 else -1
        if bound > 1:
            raise MalformedError(f"a type has the unknown bound {bound}")
        if adds:
            self.add(self._types[index] if 0 <= index < len(self._types) else None)
        return sort, index

    def _read_function(self, reader: Reader) -> str:
        params = [(reader.name(), self._read_valtype(reader)) for _ in range(reader.count())]
        result = ""
        if reader.byte() == 0:
            result = f" -> {self._read_valtype(reader)}"
        elif reader.number():
            raise VerifyError("the component has a function with several results, which Hookline does not run")
        return _cut(f"func({', '.join(f'{name}: {kind}' for name, kind in params)}){result}")

    def _read_declarations(self, reader: Reader, *, is_component: bool) -> dict[str, str]:
        """What an instance or a component of this type has; the functions that it exports."""
        if self._depth >= _MAX_NESTED:
            raise VerifyError(f"the component has types within types deeper than {_MAX_NESTED}")
        inner = Types(self._depth + 1, self._made)
        functions: dict[str, str] = {}
        for _ in range(reader.count()):
            kind = reader.byte()
            if kind == 1:
                inner.read_definition(reader)
            elif kind == 2:  # noqa: PLR2004 - the format's numbers
                inner.read_alias(reader)
            elif kind == 4 or (kind == 3 and is_component):  # noqa: PLR2004
                name = read_extern_name(reader)
                sort, index = inner.read_extern(reader)
                if sort == "function":
                    functions[name] = inner.function(index) or _UNKNOWN
            else:
                raise VerifyError("the component has core types at its border, which Hookline does not run")
        return functions

    def _read_valtype(self, reader: Reader) -> str:
        number = reader.signed(33)
        if number >= 0:
            found = self._types[number] if number < len(self._types) else None
            return found if isinstance(found, str) else _UNKNOWN
        return _PRIMITIVES.get(number & 0x7F, _UNKNOWN)

    def _read_value(self, reader: Reader, form: int) -> Type:  # noqa: C901 - one case for each form
        if form in _PRIMITIVES:
            return _PRIMITIVES[form]
        match form:
            case 0x72:
                for _ in range(reader.count()):
                    reader.name()
                    self._read_valtype(reader)
            case 0x71:
                for _ in range(reader.count()):
                    reader.name()
                    self._read_optional(reader)
                    reader.byte()
            case 0x70:
                return _cut(f"list<{self._read_valtype(reader)}>")
            case 0x6F:
                for _ in range(reader.count()):
                    self._read_valtype(reader)
            case 0x6E | 0x6D:
                for _ in range(reader.count()):
                    reader.name()
            case 0x6B:
                return _cut(f"option<{self._read_valtype(reader)}>")
            case 0x6A:
                ok, error = self._read_optional(reader), self._read_optional(reader)
                return _cut(f"result<{ok or '_'}, {error}>" if error else f"result<{ok}>" if ok else "result")
            case 0x69 | 0x68:
                reader.number()
            case 0x67:
                self._read_valtype(reader)
                reader.number()
            case _:
                raise VerifyError(
                    f"the component has a type of the form {form:#04x} (streams, futures, maps and what came later), "
                    "which Hookline does not run; build for WASI 0.2 (componentize-qjs: --sync)"
                )
        return _UNKNOWN

    def _read_optional(self, reader: Reader) -> str | None:
        return self._read_valtype(reader) if reader.byte() else None


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else _UNKNOWN
