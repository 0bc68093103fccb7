"""The plugin's keys: ``kv_get`` and its kind, on the pod's own store."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import orjson

from hookline_api.abi import E_SIZE, E_UNAVAILABLE
from hookline_runtime.host.arguments import ABSENT, U32, CodeError, read, write
from hookline_runtime.host.kv import MAX_KEY, MAX_VALUE, KvStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.host.context import HostContext

MOST_PATIENT_S: Final = 1.0
"""How long one of them waits at the most for others who write to the store, whatever the plugin's time-out."""
MAX_LISTED: Final = 2**20
"""Bytes of the keys of one list at the most."""


KV_FUNCTIONS: Final = (
    "kv_get", "kv_set", "kv_delete", "kv_list", "kv_incr", "kv_compare_and_set", "kv_set_ttl",
)  # fmt: skip
"""What a guest may do with its keys, wherever they are."""


class KvFunctions:
    """The keys of one plugin in the pod's store."""

    def __init__(self, plugin: BundlePlugin, context: HostContext) -> None:
        self._name = plugin.name
        self._store = context.kv
        self._patience = min(plugin.limits.timeout / 1000, MOST_PATIENT_S)
        """Seconds that one call of it may wait to write: no longer than a call may take."""

    def functions(self) -> Mapping[str, Callable[..., int]]:
        """By name of the import."""
        return {name: getattr(self, f"_{name}") for name in KV_FUNCTIONS}

    def close(self) -> None:
        """There is nothing to give back: the store is the worker's."""

    @property
    def _kv(self) -> KvStore:
        if self._store is None:  # embedded without a state folder
            raise CodeError(E_UNAVAILABLE)
        return self._store

    def _kv_get(self, memory: GuestMemory, key: int, key_len: int, out: int, out_max: int) -> int:
        value = self._kv.get(self._name, read(memory, key, key_len, MAX_KEY))
        if value is None:
            return ABSENT  # an answer, not a refusal
        if len(value) > out_max & U32:
            raise CodeError(E_SIZE)
        write(memory, out, value)
        return len(value)

    def _kv_set(self, memory: GuestMemory, key: int, key_len: int, value: int, value_len: int) -> int:
        name, data = read(memory, key, key_len, MAX_KEY), read(memory, value, value_len, MAX_VALUE)
        self._kv.put(self._name, name, data, patience=self._patience)
        return 0

    def _kv_delete(self, memory: GuestMemory, key: int, key_len: int) -> int:
        self._kv.delete(self._name, read(memory, key, key_len, MAX_KEY), patience=self._patience)
        return 0

    def _kv_list(self, memory: GuestMemory, prefix: int, length: int) -> int:
        names = []
        prefixed = read(memory, prefix, length, MAX_KEY)
        for key in self._kv.list_keys(self._name, prefixed, at_most=MAX_LISTED):
            with contextlib.suppress(UnicodeDecodeError):
                names.append(key.decode())
        return memory.give(orjson.dumps(names))

    def _kv_incr(self, memory: GuestMemory, key: int, key_len: int, by: int) -> int:
        return self._kv.increment(self._name, read(memory, key, key_len, MAX_KEY), by, patience=self._patience)

    def _kv_compare_and_set(
        self, memory: GuestMemory, key: int, key_len: int, old: int, old_len: int, new: int, new_len: int
    ) -> int:
        expected = None if old_len == ABSENT else read(memory, old, old_len, MAX_VALUE)
        name, value = read(memory, key, key_len, MAX_KEY), read(memory, new, new_len, MAX_VALUE)
        return int(self._kv.compare_and_set(self._name, name, expected, value, patience=self._patience))

    def _kv_set_ttl(self, memory: GuestMemory, key: int, key_len: int, ttl_ms: int) -> int:
        name = read(memory, key, key_len, MAX_KEY)
        return int(self._kv.set_ttl(self._name, name, ttl_ms, patience=self._patience))
