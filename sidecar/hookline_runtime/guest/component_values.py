"""Values of the component model, as the engine's C API has them, from and to Python.

wasmtime-py looks up a value's type on each use, which takes longer than the call; here the types are known beforehand.
https://docs.wasmtime.dev/c-api/val_8h.html (component/val.h).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from wasmtime import _bindings as ffi

if TYPE_CHECKING:
    from collections.abc import Callable

Value = ffi.wasmtime_component_val_t
SIZE: Final = ctypes.sizeof(Value)
_OF: Final = Value.of.offset
_MAX_TEXT: Final = 16 * 2**20 + 1
"""Bytes that are taken of a text: one more than any host function takes, which is too many for each of them."""

(
    _BOOL, _S8, _U8, _S16, _U16, _S32, _U32, _S64, _U64, _F32, _F64, _CHAR, STRING, _LIST, _RECORD, _TUPLE, _VARIANT,
    _ENUM, _OPTION, _RESULT, _FLAGS, _RESOURCE,
) = range(22)  # fmt: skip


def read(value: Any, context: Any = None) -> Any:
    """What a guest gave: a number, a text as bytes, bytes of a ``list<u8>``, the number of a resource, or None."""
    kind, of = value.kind, value.of
    if kind == STRING:
        return ctypes.string_at(of.string.data, min(of.string.size, _MAX_TEXT)) if of.string.size else b""
    if kind == _RESOURCE:
        return _number_of(context, of.resource)
    if kind == _OPTION:
        return read(of.option.contents) if of.option else None
    if kind == _LIST:
        return _bytes(of.list)
    if kind == _RESULT:
        return of.result.is_ok
    if kind in _NUMBERS:
        return getattr(of, _NUMBERS[kind])
    return None


def _number_of(context: Any, resource: Any) -> int | None:
    """The number that we gave a resource when it was made; None where it is none of ours."""
    found = ctypes.POINTER(ffi.wasmtime_component_resource_host_t)()
    failure = ffi.wasmtime_component_resource_any_to_host(context, resource, ctypes.byref(found))
    if failure:
        ffi.wasmtime_error_delete(failure)
        return None
    rep: int = ffi.wasmtime_component_resource_host_rep(found)
    ffi.wasmtime_component_resource_host_delete(found)
    return rep


def give_back(context: Any, given: Any, count: int) -> None:
    """Let go of the resources among what a guest gave: what is lent to us may not outlive the call."""
    for place in range(count):
        if given[place].kind == _RESOURCE:
            failure = ffi.wasmtime_component_resource_any_drop(context, given[place].of.resource)
            if failure:
                ffi.wasmtime_error_delete(failure)


_NUMBERS: Final = {
    _BOOL: "boolean", _S8: "s8", _U8: "u8", _S16: "s16", _U16: "u16", _S32: "s32", _U32: "u32", _S64: "s64",
    _U64: "u64", _F32: "f32", _F64: "f64",
}  # fmt: skip


def _bytes(given: Any) -> bytes:
    """Those of a ``list<u8>``: each stands in a value of its own."""
    if not given.size or given.data[0].kind != _U8:
        return b""
    return ctypes.string_at(given.data, given.size * SIZE)[_OF::SIZE]


def write_text(value: Any, text: bytes) -> None:
    """A string. DANGER: the engine panics where it is not UTF-8."""
    value.kind = STRING
    ffi.wasm_byte_vec_new_uninitialized(ctypes.byref(value.of.string), len(text))
    if text:
        ctypes.memmove(value.of.string.data, text, len(text))


def lend_text(value: Any, text: bytes) -> None:
    """A string whose bytes stay where they are; the caller holds them, and nobody frees the value. DANGER: as above."""
    value.kind = STRING
    value.of.string.size = len(text)
    value.of.string.data = ctypes.cast(ctypes.c_char_p(text), type(value.of.string.data))


def number(kind: str) -> Callable[[Any, Any], None]:
    """A number of a type."""
    name = {"bool": "boolean"}.get(kind, kind)
    code = next(code for code, known in _NUMBERS.items() if known == name)

    def write(value: Any, given: Any) -> None:
        value.kind = code
        setattr(value.of, name, given)

    return write


def list_of(each: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A list."""

    def write(value: Any, given: Any) -> None:
        value.kind = _LIST
        ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(value.of.list), len(given))
        for place, item in enumerate(given):
            _blank(value.of.list.data[place])
            each(value.of.list.data[place], item)

    return write


def tuple_of(*each: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A tuple."""

    def write(value: Any, given: Any) -> None:
        value.kind = _TUPLE
        ffi.wasmtime_component_valtuple_new_uninit(ctypes.byref(value.of.tuple), len(each))
        for place, item in enumerate(given):
            _blank(value.of.tuple.data[place])
            each[place](value.of.tuple.data[place], item)

    return write


def record_of(**each: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A record, of values in the order of its fields."""

    def write(value: Any, given: Any) -> None:
        value.kind = _RECORD
        ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(value.of.record), len(each))
        for place, (name, item) in enumerate(zip(each, given, strict=True)):
            entry = value.of.record.data[place]
            ffi.wasm_byte_vec_new_uninitialized(ctypes.byref(entry.name), len(name))
            ctypes.memmove(entry.name.data, name.encode(), len(name))
            _blank(entry.val)
            each[name](entry.val, item)

    return write


def option_of(some: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """An option; None for none."""

    def write(value: Any, given: Any) -> None:
        value.kind = _OPTION
        value.of.option = None if given is None else _boxed(some, given)

    return write


def ok_of(ok: Callable[[Any, Any], None] | None) -> Callable[[Any, Any], None]:
    """A result whose error is a string: an ``Error`` for one."""

    def write(value: Any, given: Any) -> None:
        value.kind = _RESULT
        if isinstance(given, Error):
            value.of.result.val = _boxed(write_text, given.text)
            value.of.result.is_ok = False
        else:
            value.of.result.val = None if ok is None else _boxed(ok, given)
            value.of.result.is_ok = True

    return write


def write_resource(value: Any, given: Any) -> None:
    """A resource, which is the guest's from here on."""
    value.kind = _RESOURCE
    value.of.resource = given


class Error:
    """A result that is none."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


def _blank(value: Any) -> None:
    ctypes.memset(ctypes.byref(value), 0, SIZE)


def _boxed(write: Callable[[Any, Any], None], given: Any) -> Any:
    value = Value()
    write(value, given)
    return ffi.wasmtime_component_val_new(ctypes.byref(value))  # it has moved
