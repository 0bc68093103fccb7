"""Calls into a component: a ``Guest`` and an ``Instance`` with the surface of ``native``'s, at the component's price.

The engine is another one (``engine.py``), and what crosses the border are texts. The limits are the same, kept by other
means where the engine has no door:

- nobody can see how much memory a component has, so each of its instances counts as ``limits.memory``, and where it has
  several memories, each may have its part of that alone;
- WASI is ours and grants nothing (``component_wasi``), and what is imported beyond it ends the call;
- an error in the guest's own words (``fail``, what a runtime wrote before it trapped) is the failure's message;
- a host function that waits blocks its thread (``waiting``).

An instance that raised is never used again: the engine refuses to enter it too. Host functions keep their exceptions to
themselves: wasmtime-py would keep the last one of all threads in one variable.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import wasmtime
from wasmtime import _bindings as ffi
from wasmtime import component as model

from hookline_api.component import EXPORT, FUNCTIONS, INTERFACE
from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.component_judge import judge_border
from hookline_artifacts.module.inspection import ModuleInfo
from hookline_artifacts.module.memory_map import NOTHING_SAID
from hookline_runtime.errors import CallError, DeadlineError, ResultError, TrapError
from hookline_runtime.guest import component_values as values
from hookline_runtime.guest.border import TABLE_ELEMENTS, UNANSWERED, Waiting, left_ns, spent_ns, trap_reason
from hookline_runtime.guest.component_border import border
from hookline_runtime.guest.component_caller import EndedError
from hookline_runtime.guest.component_host import host_functions
from hookline_runtime.guest.component_wasi import STREAM, STREAM_WRITE, STREAMS, WASI
from hookline_runtime.guest.engine import deadline_ticks, engine, first_line
from hookline_runtime.guest.said import Said
from hookline_runtime.guest.waiting import waited_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.resources import Limits
    from hookline_runtime.guest.border import Host
    from hookline_runtime.guest.compiled_component import CompiledComponent

_INSTANCES: Final = 200
"""Core instances of one component; a Python component has 30."""
_TABLES: Final = 10
_LOG: Final = ("hookline", "log")
_CONTINUE: Final = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE, wasmtime/store.h
_OUT_OF_FUEL: Final = "all fuel consumed"
_INTERRUPTED: Final = "wasm trap: interrupt"

log = logging.getLogger("hookline.component")


class _Thread(threading.local):
    instance: Instance | None = None
    """What runs on this thread."""


_running = _Thread()

_DeadlineCallback = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)
_no_finalizer: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()


def _deadline(_store: object, _data: object, extension: Any, kind: Any) -> int:
    with contextlib.suppress(BaseException):  # nothing may leave a callback; where anything is wrong, the call ends
        instance = _running.instance
        left = 0 if instance is None else instance.left_ns()
        if left:
            extension[0], kind[0] = deadline_ticks(left // 1_000_000), _CONTINUE
            return 0
        if instance is not None:
            instance.expired = True
    return _failure(b"deadline")


_on_deadline: Final = _DeadlineCallback(_deadline)  # kept for as long as any store may call it


def _failure(message: bytes) -> int:
    return ctypes.cast(ffi.wasmtime_error_new(message), ctypes.c_void_p).value or 0


class Guest:
    """One component, linked once to one plugin's host functions. Raises VerifyError."""

    on_fibers = False
    """Whether its calls have stacks of their own."""
    memory_map = NOTHING_SAID
    frees = True
    """Whether the guest takes memory back: its strings are the toolchain's affair."""

    def __init__(self, component: CompiledComponent, *, limits: Limits, host: Host) -> None:
        self.limits = limits
        self._component = component
        self._engine = engine(fuel=limits.fuel is not None, components=True)
        self.write: Callable[[Said, int, bytes], object] = host[STREAM_WRITE]  # type: ignore[assignment]  # not a guest's
        """Into the plugin's log."""
        imports, exports = border(component, self._engine)
        used = judge_border(imports, exports)
        self.info = ModuleInfo(
            hooks=tuple(Hook),  # which are called is the entry's affair: one function answers any
            imports=(),
            exports={name: (sort, None) for name, (sort, _) in exports.items()},
            memory_pages=component.facts.pages,
            description=None,
            is_component=True,
        )
        self._callbacks: list[object] = []  # the library keeps their addresses, and nothing else keeps them
        functions = host_functions(host)
        self.waits = any(isinstance(host.get(FUNCTIONS[name].stands_for or _LOG), Waiting) for name in used)
        """Whether it imports a host function that waits."""
        self._ticks = deadline_ticks(limits.timeout)
        self._linker = model.Linker(self._engine)
        self._export = component.get_export_index(EXPORT)
        self._link(imports, {name: functions[name] for name in used})
        self._hooks = {hook.value: hook.value.encode() for hook in Hook}

    def instantiate(self, *, timeout_ms: int | None = None, instead_of: Instance | None = None) -> Instance:
        """A new instance with fresh memory; its deadline runs from here and covers its first call, on this thread.

        As ``native.Guest.instantiate`` otherwise.
        """
        if instead_of is not None:
            instead_of.close()
        return Instance(self, timeout_ms)

    def close(self) -> None:
        """Keep nothing; there is nothing here."""

    def make_store(self) -> wasmtime.Store:
        """A store with the plugin's limits."""
        store = wasmtime.Store(self._engine)
        memories = max(1, self._component.facts.memories)
        store.set_limits(
            memory_size=self.limits.memory // memories,
            table_elements=TABLE_ELEMENTS,
            instances=_INSTANCES,
            tables=_TABLES,
            memories=memories,
        )
        ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), _on_deadline, None, _no_finalizer)
        return store

    def make_function(self, store: wasmtime.Store) -> Any:
        """The function ``call`` of a new instance in a store. Raises wasmtime's errors."""
        instance = self._linker.instantiate(store, self._component)
        assert self._export is not None  # noqa: S101 - the border was judged
        function = instance.get_func(store, self._export)
        assert function is not None  # noqa: S101 - the same
        return function._func  # noqa: SLF001 - what wasmtime-py's own modules pass to the C API

    def arm(self, store: wasmtime.Store, timeout_ms: int | None = None) -> None:
        """Give a store a fresh deadline and fresh fuel."""
        store.set_epoch_deadline(self._ticks if timeout_ms is None else deadline_ticks(timeout_ms))
        if self.limits.fuel is not None:
            store.set_fuel(self.limits.fuel)

    def hook_name(self, hook: str) -> bytes:
        """The name, kept."""
        return self._hooks[hook]

    def _link(self, imports: dict[str, dict[str, str] | None], own: dict[str, Any]) -> None:
        try:
            with self._linker.root() as root:
                for name, asked in imports.items():
                    known = own if name == INTERFACE else WASI.get(name.partition("@")[0], {})
                    functions = {each: known[each] for each in asked or () if each in known}
                    if functions:
                        self._add_interface(root, name, functions)
            self._linker.allow_shadowing = True
            self._linker.define_unknown_imports_as_traps(self._component)
        except wasmtime.WasmtimeError as error:
            raise VerifyError(f"the component cannot be linked: {first_line(str(error))}") from error

    def _add_interface(self, root: Any, name: str, functions: dict[str, Any]) -> None:
        with root.add_instance(name) as instance:
            if name.startswith(STREAMS):
                instance.add_resource("output-stream", model.ResourceType.host(STREAM), _dropped)
            for each, (function, write) in functions.items():
                self._add(instance, each, function, write)

    def _add(
        self, instance: Any, name: str, function: Callable[..., Any], write: Callable[[Any, Any], None] | None
    ) -> None:
        callback = _callback(name, function, write)
        self._callbacks.append(callback)
        raw = name.encode()
        failure = ffi.wasmtime_component_linker_instance_add_func(
            instance.ptr(), ctypes.create_string_buffer(raw), len(raw), callback, None, _no_finalizer
        )
        if failure:
            raise wasmtime.WasmtimeError._from_ptr(failure)  # noqa: SLF001 - wasmtime-py's own way


def _dropped(*_: object) -> None:
    """A handle of a stream is given back."""
    instance = _running.instance
    if instance is not None:
        instance.streams -= 1


def _callback(name: str, function: Callable[..., Any], write: Callable[[Any, Any], None] | None) -> Any:
    def call(_data: object, context: Any, _type: object, args: Any, count: int, results: Any, wanted: int) -> int:
        instance = _running.instance
        if wanted != (write is not None):  # DANGER: behind the results is memory of the engine's
            return _failure(b"it imports %s with another result than it has" % name.encode())
        try:
            assert instance is not None  # noqa: S101 - it runs
            instance.context = context
            given = [values.read(args[place], context) for place in range(count)]
            values.give_back(context, args, count)
            answer = function(instance, given)
            if write is not None:
                write(results[0], answer)
        except EndedError as error:
            assert instance is not None  # noqa: S101 - it has said so
            instance.ended = error.error
            return _failure(b"ended")
        except BaseException:  # nothing may leave a callback
            log.exception("the host function %s of a component failed", name)
            return _failure(b"the host function failed")
        return 0

    return ffi.wasmtime_component_func_callback_t(call)


class Instance:
    """One instantiation. Used by one thread at a time."""

    def __init__(self, guest: Guest, timeout_ms: int | None) -> None:
        self._guest = guest
        self._armed = timeout_ms is None
        self.expired = False
        self.ended: CallError | None = None
        """Why the guest's call ends, where a host function said so."""
        self.context: Any = None
        """The store's, while the guest calls."""
        self.in_hook = False
        """Whether the guest is in its hook, and not being made."""
        self.streams = 0
        self.host_ns = 0
        self.said = Said()
        """What the guest says in its call."""
        self.calls = 0
        self.fuel = 0
        self.memory = guest.limits.memory
        """What it may have: what it has, nobody can see."""
        self.closed = False
        self._start(guest.limits.timeout if timeout_ms is None else timeout_ms)
        self._store = guest.make_store()
        try:
            guest.arm(self._store, timeout_ms)
            with self._on_thread():
                self._function = guest.make_function(self._store)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            self.close()
            raise self._call_error(str(error), "instantiation", timeout_ms) from None
        except BaseException:
            self.close()
            raise

    def call(self, hook: str, data: bytes, *, last: bool) -> bytes | None:
        """One hook call: the guest's answer, or None for the hook's default.

        Raises a CallError, after which the instance must be dropped.
        """
        del last
        guest = self._guest
        if not data.isascii():
            _check_text(data)
        if self._armed:
            self._armed = False  # by the instantiation, which is a part of its first call
        else:
            self._start(guest.limits.timeout)
            guest.arm(self._store)
        self.calls += 1
        self.in_hook = True
        given = (values.Value * 2)()
        values.lend_text(given[0], guest.hook_name(hook))
        values.lend_text(given[1], data)
        answer = values.Value()
        try:
            with self._on_thread():
                failure = ffi.wasmtime_component_func_call(
                    ctypes.byref(self._function),
                    self._store._context(),  # noqa: SLF001 - what wasmtime-py's own modules pass to the C API
                    given,
                    2,
                    ctypes.byref(answer),
                    1,
                )
        finally:
            self.in_hook = False
            if guest.limits.fuel is not None:
                self.fuel = guest.limits.fuel - self._store.get_fuel()
        if failure:
            raise self._call_error(str(wasmtime.WasmtimeError._from_ptr(failure)), hook, None)  # noqa: SLF001
        try:
            size = answer.of.string.size
            if hook in UNANSWERED or not size:
                return None
            if size > guest.limits.output:
                raise ResultError(f"the result has {size} bytes, and limits.output is {guest.limits.output}")
            return ctypes.string_at(answer.of.string.data, size)
        finally:
            ffi.wasmtime_component_val_delete(ctypes.byref(answer))

    def say(self, descriptor: int, data: bytes) -> None:
        """The guest writes to standard output (1) or standard error (2)."""
        self._guest.write(self.said, descriptor, data)

    def tell(self, error: CallError) -> None:
        """Put what the guest has said in the last call into the failure of that."""
        self.said.tell(error)

    def left_ns(self) -> int:
        """What is left of the time of its call; 0 where that has to end."""
        passed = time.perf_counter_ns() - self._wall_ns - waited_ns()
        return left_ns(timeout_ns=self._timeout_ns, used_ns=self.spent_ns(), passed_ns=passed)

    def spent_ns(self) -> int:
        """What the last call on this thread has used of its time."""
        work, passed = time.thread_time_ns() - self._cpu_ns, time.perf_counter_ns() - self._wall_ns
        return spent_ns(work_ns=work, passed_ns=passed, host_ns=self.host_ns)

    def waited_ns(self) -> int:
        """What host functions that may wait took of it."""
        return self.host_ns

    def close(self) -> None:
        """Give the store and its memory back."""
        if not self.closed:
            self.closed = True
            self._store.close()

    def _start(self, timeout_ms: int) -> None:
        self.expired, self.ended, self.host_ns = False, None, 0
        self.said.finish()
        self.said = Said()
        self._timeout_ns = timeout_ms * 1_000_000
        self._cpu_ns, self._wall_ns = time.thread_time_ns(), time.perf_counter_ns()

    @contextlib.contextmanager
    def _on_thread(self) -> Any:
        before, _running.instance = _running.instance, self
        try:
            yield
        finally:
            _running.instance = before
            self.context = None

    def _call_error(self, message: str, where: str, timeout_ms: int | None) -> CallError:
        limits = self._guest.limits
        if self.ended is not None:
            return self.ended
        if self.expired or _INTERRUPTED in message:
            limit = f"limits.timeout ({limits.timeout} ms)" if timeout_ms is None else f"{timeout_ms} ms"
            return DeadlineError(f"{where} took longer than {limit}")
        if _OUT_OF_FUEL in message:
            return DeadlineError(f"{where} used up limits.fuel ({limits.fuel})")
        if "wasm trap:" in message:
            return TrapError(f"{where} trapped: {trap_reason(message)}")
        return TrapError(f"{where} failed: {first_line(message)}")


def _check_text(data: bytes) -> None:
    """DANGER: the engine panics where a text is none."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise TrapError("the input is not text in UTF-8") from None
