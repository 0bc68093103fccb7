"""A cache that is bounded in bytes, since a tenant may fill each entry with a mebibyte."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T")
_ENTRY: Final = 512
"""Bytes that an entry takes beside its content."""


class Kept(Generic[T]):
    """A cache of at most ``most`` bytes.

    The entry that was not asked for the longest goes first. ``name`` says what is in it.
    """

    def __init__(self, name: str, *, most: int) -> None:
        self.name = name
        self.most = most
        self.size = 0
        """Bytes that are in it."""
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """What is kept under a key."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep something of so many bytes; what is larger than the cache is not kept."""
        self.drop(key)
        size += _ENTRY
        if size > self.most:
            return
        self._entries[key] = value, size
        self.size += size
        while self.size > self.most:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size -= freed

    def drop(self, key: Hashable) -> None:
        """Keep it no longer."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.size -= found[1]

    def __len__(self) -> int:
        return len(self._entries)
