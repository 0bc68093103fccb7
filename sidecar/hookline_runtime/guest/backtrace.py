"""Which functions of a guest were under way when its call failed: names for people, the innermost first.

The names are those of the module's section ``name``, which its compiled form keeps. A module chooses them, so each is
cut and escaped. Rust's and C++'s are written as their sources have them, without parameters and hashes.
"""

from __future__ import annotations

import ctypes
import itertools
import re
from typing import TYPE_CHECKING, Final

import wasmtime
from wasmtime import _bindings as ffi

from hookline_runtime.guest.said import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FRAMES: Final = 8
"""Of a backtrace that is shown."""
MAX_NAME: Final = 96
"""Characters of a function's name."""
MAX_RAW: Final = 512
"""Bytes of a name that are looked at."""
MAX_KNOWN: Final = 1024
"""Names of one module that are remembered, so that who fails on each call does not pay for them each time."""
_ENGINE_SHOWS: Final = 20
"""Frames that the engine keeps of a failure: a backtrace of so many may have lost the outermost ones."""

_ENDS: Final = re.compile(
    r"rust_begin_unwind|rust_panic|_?_?r(?:ust|g|dl)_\w+|_?_?(?:core|std|alloc)::|runtime\.|abort$"
)
"""What a language's runtime has between a panic and its end; nobody looks for a fault there."""
_HASH: Final = re.compile(r"::h[0-9a-f]{16}$")
_LENGTH: Final = re.compile(r"\d{1,3}")
_ESCAPE: Final = re.compile(r"\$(LT|GT|RF|BP|LP|RP|C|SP|u[0-9a-f]{1,6})\$")
_ESCAPES: Final = {"LT": "<", "GT": ">", "RF": "&", "BP": "*", "LP": "(", "RP": ")", "C": ",", "SP": "@"}
_V0: Final = re.compile(r"[sB][0-9a-zA-Z]*_|K[a-z]n?[0-9a-f]*_|u?(\d{1,3})_?|.", re.DOTALL)


class Functions:
    """The functions of one module that were in a backtrace."""

    def __init__(self) -> None:
        self.names: dict[int, str | None] = {}
        """Their names by index, as far as they have any."""
        self._last: tuple[Sequence[int], str, tuple[str, ...]] = (), "", ()
        """The newest backtrace: who fails on each call mostly does so in one place."""

    def make_room(self) -> None:
        """Forget the names where there are too many."""
        if len(self.names) > MAX_KNOWN:
            self.names.clear()

    def of(self, error: Exception) -> list[int]:
        """The functions that one of wasmtime-py's errors names, as ``capi.frames``."""
        if not isinstance(error, wasmtime.Trap | wasmtime.WasmtimeError):
            return []
        self.make_room()
        vector = ffi.wasm_frame_vec_t(0, None)
        trace = ffi.wasm_trap_trace if isinstance(error, wasmtime.Trap) else ffi.wasmtime_error_wasm_trace
        trace(error.ptr(), ctypes.byref(vector))
        try:
            functions = []
            for frame in vector.data[: vector.size]:
                index = ffi.wasm_frame_func_index(frame)
                functions.append(index)
                if index not in self.names:
                    name = ffi.wasmtime_frame_func_name(frame)
                    raw = name and ctypes.string_at(name.contents.data, min(name.contents.size, MAX_RAW))
                    self.names[index] = name_of(raw or None)
            return functions
        finally:
            ffi.wasm_frame_vec_delete(ctypes.byref(vector))

    def backtrace(self, functions: Sequence[int], entered: str) -> tuple[str, ...]:
        """A backtrace for people, of functions by their indexes: at most ``MAX_FRAMES``, the innermost first.

        Of more, the outermost is told too, and those before it are left out.
        ``entered`` is the export that was called: the outermost has that name where it has none of its own.
        """
        if not functions:
            return ()
        last = self._last
        if last[0] != functions or last[1] != entered:
            last = self._last = functions, entered, self._backtrace(functions, entered)
        return last[2]

    def _backtrace(self, functions: Sequence[int], entered: str) -> tuple[str, ...]:
        names = self.names
        called = [names.get(index) or f"function {index}" for index in functions]
        if not names.get(functions[-1]) and len(functions) < _ENGINE_SHOWS:
            called[-1] = entered
        own = list(itertools.dropwhile(_ENDS.match, called)) or called
        frames = []
        for name, group in itertools.groupby(own):
            times = sum(1 for _ in group)
            frames.append(name if times == 1 else f"{name} ({times} times)")
        if len(frames) > MAX_FRAMES:
            frames[MAX_FRAMES - 2 : -1] = ["..."]
        return tuple(frames)


def name_of(raw: bytes | None) -> str | None:
    """A function's name as it is shown; None where it has none."""
    if not raw:
        return None
    name = raw[:MAX_RAW].decode(errors="replace")
    if name.startswith("_ZN"):
        name = _HASH.sub("", "::".join(_legacy(name[3:]))) or name
    elif name.startswith("_R"):
        name = "::".join(_v0(name[2:])) or name
    else:
        name = _HASH.sub("", name)
    return one_line(name, MAX_NAME)


def _legacy(rest: str) -> list[str]:
    """The parts of a name as C++ mangles those in namespaces, and Rust used to do: each behind its length."""
    parts = []
    while found := _LENGTH.match(rest):
        end = found.end() + int(found[0])
        part, rest = rest[found.end() : end], rest[end:]
        part = part[1:] if part.startswith("_$") else part
        parts.append(_ESCAPE.sub(_unescaped, part).replace("..", "::"))
    return parts


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    return _ESCAPES.get(code) or chr(min(int(code[1:], 16), 0x10FFFF))


def _v0(rest: str) -> list[str]:
    """The identifiers of a name as Rust mangles it now, in their order.

    https://doc.rust-lang.org/rustc/symbol-mangling/v0.html. Types and generics are left out.
    """
    parts, at = [], 0
    while at < len(rest) and (found := _V0.match(rest, at)):
        at = found.end()
        if found[1]:
            parts.append(rest[at : at + int(found[1])])
            at += int(found[1])
    return [part for part in parts if part]
