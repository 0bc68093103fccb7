"""The WebAssembly engine: one configuration, its clock, and compiled modules on disk.

There are two engines in a process, with and without fuel, because counting fuel is compiled into the code and
costs 12 to 24 % of a guest's time. Both are made on first use and live as long as the process: an engine owns
threads, so it is made after a fork, never before.

The clock is wasmtime's epoch. A thread adds one to it every ``TICK_MS``; a guest that runs past the epoch it
was given is interrupted. A stopped or starved process does not tick, so it does not kill innocent calls when
it wakes up.

Instances come from a pool where there is address space for one: memory is reserved once, and cleaned between two
uses instead of mapped anew, which halves the cost of a fresh instance. A linear memory has all the address space that
it could grow to, so it never moves; ``native.py`` leans on that.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import mmap
import os
import platform
import re
import resource
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Literal

import wasmtime

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.memory_map import NOTHING_SAID, MemoryMap, read_memory_map
from hookline_artifacts.module.proposals import named_in
from hookline_artifacts.module.reader import COMPONENT_HEADER
from hookline_runtime.guest import capi

if TYPE_CHECKING:
    from wasmtime.component import Component

    from hookline_runtime.guest.compiled_component import CompiledComponent
    from hookline_runtime.guest.sealed import Inherited, SealedFile

TICK_MS: Final = 5
"""Milliseconds of one epoch: the precision of every time-out."""

MAX_WASM_STACK: Final = 512 * 1024
"""Bytes of native stack for one activation of wasm, host functions in between included."""

_FIBER_STACK: Final = MAX_WASM_STACK + 1536 * 1024
"""Bytes of native stack of a call that may wait: the guest's part, and what Python takes in a host function. Address
space; what is not touched takes no memory."""

_MEMORY_SLOT: Final = 2**32
"""Bytes of address space for one linear memory: all that 32 bits can name."""

# What a guest gains nothing from, or what our limits do not count: threads and shared memory escape the memory
# limit, 64-bit and several memories escape the guest ABI, and the rest needs a collector.
_SETTINGS: Final[dict[str, bool | int]] = {
    "epoch_interruption": True,
    "parallel_compilation": False,
    "max_wasm_stack": MAX_WASM_STACK,
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_component_model": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "wasm_exceptions": False,
    "gc_support": False,
    "memory_reservation": _MEMORY_SLOT,
    "memory_may_move": False,
}

_COMPONENT_SETTINGS: Final[dict[str, bool | int]] = _SETTINGS | {
    "wasm_component_model": True,
    # For what the engine itself puts between two components. DANGER: without it, it panics there. Inspection refuses
    # several memories in a module, and the store counts those of a component.
    "wasm_multi_memory": True,
}

_INSTANCES: Final = 4096
_NESTED: Final = 512
"""Stacks more than instances: a guest's ``alloc`` for an answer has one of its own, and of each thread one runs."""
_GUARDS: Final = 64 * 2**20
_MAP_NORESERVE: Final = 0x4000  # asm-generic/mman-common.h; Python 3.11 has no name for it
_POOL: Final = {
    "total_core_instances": _INSTANCES,
    "total_memories": _INSTANCES,
    "total_tables": 2 * _INSTANCES,
    "max_tables_per_module": 2,
    "table_elements": 200_000,
    "max_memory_size": _MEMORY_SLOT,
    "max_core_instance_size": 16 * 2**20,
    # What a call has touched below these is overwritten with zeros, and beyond is given back to the system, which
    # costs more: most small guests stay below.
    "linear_memory_keep_resident": 128 * 1024,
    "table_keep_resident": 8 * 1024,
}
"""The pool of instances of one engine, as wasmtime/config.h has it. A call that finds it empty is an overload."""

_TAIL: Final = struct.Struct("<Q8s")
_TAIL_MARK: Final = b"hookmap1"
"""The end of a compiled module's file: the length of the memory map in front of it, and this."""
_COMPONENT_MARK: Final = b"hookcmp1"
"""The same of a compiled component's, which has its ``ComponentFacts`` there."""
_NUMBERED: Final = re.compile(r"^\d+: ")

EPOCH: Final = [0]
"""How often the clock of this process has ticked; read by ``calls.py``, which sets deadlines by it."""

log = logging.getLogger("hookline.engine")

_engines: dict[tuple[bool, bool], wasmtime.Engine] = {}
_engines_lock = threading.Lock()


def engine(*, fuel: bool, components: bool = False) -> wasmtime.Engine:
    """The process's engine with or without fuel, for modules or for components; made on first use."""
    key = fuel, components
    found = _engines.get(key)
    if found is None:
        with _engines_lock:
            found = _engines.get(key)
            if found is None:
                config = wasmtime.Config()
                for name, value in (_COMPONENT_SETTINGS if components else _SETTINGS).items():
                    setattr(config, name, value)
                config.consume_fuel = fuel
                if components:  # its calls run on the thread that they come on, and its instances are made one by one
                    found = _engines[key] = wasmtime.Engine(config)
                    return found
                fibers = capi.fibers_unfit is None
                if fibers:
                    capi.use_fibers(config, _FIBER_STACK)
                if capi.unfit is None and _has_room_for_pool():
                    capi.use_pool(config, stacks=_INSTANCES + _NESTED if fibers else 0, **_POOL)
                found = _engines[key] = wasmtime.Engine(config)
    return found


def _has_room_for_pool() -> bool:
    """Whether the pool's address space is to be had. It is reserved and not used; a container may limit it.

    DANGER: wasmtime's C API ends the process where an engine cannot be made, so it is tried out beforehand.
    """
    if resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY:
        return False  # its tables may be written to from the beginning, and count with all that they could hold
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        mmap.mmap(-1, _POOL["total_memories"] * (_MEMORY_SLOT + _GUARDS), flags=flags, prot=0).close()
    except (OSError, OverflowError, ValueError) as error:
        log.info("instances are made one by one instead of taken from a pool, which is slower: %s", error)
        return False
    return True


class CompiledModule(wasmtime.Module):
    """A module of the cache, and what its bytes said of its memory."""

    is_component: ClassVar[Literal[False]] = False
    memory_map: MemoryMap = NOTHING_SAID


def fingerprint(*, fuel: bool) -> str:
    """Names compiled code that this engine can run: sixteen hex digits over version, machine and settings."""
    settings = sorted(_SETTINGS.items()), sorted(_COMPONENT_SETTINGS.items())
    facts = (importlib.metadata.version("wasmtime"), platform.machine(), settings, fuel, "map")
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def compile_to(wasm: bytes, target: Path, *, fuel: bool) -> None:
    """Compile and write atomically, without a seal."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("wb") as out:
            os.fchmod(out.fileno(), 0o600)
            compile_into(wasm, out, fuel=fuel)
            out.flush()
            os.fsync(out.fileno())
    except VerifyError:
        partial.unlink()
        raise
    partial.replace(target)


def compile_into(wasm: bytes, out: BinaryIO, *, fuel: bool) -> None:
    """Compile. Slow, and it uses one core: only called in the compiler's child process.

    Behind the code stands what the module says of its memory, since the engine has no door to that; the engine looks
    at nothing behind what its own header names. Raises VerifyError where the bytes are not a valid module.
    """
    is_component = wasm[:8] == COMPONENT_HEADER
    try:
        if is_component:
            # Both are slow to import, and most children compile a module.
            from wasmtime.component import Component  # noqa: PLC0415

            from hookline_artifacts.module.inspection import read_component  # noqa: PLC0415

            found = read_component(wasm)
            module: wasmtime.Module | Component = Component(engine(fuel=fuel, components=True), wasm)
        else:
            module = wasmtime.Module(engine(fuel=fuel), wasm)
    except wasmtime.WasmtimeError as error:
        why = first_line(str(error))
        named = named_in(why)
        said = (
            f"{named} (the engine: {why})" if named else f"the module is not valid WebAssembly: {why}; build it again"
        )
        raise VerifyError(said) from error
    if is_component:
        told, mark = json.dumps([found.memories, found.memory_pages]).encode(), _COMPONENT_MARK
    else:
        told, mark = read_memory_map(wasm).to_json(), _TAIL_MARK
    out.write(module.serialize())
    out.write(told + _TAIL.pack(len(told), mark))


def load_compiled(compiled: Path | SealedFile | Inherited, *, fuel: bool) -> CompiledModule | CompiledComponent:
    """Map compiled code into memory. DANGER: the file is executed. Without a seal, only files of our own come here.

    Raises VerifyError where the file was made by another version, for another machine, or is damaged.
    """
    try:
        with contextlib.ExitStack() as kept:
            size = None
            source: Path | bytes
            if isinstance(compiled, Path):
                source = compiled
            else:
                source, size = kept.enter_context(compiled.checked())
            file: BinaryIO = kept.enter_context(source.open("rb")) if isinstance(source, Path) else io.BytesIO(source)
            told, is_component = _told(file, size)
            where = engine(fuel=fuel, components=is_component)
            if is_component:
                from hookline_runtime.guest import compiled_component  # noqa: PLC0415 - few plugins are components

                return compiled_component.load(where, source, told)
            if isinstance(source, Path):
                module = CompiledModule.deserialize_file(where, str(source))
            else:
                module = CompiledModule.deserialize(where, source)
            assert isinstance(module, CompiledModule)  # noqa: S101 - it makes what it is asked of
            module.memory_map = MemoryMap.from_json(told)
    except (wasmtime.WasmtimeError, OSError, ValueError, TypeError) as error:
        raise VerifyError(f"the compiled module in the cache does not fit: {first_line(str(error))}") from error
    return module


def is_whole(out: BinaryIO) -> bool:
    """Whether ``compile_into`` has written all there."""
    end = out.seek(0, os.SEEK_END)
    out.seek(max(0, end - _TAIL.size))
    return out.read().endswith((_TAIL_MARK, _COMPONENT_MARK))


def _told(file: BinaryIO, end: int | None) -> tuple[bytes, bool]:
    """What stands behind the code, and in front of ``end``, and whether that is a component's.

    Raises OSError, or ValueError where there is none.
    """
    end = file.seek(0, os.SEEK_END) if end is None else end
    file.seek(max(0, end - _TAIL.size))
    size, mark = _TAIL.unpack(file.read(_TAIL.size).rjust(_TAIL.size, b"\0"))
    if mark not in {_TAIL_MARK, _COMPONENT_MARK} or size > end - _TAIL.size:
        raise ValueError("it lacks its memory map")
    file.seek(end - _TAIL.size - size)
    return file.read(size), mark == _COMPONENT_MARK


def first_line(text: str) -> str:
    """The essence of what one of wasmtime's errors says: the last of its causes, without the frames of a guest.

    An error is a sentence, and behind ``Caused by:`` what was below it: several causes are numbered, a single one is
    not.
    """
    _, mark, causes = text.rpartition("\nCaused by:")
    lines = [line.strip() for line in causes.splitlines() if line.strip()]
    if not mark:
        return (lines[0] if lines else "?")[:300]
    numbered = [place for place, line in enumerate(lines) if _NUMBERED.match(line)]
    last = lines[numbered[-1] if numbered else 0 :]
    return _NUMBERED.sub("", " ".join(last))[:300] or "?"


class Ticker:
    """Keeps the clock of this process's engines going, from ``start`` to ``stop``.

    However many tickers there are, one thread moves the epochs: with two, time would run out twice as fast.
    """

    _lock = threading.Lock()
    _started: ClassVar[set[Ticker]] = set()
    _thread: ClassVar[threading.Thread | None] = None
    _end = threading.Event()

    def start(self) -> None:
        """Begin to tick."""
        with Ticker._lock:
            Ticker._started.add(self)
            atexit.register(self.stop)
            if Ticker._thread is None or not Ticker._thread.is_alive():  # a fork does not copy the thread
                Ticker._end.clear()
                # A daemon, so that a program that forgets it can end; and stopped by atexit, because a native
                # call in flight while the interpreter is torn down crashes it.
                Ticker._thread = threading.Thread(target=self._run, name="hookline-epoch", daemon=True)
                Ticker._thread.start()

    def stop(self) -> None:
        """End; after the last ticker's end the thread is gone. May be called again."""
        atexit.unregister(self.stop)
        with Ticker._lock:
            Ticker._started.discard(self)
            if not Ticker._started and Ticker._thread is not None:
                Ticker._end.set()
                Ticker._thread.join()
                Ticker._thread = None

    @staticmethod
    def _run() -> None:
        due = time.monotonic()
        while True:
            # By the clock, not tick after tick, so that lateness does not add up; and what was missed is not made
            # up for: a process that was stopped does not kill innocent calls when it wakes up.
            with contextlib.suppress(MemoryError):  # others may have used it up; without a clock nobody would end them
                now = time.monotonic()
                due = max(due + TICK_MS / 1000, now)
                if Ticker._end.wait(due - now):
                    return
                # The epoch first: a deadline that is set in between is a tick early, and its callback gives the rest.
                EPOCH[0] += 1
                for each in tuple(_engines.values()):
                    each.increment_epoch()


def deadline_ticks(timeout_ms: int) -> int:
    """Epochs that last at least ``timeout_ms``, and at most two ticks longer."""
    return -(-timeout_ms // TICK_MS) + 1
