"""Calls into a guest at the speed of the C API (``capi.py``): what ``calls.py`` promises, and why it is safe here.

A pooled call is one slice assignment, one call into the library, and one slice read. Where the accelerator is, it makes
the common calls and the common new stores, by the same rules; what is written here is its reference, and does all that
is uncommon. What makes that safe:

**Pointers outlive their use.** All memory that the library writes to through us (functions, arguments, a trap) is one
block that belongs to the ``Instance``; its addresses are computed once, and the block lives as long as they do.
What the library allocates (the store) is given back in ``close``, or where the next one takes its place. An
``Instance`` is used again for the next store of its guest, with the same block, because making one costs more than a
call. What belongs to a store has that store's number, so nothing of an earlier one is ever taken for the next one's.

**Memory is looked at through one view**, which is bounds-checked by Python on every use. A linear memory only grows,
and the engine does not move one that has its whole address range reserved (``engine.py``), so a view is too short at
worst; it is derived anew when a guest names a place behind its end. A view never outlives its store in use: ``open``
takes it away, and it is made again for the new store when somebody first looks.

**Numbers from a guest** are masked to 32 bits and compared with the size of memory before a byte is read or written.

**The deadline** is set when the engine's clock has moved since it was set last, every few milliseconds at most, so
most calls begin later than their deadline was set. The callback that the engine asks at the deadline knows when the
call really began, and takes off what the thread may have done before; so a call is never charged for another's
time, and always has all of its own.

**An instance is renewed before it is worn.** One that serves many calls may lose memory with each of them. Where a call
has left less than half of the room that the first one left, up to the end of memory or to the module's own stack or
data above its input, and where ``alloc`` has none for an input that a fresh instance could take, the next call gets a
new store in place of the old one, before anything of it has run.

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
from hookline_artifacts.errors import VerifyError
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, ResultError, TrapError
from hookline_runtime.guest import accelerator, capi
from hookline_runtime.guest.border import (
    NO_PLACE,
    PAGE,
    TABLE_ELEMENTS,
    TABLES,
    U32,
    UNANSWERED,
    WASI_OURS,
    Host,
    HostCallable,
    OwnMemory,
    border,
    function_type,
    initializer,
    left_ns,
    may_wait,
    most_memory,
    overlap,
    spent_ns,
    trap_reason,
)
from hookline_runtime.guest.engine import EPOCH, CompiledModule, deadline_ticks, engine, first_line

if TYPE_CHECKING:
    from hookline_api.resources import Limits

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
# From here on for the accelerator too; ``accelerator.c`` says what they are.
(
    _CONTEXT, _TRAP, _FAILURE, _BEGIN, _FRESH, _ARMED, _THREAD, _BASE, _SIZE, _REGION, _REGION_SIZE, _POINTER,
    _ALLOC, _DEALLOC, _STORE, _ENGINE, _PRE, _ON_DEADLINE, _TICKS,
    _MAX_OUTPUT, _MAX_MEMORY, _MAX_ELEMENTS, _MAX_TABLES,
    _OWN, _OWN_END, _MOST, _WORN_SIZE, _WORN_END,
    _FUNCTIONS,
) = range(16, accelerator.WORDS + 1)  # fmt: skip
# Of each function: its extern, where its name is, and its length.
_NAME: Final = capi.EXTERN // 8
_WORDS_PER_FUNCTION: Final = _NAME + 2

# TrapCode of the wasmtime crate, as it writes them.
_TRAPS: Final = (
    "call stack exhausted", "out of bounds memory access", "unaligned atomic",
    "undefined element: out of bounds table access", "uninitialized element", "indirect call type mismatch",
    "integer overflow", "integer divide by zero", "invalid conversion to integer",
    "wasm `unreachable` instruction executed", "interrupt", "all fuel consumed by WebAssembly",
)  # fmt: skip
_TRAP_INTERRUPT: Final = 10
_TRAP_OUT_OF_FUEL: Final = 11

# What the accelerator says has failed, where it gives no answer.
_NOTHING: Final = 0
_IN_ALLOC: Final = 1
_IN_DEALLOC: Final = 3
_NEVER: Final = 2**64 - 1
"""The epoch for which a deadline is set where none is. With calls behind it, an instance that has it is worn."""

_func_call = capi.func_call_unchecked
_accelerated = accelerator.call
_renewed = accelerator.renew
_get_ident = threading.get_ident
_now_ns = time.perf_counter_ns

_running: Final[dict[int, Any]] = {}
"""A weak reference to the instance that runs on each thread, or ran there last: callbacks come on their call's thread.

A thread sets its own entry, and nobody takes one away: whoever looked first could take away the next one.
"""

accelerator.use([capi.function_address(each) for each in capi.FOR_ACCELERATOR], EPOCH, _running)


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

    def __init__(self, module: CompiledModule, *, limits: Limits, host: Host) -> None:
        self.info = info = border(module)
        self.limits = limits
        self.fuel = limits.fuel
        self.ticks = deadline_ticks(limits.timeout)
        self.frees = "dealloc" in info.exports
        """Whether the guest takes memory back."""
        self.has_wasi = info.needs_wasi
        self.initializer = initializer(info)
        """The function that sets an instance up, if any."""
        self.memory_map = module.memory_map
        self._callbacks: list[object] = []  # the library keeps their addresses, and nothing else keeps them
        self.keep_off(static=False)
        self.most = most_memory(module, limits.memory)
        self.first_size = info.memory_pages * PAGE
        self.region: tuple[int, int] | None = None
        """Address and size of the guest's own place for inputs, where it has one."""
        self.asks_for_region = INPUT_REGION in info.exports
        functions = ["alloc", "dealloc", self.initializer, INPUT_REGION, *(hook.value for hook in info.hooks)]
        self.functions = {name: name.encode() for name in functions if name and name in info.exports}
        self.void = {hook.value for hook in info.hooks if info.exports[hook.value][1] == ("ii", "")}
        """Hooks without a result."""
        self.quick = frozenset(hook.value for hook in info.hooks) - self.void - UNANSWERED
        """Hooks of which the accelerator makes the common calls."""
        self.accelerated = accelerator.unused is None and self.fuel is None
        self.views: dict[int, memoryview] = {}
        self._shells: list[Instance] = []
        self._keep = _MAX_SHELLS
        self._engine = engine(fuel=limits.fuel is not None)
        self._linker = wasmtime.Linker(self._engine)
        try:
            self._link(host)
            self._pre = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise VerifyError(f"the module cannot be linked: {first_line(str(error))}") from error
        self.engine_address = capi.address(self._engine)
        self.pre_address = capi.address(self._pre)

    def keep_off(self, *, static: bool) -> None:
        """Say where no input may be (``MemoryMap.own``), for the instances that are made from here on."""
        self.own = OwnMemory(self.memory_map, static=static)
        flat = [address for span in self.own.spans for address in span]
        self.own_words = (ctypes.c_uint64 * len(flat))(*flat)
        self._callbacks.append(self.own_words)  # for the accelerator, also in instances that were made before

    def instantiate(self, *, timeout_ms: int | None = None, instead_of: Instance | None = None) -> Instance:
        """A new instance with fresh memory; its deadline runs from here and covers its first call, on this thread.

        With ``timeout_ms`` it is made ahead of any call: it has that time to come up, and its first call has a
        deadline of its own. ``instead_of`` is one that is not closed yet, and is so afterwards, whatever happens.
        Raises TrapError or DeadlineError where the start function or ``_initialize`` does not come back, and
        OverloadError where the engine has no place for another one.
        """
        instance = instead_of
        if instance is None:
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
        callback = _callback(params, results, function, waits=may_wait(name))
        self._callbacks.append(callback)
        kind = function_type(params, results)
        failure = capi.linker_define_func_unchecked(
            capi.address(self._linker), module.encode(), len(module.encode()), name.encode(), len(name.encode()),
            capi.address(kind), callback, None, capi.NO_FINALIZER,
        )  # fmt: skip
        if failure:
            why = first_line(capi.take_error(failure)[0])
            raise VerifyError(f"the host function {module}.{name} cannot be linked: {why}")


class Instance:
    """One instantiation: own store, own memory, own limits. Used by one thread at a time."""

    __slots__ = (
        "__weakref__",
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
        "_host",
        "_memory_at",
        "_nested",
        "_nested_at",
        "_on_thread",
        "_output",
        "_own",
        "_quick",
        "_region",
        "_renews",
        "_size",
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
        count = _FUNCTIONS + _WORDS_PER_FUNCTION * len(guest.functions)
        self._block = (ctypes.c_uint64 * count)()
        at = self._at = ctypes.addressof(self._block)
        words = self._words = memoryview(self._block).cast("B").cast("Q")
        words[_ENGINE], words[_PRE] = guest.engine_address, guest.pre_address
        words[_ON_DEADLINE], words[_TICKS] = capi.function_address(_on_deadline), guest.ticks
        words[_MAX_OUTPUT], words[_MAX_MEMORY] = guest.limits.output, guest.limits.memory
        words[_MAX_ELEMENTS], words[_MAX_TABLES] = TABLE_ELEMENTS, TABLES
        words[_MOST], words[_WORN_SIZE] = guest.most, guest.first_size + (guest.most - guest.first_size) // 2
        self._own: OwnMemory | None = None
        # Arguments and results of a call: two cells, of which the first word counts.
        self._cells = words[_CELLS : _CELLS + 4]
        self._cells_at = ctypes.c_void_p(at + 8 * _CELLS)
        # For calls of ``alloc`` from within a host function, while the outer call's arguments are in use.
        self._nested = words[_NESTED_CELLS : _NESTED_CELLS + 4]
        self._nested_at = ctypes.c_void_p(at + 8 * _NESTED_CELLS)
        self._memory_at = ctypes.c_void_p(at + 8 * _MEMORY + capi.EXTERN_OF)
        places = {name: _FUNCTIONS + _WORDS_PER_FUNCTION * number for number, name in enumerate(guest.functions)}
        for name, place in places.items():
            words[place + _NAME], words[place + _NAME + 1] = capi.bytes_address(guest.functions[name]), len(name)
        boxes = {name: at + 8 * place for name, place in places.items()}
        words[_ALLOC], words[_DEALLOC] = boxes.get("alloc", 0), boxes.get("dealloc", 0)
        self._quick = {name: box for name, box in boxes.items() if guest.accelerated and name in guest.quick}
        """The hooks that the accelerator calls, and where it finds each."""
        self._renews = guest.accelerated and not guest.has_wasi
        """Whether it makes the stores."""
        self._boxes = {name: ctypes.c_void_p(box) for name, box in boxes.items()}
        """Where each function's extern goes, once it is looked up."""
        self._targets = {name: ctypes.c_void_p((box.value or 0) + capi.EXTERN_OF) for name, box in self._boxes.items()}
        """Where the function is in there."""
        self._found: dict[str, ctypes.c_void_p] = {}
        """Those of this store that were looked up here."""
        self._trap = ctypes.c_void_p.from_address(at + 8 * _TRAP)
        self._trap_at = ctypes.c_void_p(at + 8 * _TRAP)
        self._context = ctypes.c_void_p.from_address(at + 8 * _CONTEXT)
        self._view, self._size = _NO_MEMORY, 0
        self._region: tuple[int, int] | None = None
        self._output = guest.limits.output
        self._giving, words[_ARMED] = False, _NEVER
        self._on_thread = self._timeout_ns = self._cpu_ns = self._wall_ns = 0
        self._host = (0, 0)
        """When the call began that host functions last took time of, and how much of it, in nanoseconds."""
        self.expired = False
        """Whether the call was interrupted at its deadline."""
        self.calls = 0
        """Calls that this instance has served."""
        self.fuel = 0
        """Fuel of the last call, where it is counted."""
        self.memory = 0
        """Bytes of memory after the last call."""

    def open(self, timeout_ms: int | None) -> None:
        """Begin with a new store and fresh memory, in place of what it has; see ``Guest.instantiate``."""
        guest, words = self._guest, self._words
        self.calls = self._size = 0
        self.expired = False
        self.memory = guest.first_size
        self._view = _NO_MEMORY
        if self._found:
            self._found.clear()
        if self._region is not guest.region:
            self._region = guest.region
            words[_REGION], words[_REGION_SIZE] = guest.region or (0, 0)
        if self._own is not guest.own:
            self._own = guest.own
            words[_OWN] = ctypes.addressof(guest.own_words)
            words[_OWN_END] = words[_OWN] + ctypes.sizeof(guest.own_words)
        common = timeout_ms is None or timeout_ms == guest.limits.timeout
        try:
            if common and self._renews:
                if EPOCH[0] != words[_ARMED] or _get_ident() != self._on_thread:
                    self._note_clocks(guest.limits.timeout)
                _running[self._on_thread] = self._weak
                if not _renewed(self._at):
                    self._check(words[_FAILURE] or None, "instantiation", timeout_ms)
            else:
                self._renew(timeout_ms)
            if guest.initializer:
                failure = _func_call(self._context, self._find(guest.initializer), self._cells_at, 0, self._trap_at)
                self._check(failure, "instantiation", timeout_ms)
            if guest.asks_for_region:
                self._ask_for_region(timeout_ms)
        except BaseException:
            words[_ARMED] = _NEVER  # perhaps for another time than the next one's
            self.close()
            raise
        words[_FRESH] = timeout_ms is None
        if not common:
            words[_ARMED] = _NEVER

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:
        """One hook call: the guest's answer, or None for the hook's default.

        ``last`` says that the instance is dropped afterwards, so the guest need not free anything. Raises a
        CallError, after which the instance must be dropped.
        """
        quick = self._quick.get(hook)
        if quick is None:
            return self._call(hook, data, last=last)
        answer = _accelerated(self._at, quick, data, self._weak, last)
        if isinstance(answer, int):
            if answer == _NOTHING:
                return self._call(hook, data, last=last)
            error = self._broken(answer, hook, len(data))
            if answer == _IN_ALLOC and self.calls and not isinstance(error, DeadlineError):
                self._renew_in_place()
                return self.call(hook, data, last=last)
            self.calls += 1
            raise error
        self.calls += 1
        self.memory = self._words[_SIZE]
        return answer

    def close(self) -> None:
        """Give the store and its memory back. The instance must not be used any more; its guest may use it again."""
        words = self._words
        store = words[_STORE]
        if store:
            words[_STORE] = words[_CONTEXT] = words[_SIZE] = self._size = 0
            self._view = _NO_MEMORY
            capi.store_delete(store)
            self._guest.take_back(self)

    @property
    def closed(self) -> bool:
        """Whether its store is given back."""
        return not self._words[_STORE]

    def __del__(self) -> None:
        if self._words[_STORE]:
            capi.store_delete(self._words[_STORE])

    def spent_ns(self) -> int:
        """What the last call has used of its time (``border.spent_ns``), on the thread that it ran on.

        Of processor time, as much at least.
        """
        begin = self._words[_BEGIN]
        work = time.thread_time_ns() - self._cpu_ns - (begin - self._wall_ns)
        return spent_ns(work_ns=work, passed_ns=_now_ns() - begin, host_ns=self.waited_ns())

    def spend(self, ns: int) -> None:
        """A host function took so long of the call under way."""
        self._host = self._words[_BEGIN], self.waited_ns() + ns

    def waited_ns(self) -> int:
        """What host functions that may wait took of the last call."""
        call, took = self._host
        return took if call == self._words[_BEGIN] else 0

    def left_ns(self) -> int:
        """What is left of the time of the call under way, on its thread; 0 where it has to end."""
        passed = _now_ns() - self._words[_BEGIN]
        return left_ns(timeout_ns=self._timeout_ns, used_ns=self.spent_ns(), passed_ns=passed)

    def meet(self, caller: int) -> None:
        """See the memory of a guest that calls the host before anybody has looked at it here.

        DANGER: in its start function, while it is instantiated, the block still says what was in the store before, and
        the library ends the process that asks for it.
        """
        words = self._words
        if not words[_SIZE]:
            box = self._boxes["alloc"]
            if not (
                capi.caller_export_get(caller, b"memory", 6, self._at + 8 * _MEMORY)
                and capi.caller_export_get(caller, b"alloc", 5, box)
            ):
                raise LookupError("the caller is not the guest")
            self._found["alloc"] = self._targets["alloc"]
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
        end = pointer + len(data)
        if not pointer or (data and self._guest.own.touched_by(pointer, end)):
            return -E_UNAVAILABLE
        if not self.write(pointer, data):
            return -E_MEMORY
        if self._words[_WORN_END] and end > self._words[_WORN_END]:
            self._words[_ARMED] = _NEVER
        return pointer << 32 | len(data)

    def take(self, size: int) -> int:
        """What ``alloc`` answers, whatever that is worth. Raises a CallError where it does not come back."""
        self._words[_FRESH] = 0
        self._arm(self._guest.limits.timeout, self._guest.ticks)
        self._words[_BEGIN] = _now_ns()
        _running[self._on_thread] = self._weak
        self._cells[0] = size
        self._check(_func_call(self._context, self._find("alloc"), self._cells_at, 1, self._trap_at), "alloc", None)
        pointer: int = self._cells[0] & U32
        self.memory = self._measure()
        return pointer

    def give_back(self, pointer: int, size: int) -> None:
        """Call ``dealloc``, where the guest has one. Raises a CallError where it does not come back."""
        if self._guest.frees:
            self._free(pointer, size)

    # ── below ──

    def _renew_in_place(self) -> None:
        """Go on with a new store: what is begun next is its first call."""
        self._words[_ARMED] = _NEVER
        self.open(None)

    def _renew(self, timeout_ms: int | None) -> None:
        """A new store with fresh memory, armed, in place of the one that it has."""
        guest, words, context = self._guest, self._words, self._context
        words[_WORN_END] = 0
        if words[_STORE]:
            old, words[_STORE], words[_SIZE] = words[_STORE], 0, 0
            capi.store_delete(old)
        store = words[_STORE] = capi.store_new(guest.engine_address, None, None)
        words[_CONTEXT] = capi.store_context(store)
        capi.store_limiter(store, guest.limits.memory, TABLE_ELEMENTS, 1, TABLES, 1)
        if guest.has_wasi:
            # An empty one: no files, arguments, environment, output.
            self._check(capi.context_set_wasi(context, capi.wasi_config_new()), "instantiation", None)
        capi.store_epoch_deadline_callback(store, _on_deadline, None, capi.NO_FINALIZER)
        if timeout_ms is None:
            self._arm(guest.limits.timeout, guest.ticks)
        else:
            self._arm(timeout_ms, deadline_ticks(timeout_ms))
        words[_BEGIN] = _now_ns()
        _running[self._on_thread] = self._weak
        failure = capi.instance_pre_instantiate(guest.pre_address, context, self._at, self._trap_at)
        self._check(failure, "instantiation", timeout_ms)
        capi.instance_export_get(context, self._at, b"memory", 6, self._at + 8 * _MEMORY)
        # DANGER: the accelerator writes there. An empty memory has a place too, and no size that _measure would see.
        words[_BASE] = capi.memory_data(context, self._memory_at) or 0
        self._measure()

    def _call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:  # noqa: C901, PLR0912, PLR0915 - below
        """Any call, in one piece, because a call of a Python function costs as much as most lines here."""
        guest, words = self._guest, self._words
        context, cells, cells_at, trap, trap_at = self._context, self._cells, self._cells_at, self._trap, self._trap_at
        if self.calls and words[_ARMED] == _NEVER:
            self._renew_in_place()
        if words[_FRESH]:
            words[_FRESH] = 0  # it was armed by the instantiation, which is a part of its first call
        else:
            if EPOCH[0] != words[_ARMED] or _get_ident() != self._on_thread:
                self._arm(guest.limits.timeout, guest.ticks)
            if guest.fuel is not None:
                capi.context_set_fuel(context, guest.fuel)
            words[_BEGIN] = _now_ns()
        _running[self._on_thread] = self._weak
        self.calls += 1
        size, begun = len(data), False
        try:
            region = self._region
            if region is not None and size <= region[1]:
                pointer, behind = region[0], 0
            else:
                region, behind = None, size
                cells[0] = size
                failure = _func_call(context, self._found.get("alloc") or self._find("alloc"), cells_at, 1, trap_at)
                if failure is not None or trap.value is not None:
                    raise self._error(failure, "alloc", None)
                pointer = cells[0] & U32
            if size:
                end = pointer + size
                outside = not pointer or (end > self._size and end > self._measure())
                if outside or (region is None and guest.own.touched_by(pointer, end)):
                    raise self._no_room(pointer, size)
                self._view[pointer:end] = data
            cells[0], cells[2] = pointer, size
            begun = True
            failure = _func_call(context, self._found.get(hook) or self._find(hook), cells_at, 2, trap_at)
            if failure is not None or trap.value is not None:
                raise self._error(failure, hook, None)
            packed = 0 if hook in guest.void else cells[0]
            result, behind = None, behind and pointer + behind
            room = guest.own.room(behind, guest.most) if behind and not words[_WORN_END] else guest.most
            if packed and hook not in UNANSWERED:
                start, length = packed >> 32, packed & U32
                end = start + length
                if length > self._output or (end > self._size and end > self._measure()):
                    raise self._bad_result(packed)
                result = self._view[start:end].tobytes()
                if end > behind and not guest.own.touched_by(start, end):  # else it is a constant
                    behind = end
            if self._measure() > words[_WORN_SIZE] or behind > (words[_WORN_END] or behind):
                words[_ARMED] = _NEVER
            if not words[_WORN_END] and behind:
                words[_WORN_END] = behind + max(0, (room if behind <= room else guest.most) - behind) // 2
            if guest.frees and not last:
                self._free_all(packed, pointer, size, in_region=region is not None)
        except CallError as error:
            self._measure()
            if begun or self.calls == 1 or isinstance(error, DeadlineError):
                raise
            self._renew_in_place()
            return self._call(hook, data, last=last)
        finally:
            if guest.fuel is not None and words[_STORE]:  # a new store in its place may not have come up
                self._count_fuel(guest.fuel)
            self.memory = self._size
        return result

    def _arm(self, timeout_ms: int, ticks: int) -> None:
        """Give the store a fresh deadline, for calls on this thread until the engine's clock moves."""
        self._note_clocks(timeout_ms)
        capi.context_set_epoch_deadline(self._context, ticks)
        if self._guest.fuel is not None:
            capi.context_set_fuel(self._context, self._guest.fuel)
        if self.calls:
            self._measure()

    def _note_clocks(self, timeout_ms: int) -> None:
        """What the deadline that is set next is counted from: its epoch first, so that a tick makes it later."""
        words = self._words
        words[_ARMED] = EPOCH[0]
        self._on_thread = words[_THREAD] = _get_ident()
        self._timeout_ns = timeout_ms * 1_000_000
        self._wall_ns = _now_ns()  # before the other, as a call begins after both: it is charged too little at worst
        self._cpu_ns = time.thread_time_ns()

    def _find(self, name: str) -> ctypes.c_void_p:
        """An export that the module's border says is a function; looked up when it is first needed."""
        raw, box = self._guest.functions[name], self._boxes[name]
        capi.instance_export_get(self._context, self._at, raw, len(raw), box)
        found = self._found[name] = self._targets[name]
        return found

    def _broken(self, what: int, hook: str, size: int) -> CallError:
        """Why a call that the accelerator began came to no answer."""
        self.memory = self._measure()
        failure = self._words[_FAILURE] or None
        if failure is not None or self._trap.value is not None:
            return self._error(failure, {_IN_ALLOC: "alloc", _IN_DEALLOC: "dealloc"}.get(what, hook), None)
        return self._no_room(self._cells[0] & U32, size) if what == _IN_ALLOC else self._bad_result(self._cells[0])

    def _no_room(self, pointer: int, size: int) -> CallError:
        wrong = self._guest.own.refuse(pointer, size, self._size)
        assert wrong is not None  # noqa: S101 - whoever asks has seen that it is
        return wrong

    def _bad_result(self, packed: int) -> CallError:
        start, length = packed >> 32, packed & U32
        if length > self._output:
            return ResultError(f"the result has {length} bytes, and limits.output is {self._output}")
        return ResultError(f"the result is outside memory: {length} bytes at {start}, of {self._size}")

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

    def _measure(self) -> int:
        """The size of memory now; the view covers all of it afterwards."""
        size: int = capi.memory_data_size(self._context, self._memory_at)
        if size != self._size:
            guest, words = self._guest, self._words
            base = capi.memory_data(self._context, self._memory_at) or 0
            view = guest.views.get(base) if size == guest.first_size else _view(base, size)
            if view is None:
                if len(guest.views) >= _MAX_VIEWS:
                    guest.views.clear()
                view = guest.views[base] = _view(base, size)
            self._view = view
            self._size = words[_SIZE] = size
            words[_BASE] = base
        return size

    def _ask_for_region(self, timeout_ms: int | None) -> None:
        """The guest's own place for inputs. It is one place in all instances, so only the first one is asked."""
        guest = self._guest
        self._check(
            _func_call(self._context, self._find(INPUT_REGION), self._cells_at, 1, self._trap_at),
            INPUT_REGION,
            timeout_ms,
        )
        start, size = self._cells[0] >> 32, self._cells[0] & U32
        if size:
            if not start or start + size > self._measure():
                raise TrapError(f"the input region is outside memory: {size} bytes at {start}, of {self._size}")
            if guest.own.touched_by(start, start + size):
                raise TrapError(
                    f"the input region overlaps the module's own stack or data: {size} bytes at {start}; "
                    "let hookline_input answer a buffer of its own, without bytes from the start"
                )
            guest.region = self._region = start, size
            self._words[_REGION], self._words[_REGION_SIZE] = start, size
        guest.asks_for_region = False

    def _count_fuel(self, given: int) -> None:
        at = ctypes.addressof(self._block) + 8 * _FUEL
        self._check(capi.context_get_fuel(self._context, at), "the count of fuel", None)
        self.fuel = given - self._block[_FUEL]

    def _check(self, failure: int | None, where: str, timeout_ms: int | None) -> None:
        if failure is not None or self._trap.value is not None:
            raise self._error(failure, where, timeout_ms)

    def _error(self, failure: int | None, where: str, timeout_ms: int | None) -> CallError:
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
            limit = f"limits.timeout ({self._guest.limits.timeout} ms)" if timeout_ms is None else f"{timeout_ms} ms"
            return DeadlineError(f"{where} took longer than {limit}")
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


def _callback(params: str, results: str, function: HostCallable, *, waits: bool) -> Any:
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
            begin = _now_ns() if waits else 0
            answer = function(instance, *arguments.unpack_from(view))
            if waits:
                instance.spend(_now_ns() - begin)
        except BaseException:  # noqa: BLE001 - nothing may leave a callback
            answer = E_UNAVAILABLE
        view[0] = answer & _U64 if is_wide else answer & U32
        return 0

    return capi.HostCallback(call)


_U64: Final = 0xFFFFFFFFFFFFFFFF
