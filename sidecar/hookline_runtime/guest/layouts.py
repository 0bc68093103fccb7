"""The memory that Python and ``accelerator.c`` share: the name, place and size of each field, in bytes.

The compiler lays the C structures out, and this file the Python ones. The accelerator says what the compiler did, and
is used only where both are the same (``accelerator.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

Layout = tuple[tuple[str, int, int], ...]
"""Of each field: ``structure.field``, its offset, its size."""

_WORD: Final = 8
MAX_FIELDS: Final = 16
"""Fields of one object that the accelerator looks for."""
MAX_NAME: Final = 28
"""Bytes of a field's name there."""

_ITEM: Final = {"kind": 1, "store": 1, "rest": 2}
_EXPORT: Final = {"found": 4, "name": 1, "length": 1}
_BLOCK: Final = {
    "instance": 2, "memory": 4, "cells": 4, "nested": 4, "fuel": 1, "trap_code": 1,
    "context": 1, "trap": 1, "failure": 1, "begin_ns": 1, "fresh": 1, "armed": 1, "thread": 1,
    "base": 1, "size": 1, "region": 1, "region_size": 1, "pointer": 1, "alloc": 1, "dealloc": 1,
    "store": 1, "engine": 1, "pre": 1, "on_deadline": 1,
    "ticks": 1, "max_output": 1, "max_memory": 1, "max_elements": 1, "max_tables": 1,
    "own": 1, "own_end": 1, "most": 1, "worn_size": 1, "worn_end": 1,
}  # fmt: skip
"""Of an instance, in words; ``accelerator.c`` says what they are. Its functions' exports are behind it."""
_WASMTIME: Final = (
    "func_call_unchecked", "store_new", "store_context", "store_limiter", "store_epoch_deadline_callback",
    "store_delete", "context_set_epoch_deadline", "instance_pre_instantiate", "instance_export_get", "memory_data",
    "memory_data_size",
)  # fmt: skip
"""The functions of ``capi.FOR_ACCELERATOR``, an address each."""

BLOCK_WORDS: Final = sum(_BLOCK.values())
EXPORT_WORDS: Final = sum(_EXPORT.values())


def words(*names: str) -> tuple[int, ...]:
    """Which words of an instance's block these fields are, or begin with."""
    begins = {name: at // _WORD for name, at, _ in _lay_out("", _BLOCK, _WORD)}
    return tuple(begins[f".{name}"] for name in names)


def _lay_out(structure: str, sizes: Mapping[str, int], unit: int) -> Iterable[tuple[str, int, int]]:
    at = 0
    for name, size in sizes.items():
        yield f"{structure}.{name}", at, size * unit
        at += size * unit


LAYOUT: Final[Layout] = (
    *_lay_out("item", _ITEM, _WORD),
    *_lay_out("export", _EXPORT, _WORD),
    *_lay_out("block", _BLOCK, _WORD),
    *_lay_out("wasmtime", dict.fromkeys(_WASMTIME, 1), _WORD),
    *_lay_out("field", {"name": MAX_NAME, "length": 1, "kinds": 1, "role": 1, "fact": 1}, 1),
    *_lay_out("shape", {"fields": MAX_FIELDS * (MAX_NAME + 4), "count": 1, "required": 1}, 1),
)
"""All that is shared, in the order of ``accelerator.c``."""


def difference(theirs: Layout, ours: Layout = LAYOUT) -> str | None:
    """The first field that is elsewhere, or has another size, in two layouts; None where they are the same."""
    for field, other in zip(ours, theirs, strict=False):
        if field != tuple(other):
            return f"{_sentence(other)}, and not {_sentence(field)}"
    if len(theirs) != len(ours):
        return f"it has {len(theirs)} fields, and not {len(ours)}"
    return None


def _sentence(field: tuple[str, int, int]) -> str:
    name, at, size = field
    return f"{name} has {size} bytes at {at}"
