"""wasmtime-py as its documentation uses it: the API that Hookline's call path is measured against.

https://bytecodealliance.github.io/wasmtime-py/: a store, an instance's exports, ``Memory.write`` and ``Memory.read``,
``Linker.define_func``. With a deadline for each call, as everything that runs other people's code needs.
"""

from __future__ import annotations

import time
from typing import Final

import wasmtime

_DEADLINE: Final = 21


class Official:
    """One module in an engine of its own; each call is about ``data``."""

    def __init__(self, wasm: bytes, data: bytes, *, input_at: int) -> None:
        config = wasmtime.Config()
        config.epoch_interruption = True
        self._engine = wasmtime.Engine(config)
        self._linker = wasmtime.Linker(self._engine)
        self._linker.define_func(
            "hookline", "get_time", wasmtime.FuncType([], [wasmtime.ValType.i64()]), lambda: time.time_ns() // 1_000_000
        )
        self._module = wasmtime.Module(self._engine, wasm)
        self._data = data
        self._at = input_at
        self._store, self._instance = self._fresh()
        exports = self._instance.exports(self._store)
        self._memory, self._alloc, self._hook = exports["memory"], exports["alloc"], exports["route"]
        assert isinstance(self._memory, wasmtime.Memory)
        assert isinstance(self._alloc, wasmtime.Func)
        assert isinstance(self._hook, wasmtime.Func)

    def _fresh(self) -> tuple[wasmtime.Store, wasmtime.Instance]:
        store = wasmtime.Store(self._engine)
        store.set_epoch_deadline(_DEADLINE)
        return store, self._linker.instantiate(store, self._module)

    def fixed(self) -> bytes:
        """A call of the kept instance; the input goes into the region that the guest names."""
        store, memory = self._store, self._memory
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(self._hook, wasmtime.Func)
        store.set_epoch_deadline(_DEADLINE)
        memory.write(store, self._data, self._at)
        packed = self._hook(store, self._at, len(self._data))
        start = packed >> 32
        return bytes(memory.read(store, start, start + (packed & 0xFFFFFFFF)))

    def through_alloc(self) -> bytes:
        """The same; the guest's ``alloc`` says where the input goes."""
        store, memory = self._store, self._memory
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(self._alloc, wasmtime.Func)
        assert isinstance(self._hook, wasmtime.Func)
        store.set_epoch_deadline(_DEADLINE)
        at = self._alloc(store, len(self._data))
        memory.write(store, self._data, at)
        packed = self._hook(store, at, len(self._data))
        start = packed >> 32
        return bytes(memory.read(store, start, start + (packed & 0xFFFFFFFF)))

    def fresh(self) -> bytes:
        """A call of an instance that is made for it."""
        store, instance = self._fresh()
        exports = instance.exports(store)
        memory, hook = exports["memory"], exports["route"]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(hook, wasmtime.Func)
        memory.write(store, self._data, self._at)
        packed = hook(store, self._at, len(self._data))
        start = packed >> 32
        return bytes(memory.read(store, start, start + (packed & 0xFFFFFFFF)))
