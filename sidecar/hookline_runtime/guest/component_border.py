"""What crosses a compiled component's border, as the engine has it: inspection read the artifact, and this will run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wasmtime import component as model
from wasmtime.component import _types as kinds

if TYPE_CHECKING:
    import wasmtime

Imports = dict[str, dict[str, str] | None]
Exports = dict[str, tuple[str, str | None]]

_UNKNOWN: Final = "?"
_PLAIN: Final[dict[type, str]] = {
    kinds.Bool: "bool", kinds.S8: "s8", kinds.U8: "u8", kinds.S16: "s16", kinds.U16: "u16", kinds.S32: "s32",
    kinds.U32: "u32", kinds.S64: "s64", kinds.U64: "u64", kinds.F32: "f32", kinds.F64: "f64", kinds.Char: "char",
    kinds.String: "string",
}  # fmt: skip


def border(component: model.Component, where: wasmtime.Engine) -> tuple[Imports, Exports]:
    """Interfaces with their functions' types, and exports with their sorts and types."""
    imports: Imports = {}
    for name, item in component.type.imports(where).items():
        kind = item.ty
        imports[name] = (
            {each: _function(one.ty) for each, one in kind.exports(where).items() if isinstance(one.ty, model.FuncType)}
            if isinstance(kind, kinds.ComponentInstanceType)
            else None
        )
    exports: Exports = {}
    for name, item in component.type.exports(where).items():
        kind = item.ty
        exports[name] = ("function", _function(kind)) if isinstance(kind, model.FuncType) else ("thing", None)
    return imports, exports


def _function(kind: model.FuncType) -> str:
    params = ", ".join(f"{name}: {_value(each)}" for name, each in kind.params)
    result = kind.result
    return f"func({params})" + ("" if result is None else f" -> {_value(result)}")


def _value(kind: Any, depth: int = 0) -> str:
    """A type as WIT writes it, as far as Hookline's interface has such."""
    if type(kind) in _PLAIN:
        return _PLAIN[type(kind)]
    if depth < 4:  # noqa: PLR2004 - deeper than any of ours
        match kind:
            case model.ListType():
                return f"list<{_value(kind.element, depth + 1)}>"
            case model.OptionType():
                return f"option<{_value(kind.payload, depth + 1)}>"
            case model.ResultType():
                ok, error = (None if each is None else _value(each, depth + 1) for each in (kind.ok, kind.err))
                return f"result<{ok or '_'}, {error}>" if error else f"result<{ok}>" if ok else "result"
    return _UNKNOWN
