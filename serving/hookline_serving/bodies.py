"""Bodies on their way: whoever sends one slowly takes no room from those who send theirs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Bodies:
    """All bodies of one kind that are not whole yet: at most so many bytes together.

    Where there are more, the one that began first is no longer waited for: its deadline, which is also its key, is now.
    An honest one is on its way for milliseconds.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._bytes: dict[asyncio.Timeout, int] = {}
        self._total = 0

    def grows(self, deadline: asyncio.Timeout, count: int) -> None:
        """So many more bytes came of the body that has this deadline."""
        self._bytes[deadline] = self._bytes.get(deadline, 0) + count
        self._total += count
        while self._total > self._most:
            oldest = next(iter(self._bytes))
            self.forget(oldest)
            oldest.reschedule(0)

    def forget(self, deadline: asyncio.Timeout) -> None:
        """It is whole, or of another kind now, or nobody waits for it."""
        self._total -= self._bytes.pop(deadline, 0)
