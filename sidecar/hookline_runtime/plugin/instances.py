"""The instances that a plugin keeps between calls, and the memory that the budget counts for them.

A fresh instance costs more than a quick call, so it is made between calls: after an answer, what was used is given
back, and the next instance is made ready in its place.

All of this belongs to one event loop; only ``take`` is called on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from hookline_runtime.errors import CallError
from hookline_runtime.guest.border import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.calls import Guest, Instance
    from hookline_runtime.plugin.budget import Budget

_SPARES: Final = 2
"""Fresh instances that are kept ready for the next calls, where each call gets one of its own."""
_LOOK: Final = -1
_UNTIDY_S: Final = 0.005
"""How long a single used instance may wait for a second one: giving both back at once costs one turn of the loop."""


class Instances:
    """What one plugin keeps for its next calls.

    ``tidied`` is called with the nanoseconds of processor time that were spent between calls.
    """

    def __init__(
        self,
        entry: BundlePlugin,
        guest: Guest,
        budget: Budget,
        *,
        spare: Instance | None,
        tidied: Callable[[int], None],
    ) -> None:
        self.guest = guest
        self.ready: list[Instance] = [] if spare is None else [spare]
        """Those for the next calls. It is one list for good: who calls often keeps it at hand."""
        self.used: list[Instance] = []
        """Those that are given back between calls."""
        self._budget = budget
        self._tidied = tidied
        self._timeout_ms = entry.limits.timeout
        self._pooled = entry.isolation.mode == "Pooled"
        self.last_call = entry.isolation.max_calls - 1 if self._pooled else 0
        """How many calls an instance has served before its last one."""
        self._most = entry.isolation.size if self._pooled else _SPARES
        self._first = self.each = max(guest.info.memory_pages * PAGE, 0 if spare is None else spare.memory)
        """Bytes of a fresh instance, and those that each one that is kept counts for."""
        self.mark = self.each
        """An instance with more memory after an inline call needs a look; less than nothing where any does."""
        self._kept = 0
        """Instances that the budget counts: those here, and the one that an inline call has."""
        self._closed = False
        self.tidying = self.will_tidy = False

    def admit(self) -> None:
        """Count those that were made ahead; those for which there is no memory are closed."""
        for _ in tuple(self.ready):
            if self._budget.keep(self.each):
                self._kept += 1
            else:
                self.ready.pop().close()

    def shed(self) -> None:
        """Give up the instances that no call uses."""
        for instances in (self.used, self.ready):
            with contextlib.suppress(IndexError):  # a thread may take the last one
                while True:
                    instances.pop().close()
                    self.lose()

    def close(self) -> None:
        """Give everything back, and let go of the plugin, which holds this."""
        self._closed = True
        for instances in (self.ready, self.used):
            while instances:
                instances.pop().close()
        self._budget.give(self._kept * self.each)
        self._kept = 0
        del self._tidied

    def make(self) -> Instance:
        """An instance for an inline call that found none ready; a used one goes first, since its memory is warm."""
        if self.used:
            return self.guest.instantiate(instead_of=self.used.pop())
        if self._budget.keep(self.each):
            self._kept += 1
        else:
            self.mark = _LOOK
        return self.guest.instantiate()

    def take(self) -> tuple[Instance, bool]:
        """An instance for a call on this thread, and whether it was kept, and so is counted already."""
        try:
            return self.ready.pop(), True
        except IndexError:
            return self.guest.instantiate(), False

    def give_back(self, instance: Instance | None, *, counted: bool) -> None:
        """Keep what a call on a thread has left, if there is room. It has left nothing where there is None."""
        if instance is not None and not counted and len(self.ready) < self._most and self._budget.keep(self.each):
            self._kept += 1
            counted = True
        if instance is not None and counted and len(self.ready) < self._most and self._grow_to(instance):
            self.ready.append(instance)
            return
        if instance is not None:
            instance.close()
        if counted:
            self._uncount()

    def recount(self, instance: Instance) -> bool:
        """Count an instance that has grown, or is not counted yet; whether there is room, else it is closed."""
        if self.mark < 0 and self._budget.keep(self.each):
            self.mark = self.each
            self._kept += 1
        if self.mark >= 0 and self._grow_to(instance):
            return True
        instance.close()
        self.lose()
        return False

    def lose(self) -> None:
        """An instance that was counted is closed; or one that was not, after an inline call."""
        if self.mark < 0:
            self.mark = self.each
        else:
            self._uncount()

    def put_aside(self, instance: Instance) -> None:
        """It is used up, and is given back between calls."""
        self.used.append(instance)
        if len(self.used) >= _SPARES:
            if not self.tidying:
                self.tidying = True
                asyncio.get_running_loop().call_soon(self._tidy)
        elif not self.will_tidy:
            self.will_tidy = True
            asyncio.get_running_loop().call_later(_UNTIDY_S, self._tidy_late)

    def _grow_to(self, instance: Instance) -> bool:
        """Count as much for each instance as this one has, where there is room for it; whether it is counted for."""
        more = instance.memory - self.each
        if more > 0:
            if not self._budget.keep(more * self._kept):
                return False
            self.each = self.mark = instance.memory
        return True

    def _uncount(self) -> None:
        self._kept -= 1
        self._budget.give(self.each)

    def _tidy(self) -> None:
        """Between calls: give back what they used, and make ready what the next ones need."""
        self.tidying = False
        used, ready = self.used, self.ready
        lacks = len(used) > 0 and not self._closed
        begin = time.thread_time_ns()
        while lacks and len(ready) < self._most:
            old = used.pop() if used else None
            if old is None:
                if not self._budget.keep(self.each):
                    break
                self._kept += 1
            try:
                ready.append(self.guest.instantiate(timeout_ms=self._timeout_ms, instead_of=old))
            except CallError:  # the call that needs one makes it, fails, and is counted
                self._uncount()
                break
        while used:
            used.pop().close()
            self._uncount()
        if not self._pooled and self.each > self._first:
            more, self.each, self.mark = self.each - self._first, self._first, self._first
            self._budget.give(more * self._kept)  # what is kept is fresh
        if not self._closed:
            self._tidied(time.thread_time_ns() - begin)

    def _tidy_late(self) -> None:
        """What the last call left is given back also where no other call comes."""
        self.will_tidy = False
        if self.used and not self.tidying:
            self._tidy()
