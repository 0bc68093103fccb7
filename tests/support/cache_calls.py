"""The cache's functions, called as a guest calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_runtime.guest.border import Waiting
from host_calls import Memory

if TYPE_CHECKING:
    from hookline_runtime.host.functions import PluginHost

BOTH = ["cache.read", "cache.write"]


class _Asking:
    """Where in its memory a guest has what it asks with."""

    # ruff: noqa: D102 - named after the host functions

    def __init__(self, host: PluginHost) -> None:
        self.host = host
        self.memory = Memory()
        self.functions = {
            name: given.run if isinstance(given, Waiting) else given
            for (_, name), given in host.functions().items()
        }  # fmt: skip

    def where(self, cache: bytes, key: bytes) -> tuple[int, ...]:
        return (*self.memory.put(0, cache), *self.memory.put(1000, key))

    def entry(self, cache: bytes, key: bytes, value: bytes, ttl: int) -> tuple[int, ...]:
        return (*self.where(cache, key), *self.memory.put(70_000, value), ttl)


class Guest(_Asking):
    """A guest whose caches are in the pod."""

    def get(self, key: bytes, cache: bytes = b"") -> bytes | None:
        packed = self.functions["cache_get"](self.memory, *self.where(cache, key))
        if not packed:
            return None
        assert packed >> 32, f"code {packed}"
        return bytes(self.memory.data[packed >> 32 :][: packed & 0xFFFFFFFF])

    def set(self, key: bytes, value: bytes, ttl: int = 0, cache: bytes = b"") -> int:
        return self.functions["cache_set"](self.memory, *self.entry(cache, key, value, ttl))

    def exists(self, key: bytes, cache: bytes = b"") -> int:
        return self.functions["cache_exists"](self.memory, *self.where(cache, key))

    def delete(self, key: bytes, cache: bytes = b"") -> int:
        return self.functions["cache_delete"](self.memory, *self.where(cache, key))


class WaitingGuest(_Asking):
    """A guest with a cache on a server. What it gets is bytes, 0 or a code: its caller gives it to the guest."""

    async def get(self, key: bytes, cache: bytes = b"") -> int | bytes:
        return await self.functions["cache_get"](self.memory, *self.where(cache, key))  # type: ignore[misc]

    async def set(self, key: bytes, value: bytes, ttl: int = 0, cache: bytes = b"") -> int:
        return await self.functions["cache_set"](self.memory, *self.entry(cache, key, value, ttl))  # type: ignore[misc]

    async def exists(self, key: bytes, cache: bytes = b"") -> int:
        return await self.functions["cache_exists"](self.memory, *self.where(cache, key))  # type: ignore[misc]

    async def delete(self, key: bytes, cache: bytes = b"") -> int:
        return await self.functions["cache_delete"](self.memory, *self.where(cache, key))  # type: ignore[misc]
