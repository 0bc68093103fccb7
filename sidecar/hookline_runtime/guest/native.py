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

Nothing here may be used by two threads at a time, except ``Guest.instantiate``.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from hookline_api.abi import E_MEMORY, E_UNAVAILABLE, INPUT_REGION
from hookline_runtime.errors import CallError, DeadlineError, ResultError, TrapError
from hookline_runtime.guest import accelerator, capi, layouts
from hookline_runtime.guest.border import (
    TABLE_ELEMENTS,
    TABLES,
    U32,
    UNANSWERED,
    Host,
    OwnMemory,
    left_ns,
    overlap,
    spent_ns,
)
from hookline_runtime.guest.engine import EPOCH, CompiledModule, deadline_ticks
from hookline_runtime.guest.program import ON_DEADLINE, RUNNING, Program
from hookline_runtime.guest.said import Said
from hookline_runtime.guest.traps import call_error
from hookline_runtime.guest.waiting import waited_ns

if TYPE_CHECKING:
    from hookline_api.resources import Limits

_MAX_SHELLS: Final = 8
_MAX_VIEWS: Final = 64

(
    _INSTANCE, _MEMORY, _CELLS, _NESTED, _FUEL, _TRAP_CODE, _CONTEXT, _TRAP, _FAILURE, _BEGIN, _FRESH, _ARMED, _THREAD,
    _BASE, _SIZE, _REGION, _REGION_SIZE, _ALLOC, _DEALLOC, _STORE, _ENGINE, _PRE, _ON_DEADLINE, _TICKS,
    _MAX_OUTPUT, _MAX_MEMORY, _MAX_ELEMENTS, _MAX_TABLES, _OWN, _OWN_END, _MOST, _WORN_SIZE, _WORN_END,
) = layouts.words(
    "instance", "memory", "cells", "nested", "fuel", "trap_code", "context", "trap", "failure", "begin_ns", "fresh",
    "armed", "thread", "base", "size", "region", "region_size", "alloc", "dealloc", "store", "engine", "pre",
    "on_deadline", "ticks", "max_output", "max_memory", "max_elements", "max_tables", "own", "own_end", "most",
    "worn_size", "worn_end",
)  # fmt: skip
_FUNCTIONS: Final = layouts.BLOCK_WORDS
"""Where the exports of its functions begin."""
_NAME: Final = capi.EXTERN // 8
"""In an export, where the address of its name is; its length is behind it."""

# What the accelerator says has failed, where it gives no answer.
_NOTHING: Final = 0
_IN_ALLOC: Final = 1
_IN_DEALLOC: Final = 3
NEVER: Final = 2**64 - 1
"""The epoch for which a deadline is set where none is. With calls behind it, an instance that has it is worn."""

_func_call = capi.func_call_unchecked
_call_accelerated = accelerator.call
_renew_accelerated = accelerator.renew
_get_ident = threading.get_ident
_now_ns = time.perf_counter_ns


class Guest(Program):
    """A program whose instances are called through the C API, and used again."""

    on_fibers = False
    """Whether its calls have stacks of their own."""

    def __init__(self, module: CompiledModule, *, limits: Limits, host: Host) -> None:
        super().__init__(module, limits=limits, host=host)
        self._shells: list[Instance] = []
        self._keep = _MAX_SHELLS

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
                instance = self._make()
        instance.open(timeout_ms)
        return instance

    def _make(self) -> Instance:
        return Instance(self)

    def take_back(self, instance: Instance) -> None:
        """A closed instance, to be used again."""
        if len(self._shells) < self._keep:
            self._shells.append(instance)

    def close(self) -> None:
        """Keep nothing: no call will come. It is freed with its last instance then, and needs no search for cycles."""
        self._keep = 0
        self._shells.clear()


class Instance:
    """One instantiation: own store, own memory, own limits. Used by one thread at a time."""

    __slots__ = (
        "__weakref__", "_at", "_begun", "_block", "_boxes", "_cells", "_cells_at", "_context", "_cpu_ns", "_found",
        "_freeing", "_giving", "_guest", "_host", "_memory_at", "_nested", "_nested_at", "_on_thread", "_output",
        "_own", "_quick", "_region", "_renews", "_said", "_targets", "_timeout_ns", "_trap", "_trap_at", "_view",
        "_wall_ns", "_weak", "_words", "calls", "expired", "fuel", "memory", "size",
    )  # fmt: skip
    _said: Said | None
    """What the guest has said in the newest call in which it said anything."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._weak = weakref.ref(self)
        count = _FUNCTIONS + layouts.EXPORT_WORDS * len(guest.functions)
        self._block = (ctypes.c_uint64 * count)()
        at = self._at = ctypes.addressof(self._block)
        words = self._words = memoryview(self._block).cast("B").cast("Q")
        words[_ENGINE], words[_PRE] = guest.engine_address, guest.pre_address
        words[_ON_DEADLINE], words[_TICKS] = capi.function_address(ON_DEADLINE), guest.ticks
        words[_MAX_OUTPUT], words[_MAX_MEMORY] = guest.limits.output, guest.limits.memory
        words[_MAX_ELEMENTS], words[_MAX_TABLES] = TABLE_ELEMENTS, TABLES
        words[_MOST], words[_WORN_SIZE] = guest.most, guest.first_size + (guest.most - guest.first_size) // 2
        self._own: OwnMemory | None = None
        # Arguments and results of a call: two cells, of which the first word counts.
        self._cells = words[_CELLS : _CELLS + 4]
        self._cells_at = ctypes.c_void_p(at + 8 * _CELLS)
        # For calls of ``alloc`` from within a host function, while the outer call's arguments are in use.
        self._nested = words[_NESTED : _NESTED + 4]
        self._nested_at = ctypes.c_void_p(at + 8 * _NESTED)
        self._memory_at = ctypes.c_void_p(at + 8 * _MEMORY + capi.EXTERN_OF)
        places = {name: _FUNCTIONS + layouts.EXPORT_WORDS * number for number, name in enumerate(guest.functions)}
        for name, place in places.items():
            words[place + _NAME], words[place + _NAME + 1] = capi.bytes_address(guest.functions[name]), len(name)
        boxes = {name: at + 8 * place for name, place in places.items()}
        words[_ALLOC], words[_DEALLOC] = boxes.get("alloc", 0), boxes.get("dealloc", 0)
        self._quick = {
            name: box for name, box in boxes.items() if guest.accelerated and not guest.waits and name in guest.quick
        }
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
        self._view, self.size = _NO_MEMORY, 0
        self._region: tuple[int, int] | None = None
        self._output = guest.limits.output
        self._giving, self._freeing, self._begun, words[_ARMED] = False, False, False, NEVER
        """Whether it gives something now, or frees; whether the last call that ``_call`` made has come to the hook."""
        self._on_thread = self._timeout_ns = self._cpu_ns = self._wall_ns = 0
        self._said, self._host = None, (0, 0)
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
        self.calls = self.size = 0
        self.expired = self._begun = False
        self.memory = guest.first_size
        self._view = _NO_MEMORY
        if self._said is not None:
            self._forget_said()
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
                RUNNING[self._on_thread] = self._weak
                if not _renew_accelerated(self._at):
                    self._check(words[_FAILURE] or None, "instantiation", timeout_ms)
            else:
                self._renew(timeout_ms)
            if guest.initializer:
                self._enter(guest.initializer, where="instantiation", timeout_ms=timeout_ms)
            if guest.asks_for_region:
                self._ask_for_region(timeout_ms)
        except BaseException as error:
            words[_ARMED] = NEVER  # perhaps for another time than the next one's
            if isinstance(error, CallError):
                self.tell(error)
            self.close()
            raise
        words[_FRESH] = timeout_ms is None
        if not common:
            words[_ARMED] = NEVER

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:
        """One hook call: the guest's answer, or None for the hook's default.

        ``last`` says that the instance is dropped afterwards, so the guest need not free anything. Raises a
        CallError, after which the instance must be dropped.
        """
        quick = self._quick.get(hook)
        if quick is not None:
            answer = _call_accelerated(self._at, quick, data, self._weak, last)
            if not isinstance(answer, int):
                self.calls += 1
                self.memory = self._words[_SIZE]
                return answer
            if answer != _NOTHING:
                broken = self._broken(answer, hook, len(data))
                if answer == _IN_ALLOC and self.calls and not isinstance(broken, DeadlineError):
                    self._renew_in_place()
                    return self.call(hook, data, last=last)
                self.calls += 1
                raise broken
        if self.calls and self._words[_ARMED] == NEVER:
            self._renew_in_place()
        try:
            return self._call(hook, data, last=last)
        except CallError as error:
            self._measure()
            if self._begun or self.calls == 1 or isinstance(error, DeadlineError):
                raise
        finally:
            if self._guest.fuel is not None and self._words[_STORE]:  # a new store in its place may not have come up
                self._count_fuel(self._guest.fuel)
            self.memory = self.size
        self._renew_in_place()
        return self.call(hook, data, last=last)

    def close(self) -> None:
        """Give the store and its memory back. The instance must not be used any more; its guest may use it again."""
        words = self._words
        store = words[_STORE]
        if store:
            words[_STORE] = words[_CONTEXT] = words[_SIZE] = self.size = 0
            self._view = _NO_MEMORY
            if self._said is not None:
                self._forget_said()
            capi.store_delete(store)
            self._guest.take_back(self)

    @property
    def closed(self) -> bool:
        """Whether its store is given back."""
        return not self._words[_STORE]

    def __del__(self) -> None:
        if self._words[_STORE]:
            capi.store_delete(self._words[_STORE])

    def tell(self, error: CallError) -> None:
        """Put what the guest has said in the last call into the failure of that."""
        said = self._said
        if said is not None and said.call == self._words[_BEGIN]:
            said.tell(error)

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
        passed = _now_ns() - self._words[_BEGIN] - waited_ns()
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
        return self._view[pointer:end].tobytes() if end <= self.size or end <= self._measure() else None

    def write(self, pointer: int, data: bytes) -> bool:
        """Put ``data`` at ``pointer``; False, and nothing is written, where it does not fit into memory."""
        pointer &= U32
        end = pointer + len(data)
        if end > self.size and end > self._measure():
            return False
        self._view[pointer:end] = data
        return True

    def said(self) -> Said:
        """What the guest has said in the call under way."""
        said, call = self._said, self._words[_BEGIN]
        if said is None or said.call != call:
            if said is not None:
                said.finish()
            said = self._said = Said(call)
        return said

    @property
    def may_wait(self) -> bool:
        """Whether the guest is in its hook, and not in its ``alloc`` for something that it gets."""
        return self._begun and not self._giving and not self._freeing

    def give(self, data: bytes) -> int:
        """Put ``data`` where the guest's own ``alloc`` says; packed pointer and length, or an error's code."""
        if self._giving:
            return -E_UNAVAILABLE
        self._giving = True
        try:
            failure = self._ask_alloc(len(data))
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
            self._words[_ARMED] = NEVER
        return pointer << 32 | len(data)

    def _ask_alloc(self, size: int) -> int | None:
        """Call the guest's ``alloc`` from within a host function; the library's error, or None."""
        self._nested[0] = size
        target = self._found.get("alloc") or self._find("alloc")
        failure: int | None = _func_call(self._context, target, self._nested_at, 1, self._trap_at)
        return failure

    def take(self, size: int) -> int:
        """What ``alloc`` answers, whatever that is worth. Raises a CallError where it does not come back."""
        self._words[_FRESH] = 0
        self._arm(self._guest.limits.timeout, self._guest.ticks)
        self._words[_BEGIN] = _now_ns()
        RUNNING[self._on_thread] = self._weak
        pointer = self._enter("alloc", size, where="alloc", timeout_ms=None) & U32
        self.memory = self._measure()
        return pointer

    def give_back(self, pointer: int, size: int) -> None:
        """Call ``dealloc``, where the guest has one. Raises a CallError where it does not come back."""
        if self._guest.frees:
            self._free(pointer, size)

    # ── below ──

    def _forget_said(self) -> None:
        said, self._said = self._said, None
        if said is not None:
            said.finish()

    def _renew_in_place(self) -> None:
        """Go on with a new store: what is begun next is its first call."""
        self._words[_ARMED] = NEVER
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
        capi.store_epoch_deadline_callback(store, ON_DEADLINE, None, capi.NO_FINALIZER)
        if timeout_ms is None:
            self._arm(guest.limits.timeout, guest.ticks)
        else:
            self._arm(timeout_ms, deadline_ticks(timeout_ms))
        words[_BEGIN] = _now_ns()
        RUNNING[self._on_thread] = self._weak
        self._instantiate(timeout_ms)
        capi.instance_export_get(context, self._at, b"memory", 6, self._at + 8 * _MEMORY)
        # DANGER: the accelerator writes there. An empty memory has a place too, and no size that _measure would see.
        words[_BASE] = capi.memory_data(context, self._memory_at) or 0
        self._measure()

    def _instantiate(self, timeout_ms: int | None) -> None:
        failure = capi.instance_pre_instantiate(self._guest.pre_address, self._context, self._at, self._trap_at)
        self._check(failure, "instantiation", timeout_ms)

    def _enter(self, name: str, *numbers: int, where: str, timeout_ms: int | None) -> int:
        """Call an export beside the hooks; what it answers. Raises a CallError."""
        for place, number in enumerate(numbers):
            self._cells[2 * place] = number
        failure = _func_call(self._context, self._find(name), self._cells_at, 2, self._trap_at)
        self._check(failure, where, timeout_ms)
        return self._cells[0]

    def _call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:  # noqa: C901, PLR0912, PLR0915 - below
        """Any call, in one piece, because a call of a Python function costs as much as most lines here."""
        guest, words = self._guest, self._words
        context, cells, cells_at, trap, trap_at = self._context, self._cells, self._cells_at, self._trap, self._trap_at
        if words[_FRESH]:
            words[_FRESH] = 0  # it was armed by the instantiation, which is a part of its first call
        else:
            if EPOCH[0] != words[_ARMED] or _get_ident() != self._on_thread:
                self._arm(guest.limits.timeout, guest.ticks)
            if guest.fuel is not None:
                capi.context_set_fuel(context, guest.fuel)
            words[_BEGIN] = _now_ns()
        RUNNING[self._on_thread] = self._weak
        self.calls += 1
        size, self._begun = len(data), False
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
            outside = not pointer or (end > self.size and end > self._measure())
            if outside or (region is None and guest.own.touched_by(pointer, end)):
                raise self._no_room(pointer, size)
            self._view[pointer:end] = data
        cells[0], cells[2] = pointer, size
        self._begun = True
        failure = _func_call(context, self._found.get(hook) or self._find(hook), cells_at, 2, trap_at)
        if failure is not None or trap.value is not None:
            raise self._error(failure, hook, None)
        packed = 0 if hook in guest.void else cells[0]
        result, behind = None, behind and pointer + behind
        room = guest.own.room(behind, guest.most) if behind and not words[_WORN_END] else guest.most
        if packed and hook not in UNANSWERED:
            start, length = packed >> 32, packed & U32
            end = start + length
            if length > self._output or (end > self.size and end > self._measure()):
                raise self._bad_result(packed)
            result = self._view[start:end].tobytes()
            if end > behind and not guest.own.touched_by(start, end):  # else it is a constant
                behind = end
        if self._measure() > words[_WORN_SIZE] or behind > (words[_WORN_END] or behind):
            words[_ARMED] = NEVER
        if not words[_WORN_END] and behind:
            words[_WORN_END] = behind + max(0, (room if behind <= room else guest.most) - behind) // 2
        if guest.frees and not last:
            self._free_all(packed, pointer, size, in_region=region is not None)
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
        wrong = self._guest.own.refuse(pointer, size, self.size)
        assert wrong is not None  # noqa: S101 - whoever asks has seen that it is
        return wrong

    def _bad_result(self, packed: int) -> CallError:
        start, length = packed >> 32, packed & U32
        if length > self._output:
            return ResultError(f"the result has {length} bytes, and limits.output is {self._output}")
        return ResultError(f"the result is outside memory: {length} bytes at {start}, of {self.size}")

    def _free_all(self, packed: int, pointer: int, size: int, *, in_region: bool) -> None:
        """Give the guest its answer and its input back."""
        start, length = packed >> 32, packed & U32
        if start + length > self.size and start + length > self._measure():
            packed = 0  # an answer that nobody reads: whatever it is, it is nothing to free
        self._freeing = True
        try:
            if packed and not overlap(start, length, pointer, size):
                self._free(start, length)
            if not in_region:
                self._free(pointer, size)
        finally:
            self._freeing = False

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
        if size != self.size:
            guest, words = self._guest, self._words
            base = capi.memory_data(self._context, self._memory_at) or 0
            view = guest.views.get(base) if size == guest.first_size else _view(base, size)
            if view is None:
                if len(guest.views) >= _MAX_VIEWS:
                    guest.views.clear()
                view = guest.views[base] = _view(base, size)
            self._view = view
            self.size = words[_SIZE] = size
            words[_BASE] = base
        return size

    def _ask_for_region(self, timeout_ms: int | None) -> None:
        """The guest's own place for inputs. It is one place in all instances, so only the first one is asked."""
        guest = self._guest
        packed = self._enter(INPUT_REGION, where=INPUT_REGION, timeout_ms=timeout_ms)
        start, size = packed >> 32, packed & U32
        if size:
            if not start or start + size > self._measure():
                raise TrapError(f"the input region is outside memory: {size} bytes at {start}, of {self.size}")
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
        """What the library's trap or error means; either is given back."""
        trap, self._trap.value = self._trap.value, None
        return call_error(
            where, trap=trap, failure=failure, code_at=self._at + 8 * _TRAP_CODE, expired=self.expired,
            limits=self._guest.limits, timeout_ms=timeout_ms, known=self._guest.known,
        )  # fmt: skip


_NO_MEMORY: Final = memoryview(b"")


def _view(base: int, size: int) -> memoryview:
    """Guest memory. DANGER: good while the store lives; what is behind an older address may be anybody's."""
    return memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B") if size else _NO_MEMORY
