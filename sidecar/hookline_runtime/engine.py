"""The WebAssembly engine: one configuration, its clock, and compiled modules on disk.

There are two engines in a process, with and without fuel, because counting fuel is compiled into the code and
costs 12 to 24 % of a guest's time. Both are made on first use and live as long as the process: an engine owns
threads, so it is made after a fork, never before.

The clock is wasmtime's epoch. A thread adds one to it every ``TICK_MS``; a guest that runs past the epoch it
was given is interrupted. A stopped or starved process does not tick, so it does not kill innocent calls when
it wakes up.

Instances come from a pool where there is address space for one: memory is reserved once, and cleaned between two
uses instead of mapped anew, which halves the cost of a fresh instance. A linear memory has all the address space that
it could grow to, so it never moves; ``native_calls.py`` leans on that.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.metadata
import logging
import mmap
import os
import platform
import threading
import time
from pathlib import Path
from typing import ClassVar, Final

import wasmtime

from hookline_runtime import capi
from hookline_runtime.errors import VerifyError

TICK_MS: Final = 5
"""Milliseconds of one epoch: the precision of every time-out."""

MAX_WASM_STACK: Final = 512 * 1024
"""Bytes of native stack for one activation of wasm, host functions in between included."""

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

_INSTANCES: Final = 4096
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

EPOCH: Final = [0]
"""How often the clock of this process has ticked; read by ``calls.py``, which sets deadlines by it."""

log = logging.getLogger("hookline.engine")

_engines: dict[bool, wasmtime.Engine] = {}
_engines_lock = threading.Lock()


def engine(*, fuel: bool) -> wasmtime.Engine:
    """The process's engine with or without fuel; made on first use."""
    found = _engines.get(fuel)
    if found is None:
        with _engines_lock:
            found = _engines.get(fuel)
            if found is None:
                config = wasmtime.Config()
                for name, value in _SETTINGS.items():
                    setattr(config, name, value)
                config.consume_fuel = fuel
                if capi.unfit is None and _has_room_for_pool():
                    capi.use_pool(config, **_POOL)
                found = _engines[fuel] = wasmtime.Engine(config)
    return found


def _has_room_for_pool() -> bool:
    """Whether the pool's address space is to be had. It is reserved and not used; a container may limit it.

    DANGER: wasmtime's C API ends the process where an engine cannot be made, so it is tried out beforehand.
    """
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        mmap.mmap(-1, _POOL["total_memories"] * (_MEMORY_SLOT + _GUARDS), flags=flags, prot=0).close()
    except (OSError, OverflowError, ValueError) as error:
        log.info("instances are made one by one, and not taken from a pool, which is slower: %s", error)
        return False
    return True


def fingerprint(*, fuel: bool) -> str:
    """Names compiled code that this engine can run: sixteen hex digits over version, machine and settings."""
    facts = (importlib.metadata.version("wasmtime"), platform.machine(), sorted(_SETTINGS.items()), fuel)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def compile_to(wasm: bytes, target: Path, *, fuel: bool) -> None:
    """Compile and write atomically. Slow, and it uses one core: only called in the compiler's child process.

    Raises VerifyError where the bytes are no valid module.
    """
    try:
        module = wasmtime.Module(engine(fuel=fuel), wasm)
    except wasmtime.WasmtimeError as error:
        raise VerifyError(f"the module is not valid WebAssembly: {first_line(str(error))}") from error
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with partial.open("wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(module.serialize())
        out.flush()
        os.fsync(out.fileno())
    partial.replace(target)


def load_compiled(path: Path, *, fuel: bool) -> wasmtime.Module:
    """Map compiled code into memory. DANGER: the file is executed; only files of our own cache come here.

    Raises VerifyError where the file was made by another version, for another machine, or is damaged.
    """
    try:
        return wasmtime.Module.deserialize_file(engine(fuel=fuel), str(path))
    except wasmtime.WasmtimeError as error:
        raise VerifyError(f"the compiled module in the cache does not fit: {first_line(str(error))}") from error


def first_line(text: str) -> str:
    """The essence of what one of wasmtime's errors says, which is a tree of causes and frames."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.split(": ", 1)[-1] for line in lines if line[:1].isdigit()]
    return (causes[-1] if causes else lines[0] if lines else "?")[:300]


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
