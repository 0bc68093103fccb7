"""The circuit breaker of one hook of one plugin: after some failures in a row it pauses, for longer each time.

Traps and missed deadlines count. A wrong answer shows that the guest came back by itself, and an overload says nothing
about it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hookline_runtime.errors import TrapError

if TYPE_CHECKING:
    from hookline_runtime.errors import CallError

_THRESHOLD: Final = 5
_FIRST_PAUSE_S: Final = 1.0
_LAST_PAUSE_S: Final = 60.0


class Breaker:
    """Pauses one hook of a plugin that keeps trapping or timing out."""

    __slots__ = ("_pause", "_trial", "_until", "failures", "kind")

    def __init__(self) -> None:
        self.failures = 0
        """Failures in a row; 0 on a good day."""
        self._pause = _FIRST_PAUSE_S
        self._until = 0.0
        self._trial = False
        self.kind: type[CallError] = TrapError
        """What opened it."""

    @property
    def open_for(self) -> float:
        """Seconds until the next trial; 0 while calls run."""
        return max(0.0, self._until - time.monotonic()) if self.failures >= _THRESHOLD else 0.0

    def let_through(self) -> bool:
        """Let a call through, or not; whether it may run: always while closed; one at a time once the pause is over."""
        if self.failures < _THRESHOLD:
            return True
        if self._trial or time.monotonic() < self._until:
            return False
        self._trial = True
        return True

    def forget_call(self) -> None:
        """A call that was let through never reached the guest: another one may be the trial."""
        self._trial = False

    def count_success(self) -> None:
        """The guest came back by itself, whatever it answered."""
        self.failures = 0
        self._trial = False
        self._pause = _FIRST_PAUSE_S

    def count_failure(self, kind: type[CallError]) -> bool:
        """A call trapped or timed out; whether that begins a pause."""
        self.failures += 1
        self.kind = kind
        was_trial, self._trial = self._trial, False
        if self.failures < _THRESHOLD:
            return False
        if self.failures > _THRESHOLD and not was_trial:
            return False  # a call that was under way when the breaker opened
        self._until = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LAST_PAUSE_S)
        return True
