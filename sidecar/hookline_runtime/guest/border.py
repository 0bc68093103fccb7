"""What both call paths share: the border of a module, what its host functions see of it, and how errors read."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import wasmtime

from hookline_api.abi import WASI_MODULE
from hookline_api.hooks import OBSERVERS
from hookline_artifacts.module.inspection import ModuleInfo, judge_module
from hookline_artifacts.module.sections import Import, Signature
from hookline_runtime.errors import CallError, OverloadError, TrapError
from hookline_runtime.guest.engine import first_line

if TYPE_CHECKING:
    from hookline_artifacts.module.memory_map import MemoryMap
    from hookline_runtime.guest.engine import CompiledModule
    from hookline_runtime.guest.said import Said

U32: Final = 0xFFFFFFFF
CONSTRUCTORS: Final = "__wasm_call_ctors"
TABLES: Final = 2
TABLE_ELEMENTS: Final = 200_000
"""Go puts every function into its table; an element takes 8 bytes."""

NO_PLACE: Final = "the engine has no place for another instance; use fewer plugins, or smaller pools"
UNANSWERED: Final = frozenset(hook.value for hook in OBSERVERS)
"""Hooks whose answer is ignored, whatever it is."""

_CAP_FACTOR: Final = 10
_CAP_LEAST_NS: Final = 1_000_000_000
_CAP_MOST_NS: Final = 5_000_000_000
_patient = False
_LETTERS: Final = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}
_VALUE_TYPES: Final = {
    "i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64, "f": wasmtime.ValType.f32, "F": wasmtime.ValType.f64,
}  # fmt: skip


PAGE: Final = 65_536
_WRITE_CACHES: Final = frozenset({"cache_set", "cache_delete"})


class OwnMemory:
    """Where no input may be, because the module has its stack or its data there."""

    def __init__(self, memory_map: MemoryMap, *, static: bool) -> None:
        """``static`` says whether data that is zero at first is meant too (``MemoryMap.own``)."""
        self.spans = memory_map.own(static=static)
        self._map = memory_map
        self._ends = [end for _, end in self.spans]

    def touched_by(self, begin: int, end: int) -> bool:
        """Whether any byte of a range is among it."""
        place = bisect_right(self._ends, begin)
        return place < len(self._ends) and self.spans[place][0] < end

    def room(self, end: int, most: int) -> int:
        """How far allocations may go on from ``end``: up to the first of it that is above, or to ``most``."""
        place = bisect_right(self._ends, end)
        return min(self.spans[place][0], most) if place < len(self.spans) and self.spans[place][0] >= end else most

    def refuse(self, pointer: int, size: int, memory: int) -> CallError | None:
        """What is wrong with what ``alloc`` answered, in a memory of that many bytes; None where nothing is."""
        if not pointer:
            return TrapError(f"alloc({size}) answered 0: the guest has no room for the input")
        if pointer + size > memory:
            return TrapError(f"alloc({size}) answered {pointer}: outside the guest's memory")
        return OverloadError(self._sentence(pointer, size)) if self.touched_by(pointer, pointer + size) else None

    def _sentence(self, pointer: int, size: int) -> str:
        stack = self._map.stack
        what = "stack" if stack and pointer < stack[1] and pointer + size > stack[0] else "data"
        return (
            f"alloc({size}) answered {pointer}, and these bytes overlap the module's own {what}: it has no room for an "
            "input of this size; lower limits.input, or let alloc hand out memory from __heap_base on"
        )


class GuestMemory(Protocol):
    """A guest's memory as its host functions see it: bounds-checked, for the time of one host call."""

    def read(self, pointer: int, length: int) -> bytes | None:
        """A copy of that range; None where any of it is outside memory."""

    def write(self, pointer: int, data: bytes) -> bool:
        """Put ``data`` at ``pointer``; False, and nothing is written, where it does not fit into memory."""

    @property
    def may_wait(self) -> bool:
        """Whether the guest is in its hook, and not in its ``alloc`` for something that it gets."""

    def said(self) -> Said:
        """What the guest has said in the call under way, to add to it."""

    def give(self, data: bytes) -> int:
        """Put ``data`` where the guest's own ``alloc`` says; packed pointer and length, or an error's code.

        The guest runs in here. Its ``alloc`` may call host functions, but those may not give anything in turn:
        a guest could recurse through the host until the native stack ends.
        """


@dataclass(frozen=True, slots=True)
class Waiting:
    """A host function that waits for somebody else, on the event loop, while its guest stands still."""

    run: Callable[..., Coroutine[Any, Any, int | bytes]]
    """``async (memory, *numbers)``: a number, or bytes that are put where the guest's ``alloc`` says. It is cancelled
    where the guest's call is, and may raise a CallError, which ends that call."""
    unavailable: int
    """What it answers where a guest may not wait: outside of its hooks, and in what it does for another answer."""


HostCallable = Callable[..., int] | Waiting
"""``(memory: GuestMemory, *numbers) -> int``, or one that waits, as ``hookline_runtime.host.functions`` makes them."""
Host = Mapping[tuple[str, str], HostCallable]


def initializer(info: ModuleInfo) -> str | None:
    """The function that sets an instance up, to be called once; None where there is nothing to call.

    A module of a toolchain without crt1-reactor exports what its ``_initialize`` would call: wasm-ld leaves it to the
    host then, https://lld.llvm.org/WebAssembly.html.
    """
    if "_initialize" in info.exports:
        return "_initialize"
    return CONSTRUCTORS if info.exports.get(CONSTRUCTORS) == ("function", ("", "")) else None


def most_memory(module: wasmtime.Module, limit: int) -> int:
    """Bytes that the module's memory may have at last, with ``limits.memory``."""
    kind = next(export.type for export in module.exports if export.name == "memory")
    assert isinstance(kind, wasmtime.MemoryType)  # noqa: S101 - the module's border was checked
    return limit if kind.limits.max is None else min(limit, kind.limits.max * PAGE)


def border(module: CompiledModule) -> ModuleInfo:
    """A compiled module's imports and exports, as the engine has them. Raises VerifyError."""
    exports: dict[str, tuple[str, Signature | None]] = {}
    pages, wide = 0, False
    for export in module.exports:
        kind = export.type
        exports[export.name] = (_kind(kind), _signature(kind))
        if export.name == "memory" and isinstance(kind, wasmtime.MemoryType):
            pages, wide = kind.limits.min, kind.is_64
    imports = [
        Import(module=each.module, name=each.name or "", kind=_kind(each.type), signature=_signature(each.type))
        for each in module.imports
    ]
    return judge_module(imports=imports, exports=exports, memory_pages=pages, memory64=wide)


def function_type(params: str, results: str) -> wasmtime.FuncType:
    """Letters of ``hookline_api.abi`` as a type."""
    return wasmtime.FuncType([_VALUE_TYPES[p]() for p in params], [_VALUE_TYPES[r]() for r in results])


def may_wait(name: str) -> bool:
    """Whether a host function may wait: for others who write to the store, or for a disk.

    What such a function takes by the clock is its guest's time (``spent_ns``).
    """
    return name.startswith("kv_") or name in _WRITE_CACHES


def spent_ns(*, work_ns: int, passed_ns: int, host_ns: int) -> int:
    """What a call has used of its time: processor time, and what it waited for in host functions.

    What it waited in all is what passed without processor time. Some of it, the most by far on a machine that is not
    busy, is what the host functions took; and they cannot have waited for longer than they took.
    """
    return work_ns + min(host_ns, max(0, passed_ns - work_ns))


def left_ns(*, timeout_ns: int, used_ns: int, passed_ns: int) -> int:
    """What is left of a time-out after that much time used (``spent_ns``) and that much passed; 0 to end the call.

    A call that was not given a core goes on, up to a hard cap, so that a busy machine kills no innocent call.
    """
    cap = min(max(timeout_ns * _CAP_FACTOR, timeout_ns + _CAP_LEAST_NS), timeout_ns + _CAP_MOST_NS)
    over = passed_ns >= cap and not _patient
    # Nine tenths are enough: on a free core a loop has used that much when its time is over, and another tick
    # for the rest would be one too many.
    return 0 if over or used_ns * 10 >= timeout_ns * 9 else timeout_ns - used_ns


def be_patient() -> None:
    """In this process, which answers nobody who waits, no call ends for want of a core: what it uses alone counts."""
    global _patient  # noqa: PLW0603 - it is the process's
    _patient = True


def overlap(start: int, length: int, other: int, size: int) -> bool:
    """Whether two ranges share bytes, or begin at the same place.

    A guest may answer in place. Freeing the same bytes twice is its allocator's undoing, also if they are none.
    """
    return start == other or (start < other + size and other < start + length)


def trap_reason(message: str) -> str:
    """The essence of a trap's message, which is a tree of causes and frames."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "wasm trap:" in line), None) or first_line(message)
    return reason.split("wasm trap: ", 1)[-1][:200]


def _kind(kind: object) -> str:
    return type(kind).__name__.removesuffix("Type").replace("Func", "function").lower()


def _signature(kind: object) -> Signature | None:
    if not isinstance(kind, wasmtime.FuncType):
        return None
    params, results = ("".join(_LETTERS.get(str(each), "?") for each in part) for part in (kind.params, kind.results))
    return params, results


# https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md: subscription and event.
_SUBSCRIPTION: Final = 48
_EVENT: Final = 32
_MAX_SUBSCRIPTIONS: Final = 1024
_MAX_RANDOM: Final = 2**20
_ERRNO_FAULT: Final = 21
_ERRNO_INVAL: Final = 28


def poll_oneoff(memory: GuestMemory, subscriptions: int, events: int, count: int, ready: int) -> int:
    """WASI's sleep, without sleeping: wasmtime's would hold our thread for as long as the guest likes.

    Every subscription is reported as ready at once; a guest that waits for its clock asks again, and is cut by
    its deadline.
    """
    count &= U32
    if not 0 < count <= _MAX_SUBSCRIPTIONS:
        return _ERRNO_INVAL
    asked = memory.read(subscriptions, count * _SUBSCRIPTION)
    if asked is None:
        return _ERRNO_FAULT
    answer = bytearray(count * _EVENT)
    for index in range(count):
        subscription = asked[index * _SUBSCRIPTION :]
        event = index * _EVENT
        answer[event : event + 8] = subscription[:8]  # userdata
        answer[event + 10] = subscription[8]  # the kind of event
    written = memory.write(events, bytes(answer)) and memory.write(ready, count.to_bytes(4, "little"))
    return 0 if written else _ERRNO_FAULT


def random_get(memory: GuestMemory, pointer: int, length: int) -> int:
    """WASI's random numbers, a mebibyte at a time at the most: no deadline cuts wasmtime's, which fills any memory."""
    if length & U32 > _MAX_RANDOM:
        return _ERRNO_INVAL
    return 0 if memory.write(pointer, os.urandom(length & U32)) else _ERRNO_FAULT


WASI_OURS: Final[dict[str, tuple[str, Callable[..., int]]]] = {
    "poll_oneoff": ("iiii", poll_oneoff),
    "random_get": ("ii", random_get),
}
"""The functions of WASI that are ours: parameters and function; each answers an errno."""
WASI_OF_PLUGIN: Final = {"fd_write": "iiii"}
"""Those that are a plugin's own, in its ``Host``: their parameters."""


def own_wasi(host: Host) -> Iterator[tuple[str, str, Callable[..., int]]]:
    """The functions of WASI that take the place of the engine's: name, parameters, function."""
    for name, (params, function) in WASI_OURS.items():
        yield name, params, function
    for name, params in WASI_OF_PLUGIN.items():
        given = host.get((WASI_MODULE, name))
        if given is not None and not isinstance(given, Waiting):
            yield name, params, given
