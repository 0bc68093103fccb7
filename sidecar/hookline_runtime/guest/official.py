"""Calls into a guest through wasmtime-py as it is documented: the reference, and the fallback (``calls.py``).

The deadline's callback is the one thing that wasmtime-py has no door for; it is set with wasmtime-py's own bindings.
Host functions must not raise here: wasmtime-py keeps the last Python exception in one process-wide variable, so with
two threads one plugin's exception would come out of another plugin's call.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

import wasmtime
from wasmtime import _bindings as ffi
from wasmtime._extern import wrap_extern

from hookline_api.abi import E_MEMORY, E_UNAVAILABLE, HOST_FUNCTIONS, WASI_MODULE
from hookline_artifacts.errors import VerifyError
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, ResultError, TrapError
from hookline_runtime.guest.backtrace import Functions
from hookline_runtime.guest.border import (
    NO_PLACE,
    PAGE,
    TABLE_ELEMENTS,
    TABLES,
    U32,
    UNANSWERED,
    Host,
    OwnMemory,
    Waiting,
    border,
    function_type,
    initializer,
    left_ns,
    may_wait,
    most_memory,
    overlap,
    own_wasi,
    spent_ns,
    trap_reason,
)
from hookline_runtime.guest.engine import CompiledModule, deadline_ticks, engine, first_line
from hookline_runtime.guest.said import Said
from hookline_runtime.guest.waiting import blocking, waited_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.resources import Limits


class _Clock(threading.local):
    """The time of the call that runs on this thread."""

    expired = False
    """Whether the call was interrupted."""
    giving = False
    """Whether a host function is calling the guest's ``alloc``."""
    in_hook = False
    """Whether the guest is in its hook, and not in what is called beside it."""
    given = 0
    """Behind the last byte that a host function put into the guest's memory."""
    host_ns = 0
    """What host functions that may wait took of it."""
    _timeout_ns = 0
    _cpu_ns = 0
    _wall_ns = 0

    def __init__(self) -> None:
        self.said = Said()
        """What the guest has said in it."""

    def start(self, timeout_ms: int) -> None:
        """A call begins."""
        self.expired = False
        self.said = Said()
        self.host_ns = 0
        self._timeout_ns = timeout_ms * 1_000_000
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = time.monotonic_ns()

    def used_ns(self) -> int:
        """What the call has used of its time (``border.spent_ns``)."""
        work, passed = time.thread_time_ns() - self._cpu_ns, time.monotonic_ns() - self._wall_ns
        return spent_ns(work_ns=work, passed_ns=passed, host_ns=self.host_ns)

    def left_ns(self) -> int:
        """What is left of the time-out; 0 where the call has to end."""
        passed = time.monotonic_ns() - self._wall_ns - waited_ns()
        return left_ns(timeout_ns=self._timeout_ns, used_ns=self.used_ns(), passed_ns=passed)


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


class _CallerMemory:
    """What ``border.GuestMemory`` says, of the guest that calls."""

    __slots__ = ("_caller", "_guest")

    def __init__(self, caller: wasmtime.Caller, guest: Guest) -> None:
        self._caller = caller
        self._guest = guest

    def read(self, pointer: int, length: int) -> bytes | None:
        pointer, length = pointer & U32, length & U32
        base, size = _span(self._caller["memory"], self._caller)
        return ctypes.string_at(base + pointer, length) if pointer + length <= size else None

    def write(self, pointer: int, data: bytes) -> bool:
        pointer &= U32
        base, size = _span(self._caller["memory"], self._caller)
        if pointer + len(data) > size:
            return False
        ctypes.memmove(base + pointer, data, len(data))
        return True

    def said(self) -> Said:
        return _clock.said

    @property
    def may_wait(self) -> bool:
        return _clock.in_hook and not _clock.giving

    def give(self, data: bytes) -> int:
        if _clock.giving:
            return -E_UNAVAILABLE
        alloc = self._caller["alloc"]
        _clock.giving = True
        try:
            pointer: int = alloc(self._caller, len(data)) & U32  # type: ignore[operator]  # inspection saw a function
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            return -E_UNAVAILABLE  # a guest that was interrupted in there traps again at its next step
        finally:
            _clock.giving = False
        end = pointer + len(data)
        if not pointer or (data and self._guest.own.touched_by(pointer, end)):
            return -E_UNAVAILABLE
        if not self.write(pointer, data):
            return -E_MEMORY
        _clock.given = max(_clock.given, end)
        return pointer << 32 | len(data)


class Guest:
    """One module, linked once to one plugin's host functions.

    The module is judged again here, by what the engine says of it: inspection read the artifact, and this is what
    will run. Raises VerifyError.
    """

    on_fibers = False
    """Whether its calls have stacks of their own."""

    def __init__(
        self,
        module: CompiledModule,
        *,
        limits: Limits,
        host: Host,
    ) -> None:
        self.info = info = border(module)
        self.waits = any(isinstance(host.get((each.module, each.name)), Waiting) for each in info.imports)
        """Whether it imports a host function that waits."""
        self.limits = limits
        self._fuel = limits.fuel
        self._engine = engine(fuel=limits.fuel is not None)
        self._ticks = deadline_ticks(limits.timeout)
        self._wasi = info.needs_wasi
        self._initializer = initializer(info)
        self.memory_map = module.memory_map
        self.keep_off(static=False)
        self.most = most_memory(module, limits.memory)
        self.worn_size = (info.memory_pages * PAGE + self.most) // 2
        """Bytes of memory with which an instance is used no more."""
        self._known = Functions()
        self.frees = "dealloc" in info.exports
        """Whether the guest takes memory back."""
        self._linker = _link(self._engine, self, host)
        try:
            self._pre = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise VerifyError(f"the module cannot be linked: {first_line(str(error))}") from error

    def instantiate(self, *, timeout_ms: int | None = None, instead_of: Instance | None = None) -> Instance:
        """A new instance with fresh memory; its deadline runs from here and covers its first call.

        With ``timeout_ms`` it is made ahead of any call: it has that time to come up, and its first call has a
        deadline of its own. ``instead_of`` is one that is not closed yet, and is so afterwards, whatever happens.
        Raises TrapError or DeadlineError where the start function or ``_initialize`` does not come back, and
        OverloadError where the engine has no place for another one.
        """
        if instead_of is not None:
            instead_of.close()
        ahead = timeout_ms is not None
        store = wasmtime.Store(self._engine)
        try:
            store.set_limits(
                memory_size=self.limits.memory,
                table_elements=TABLE_ELEMENTS,
                instances=1,
                tables=TABLES,
                memories=1,
            )
            if self._wasi:
                store.set_wasi(wasmtime.WasiConfig())  # an empty one: no files, arguments, environment, output
            ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), _on_deadline, None, _no_finalizer)
            self.arm(store, timeout_ms)
            instance = self._pre.instantiate(store)
            if self._initializer:
                _export(store, instance, self._initializer)(store)
            _clock.said.finish()
            return Instance(self, store, instance, armed=not ahead)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            store.close()
            failure = self.call_error(error, "instantiation", f"{timeout_ms} ms" if ahead else None)
            _clock.said.tell(failure)
            raise failure from error
        except BaseException:
            store.close()
            raise

    def keep_off(self, *, static: bool) -> None:
        """Say where no input may be (``MemoryMap.own``)."""
        self.own = OwnMemory(self.memory_map, static=static)

    def close(self) -> None:
        """Keep nothing; there is nothing here."""

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
        failure = self._call_error(error, where, time)
        failure.backtrace = self._known.backtrace(self._known.of(error), where)
        return failure

    def _call_error(self, error: Exception, where: str, time: str | None) -> CallError:
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
            return TrapError(f"{where} trapped: {trap_reason(error.message)}")
        if "maximum concurrent" in str(error):
            return OverloadError(NO_PLACE)
        return TrapError(f"{where} failed: {first_line(str(error))}")


class Instance:
    """One instantiation: own store, own memory, own limits. Used by one thread at a time."""

    __slots__ = (
        "_armed",
        "_functions",
        "_guest",
        "_instance",
        "_memory",
        "_store",
        "_worn",
        "_worn_end",
        "calls",
        "closed",
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
        self._worn = False
        self._worn_end = 0
        self.closed = False
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
        if self._worn:
            self._renew()
        try:
            pointer = self._place(data)
        except (OverloadError, TrapError):
            if not self.calls:
                self.calls = 1
                raise
            self._renew()
            pointer = self._place(data)
        finally:
            self._look()
        self.calls += 1
        _clock.given = 0
        try:
            _clock.in_hook = True
            try:
                packed = self._run(hook, pointer, len(data))
            finally:
                _clock.in_hook = False
            result, behind = None, pointer + len(data)
            start = length = 0
            if packed:
                start, length = packed >> 32 & U32, packed & U32
                if hook not in UNANSWERED:
                    result = self._read(start, length)
                    if start + length > behind and not self._guest.own.touched_by(start, start + length):
                        behind = start + length  # else it is a constant
                elif start + length > _span(self._memory, self._store)[1]:
                    packed = 0  # whatever it is, it is nothing to free
            self._note_wear(pointer + len(data), behind)
            if not last:
                if packed and not overlap(start, length, pointer, len(data)):
                    self.give_back(start, length)
                self.give_back(pointer, len(data))
            return result
        finally:
            self._look()
            _clock.said.finish()

    def tell(self, error: CallError) -> None:
        """Put what the guest has said in the last call on this thread into the failure of that."""
        _clock.said.tell(error)

    def take(self, size: int) -> int:
        """What ``alloc`` answers, whatever that is worth. Raises a CallError where it does not come back."""
        self._armed = False
        self._guest.arm(self._store)
        pointer: int = self._run("alloc", size) & U32
        self._look()
        return pointer

    def give_back(self, pointer: int, size: int) -> None:
        """Call ``dealloc``, where the guest has one. Raises a CallError where it does not come back."""
        if self._guest.frees:
            self._run("dealloc", pointer, size)

    def _run(self, name: str, *numbers: int) -> Any:
        try:
            return self._function(name)(self._store, *numbers)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise self._guest.call_error(error, name) from error

    def _place(self, data: bytes) -> int:
        """Begin a call: put its input where the guest's ``alloc`` says. Raises a CallError."""
        guest, store = self._guest, self._store
        if self._armed:
            self._armed = False  # by the instantiation, which is a part of its first call
        else:
            guest.arm(store)
        pointer: int = self._run("alloc", len(data)) & U32
        if data:
            base, size = _span(self._memory, store)
            wrong = guest.own.refuse(pointer, len(data), size)
            if wrong is not None:
                raise wrong
            ctypes.memmove(base + pointer, data, len(data))
        return pointer

    def _look(self) -> None:
        """What a call used, for the statistics."""
        if self.closed:  # a new store in its place did not come up
            return
        self.fuel = self._guest.fuel_used(self._store)
        self.memory = _span(self._memory, self._store)[1]

    def _note_wear(self, taken: int, behind: int) -> None:
        """See whether it has lost so much memory that the next call is not for this store (``native.py``)."""
        most, room = self._guest.most, self._guest.own.room(taken, self._guest.most)
        behind = max(behind, _clock.given)
        self._worn = behind > (self._worn_end or behind) or _span(self._memory, self._store)[1] > self._guest.worn_size
        self._worn_end = self._worn_end or behind + max(0, (room if behind <= room else most) - behind) // 2

    def _renew(self) -> None:
        """Go on with a new store: what is begun next is its first call."""
        fresh = self._guest.instantiate(instead_of=self)
        self._store, self._instance, self._memory = fresh._store, fresh._instance, fresh._memory  # noqa: SLF001 - ours
        self._functions.clear()
        self._armed, self._worn, self._worn_end, self.calls, self.closed = True, False, 0, 0, False

    def spent_ns(self) -> int:
        """What the last call on this thread has used of its time."""
        return _clock.used_ns()

    def waited_ns(self) -> int:
        """What host functions that may wait took of it."""
        return _clock.host_ns

    def close(self) -> None:
        """Give the store and its memory back."""
        if not self.closed:
            self._store.close()
        self.closed = True

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


def _span(memory: object, store: wasmtime.Store | wasmtime.Caller) -> tuple[int, int]:
    """Address and size of a linear memory now; both change when it grows."""
    assert isinstance(memory, wasmtime.Memory)  # noqa: S101 - inspection refused everything else
    return ctypes.cast(memory.data_ptr(store), ctypes.c_void_p).value or 0, memory.data_len(store)


def _link(where: wasmtime.Engine, guest: Guest, host: Host) -> wasmtime.Linker:
    linker = wasmtime.Linker(where)
    info = guest.info
    # A linker that holds callbacks that hold their guest would be freed by a search for cycles only.
    owner = weakref.ref(guest)
    if info.needs_wasi:
        linker.define_wasi()
        linker.allow_shadowing = True
        for name, params, ours in own_wasi(host):
            call = _callback(ours, owner, waits=False)
            linker.define_func(WASI_MODULE, name, function_type(params, "i"), call, access_caller=True)
    for entry in info.imports:
        if entry.module == WASI_MODULE:
            continue
        function, given = HOST_FUNCTIONS[entry.module, entry.name], host[entry.module, entry.name]
        linker.define_func(
            entry.module,
            entry.name,
            function_type(function.params, function.results),
            _callback(
                blocking(given) if isinstance(given, Waiting) else given,
                owner,
                waits=may_wait(entry.name) and not isinstance(given, Waiting),
            ),
            access_caller=True,
        )
    return linker


def _callback(function: Callable[..., int], owner: weakref.ref[Guest], *, waits: bool) -> Callable[..., int]:
    def call(caller: wasmtime.Caller, *numbers: float) -> int:
        begin = time.monotonic_ns() if waits else 0
        try:
            guest = owner()
            assert guest is not None  # noqa: S101 - it runs
            answer: int = function(_CallerMemory(caller, guest), *numbers)
            return answer
        except BaseException:  # noqa: BLE001 - nothing may leave a callback, see the module's docstring
            return E_UNAVAILABLE
        finally:
            if waits:
                _clock.host_ns += time.monotonic_ns() - begin

    return call
