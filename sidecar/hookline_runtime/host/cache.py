"""``cache_get`` and its kind: the plugin's caches, in the pod's memory or on a server.

A cache is not to be relied on. A store that is away is a miss, which costs no more than that: it is counted, and the
guest goes on. Where all caches of a plugin are in the pod, none of these functions waits, and the guest needs no fiber;
where one is on a server, all of them are ``async``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import lmdb

from hookline_api.abi import E_ARGUMENT, E_UNAVAILABLE, Permission
from hookline_api.outbound import DEFAULT_CACHE
from hookline_api.resources import grants
from hookline_runtime.host.arguments import Answer, CodeError, read
from hookline_runtime.host.cache_store import MAX_KEY, MAX_VALUE, PATIENCE_S, CacheKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import Cache
    from hookline_runtime.guest.border import GuestMemory, HostCallable
    from hookline_runtime.host.cache_store import PodCache
    from hookline_runtime.host.context import HostContext

RESULTS: Final = ("hit", "miss", "away")
"""What looking for a key comes to; also a write counts, where the store is away."""
_NAMES: Final = ("cache_get", "cache_exists", "cache_set", "cache_delete")
_MAX_TTL_MS: Final = 30 * 86_400_000
"""As ``spec.caches[].ttl``: what should live longer is not for a cache."""
_MAX_NAME: Final = 63


def sizes(plugins: Iterable[BundlePlugin]) -> dict[CacheKey, int]:
    """Bytes that each cache in the pod's memory wants, of those plugins that may write to one."""
    return {
        CacheKey(plugin.name, cache.name): cache.memory.size
        for plugin in plugins
        if grants(frozenset(plugin.permissions), Permission.CACHE_WRITE)
        for cache in _caches(plugin)
        if cache.memory is not None
    }


class _Found:
    """One cache of the plugin, and what was counted of it."""

    def __init__(self, cache: Cache, pod: PodCache | None) -> None:
        self.name = cache.name
        self.ttl = cache.ttl
        self.pod = pod
        self.most = MAX_VALUE if cache.memory is None else min(cache.memory.size // 4, MAX_VALUE)
        self.counts = dict.fromkeys(RESULTS, 0)
