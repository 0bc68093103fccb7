"""A guest's module, judged and linked once, and what the library calls back while one of its instances runs.

**Callbacks** (the deadline's, and host functions') cannot raise: each has one ``try`` around everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import wasmtime

from hookline_api.abi import E_UNAVAILABLE, HOST_FUNCTIONS, INPUT_REGION, WASI_MODULE
from hookline_artifacts.errors import VerifyError
from hookline_runtime.guest import accelerator, capi
from hookline_runtime.guest.backtrace import Functions
from hookline_runtime.guest.border import (
    PAGE,
    U32,
    UNANSWERED,
    GuestMemory,
    Host,
    OwnMemory,
    Waiting,
    border,
    function_type,
    initializer,
    may_wait,
    most_memory,
    own_wasi,
)
from hookline_runtime.guest.engine import EPOCH, CompiledModule, deadline_ticks, engine, first_line
from hookline_runtime.guest.waiting import blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.resources import Limits

_MAX_CELLS: Final = 256
_get_ident = threading.get_ident
_now_ns = time.perf_counter_ns


class Running(GuestMemory, Protocol):
    """An instance while the library calls back."""

    size: int
    """Bytes of its memory as it was seen last; 0 while it is instantiated."""
    expired: bool
    """Whether the call was interrupted at its deadline."""

    def left_ns(self) -> int:
        """What is left of the time of its call; 0 where that has to end."""

    def spend(self, ns: int) -> None:
        """A host function took so long."""

    def meet(self, caller: int) -> None:
        """See the memory of a guest that calls before anybody has looked at it."""


RUNNING: Final[dict[int, Any]] = {}
"""A weak reference to the instance that runs on each thread, or ran there last: callbacks come on their call's thread.

A thread sets its own entry, and nobody takes one away: whoever looked first could take away the next one.
"""

accelerator.use([capi.function_address(each) for each in capi.FOR_ACCELERATOR], EPOCH, RUNNING)


def _deadline(_context: object, _data: object, delta: int, kind: int) -> int:
    """The engine's clock says that a call's time is over: let it end, or let it go on."""
    with contextlib.suppress(BaseException):  # nothing may leave a callback; where anything is wrong, the call ends
        instance: Running = RUNNING[_get_ident()]()
        left = instance.left_ns()
        if left:
            ctypes.c_uint64.from_address(delta).value = deadline_ticks(left // 1_000_000)
            ctypes.c_uint8.from_address(kind).value = capi.CONTINUE
            return 0
        instance.expired = True
    return int(capi.error_new(b"deadline") or 0)


ON_DEADLINE: Final = capi.DeadlineCallback(_deadline)  # kept for as long as any store may call it


class Program:
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
        self.waits = False
        """Whether it imports a host function that waits."""
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
        self.known = Functions()
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

    def _link(self, host: Host) -> None:
        if self.has_wasi:
            self._linker.define_wasi()
            self._linker.allow_shadowing = True
            for name, params, function in own_wasi(host):
                self._define(WASI_MODULE, name, params, "i", function, spends=False)
        for entry in self.info.imports:
            if entry.module != WASI_MODULE:
                known = HOST_FUNCTIONS[entry.module, entry.name]
                given = host[entry.module, entry.name]
                if isinstance(given, Waiting):
                    self.waits = True
                    self._define_waiting(entry.module, entry.name, known.params, known.results, given)
                else:
                    self._define(
                        entry.module, entry.name, known.params, known.results, given, spends=may_wait(entry.name)
                    )

    def _define_waiting(self, module: str, name: str, params: str, results: str, function: Waiting) -> None:
        self._define(module, name, params, results, blocking(function), spends=False)

    def _define(
        self, module: str, name: str, params: str, results: str, function: Callable[..., int], *, spends: bool
    ) -> None:
        """``spends`` says whether what it takes by the clock is its guest's time (``may_wait``)."""
        callback = _callback(params, results, function, waits=spends)
        self._callbacks.append(callback)
        kind = function_type(params, results)
        failure = capi.linker_define_func_unchecked(
            capi.address(self._linker), module.encode(), len(module.encode()), name.encode(), len(name.encode()),
            capi.address(kind), callback, None, capi.NO_FINALIZER,
        )  # fmt: skip
        if failure:
            why = first_line(capi.take_error(failure)[0])
            raise VerifyError(f"the host function {module}.{name} cannot be linked: {why}")


_U64: Final = 0xFFFFFFFFFFFFFFFF
_FORMATS: Final = {"i": "i12x", "I": "q8x", "f": "f12x", "F": "d8x"}


def _callback(params: str, results: str, function: Callable[..., int], *, waits: bool) -> Any:
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
            instance: Running = RUNNING[_get_ident()]()
            if not instance.size:  # in a start function, or there is no memory
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
