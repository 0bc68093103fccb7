"""How much of something a caller may have: so much at once, and so much more in each second.

The classic token bucket, without a timer: what has come in since is computed when somebody asks. A caller that is
refused learns after how many seconds to ask again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")

_KEPT: Final = 20_000
"""Callers that are remembered, at some 300 bytes each: as many as a replica takes sidecars."""


class Ration:
    """The ration of one caller: ``burst`` at once, and ``each_second`` again, in the same unit."""

    __slots__ = ("_at", "_burst", "_each_second", "_left", "_now")

    def __init__(self, *, burst: float, each_second: float, now: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._each_second = each_second
        self._now = now
        self._at = now()
        self._left = burst

    def take(self, amount: float = 1.0) -> bool:
        """Take an amount, if it is there. Returns whether it was."""
        if self._filled() < amount:
            return False
        self._left -= amount
        return True

    def give(self, amount: float = 1.0) -> None:
        """Give back what was taken and, as it turned out, does not count."""
        self._left = min(self._filled() + amount, self._burst)

    def spend(self, amount: float) -> float:
        """Take an amount, even if there is less. Returns the seconds until all of it would have been there."""
        self._left = self._filled() - amount
        return self.owed

    @property
    def owed(self) -> float:
        """Seconds until what was taken is there again as far as below nothing; 0 where nothing is owed."""
        return max(-self._filled() / self._each_second, 0.0)

    def _filled(self) -> float:
        now = self._now()
        self._left = min(self._left + (now - self._at) * self._each_second, self._burst)
        self._at = now
        return self._left


class Rations(Generic[K]):
    """A ration for each caller. The caller that was away for longest is forgotten first, and begins anew."""

    def __init__(self, *, burst: float, each_second: float, kept: int = _KEPT) -> None:
        self._burst = burst
        self._each_second = each_second
        self._kept = kept
        self._by_caller: OrderedDict[K, Ration] = OrderedDict()

    def of(self, caller: K) -> Ration:
        """The caller's ration."""
        ration = self._by_caller.get(caller)
        if ration is None:
            ration = self._by_caller[caller] = Ration(burst=self._burst, each_second=self._each_second)
            while len(self._by_caller) > self._kept:
                self._by_caller.popitem(last=False)
        else:
            self._by_caller.move_to_end(caller)
        return ration
