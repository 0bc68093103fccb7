"""Room: what the parts of a sidecar may have of its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_artifacts import memory
from hookline_runtime.host.cache import wanted_sizes
from hookline_runtime.host.cache_store import file_size
from hookline_runtime.plugin.budget import STORE, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import Bundle
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.state import StateFolder


class Room:
    """Shares out what the command line, or else the container, allows."""

    def __init__(self, settings: Settings, state: StateFolder, *, shared: Callable[[], int] = int) -> None:
        """``shared`` are the bytes that compiled modules take in memory that the workers share."""
        self._shared = shared
        self._limit = settings.memory or memory.limit()
        self._workers = settings.workers
        self._cache_memory = settings.cache_memory
        self._state = state
        self._in_memory = memory.in_memory(state.root)

    def plan(self, bundle: Bundle) -> Plan | None:
        """The shares with this bundle; None where nothing bounds them."""
        if self._limit is None:
            return None
        state = 0
        if self._in_memory:
            writes = any("kv.write" in entry.permissions for entry in bundle.plugins)
            caches = file_size(sum(wanted_sizes(bundle.plugins).values()), self._cache_memory)
            state = self._state.size() + max(self._state.store_size(), STORE if writes else 0)
            state += max(self._state.cache_size(), caches)
        return Plan.of(self._limit, workers=self._workers, state=state + self._shared())
