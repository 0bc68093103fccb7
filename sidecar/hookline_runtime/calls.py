"""Calls into a guest: the one place where wasmtime runs somebody's code.

Everything a call needs of the engine is behind two classes: a ``Guest`` is a module linked to its host
functions for one plugin, an ``Instance`` is one instantiation with a store and a memory of its own. The rest of
the runtime never sees a store, a pointer or a trap, so this room can be rebuilt for speed without a change
elsewhere.

What each call guarantees:

- it ends: one deadline covers instantiation, ``_initialize``, ``alloc``, the hook and ``dealloc``. When the engine's
  clock says that the time is over, the thread's own processor time is asked: a call that was not given a core goes
  on, up to a hard cap, so a busy machine or a throttled pod kills no innocent call;
- it stays in its memory: pointers and lengths from a guest are masked to 32 bits, and checked, before use;
- it raises a ``CallError`` and nothing else, and an instance that raised is never used again;
- host functions cannot raise: wasmtime-py keeps the last Python exception in one process-wide variable, so with
  two threads one plugin's exception would come out of another plugin's call.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import wasmtime
from wasmtime import _bindings as ffi
from wasmtime._extern import wrap_extern

from hookline_api.abi import E_MEMORY, E_UNAVAILABLE, HOST_FUNCTIONS, WASI_MODULE
from hookline_api.hooks import OBSERVERS
from hookline_runtime.artifacts.inspection import Import, ModuleInfo, Signature, judge_module
from hookline_runtime.engine import deadline_ticks, engine, first_line
from hookline_runtime.errors import CallError, DeadlineError, ResultError, TrapError, VerifyError

if TYPE_CHECKING:
    from hookline_api.resources import Limits

_U32: Final = 0xFFFFFFFF
_TABLES: Final = 2
_TABLE_ELEMENTS: Final = 200_000  # Go puts every function into its table; an element takes 8 bytes
_VALUE_TYPES: Final = {
    "i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64, "f": wasmtime.ValType.f32, "F": wasmtime.ValType.f64,
}  # fmt: skip

_UNANSWERED: Final = frozenset(hook.value for hook in OBSERVERS)
"""Hooks whose answer is ignored, whatever it is."""

HostCallable = Callable[..., int]
"""``(memory: GuestMemory, *numbers) -> int``, as ``hookline_runtime.host`` makes them."""

_LETTERS: Final = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}

_CAP_FACTOR: Final = 10
_CAP_EXTRA_NS: Final = 5_000_000_000


class _Clock(threading.local):
    """The time of the call that runs on this thread."""

    expired = False
    """Whether the call was interrupted."""
    giving = False
    """Whether a host function is calling the guest's ``alloc``."""
    _timeout_ns = 0
    _cpu_ns = 0
    _wall_ns = 0

    def start(self, timeout_ms: int) -> None:
        """A call begins."""
        self.expired = False
        self._timeout_ns = timeout_ms * 1_000_000
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = time.monotonic_ns()

    def used_ns(self) -> int:
        """Processor time since the call began."""
        return time.thread_time_ns() - self._cpu_ns

    def left_ns(self) -> int:
        """What is left of the time-out, of processor time; 0 where the call has to end."""
        used = self.used_ns()
        passed = time.monotonic_ns() - self._wall_ns
        over = passed >= min(self._timeout_ns * _CAP_FACTOR, self._timeout_ns + _CAP_EXTRA_NS)
        # Nine tenths are enough: on a free core a loop has used that much when its time is over, and another tick
        # for the rest would be one too many.
        return 0 if over or used * 10 >= self._timeout_ns * 9 else self._timeout_ns - used


_clock = _Clock()

_DeadlineCallback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)


def _deadline(_store: object, _data: object, extension: Any, kind: Any) -> int:
    left = _clock.left_ns()
    if left:
        extension[0], kind[0] = deadline_ticks(left // 1_000_000), _CONTINUE
        return 0
    _clock.expired = True
    return ctypes.cast(ffi.wasmtime_error_new(b"deadline"), ctypes.c_void_p).value or 0


_CONTINUE: Final = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE, wasmtime/store.h
_on_deadline: Final = _DeadlineCallback(_deadline)  # kept for as long as any store may call it
_no_finalizer: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()


class GuestMemory:
    """A guest's memory as its host functions see it: bounds-checked, for the time of one host call."""

    __slots__ = ("_caller",)

    def __init__(self, caller: wasmtime.Caller) -> None:
        self._caller = caller

    def read(self, pointer: int, length: int) -> bytes | None:
        """A copy of that range; None where any of it is outside memory."""
        pointer, length = pointer & _U32, length & _U32
        base, size = _span(self._caller["memory"], self._caller)
        return ctypes.string_at(base + pointer, length) if pointer + length <= size else None

    def write(self, pointer: int, data: bytes) -> bool:
        """Put ``data`` at ``pointer``; False, and nothing is written, where it does not fit into memory."""
        pointer &= _U32
        base, size = _span(self._caller["memory"], self._caller)
        if pointer + len(data) > size:
            return False
        ctypes.memmove(base + pointer, data, len(data))
        return True

    def give(self, data: bytes) -> int:
        """Put ``data`` where the guest's own ``alloc`` says; packed pointer and length, or an error's code.

        The guest runs in here. Its ``alloc`` may call host functions, but those may not give anything in turn:
        a guest could recurse through the host until the native stack ends.
        """
        if _clock.giving:
            return -E_UNAVAILABLE
        alloc = self._caller["alloc"]
        _clock.giving = True
        try:
            pointer = alloc(self._caller, len(data)) & _U32  # type: ignore[operator]  # inspection saw a function
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            return -E_UNAVAILABLE  # a guest that was interrupted in there traps again at its next step
        finally:
            _clock.giving = False
        if not pointer:
            return -E_UNAVAILABLE
        return pointer << 32 | len(data) if self.write(pointer, data) else -E_MEMORY


class Guest:
    """One module, linked once to one plugin's host functions.

    The module is judged again here, by what the engine says of it: inspection read the artifact, and this is what
    will run. Raises VerifyError.
    """

    def __init__(
        self,
        module: wasmtime.Module,
        *,
        limits: Limits,
        host: Mapping[tuple[str, str], HostCallable],
    ) -> None:
        self.info = info = _border(module)
        self.limits = limits
        self._fuel = limits.fuel
        self._engine = engine(fuel=limits.fuel is not None)
        self._ticks = deadline_ticks(limits.timeout)
        self._wasi = info.needs_wasi
        self._initialize = "_initialize" in info.exports
        self.frees = "dealloc" in info.exports
        """Whether the guest takes memory back."""
        self._linker = _link(self._engine, info, host)
        try:
            self._pre = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise VerifyError(f"the module cannot be linked: {first_line(error)}") from error

    def instantiate(self, *, timeout_ms: int | None = None) -> Instance:
        """A new instance with fresh memory; its deadline runs from here and covers its first call.

        With ``timeout_ms`` it is made ahead of any call: it has that time to come up, and its first call has a
        deadline of its own. Raises TrapError or DeadlineError where the start function or ``_initialize`` does not
        come back.
        """
        ahead = timeout_ms is not None
        store = wasmtime.Store(self._engine)
        try:
            store.set_limits(
                memory_size=self.limits.memory,
                table_elements=_TABLE_ELEMENTS,
                instances=1,
                tables=_TABLES,
                memories=1,
            )
            if self._wasi:
                store.set_wasi(wasmtime.WasiConfig())  # an empty one: no files, arguments, environment, output
            ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), _on_deadline, None, _no_finalizer)
            self.arm(store, timeout_ms)
            instance = self._pre.instantiate(store)
            if self._initialize:
                _export(store, instance, "_initialize")(store)
            return Instance(self, store, instance, armed=not ahead)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            store.close()
            raise self.call_error(error, "instantiation", f"{timeout_ms} ms" if ahead else None) from error
        except BaseException:
            store.close()
            raise

    def arm(self, store: wasmtime.Store, timeout_ms: int | None = None) -> None:
        """Give a store a fresh deadline and fresh fuel, for a call on this thread."""
        _clock.start(self.limits.timeout if timeout_ms is None else timeout_ms)
        store.set_epoch_deadline(self._ticks if timeout_ms is None else deadline_ticks(timeout_ms))
        if self._fuel is not None:
            store.set_fuel(self._fuel)

    def fuel_used(self, store: wasmtime.Store) -> int:
        """Fuel of the last call; 0 where it is not counted."""
        return 0 if self._fuel is None else self._fuel - store.get_fuel()

    def call_error(self, error: Exception, where: str, time: str | None = None) -> CallError:
        """What one of wasmtime's errors means for the failure policy; ``time`` where it was not the limit's."""
        code = None
        if isinstance(error, wasmtime.Trap):
            try:
                code = error.trap_code
            except ValueError:  # a code that this wasmtime-py has no name for
                code = None
        if _clock.expired or code is wasmtime.TrapCode.INTERRUPT:
            time = time or f"limits.timeout ({self.limits.timeout} ms)"
            return DeadlineError(f"{where} took longer than {time}")
        if code is wasmtime.TrapCode.OUT_OF_FUEL:
            return DeadlineError(f"{where} used up limits.fuel ({self._fuel})")
        if isinstance(error, wasmtime.ExitTrap):
            return TrapError(f"{where} ended the program with exit code {error.code}")
        if isinstance(error, wasmtime.Trap):
            lines = [line.strip() for line in error.message.splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if "wasm trap:" in line), lines[0] if lines else "?")
            return TrapError(f"{where} trapped: {reason.split('wasm trap: ', 1)[-1][:200]}")
        return TrapError(f"{where} failed: {first_line(error)}")


class Instance:
    """One instantiation: own store, own memory, own limits. Used by one thread at a time."""

    __slots__ = (
        "_armed",
        "_functions",
        "_guest",
        "_instance",
        "_memory",
        "_store",
        "calls",
        "fuel",
        "memory",
    )

    def __init__(self, guest: Guest, store: wasmtime.Store, instance: wasmtime.Instance, *, armed: bool) -> None:
        self._guest = guest
        self._store = store
        self._instance = instance
        self._memory = _export(store, instance, "memory")
        self._functions: dict[str, Any] = {}
        self._armed = armed
        self.calls = 0
        """Calls that this instance has served."""
        self.fuel = 0
        """Fuel of the last call, where it is counted."""
        self.memory = 0
        """Bytes of memory after the last call."""

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:
        """One hook call: the guest's answer, or None for the hook's default.

        ``last`` says that the instance is dropped afterwards, so the guest need not free anything. Raises a
        CallError, after which the instance must be dropped.
        """
        guest, store = self._guest, self._store
        if self._armed:
            self._armed = False  # by the instantiation, which is a part of its first call
        else:
            guest.arm(store)
        self.calls += 1
        where = "alloc"
        try:
            pointer = self._function("alloc")(store, len(data)) & _U32
            base, size = _span(self._memory, store)
            if data and (not pointer or pointer + len(data) > size):
                raise TrapError(
                    f"alloc({len(data)}) answered {pointer}: "
                    + ("the guest has no room for the input" if not pointer else "outside the guest's memory")
                )
            ctypes.memmove(base + pointer, data, len(data))
            where = hook
            packed = self._function(hook)(store, pointer, len(data))
            result = None
            if packed:
                start, length = packed >> 32 & _U32, packed & _U32
                if hook not in _UNANSWERED:
                    result = self._read(start, length)
                elif start + length > _span(self._memory, store)[1]:
                    start = length = 0  # whatever it is, it is nothing to free
                if guest.frees and not last and not _overlap(start, length, pointer, len(data)):
                    where = "dealloc"
                    self._function("dealloc")(store, start, length)
            if guest.frees and not last:
                where = "dealloc"
                self._function("dealloc")(store, pointer, len(data))
            return result
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise guest.call_error(error, where) from error
        finally:
            self.fuel = guest.fuel_used(store)
            self.memory = _span(self._memory, store)[1]

    def work_ns(self) -> int:
        """Processor time since the last call on this thread began."""
        return _clock.used_ns()

    def close(self) -> None:
        """Give the store and its memory back."""
        self._store.close()

    def _function(self, name: str) -> Any:
        """An export that the module's border says is a function; looked up when it is first needed."""
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = _export(self._store, self._instance, name)
        return found

    def _read(self, start: int, length: int) -> bytes:
        if length > self._guest.limits.output:
            raise ResultError(f"the result has {length} bytes, and limits.output is {self._guest.limits.output}")
        base, size = _span(self._memory, self._store)  # again: the hook may have grown it
        if start + length > size:
            raise ResultError(f"the result is outside memory: {length} bytes at {start}, of {size}")
        return ctypes.string_at(base + start, length)


def _export(store: wasmtime.Store, instance: wasmtime.Instance, name: str) -> Any:
    """One export by name.

    wasmtime-py's own mapping makes an object of every export, on each instantiation; a module may have thousands,
    and no deadline covers that.
    """
    found = ffi.wasmtime_extern_t()
    raw = name.encode()
    there = ffi.wasmtime_instance_export_get(
        store._context(),  # noqa: SLF001 - what wasmtime-py's own modules pass to the C API
        ctypes.byref(instance._instance),  # noqa: SLF001 - the same
        ctypes.create_string_buffer(raw),
        len(raw),
        ctypes.byref(found),
    )
    assert there  # noqa: S101 - the module's border was checked
    return wrap_extern(found)


def _border(module: wasmtime.Module) -> ModuleInfo:
    """A compiled module's imports and exports, as the engine has them."""
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


def _kind(kind: object) -> str:
    return type(kind).__name__.removesuffix("Type").replace("Func", "function").lower()


def _signature(kind: object) -> Signature | None:
    if not isinstance(kind, wasmtime.FuncType):
        return None
    params, results = ("".join(_LETTERS.get(str(each), "?") for each in part) for part in (kind.params, kind.results))
    return params, results


def _span(memory: object, store: wasmtime.Store | wasmtime.Caller) -> tuple[int, int]:
    """Address and size of a linear memory now; both change when it grows."""
    assert isinstance(memory, wasmtime.Memory)  # noqa: S101 - inspection refused everything else
    return ctypes.cast(memory.data_ptr(store), ctypes.c_void_p).value or 0, memory.data_len(store)


def _overlap(start: int, length: int, other: int, size: int) -> bool:
    # A guest may answer in place. Freeing the same bytes twice is its allocator's undoing, also if they are none.
    return start == other or (start < other + size and other < start + length)


def _link(where: wasmtime.Engine, info: ModuleInfo, host: Mapping[tuple[str, str], HostCallable]) -> wasmtime.Linker:
    linker = wasmtime.Linker(where)
    if info.needs_wasi:
        linker.define_wasi()
        linker.allow_shadowing = True
        linker.define_func(
            WASI_MODULE,
            "poll_oneoff",
            _function_type("iiii", "i"),
            _callback(_poll_oneoff),
            access_caller=True,
        )
    for entry in info.imports:
        if entry.module == WASI_MODULE:
            continue
        function = HOST_FUNCTIONS[entry.module, entry.name]
        linker.define_func(
            entry.module,
            entry.name,
            _function_type(function.params, function.results),
            _callback(host[entry.module, entry.name]),
            access_caller=True,
        )
    return linker


def _function_type(params: str, results: str) -> wasmtime.FuncType:
    return wasmtime.FuncType([_VALUE_TYPES[p]() for p in params], [_VALUE_TYPES[r]() for r in results])


def _callback(function: HostCallable) -> Callable[..., int]:
    def call(caller: wasmtime.Caller, *numbers: float) -> int:
        try:
            return function(GuestMemory(caller), *numbers)
        except BaseException:  # noqa: BLE001 - nothing may leave a callback, see the module's docstring
            return E_UNAVAILABLE

    return call


# https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md: subscription and event.
_SUBSCRIPTION: Final = 48
_EVENT: Final = 32
_MAX_SUBSCRIPTIONS: Final = 1024
_ERRNO_FAULT: Final = 21
_ERRNO_INVAL: Final = 28


def _poll_oneoff(memory: GuestMemory, subscriptions: int, events: int, count: int, ready: int) -> int:
    """WASI's sleep, without sleeping: wasmtime's would hold our thread for as long as the guest likes.

    Every subscription is reported as ready at once; a guest that waits for its clock asks again, and is cut by
    its deadline.
    """
    count &= _U32
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
