"""Calls of guests that wait: each has a native stack of its own (a fiber), which host functions leave and come back to.

A guest writes a call that seems to block. In here it is a generator (``Instance.steps``): it runs the guest until that
waits, gives its caller what to await, and goes on with the answer. So while one guest waits for a database, the event
loop answers others. The rest is ``native``'s, whose ``Guest`` and ``Instance`` these are: the same memory, the same
checks, the same limits. What differs:

**Every entry into the guest is a future of the library**, which is polled until it is done: it ends the process that
calls a guest with such imports in another way. Only a hook may wait. In all other places (the start function,
``_initialize``, ``alloc``, ``dealloc``) a function that waits answers that it is unavailable, so those end with one
poll, also ``alloc`` for what a host function gives.

**The future belongs to the call.** Who drops it unwinds the guest's stack: no code of the guest runs after that, and
the instance must not be used again. DANGER: it is dropped before its store.

**Nothing of Python stays on that stack while the guest waits.** A callback notes what is asked for and returns; whether
the answer is there is another callback's question. So the stack may go on, on whichever thread.

**Time is counted by steps.** A call's processor time is the sum of what its steps took, each on the thread that ran it;
what passes between them is not the guest's, and is bounded by whoever awaits.

The names and types are of wasmtime/async.h, https://docs.wasmtime.dev/c-api/async_8h.html.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from hookline_api.abi import INPUT_REGION
from hookline_artifacts.errors import VerifyError
from hookline_runtime.errors import CallError, DeadlineError
from hookline_runtime.guest import capi, layouts, native
from hookline_runtime.guest.border import UNANSWERED, Waiting, function_type, left_ns, spent_ns
from hookline_runtime.guest.engine import EPOCH, deadline_ticks, first_line
from hookline_runtime.guest.program import RUNNING

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

_SHORT_NS: Final = 500_000
"""A step that took no longer is charged by the clock, as if it had had a core all the time."""

_now_ns = time.perf_counter_ns
_get_ident = threading.get_ident
_ARMED, _BEGIN, _FRESH, _STORE, _WORN_END, _WORN_SIZE = layouts.words(
    "armed", "begin_ns", "fresh", "store", "worn_end", "worn_size"
)
_WORD: Final = 8
_VAL: Final = capi.VAL // _WORD
_RESULT: Final = 2 * _VAL
_ERROR: Final = 3 * _VAL
_FORMATS: Final = {"i": "8xi20x", "I": "8xq16x", "f": "8xf20x", "F": "8xd16x"}
_U64: Final = 0xFFFFFFFFFFFFFFFF
_U32: Final = 0xFFFFFFFF


_NOTED: Final[dict[int, tuple[int, int, int]]] = {}
"""By thread: the epoch in which its processor time was last read, that time, and when it was, in nanoseconds."""


class Guest(native.Guest):
    """A program whose calls may wait."""

    on_fibers = True

    def _make(self) -> Instance:
        return Instance(self)

    def _define_waiting(self, module: str, name: str, params: str, results: str, function: Waiting) -> None:
        callback = _callback(params, results, function)
        self._callbacks.append(callback)
        kind = function_type(params, results)  # which has to live as long as its address is used
        failure = capi.linker_define_async_func(
            capi.address(self._linker), module.encode(), len(module.encode()), name.encode(), len(name.encode()),
            capi.address(kind), callback, None, capi.NO_FINALIZER,
        )  # fmt: skip
        if failure:
            why = first_line(capi.take_error(failure)[0])
            raise VerifyError(f"the host function {module}.{name} cannot be linked: {why}")


class Instance(native.Instance):
    """One instantiation whose calls may wait. Used by one thread at a time."""

    __slots__ = (
        "_answer", "_future", "_in_hook", "_own_vals", "_passed_ns", "_results_at", "_running", "_vals", "_vals_at",
        "_wide", "_work", "_work_ns",
    )  # fmt: skip

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self._quick, self._renews = {}, False  # the accelerator knows no futures
        self._vals = (ctypes.c_uint64 * (_ERROR + 1))()
        """Two arguments, a result, and an error of the library."""
        self._own_vals = (ctypes.c_uint64 * (_ERROR + 1))()
        """The same for a call from within a host function."""
        self._vals_at = ctypes.addressof(self._vals)
        self._future = 0
        self._in_hook = self._running = False
        self._work_ns = self._passed_ns = 0
        """Of the call's steps before this one."""
        self._work: Coroutine[Any, Any, int | bytes] | None = None
        """What the guest waits for, until somebody awaits it; then what it came to, until the guest has it."""
        self._answer: int | bytes | None = None
        self._results_at, self._wide = 0, False

    def open(self, timeout_ms: int | None) -> None:
        """As ``native.Instance.open``; a call that was under way is dropped."""
        self._drop()
        super().open(timeout_ms)

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:
        """``native.Instance.call``, for a guest that does not wait; where it does, the function is unavailable."""
        steps = self.steps(hook, data, last=last, may_wait=False)
        try:
            steps.send(None)  # type: ignore[arg-type, unused-coroutine]  # as every generator begins
        except StopIteration as end:
            answer: bytes | None = end.value
            return answer
        raise AssertionError("a call that may not wait has waited")

    def steps(
        self, hook: str, data: bytes, *, last: bool, may_wait: bool = True
    ) -> Generator[Coroutine[Any, Any, int | bytes], int | bytes, bytes | None]:
        """One hook call as ``native.Instance.call``, in steps: it yields what to await, and takes what that came to.

        It may be closed between two steps, and then raises nothing. After a CallError, or once it is closed before its
        end, the instance must be closed.
        """
        if self.calls and self._words[_ARMED] == native.NEVER:
            self._renew_in_place()
        try:
            return (yield from self._steps(hook, data, last=last, may_wait=may_wait))
        except CallError as error:
            self._measure()
            if self._begun or self.calls == 1 or isinstance(error, DeadlineError):
                raise
        finally:
            self._drop()
            if self._guest.fuel is not None and self._words[_STORE]:
                self._count_fuel(self._guest.fuel)
            self.memory = self.size
        self._renew_in_place()
        return (yield from self.steps(hook, data, last=last, may_wait=may_wait))

    def close(self) -> None:
        """As ``native.Instance.close``; a call that is under way is dropped."""
        self._drop()
        super().close()

    def __del__(self) -> None:
        self._drop()
        super().__del__()

    def spent_ns(self) -> int:
        """What the last call has used of its time (``border.spent_ns``), without what passed between its steps."""
        work, passed = self._work_ns, self._passed_ns
        if self._running:
            work += max(0, time.thread_time_ns() - self._cpu_ns)
            passed += _now_ns() - self._wall_ns
        return spent_ns(work_ns=work, passed_ns=passed, host_ns=self.waited_ns())

    def left_ns(self) -> int:
        """What is left of the time of the call under way; 0 where it has to end."""
        passed = self._passed_ns + (_now_ns() - self._wall_ns if self._running else 0)
        return left_ns(timeout_ns=self._timeout_ns, used_ns=self.spent_ns(), passed_ns=passed)

    # ── what the callbacks ask ──

    def ask(self, work: Coroutine[Any, Any, int | bytes], results_at: int, *, wide: bool) -> None:
        """The guest waits for this; its answer goes there."""
        self._work, self._results_at, self._wide, self._answer = work, results_at, wide, None

    @property
    def may_wait(self) -> bool:
        """As ``native.Instance.may_wait``; and somebody goes on with what it waits for."""
        return self._in_hook and not self._giving

    def settle(self) -> bool:
        """Give the guest the answer that it waits for, on its own stack; whether there is one."""
        answer = self._answer
        if answer is None:
            return False
        put(self._results_at, self.give(answer) if isinstance(answer, bytes) else answer, wide=self._wide)
        self._answer = None
        return True

    # ── below ──

    def _steps(
        self, hook: str, data: bytes, *, last: bool, may_wait: bool
    ) -> Generator[Coroutine[Any, Any, int | bytes], int | bytes, bytes | None]:
        guest, words = self._guest, self._words
        if words[_FRESH]:
            words[_FRESH] = 0  # its instantiation is a part of its first call
        else:
            self._arm(guest.limits.timeout, guest.ticks)
            words[_BEGIN] = _now_ns()
        self.calls += 1
        size, self._begun = len(data), False
        pointer, behind = self._place(size)
        if size:
            self._view[pointer : pointer + size] = data
        self._begun = True
        self._start(hook, pointer, size, results=0 if hook in guest.void else 1)
        self._in_hook = may_wait
        try:
            while not self._poll():
                work, self._work = self._work, None
                assert work is not None  # noqa: S101 - it is for this that the guest stands still
                try:
                    self._answer = yield work
                finally:
                    work.close()  # of no effect where it was awaited
        finally:
            self._in_hook = False
        self._finish(hook, None)
        packed = 0 if hook in guest.void else self._vals[_RESULT + 1]
        result = self._result(hook, packed, behind)
        if guest.frees and not last:
            self._free_all(packed, pointer, size, in_region=not behind)
        return result

    def _place(self, size: int) -> tuple[int, int]:
        """Where an input of that size goes, and the first byte behind it; 0 where it is in the guest's own place."""
        region = self._region
        if region is not None and size <= region[1]:
            return region[0], 0
        pointer = self._enter("alloc", size, where="alloc", timeout_ms=None) & _U32
        if size:
            end = pointer + size
            outside = not pointer or (end > self.size and end > self._measure())
            if outside or self._guest.own.touched_by(pointer, end):
                raise self._no_room(pointer, size)
        return pointer, pointer + size

    def _result(self, hook: str, packed: int, behind: int) -> bytes | None:
        """The guest's answer; and whether the instance is worn is noted, by ``native.Instance._call``'s rule."""
        guest, words = self._guest, self._words
        result = None
        room = guest.own.room(behind, guest.most) if behind and not words[_WORN_END] else guest.most
        if packed and hook not in UNANSWERED:
            start, length = packed >> 32, packed & _U32
            end = start + length
            if length > self._output or (end > self.size and end > self._measure()):
                raise self._bad_result(packed)
            result = self._view[start:end].tobytes()
            if end > behind and not guest.own.touched_by(start, end):
                behind = end
        if self._measure() > words[_WORN_SIZE] or behind > (words[_WORN_END] or behind):
            words[_ARMED] = native.NEVER
        if not words[_WORN_END] and behind:
            words[_WORN_END] = behind + max(0, (room if behind <= room else guest.most) - behind) // 2
        return result

    def _arm(self, timeout_ms: int, ticks: int) -> None:  # noqa: ARG002 - each step sets the deadline by what is left
        # DANGER: whoever renews it says so of this thread. Said of the last one, another's guest that runs there would
        # get its answers.
        self._on_thread = _get_ident()
        self._timeout_ns = timeout_ms * 1_000_000
        self._work_ns = self._passed_ns = 0
        self._words[_ARMED] = 0
        if self._guest.fuel is not None:
            capi.context_set_fuel(self._context, self._guest.fuel)

    def _enter(self, name: str, *numbers: int, where: str, timeout_ms: int | None) -> int:
        self._start(name, *numbers, results=int(name in {"alloc", INPUT_REGION}))
        done = self._poll()
        assert done  # noqa: S101 - where it may not wait, it has nothing to wait for
        self._finish(where, timeout_ms)
        return self._vals[_RESULT + 1]

    def _ask_alloc(self, size: int) -> int | None:
        """As ``native.Instance._ask_alloc``.

        DANGER: also here it has to be a future. The library ends the process where a guest that is called in another
        way, from within a host function that has waited, calls one that might.
        """
        vals, at = self._own_vals, ctypes.addressof(self._own_vals)
        vals[0], vals[1], vals[_ERROR] = capi.I32, size, 0
        target = self._found.get("alloc") or self._find("alloc")
        future = capi.func_call_async(
            self._context, target, at, 1, at + _RESULT * _WORD, 1, self._trap_at, at + _ERROR * _WORD
        )
        done = capi.call_future_poll(future)
        capi.call_future_delete(future)
        assert done  # noqa: S101 - while it gives, it does not wait
        self._nested[0] = vals[_RESULT + 1]
        return vals[_ERROR] or None

    def _free(self, pointer: int, size: int) -> None:
        self._enter("dealloc", pointer, size, where="dealloc", timeout_ms=None)

    def _start(self, name: str, *numbers: int, results: int) -> None:
        vals, at = self._vals, self._vals_at
        for place, number in enumerate(numbers):
            vals[place * _VAL], vals[place * _VAL + 1] = capi.I32, number
        vals[_ERROR] = 0
        target = self._found.get(name) or self._find(name)
        self._future = capi.func_call_async(
            self._context, target, at, len(numbers), at + _RESULT * _WORD, results, self._trap_at, at + _ERROR * _WORD
        )

    def _poll(self) -> bool:
        """Run the guest until it waits, or is done: whether it is done."""
        self._begin_step()
        try:
            return bool(capi.call_future_poll(self._future))
        finally:
            self._end_step()

    def _finish(self, where: str, timeout_ms: int | None) -> None:
        """The future is done. Raises the CallError that it came to."""
        self._drop()
        self._check(self._vals[_ERROR] or None, where, timeout_ms)

    def _drop(self) -> None:
        future, self._future = self._future, 0
        if future:
            capi.call_future_delete(future)
        if self._work is not None:
            self._work.close()
        self._work = self._answer = None

    def _begin_step(self) -> None:
        """Note the clocks, and set the deadline by what is left.

        The thread's processor time is read when the engine's clock has moved: a system call costs as much as the rest.
        In between the thread cannot have used more than has passed, so a step is charged too little at worst.
        """
        thread, epoch = _get_ident(), EPOCH[0]
        RUNNING[thread] = self._weak
        now = _now_ns()
        noted = _NOTED.get(thread)
        if noted is None or noted[0] != epoch:
            noted = _NOTED[thread] = epoch, time.thread_time_ns(), now
        self._cpu_ns = noted[1] + now - noted[2]
        self._wall_ns = now
        left = left_ns(timeout_ns=self._timeout_ns, used_ns=self.spent_ns(), passed_ns=self._passed_ns)
        capi.context_set_epoch_deadline(self._context, deadline_ticks(left // 1_000_000))
        self._running = True

    def _end_step(self) -> None:
        passed = _now_ns() - self._wall_ns
        self._work_ns += passed if passed < _SHORT_NS else max(0, time.thread_time_ns() - self._cpu_ns)
        self._passed_ns += passed
        self._running = False

    def _instantiate(self, timeout_ms: int | None) -> None:
        at = self._vals_at + _ERROR * _WORD
        self._vals[_ERROR] = 0
        self._future = capi.instance_pre_instantiate_async(
            self._guest.pre_address, self._context, self._at, self._trap_at, at
        )
        done = self._poll()
        assert done  # noqa: S101 - as in _enter
        self._finish("instantiation", timeout_ms)


def put(at: int, number: int, *, wide: bool) -> None:
    """Write one value where the library wants a function's result."""
    ctypes.c_uint8.from_address(at).value = capi.I64 if wide else capi.I32
    ctypes.c_uint64.from_address(at + capi.VAL_OF).value = number & (_U64 if wide else _U32)


def _settled(_env: object) -> bool:
    """Whether the guest that runs on this thread has the answer that it waits for."""
    try:
        return bool(RUNNING[_get_ident()]().settle())
    except BaseException:  # noqa: BLE001 - nothing may leave a callback
        return True  # the result is what it was set to beforehand: unavailable


def _at_once(_env: object) -> bool:
    return True


# Kept for as long as any guest may wait. Neither has anything to give back.
_SETTLED: Final = capi.Continuation(_settled)
_AT_ONCE: Final = capi.Continuation(_at_once)
_SETTLED_AT: Final = capi.function_address(_SETTLED)
_AT_ONCE_AT: Final = capi.function_address(_AT_ONCE)


def _callback(params: str, results: str, function: Waiting) -> Any:
    """A host function that waits, as the library calls it: it notes what is asked for."""
    arguments = struct.Struct("<" + "".join(_FORMATS[letter] for letter in params))
    wide = results == "I"

    def call(
        _env: object, caller: int, args: int, _count: int, results_at: int, _: int, _trap: int, continuation: int
    ) -> None:
        then = (ctypes.c_uint64 * 3).from_address(continuation)
        then[0], then[1], then[2] = _AT_ONCE_AT, 0, 0
        put(results_at, function.unavailable, wide=wide)
        try:
            instance: Instance = RUNNING[_get_ident()]()
            if not instance.size:
                instance.meet(caller)
            if instance.may_wait:
                numbers = arguments.unpack(ctypes.string_at(args, arguments.size))
                instance.ask(function.run(instance, *numbers), results_at, wide=wide)
                then[0] = _SETTLED_AT
        except BaseException:  # noqa: BLE001, S110 - nothing may leave a callback; it is unavailable
            pass

    return capi.AsyncCallback(call)
