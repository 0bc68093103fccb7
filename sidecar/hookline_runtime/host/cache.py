"""``cache_get`` and its kind: the plugin's caches, in the pod's memory or on a server.

A cache is not to be relied on. A store that is away is a miss and costs no more than that: it is counted, and the guest
goes on. Where all caches of a plugin are in the pod, none of these functions waits, and the guest needs no fiber; where
one is on a server, all of them are ``async``.

On a server, a key is ``hookline/cache/NAMESPACE/PLUGIN/CACHE/`` and what the guest calls it. So the pods of a plugin
share a cache, and plugins do not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import lmdb

from hookline_api.abi import E_ARGUMENT, E_UNAVAILABLE
from hookline_api.outbound import CACHE, DEFAULT_CACHE
from hookline_api.permissions import Permission, grants
from hookline_artifacts.errors import HooklineError
from hookline_runtime.host.arguments import U32, Answer, CodeError, read
from hookline_runtime.host.cache_store import MAX_KEY, MAX_VALUE, PATIENCE_S, CacheError, CacheKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import Cache, ValkeyServer
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.host.backends.valkey import Valkey
    from hookline_runtime.host.cache_store import PodCache
    from hookline_runtime.host.context import HostContext

RESULTS: Final = ("hit", "miss", "away")
"""What looking for a key comes to. Also a write counts as ``away``, where there is nobody to take it."""
_MAX_NAME: Final = 63
_MAX_TTL_MS: Final = 30 * 86_400_000
"""As ``spec.caches[].ttl``: what should live longer is not for a cache."""

_T = TypeVar("_T")
_C = TypeVar("_C", "_InPod", "_InPod | _OnServer")


def wanted_sizes(plugins: Iterable[BundlePlugin]) -> dict[CacheKey, int]:
    """Bytes that each cache in the pod's memory wants, of those plugins that may write to one."""
    found: dict[CacheKey, int] = {}
    for plugin in plugins:
        if grants(plugin.permissions, Permission.CACHE_WRITE):
            for cache in _caches(plugin):
                if cache.memory is not None:
                    key = CacheKey(plugin.name, cache.name)
                    found[key] = max(found.get(key, 0), cache.memory.size)
    return found


class CacheFunctions:
    """The caches of one plugin."""

    def __init__(
        self, plugin: BundlePlugin, context: HostContext, *, refused: Callable[[str], None], unavailable: dict[str, str]
    ) -> None:
        """``refused`` counts a call by its function's name. Raises ConfigError where a server's settings are wrong."""
        self.counts: dict[str, dict[str, int]] = {}
        """By cache: how often each of ``RESULTS`` was."""
        self._pods: dict[bytes, _InPod] = {}
        self._caches: dict[bytes, _InPod | _OnServer] = {}
        """All of them, by name; and the one without a name."""
        self._clients: list[Valkey] = []
        if not any(grants(plugin.permissions, each) for each in (Permission.CACHE_READ, Permission.CACHE_WRITE)):
            return
        patience = min(plugin.limits.timeout / 1000, PATIENCE_S)
        for cache in _caches(plugin):
            count = _Count(refused)
            self.counts[cache.name] = count.results
            made: _InPod | _OnServer
            if cache.valkey is not None:
                self._clients.append(_client(plugin, cache, cache.valkey, unavailable))
                made = _OnServer(cache, count, self._clients[-1], _prefix(plugin, cache))
            else:
                made = _InPod(cache, count, _pod(plugin, cache, context), patience)
            for name in (cache.name.encode(), b""):
                self._caches.setdefault(name, made)
                if isinstance(made, _InPod):
                    self._pods.setdefault(name, made)

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """By name of the import."""
        if self._clients:
            return {
                "cache_get": self._get_waiting,
                "cache_exists": self._exists_waiting,
                "cache_set": self._set_waiting,
                "cache_delete": self._delete_waiting,
            }
        return {
            "cache_get": self._get,
            "cache_exists": self._exists,
            "cache_set": self._set,
            "cache_delete": self._delete,
        }

    def close(self) -> None:
        """End the connections. The pod's store is the worker's."""
        for client in self._clients:
            client.close()

    # All caches are in the pod: each answer is there at once.

    def _get(self, memory: GuestMemory, *where: int) -> int:
        cache, key = _asked(self._pods, memory, *where)
        value = cache.get(key)
        return 0 if value is None else memory.give(value)

    def _exists(self, memory: GuestMemory, *where: int) -> int:
        cache, key = _asked(self._pods, memory, *where)
        return cache.exists(key)

    def _set(self, memory: GuestMemory, *numbers: int) -> int:
        cache, key = _asked(self._pods, memory, *numbers[:4])
        return cache.set(key, *_given(cache, memory, *numbers[4:]))

    def _delete(self, memory: GuestMemory, *where: int) -> int:
        cache, key = _asked(self._pods, memory, *where)
        return cache.delete(key)

    # Some are on a server.

    async def _get_waiting(self, memory: GuestMemory, *where: int) -> Answer:
        cache, key = _asked(self._caches, memory, *where)
        value = await _come(cache.get(key))
        return 0 if value is None else value

    async def _exists_waiting(self, memory: GuestMemory, *where: int) -> int:
        cache, key = _asked(self._caches, memory, *where)
        return await _come(cache.exists(key))

    async def _set_waiting(self, memory: GuestMemory, *numbers: int) -> int:
        cache, key = _asked(self._caches, memory, *numbers[:4])
        given = _given(cache, memory, *numbers[4:])
        if isinstance(cache, _InPod):  # it may wait for other writers, and nothing waits on the event loop
            return await asyncio.to_thread(cache.set, key, *given)
        return await cache.set(key, *given)

    async def _delete_waiting(self, memory: GuestMemory, *where: int) -> int:
        cache, key = _asked(self._caches, memory, *where)
        if isinstance(cache, _InPod):
            return await asyncio.to_thread(cache.delete, key)
        return await cache.delete(key)


class _Count:
    """What is counted of one cache."""

    def __init__(self, refused: Callable[[str], None]) -> None:
        self.results = dict.fromkeys(RESULTS, 0)
        self._refused = refused

    def hit_or_miss(self, found: object) -> None:
        """Somebody looked, and it was there or not."""
        self.results["hit" if found is not None and found is not False else "miss"] += 1

    def away(self, function: str | None = None) -> None:
        """The store is. Who is told so by a code is counted as refused elsewhere; a miss by its ``function``, here."""
        self.results["away"] += 1
        if function is not None:
            self._refused(function)


class _InPod:
    """A cache in the pod's memory."""

    def __init__(self, cache: Cache, count: _Count, pod: PodCache | None, patience: float) -> None:
        assert cache.memory is not None  # noqa: S101 - it has exactly one of the two
        self.ttl = cache.ttl
        self.most = min(cache.memory.size // 4, MAX_VALUE)
        self._count = count
        self._pod = pod
        self._patience = patience

    def get(self, key: bytes) -> bytes | None:
        """The value; None for a miss."""
        try:
            value = self._store.get(key)
        except (lmdb.Error, CacheError):
            self._count.away("cache_get")
            return None
        self._count.hit_or_miss(value)
        return value

    def exists(self, key: bytes) -> int:
        """1, or 0 for a miss."""
        try:
            is_there = self._store.exists(key)
        except (lmdb.Error, CacheError):
            self._count.away("cache_exists")
            return 0
        self._count.hit_or_miss(is_there)
        return int(is_there)

    def set(self, key: bytes, value: bytes, ttl_ms: int) -> int:
        """0. Raises CacheError, or lmdb.Error."""
        with self._told():
            self._store.set(key, value, ttl_ms, patience=self._patience)
        return 0

    def delete(self, key: bytes) -> int:
        """Whether it was there. Raises CacheError, or lmdb.Error."""
        with self._told():
            return int(self._store.delete(key, patience=self._patience))

    @property
    def _store(self) -> PodCache:
        if self._pod is None:  # embedded without a state folder
            raise CacheError(E_UNAVAILABLE, "there is no store")
        return self._pod

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, CacheError) as error:
            if not isinstance(error, CacheError) or error.code == E_UNAVAILABLE:
                self._count.away()
            raise


class _OnServer:
    """A cache on a server."""

    def __init__(self, cache: Cache, count: _Count, client: Valkey, prefix: bytes) -> None:
        self.ttl = cache.ttl
        self.most = MAX_VALUE
        self._count = count
        self._client = client
        self._prefix = prefix

    async def get(self, key: bytes) -> bytes | None:
        """The value; None for a miss."""
        try:
            value = await self._client.command(b"GET", self._prefix + key)
        except HooklineError:
            self._count.away("cache_get")
            return None
        # Whoever else writes there may have put anything: what is no value of ours is none.
        found = value if isinstance(value, bytes) and len(value) <= MAX_VALUE else None
        self._count.hit_or_miss(found)
        return found

    async def exists(self, key: bytes) -> int:
        """1, or 0 for a miss."""
        try:
            is_there = await self._client.command(b"EXISTS", self._prefix + key) == 1
        except HooklineError:
            self._count.away("cache_exists")
            return 0
        self._count.hit_or_miss(is_there)
        return int(is_there)

    async def set(self, key: bytes, value: bytes, ttl_ms: int) -> int:
        """0. Raises CodeError."""
        await self._write(b"SET", self._prefix + key, value, b"PX", b"%d" % ttl_ms)
        return 0

    async def delete(self, key: bytes) -> int:
        """Whether it was there. Raises CodeError."""
        return int(await self._write(b"UNLINK", self._prefix + key) == 1)

    async def _write(self, *command: bytes) -> object:
        try:
            return await self._client.command(*command)
        except HooklineError:
            self._count.away()
            raise CodeError(E_UNAVAILABLE) from None


def _asked(
    caches: Mapping[bytes, _C], memory: GuestMemory, name: int, name_len: int, key: int, key_len: int
) -> tuple[_C, bytes]:
    """The cache and the key that a guest names. Raises CodeError."""
    wanted = read(memory, name, name_len) if name_len & U32 <= _MAX_NAME else None
    cache = caches.get(wanted) if wanted is not None else None
    if cache is None:
        raise CodeError(E_ARGUMENT)
    return cache, read(memory, key, key_len, MAX_KEY)


def _given(cache: _InPod | _OnServer, memory: GuestMemory, value: int, length: int, ttl: int) -> tuple[bytes, int]:
    """What a guest gives to be stored, and for how many milliseconds. Raises CodeError."""
    if ttl < 0:
        raise CodeError(E_ARGUMENT)
    return read(memory, value, length, cache.most), min(ttl or cache.ttl, _MAX_TTL_MS)


async def _come(answer: _T | Awaitable[_T]) -> _T:
    return await answer if isinstance(answer, Awaitable) else answer


def _caches(plugin: BundlePlugin) -> list[Cache]:
    return plugin.caches or [DEFAULT_CACHE]


def _pod(plugin: BundlePlugin, cache: Cache, context: HostContext) -> PodCache | None:
    if context.cache is None or cache.memory is None:
        return None
    return context.cache.cache(plugin.name, cache.name, cache.memory.size)


def _client(plugin: BundlePlugin, cache: Cache, server: ValkeyServer, unavailable: dict[str, str]) -> Valkey:
    # Here and not above: most workers ask no server.
    from hookline_runtime.host.backends.valkey import Valkey  # noqa: PLC0415

    where, owner = f"spec.caches.{cache.name}.valkey", f"{plugin.namespace or ''}/{plugin.name}"
    return Valkey(server, plugin.credentials, unavailable, CACHE.format(cache.name), owner=owner, where=where)


def _prefix(plugin: BundlePlugin, cache: Cache) -> bytes:
    return f"hookline/cache/{plugin.namespace or ''}/{plugin.name}/{cache.name}/".encode()
