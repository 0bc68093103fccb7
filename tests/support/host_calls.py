"""Host functions, called as a guest calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hookline_runtime.guest.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.host.functions import PluginHost

EVERYTHING = ["kv.read", "kv.write", "crypto", "metrics", "config.read"]


class Memory:
    """A guest's memory as host functions see it, without a guest: the same bounds, on a bytearray."""

    # ruff: noqa: D102 - as ``hookline_runtime.guest.calls.GuestMemory`` describes them

    def __init__(self, size: int = 300_000) -> None:
        self.data = bytearray(size)
        self._said = Said()

    def read(self, pointer: int, length: int) -> bytes | None:
        pointer, length = pointer & 0xFFFFFFFF, length & 0xFFFFFFFF
        return bytes(self.data[pointer : pointer + length]) if pointer + length <= len(self.data) else None

    def write(self, pointer: int, data: bytes) -> bool:
        pointer &= 0xFFFFFFFF
        if pointer + len(data) > len(self.data):
            return False
        self.data[pointer : pointer + len(data)] = data
        return True

    def said(self) -> Said:
        return self._said

    def give(self, data: bytes) -> int:
        self.data[200_000 : 200_000 + len(data)] = data  # and grows, as a real alloc would
        return 200_000 << 32 | len(data)

    def put(self, at: int, data: bytes) -> tuple[int, int]:
        self.data[at : at + len(data)] = data
        return at, len(data)

    def given(self, packed: int) -> object:
        return json.loads(self.data[packed >> 32 :][: packed & 0xFFFFFFFF])


def calls(host: PluginHost) -> dict[str, Callable[..., int]]:
    """The host functions by name."""
    return {name: function for (_, name), function in host.functions().items()}
