"""What the process that runs plugins gives to their host functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from hookline_runtime.host.cache_store import CacheStore
    from hookline_runtime.host.kv import KvStore


@dataclass(frozen=True, kw_only=True, slots=True)
class HostContext:
    """One per process, the same for all plugins."""

    kv: KvStore | None = None
    """The plugins' keys; None where there is no state folder."""
    cache: CacheStore | None = None
    """The plugins' caches in memory; None where there is no state folder."""
    worker: int = 0
    """Which one of ``workers`` this process is, from 0."""
    workers: int = 1
    """Processes of the pod that run the same plugins: what a pod may have in all is divided among them."""
    locks: Path | None = None
    """The file by whose bytes these processes share what is too little to be divided; None where there is one."""
    stand_in: Callable[[str, Callable[..., Any]], Callable[..., Any]] | None = None
    """What takes the place of a host function of that name while a plugin is on trial; None where it runs."""
