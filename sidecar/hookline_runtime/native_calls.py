"""Calls into a guest at the speed of the C API (``capi.py``): what ``calls.py`` promises, and why it is safe here.

A pooled call is one slice assignment, one call into the library, and one slice read. What makes that safe:

**Pointers outlive their use.** All memory that the library writes to through us (functions, arguments, a trap) is one
block that belongs to the ``Instance``; its addresses are computed once, and the block lives as long as they do.
What the library allocates (the store) is given back in ``close`` and nowhere else. An ``Instance`` is used again for
the next store of its guest, with the same block, because making one costs more than a call.

**Memory is looked at through one view**, which is bounds-checked by Python on every use. A linear memory only grows,
and the engine does not move one that has its whole address range reserved (``engine.py``), so a view is too short at
worst; it is derived anew when a guest names a place behind its end. A view never outlives its store in use: ``open``
sets it for the new store before anybody can touch it.

**Numbers from a guest** are masked to 32 bits and compared with the size of memory before a byte is read or written.

**The deadline** is set when the engine's clock has moved since it was set last, every few milliseconds at most, so
most calls begin later than their deadline was set. The callback that the engine asks at the deadline knows when the
call really began, and takes off what the thread may have done before; so a call is never charged for another's
time, and always has all of its own.

**Callbacks** (the deadline's, and host functions') cannot raise: each has one ``try`` around everything.

Nothing here may be used by two threads at a time, except ``Guest.instantiate``.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

import wasmtime

from hookline_api.abi import (
    E_MEMORY,
    E_UNAVAILABLE,
    HOST_FUNCTIONS,
    INPUT_REGION,
    WASI_MODULE,
)
from hookline_runtime import accelerator, capi
from hookline_runtime.border import (
    NO_PLACE,
    TABLE_ELEMENTS,
    TABLES,
    U32,
    UNANSWERED,
    WASI_OURS,
    Host,
    HostCallable,
    border,
    function_type,
    left_ns,
    overlap,
    trap_reason,
)
from hookline_runtime.engine import EPOCH, deadline_ticks, engine, first_line
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, ResultError, TrapError, VerifyError

if TYPE_CHECKING:
    from hookline_api.resources import Limits

_PAGE: Final = 65_536
_MAX_SHELLS: Final = 8
_MAX_VIEWS: Final = 64
_MAX_CELLS: Final = 256

# The block of an instance, in words of 8 bytes. Cells are 16 bytes each, and aligned to 16.
_INSTANCE: Final = 0
_MEMORY: Final = 2
_CELLS: Final = 6
_NESTED_CELLS: Final = 10
_FUEL: Final = 14
_TRAP_CODE: Final = 15
# From here on for the accelerator too: what it has to know of an instance, and what it says of a call.
_CONTEXT: Final = 16
_TRAP: Final = 17
_FAILURE: Final = 18
_BEGIN: Final = 19
_ARMED: Final = 20
_THREAD: Final = 21
_BASE: Final = 22
_SIZE: Final = 23
_REGION_AT: Final = 24
_REGION_LENGTH: Final = 25
_MAX_OUTPUT: Final = 26
_ALLOC: Final = 27
_DEALLOC: Final = 28
_POINTER: Final = 29
_FUNCTIONS: Final = accelerator.WORDS
_WORDS_PER_EXTERN: Final = capi.EXTERN // 8

# TrapCode of the wasmtime crate, as it writes them.
_TRAPS: Final = (
    "call stack exhausted", "out of bounds memory access", "unaligned atomic",
    "undefined element: out of bounds table access", "uninitialized element", "indirect call type mismatch",
    "integer overflow", "integer divide by zero", "invalid conversion to integer",
    "wasm `unreachable` instruction executed", "interrupt", "all fuel consumed by WebAssembly",
)  # fmt: skip
_TRAP_INTERRUPT: Final = 10
_TRAP_OUT_OF_FUEL: Final = 11

# What the accelerator says has run when it leaves the rest of a call to us.
_NOTHING: Final = 0
_RAN_ALLOC: Final = 1
_RAN_HOOK: Final = 2
_RAN_DEALLOC: Final = 3
_NEVER: Final = 2**64 - 1
"""The epoch for which a deadline is set where none is."""

_func_call = capi.func_call_unchecked
_accelerated = accelerator.call
_get_ident = threading.get_ident
_now_ns = time.perf_counter_ns

_running: Final[dict[int, Any]] = {}
"""A weak reference to the instance that runs on each thread, or ran there last: callbacks come on their call's thread.

A thread sets its own entry, and nobody takes one away: whoever looked first could take away the next one.
"""

accelerator.use(ctypes.cast(_func_call, ctypes.c_void_p).value or 0, EPOCH, _running)


def _deadline(_context: object, _data: object, delta: int, kind: int) -> int:
    """The engine's clock says that a call's time is over: let it end, or let it go on."""
    with contextlib.suppress(BaseException):  # nothing may leave a callback; where anything is wrong, the call ends
        instance: Instance = _running[_get_ident()]()
        left = instance.left_ns()
        if left:
            ctypes.c_uint64.from_address(delta).value = deadline_ticks(left // 1_000_000)
            ctypes.c_uint8.from_address(kind).value = capi.CONTINUE
            return 0
        instance.expired = True
    return int(capi.error_new(b"deadline") or 0)


_on_deadline: Final = capi.DeadlineCallback(_deadline)  # kept for as long as any store may call it


class Guest:
    """One module, linked once to one plugin's host functions.

    The module is judged again here, by what the engine says of it: inspection read the artifact, and this is what
    will run. Raises VerifyError.
    """

    def __init__(self, module: wasmtime.Module, *, limits: Limits, host: Host) -> None:
        self.info = info = border(module)
        self.limits = limits
        self.fuel = limits.fuel
        self.ticks = deadline_ticks(limits.timeout)
        self.frees = "dealloc" in info.exports
        """Whether the guest takes memory back."""
        self.has_wasi = info.needs_wasi
        self.initializes = "_initialize" in info.exports
        self.first_size = info.memory_pages * _PAGE
        self.region: tuple[int, int] | None = None
        """Address and size of the guest's own place for inputs, where it has one."""
        self.asks_for_region = INPUT_REGION in info.exports
        functions = ["alloc", "dealloc", "_initialize", INPUT_REGION, *(hook.value for hook in info.hooks)]
        self.functions = {name: name.encode() for name in functions if name in info.exports}
        self.void = {hook.value for hook in info.hooks if info.exports[hook.value][1] == ("ii", "")}
        """Hooks without a result."""
        self.quick = (
            frozenset(hook.value for hook in info.hooks) - self.void - UNANSWERED
            if accelerator.call is not None and self.fuel is None
            else frozenset[str]()
        )
        """Hooks of which the accelerator makes the common calls."""
        self.views: dict[int, memoryview] = {}
        self._shells: list[Instance] = []
        self._keep = _MAX_SHELLS
        self._engine = engine(fuel=limits.fuel is not None)
        self._callbacks: list[object] = []  # the library keeps their addresses, and nothing else keeps them
        self._linker = wasmtime.Linker(self._engine)
        try:
            self._link(host)
            self._pre = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise VerifyError(f"the module cannot be linked: {first_line(str(error))}") from error
        self.engine_address = capi.address(self._engine)
        self.pre_address = capi.address(self._pre)

    def instantiate(self, *, timeout_ms: int | None = None) -> Instance:
        """A new instance with fresh memory; its deadline runs from here and covers its first call, on this thread.

        With ``timeout_ms`` it is made ahead of any call: it has that time to come up, and its first call has a
        deadline of its own. Raises TrapError or DeadlineError where the start function or ``_initialize`` does not
        come back, and OverloadError where the engine has no place for another one.
        """
        try:
            instance = self._shells.pop()
        except IndexError:
            instance = Instance(self)
        instance.open(timeout_ms)
        return instance

    def take_back(self, instance: Instance) -> None:
        """A closed instance, to be used again."""
        if len(self._shells) < self._keep:
            self._shells.append(instance)

    def close(self) -> None:
        """Keep nothing: no call will come. It is freed with its last instance then, and needs no search for cycles."""
        self._keep = 0
        self._shells.clear()

    def _link(self, host: Host) -> None:
        if self.has_wasi:
            self._linker.define_wasi()
            self._linker.allow_shadowing = True
            for name, (params, function) in WASI_OURS.items():
                self._define(WASI_MODULE, name, params, "i", function)
        for entry in self.info.imports:
            if entry.module != WASI_MODULE:
                known = HOST_FUNCTIONS[entry.module, entry.name]
                given = host[entry.module, entry.name]
                self._define(entry.module, entry.name, known.params, known.results, given)

    def _define(self, module: str, name: str, params: str, results: str, function: HostCallable) -> None:
        callback = _callback(params, results, function)
        self._callbacks.append(callback)
        kind = function_type(params, results)
        failure = capi.linker_define_func_unchecked(
            capi.address(self._linker), module.encode(), len(module.encode()), name.encode(), len(name.encode()),
            capi.address(kind), callback, None, capi.NO_FINALIZER,
        )  # fmt: skip
        if failure:
            raise VerifyError(f"the host function {module}.{name} cannot be linked: {capi.take_error(failure)[0]:.200}")


class Instance:
    """One instantiation: own store, own memory, own limits. Used by one thread at a time."""

    __slots__ = (
        "__weakref__",
        "_armed",
        "_at",
        "_block",
        "_boxes",
        "_cells",
        "_cells_at",
        "_context",
        "_cpu_ns",
        "_found",
        "_giving",
        "_guest",
        "_is_fresh",
        "_memory_at",
        "_nested",
        "_nested_at",
        "_on_thread",
        "_output",
        "_quick",
        "_size",
        "_store",
        "_targets",
        "_timeout_ns",
        "_trap",
        "_trap_at",
        "_view",
        "_wall_ns",
        "_weak",
        "_words",
        "calls",
        "expired",
        "fuel",
        "memory",
    )  # fmt: skip

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._weak = weakref.ref(self)
        words = _FUNCTIONS + _WORDS_PER_EXTERN * len(guest.functions)
        self._block = (ctypes.c_uint64 * words)()
        at = self._at = ctypes.addressof(self._block)
        whole = self._words = memoryview(self._block).cast("B").cast("Q")
        # Arguments and results of a call: two cells, of which the first word counts.
        self._cells = whole[_CELLS : _CELLS + 4]
        self._cells_at = ctypes.c_void_p(at + 8 * _CELLS)
        # For calls of ``alloc`` from within a host function, while the outer call's arguments are in use.
        self._nested = whole[_NESTED_CELLS : _NESTED_CELLS + 4]
        self._nested_at = ctypes.c_void_p(at + 8 * _NESTED_CELLS)
        self._memory_at = ctypes.c_void_p(at + 8 * _MEMORY + capi.EXTERN_OF)
        self._boxes = {
            name: ctypes.c_void_p(at + 8 * (_FUNCTIONS + _WORDS_PER_EXTERN * place))
            for place, name in enumerate(guest.functions)
        }
        """Where each function's extern goes, once it is looked up."""
        self._targets = {name: ctypes.c_void_p((box.value or 0) + capi.EXTERN_OF) for name, box in self._boxes.items()}
        """Where the function is in there."""
        self._found: dict[str, ctypes.c_void_p] = {}
        """The functions of this store, by name."""
        self._quick: dict[str, int] = {}
        """The addresses of those that the accelerator calls."""
        self._trap = ctypes.c_void_p.from_address(at + 8 * _TRAP)
        self._trap_at = ctypes.c_void_p(at + 8 * _TRAP)
        self._context = ctypes.c_void_p.from_address(at + 8 * _CONTEXT)
        self._store = 0
        self._view = memoryview(b"")
        self._size = 0
        self._output = guest.limits.output
        self._giving = False
        self._is_fresh = False
        self._armed = -1
        self._on_thread = 0
        self._timeout_ns = self._cpu_ns = self._wall_ns = 0
        self.expired = False
        """Whether the call was interrupted at its deadline."""
        self.calls = 0
        """Calls that this instance has served."""
        self.fuel = 0
        """Fuel of the last call, where it is counted."""
        self.memory = 0
        """Bytes of memory after the last call, or some milliseconds before."""

    def open(self, timeout_ms: int | None) -> None:
        """Begin with a new store and fresh memory; see ``Guest.instantiate``."""
        guest, limits = self._guest, self._guest.limits
        self.calls = self.fuel = 0
        self.expired = self._giving = False
        self._found.clear()
        self._quick.clear()
        self._words[_BEGIN] = _now_ns()
        store = self._store = capi.store_new(guest.engine_address, None, None)
        context = self._context
        context.value = capi.store_context(store)
        try:
            capi.store_limiter(store, limits.memory, TABLE_ELEMENTS, 1, TABLES, 1)
            if guest.has_wasi:
                # An empty one: no files, arguments, environment, output.
                self._check(capi.context_set_wasi(context, capi.wasi_config_new()), "instantiation", None)
            capi.store_epoch_deadline_callback(store, _on_deadline, None, capi.NO_FINALIZER)
            within = None if timeout_ms is None else f"{timeout_ms} ms"
            self._arm(
                *((limits.timeout, guest.ticks) if timeout_ms is None else (timeout_ms, deadline_ticks(timeout_ms)))
            )
            _running[self._on_thread] = self._weak
            block = ctypes.addressof(self._block)
            self._check(
                capi.instance_pre_instantiate(guest.pre_address, context, block, self._trap_at), "instantiation", within
            )
            capi.instance_export_get(context, block, b"memory", 6, block + 8 * _MEMORY)
            self._see_fresh_memory()
            if guest.initializes:
                self._check(
                    _func_call(context, self._find("_initialize"), self._cells_at, 0, self._trap_at),
                    "instantiation",
                    within,
                )
            if guest.asks_for_region:
                self._ask_for_region(within)
        except BaseException:
            self.close()
            raise
        self._is_fresh = timeout_ms is None
        if timeout_ms is not None:
            self._armed, self._words[_ARMED] = -1, _NEVER

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:  # noqa: C901, PLR0912, PLR0915 - below
        """One hook call: the guest's answer, or None for the hook's default.

        ``last`` says that the instance is dropped afterwards, so the guest need not free anything. Raises a
        CallError, after which the instance must be dropped.

        In one piece, because a call of a Python function costs as much as most lines here.
        """
        stage = _NOTHING
        quick = self._last_quick(hook) if last else self._quick.get(hook)
        if quick is not None:
            answer = _accelerated(self._at, quick, data, self._weak)
            if not isinstance(answer, int):
                self.calls += 1
                if last:
                    self.memory = self._measure()
                return answer
            stage = answer
        guest = self._guest
        context, cells, cells_at, trap, trap_at = self._context, self._cells, self._cells_at, self._trap, self._trap_at
        if stage:
            pass  # it has begun
        elif self._is_fresh:
            self._is_fresh = False  # it was armed by the instantiation, which is a part of its first call
        else:
            self._words[_BEGIN] = _now_ns()
            if EPOCH[0] != self._armed or _get_ident() != self._on_thread:
                self._arm(guest.limits.timeout, guest.ticks)
            if guest.fuel is not None:
                capi.context_set_fuel(context, guest.fuel)
        _running[self._on_thread] = self._weak
        self.calls += 1
        size = len(data)
        try:
            region = guest.region
            if region is not None and size <= region[1]:
                pointer = region[0]
            else:
                region = None
                pointer = self._alloc(size, ran=stage == _RAN_ALLOC) if stage < _RAN_HOOK else self._words[_POINTER]
            if stage < _RAN_HOOK:
                if size:
                    end = pointer + size
                    if end > self._size and end > self._measure():
                        raise TrapError(f"alloc({size}) answered {pointer}: outside the guest's memory")
                    self._view[pointer:end] = data
                cells[0] = pointer
                cells[2] = size
                failure = _func_call(context, self._found.get(hook) or self._find(hook), cells_at, 2, trap_at)
            else:
                failure = self._words[_FAILURE] or None
            if failure is not None or trap.value is not None:
                raise self._error(failure, hook if stage != _RAN_DEALLOC else "dealloc", None)
            packed = 0 if hook in guest.void else cells[0]
            result = None
            if packed and hook not in UNANSWERED:
                start, length = packed >> 32, packed & U32
                if length > self._output:
                    raise ResultError(f"the result has {length} bytes, and limits.output is {self._output}")
                end = start + length
                if end > self._size and end > self._measure():
                    raise ResultError(f"the result is outside memory: {length} bytes at {start}, of {self._size}")
                result = self._view[start:end].tobytes()
            if last:
                self._measure()
            else:
                if guest.frees:
                    self._free_all(packed, pointer, size, in_region=region is not None)
                if hook in guest.quick and quick is None:
                    self._quicken(hook)
        except CallError:
            self._measure()
            raise
        finally:
            if guest.fuel is not None:
                self._count_fuel(guest.fuel)
            self.memory = self._size
        return result

    def close(self) -> None:
        """Give the store and its memory back. The instance must not be used any more; its guest may use it again."""
        if self._store:
            store, self._store = self._store, 0
            self._context.value = None
            self._size = self._words[_SIZE] = 0
            self._view = _NO_MEMORY
            self._quick.clear()
            capi.store_delete(store)
            self._guest.take_back(self)

    @property
    def closed(self) -> bool:
        """Whether its store is given back."""
        return not self._store

    def __del__(self) -> None:
        if self._store:
            capi.store_delete(self._store)

    def work_ns(self) -> int:
        """Processor time since the last call began, on the thread that it ran on: as much at least."""
        return time.thread_time_ns() - self._cpu_ns - (self._words[_BEGIN] - self._wall_ns)

    def left_ns(self) -> int:
        """What is left of the time of the call under way, on its thread; 0 where it has to end."""
        passed = _now_ns() - self._words[_BEGIN]
        return left_ns(timeout_ns=self._timeout_ns, used_ns=self.work_ns(), passed_ns=passed)

    def meet(self, caller: int) -> None:
        """See the memory of a guest that calls the host before the library has said where it is.

        That is in its start function, while it is instantiated. DANGER: the block still says what was in the store
        before, and the library ends the process that asks for it.
        """
        block = ctypes.addressof(self._block)
        box = self._boxes["alloc"]
        if not (
            capi.caller_export_get(caller, b"memory", 6, block + 8 * _MEMORY)
            and capi.caller_export_get(caller, b"alloc", 5, box)
        ):
            raise LookupError("the caller is not the guest")
        self._found["alloc"] = ctypes.c_void_p((box.value or 0) + capi.EXTERN_OF)
        self._measure()

    # ── what host functions see: ``border.GuestMemory`` ──

    def read(self, pointer: int, length: int) -> bytes | None:
        """A copy of that range; None where any of it is outside memory."""
        pointer &= U32
        end = pointer + (length & U32)
        return self._view[pointer:end].tobytes() if end <= self._size or end <= self._measure() else None

    def write(self, pointer: int, data: bytes) -> bool:
        """Put ``data`` at ``pointer``; False, and nothing is written, where it does not fit into memory."""
        pointer &= U32
        end = pointer + len(data)
        if end > self._size and end > self._measure():
            return False
        self._view[pointer:end] = data
        return True

    def give(self, data: bytes) -> int:
        """Put ``data`` where the guest's own ``alloc`` says; packed pointer and length, or an error's code."""
        if self._giving:
            return -E_UNAVAILABLE
        self._giving = True
        try:
            self._nested[0] = len(data)
            failure = _func_call(
                self._context, self._found.get("alloc") or self._find("alloc"), self._nested_at, 1, self._trap_at
            )
            if failure is not None or self._trap.value is not None:
                self._error(failure, "alloc", None)
                self.expired = False  # a guest that was interrupted in there is so again at its next step, if any
                return -E_UNAVAILABLE
            pointer = self._nested[0] & U32
        finally:
            self._giving = False
        if not pointer:
            return -E_UNAVAILABLE
        return pointer << 32 | len(data) if self.write(pointer, data) else -E_MEMORY

    # ── below ──

    def _arm(self, timeout_ms: int, ticks: int) -> None:
        """Give the store a fresh deadline, for calls on this thread until the engine's clock moves."""
        # The epoch first: a tick in between makes the deadline later, and not earlier.
        self._armed = self._words[_ARMED] = EPOCH[0]
        thread = _get_ident()
        if thread != self._on_thread:
            self._on_thread = self._words[_THREAD] = thread
        self._timeout_ns = timeout_ms * 1_000_000
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = self._words[_BEGIN]
        capi.context_set_epoch_deadline(self._context, ticks)
        if self._guest.fuel is not None:
            capi.context_set_fuel(self._context, self._guest.fuel)
        if self.calls:
            self._measure()

    def _find(self, name: str) -> ctypes.c_void_p:
        """An export that the module's border says is a function; looked up when it is first needed."""
        raw, box = self._guest.functions[name], self._boxes[name]
        capi.instance_export_get(self._context, self._at, raw, len(raw), box)
        found = self._found[name] = self._targets[name]
        return found

    def _quicken(self, hook: str) -> None:
        """From now on the accelerator calls that hook: it needs no look-ups, of which the first call made most."""
        words, guest = self._words, self._guest
        words[_REGION_AT], words[_REGION_LENGTH] = guest.region or (0, 0)
        words[_MAX_OUTPUT] = self._output
        for name, place in (("alloc", _ALLOC), ("dealloc", _DEALLOC)):
            words[place] = (self._found.get(name) or self._find(name)).value or 0 if name in guest.functions else 0
        self._quick[hook] = self._found[hook].value or 0

    def _last_quick(self, hook: str) -> int | None:
        """The same for a call after which the guest need not free anything, often the only one of this store."""
        guest, words = self._guest, self._words
        if self._is_fresh or hook not in guest.quick:
            return None
        if not self._quick:
            if guest.region is None:
                return None
            words[_REGION_AT], words[_REGION_LENGTH] = guest.region
            words[_MAX_OUTPUT] = self._output
            words[_ALLOC] = 0
        words[_DEALLOC] = 0
        words[_BEGIN] = _now_ns()
        if EPOCH[0] != self._armed or _get_ident() != self._on_thread:
            self._arm(guest.limits.timeout, guest.ticks)
        return (self._found.get(hook) or self._find(hook)).value

    def _alloc(self, size: int, *, ran: bool = False) -> int:
        """Ask the guest for a place for its input, unless it ran already."""
        if ran:
            failure = self._words[_FAILURE] or None
        else:
            self._cells[0] = size
            target = self._found.get("alloc") or self._find("alloc")
            failure = _func_call(self._context, target, self._cells_at, 1, self._trap_at)
        if failure is not None or self._trap.value is not None:
            raise self._error(failure, "alloc", None)
        pointer = self._cells[0] & U32
        if size and not pointer:
            raise TrapError(f"alloc({size}) answered 0: the guest has no room for the input")
        return pointer

    def _free_all(self, packed: int, pointer: int, size: int, *, in_region: bool) -> None:
        """Give the guest its answer and its input back."""
        start, length = packed >> 32, packed & U32
        if start + length > self._size and start + length > self._measure():
            packed = 0  # an answer that nobody reads: whatever it is, it is nothing to free
        if packed and not overlap(start, length, pointer, size):
            self._free(start, length)
        if not in_region:
            self._free(pointer, size)

    def _free(self, pointer: int, size: int) -> None:
        self._cells[0] = pointer
        self._cells[2] = size
        target = self._found.get("dealloc") or self._find("dealloc")
        failure = _func_call(self._context, target, self._cells_at, 2, self._trap_at)
        if failure is not None or self._trap.value is not None:
            raise self._error(failure, "dealloc", None)

    def _see_fresh_memory(self) -> None:
        """The view of a memory that is as large as the module says; a start function may have made it larger."""
        guest = self._guest
        base = capi.memory_data(self._context, self._memory_at)
        view = guest.views.get(base)
        if view is None:
            if len(guest.views) >= _MAX_VIEWS:
                guest.views.clear()
            view = guest.views[base] = _view(base, guest.first_size)
        self._view = view
        self.memory = self._size = self._words[_SIZE] = guest.first_size
        self._words[_BASE] = base

    def _measure(self) -> int:
        """The size of memory now; the view covers all of it afterwards."""
        size: int = capi.memory_data_size(self._context, self._memory_at)
        if size != self._size:
            base = capi.memory_data(self._context, self._memory_at) or 0
            self._view = _view(base, size)
            self._size = self._words[_SIZE] = size
            self._words[_BASE] = base
        return size

    def _ask_for_region(self, within: str | None) -> None:
        """The guest's own place for inputs. It is one place in all instances, so only the first one is asked."""
        guest = self._guest
        self._check(
            _func_call(self._context, self._find(INPUT_REGION), self._cells_at, 1, self._trap_at), INPUT_REGION, within
        )
        start, size = self._cells[0] >> 32, self._cells[0] & U32
        if size:
            if not start or start + size > self._measure():
                raise TrapError(f"the input region is outside memory: {size} bytes at {start}, of {self._size}")
            guest.region = start, size
        guest.asks_for_region = False

    def _count_fuel(self, given: int) -> None:
        at = ctypes.addressof(self._block) + 8 * _FUEL
        self._check(capi.context_get_fuel(self._context, at), "the count of fuel", None)
        self.fuel = given - self._block[_FUEL]

    def _check(self, failure: int | None, where: str, within: str | None) -> None:
        if failure is not None or self._trap.value is not None:
            raise self._error(failure, where, within)

    def _error(self, failure: int | None, where: str, within: str | None) -> CallError:
        """What the library's trap or error means for the failure policy; either is given back."""
        trap, self._trap.value = self._trap.value, None
        code, message, status = None, "", None
        if trap is not None:
            at = ctypes.addressof(self._block) + 8 * _TRAP_CODE
            self._block[_TRAP_CODE] = 0
            if capi.trap_code(trap, at):
                code = self._block[_TRAP_CODE] & 0xFF
            if code is not None and code < len(_TRAPS):
                capi.trap_delete(trap)
            else:
                message = capi.take_trap_message(trap)
        if failure is not None:
            message, status = capi.take_error(failure)
        if self.expired or code == _TRAP_INTERRUPT:
            return DeadlineError(
                f"{where} took longer than {within or f'limits.timeout ({self._guest.limits.timeout} ms)'}"
            )
        if code == _TRAP_OUT_OF_FUEL:
            return DeadlineError(f"{where} used up limits.fuel ({self._guest.fuel})")
        if status is not None:
            return TrapError(f"{where} ended the program with exit code {status}")
        if code is not None and code < len(_TRAPS):
            return TrapError(f"{where} trapped: {_TRAPS[code]}")
        if trap is not None:
            return TrapError(f"{where} trapped: {trap_reason(message)}")
        if "maximum concurrent" in message:
            return OverloadError(NO_PLACE)
        return TrapError(f"{where} failed: {first_line(message)}")


_NO_MEMORY: Final = memoryview(b"")


def _view(base: int, size: int) -> memoryview:
    """Guest memory. DANGER: good while the store lives; what is behind an older address may be anybody's."""
    return memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B") if size else _NO_MEMORY


_FORMATS: Final = {"i": "i12x", "I": "q8x", "f": "f12x", "F": "d8x"}


def _callback(params: str, results: str, function: HostCallable) -> Any:
    """A host function as the library calls it: arguments and results in cells on the guest's own stack.

    A view of the cells is kept for each address, because guests come back to the same few. It is used within a call
    from that very address only, so what it shows is always this call's.
    """
    arguments = struct.Struct("<" + "".join(_FORMATS[letter] for letter in params))
    is_wide = results == "I"
    size = capi.VAL_RAW * max(len(params), len(results), 1)
    views: dict[int, memoryview] = {}

    def call(_env: object, caller: int, cells: int, _count: int) -> int:
        view = views.get(cells)
        if view is None:
            if len(views) >= _MAX_CELLS:
                views.clear()
            view = views[cells] = memoryview((ctypes.c_ubyte * size).from_address(cells)).cast("B").cast("Q")
        try:
            instance: Instance = _running[_get_ident()]()
            if not instance._size:  # noqa: SLF001 - this room's own; in a start function, or there is no memory
                instance.meet(caller)
            answer = function(instance, *arguments.unpack_from(view))
        except BaseException:  # noqa: BLE001 - nothing may leave a callback
            answer = E_UNAVAILABLE
        view[0] = answer & _U64 if is_wide else answer & U32
        return 0

    return capi.HostCallback(call)


_U64: Final = 0xFFFFFFFFFFFFFFFF
