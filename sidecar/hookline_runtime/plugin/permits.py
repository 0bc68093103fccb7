"""Permits: how many calls of one plugin run at the same time, in one process or in several.

A permit is taken by adding one to a number. Where several processes have one limit together, each permit is moreover
one byte of a file, and whoever holds it has that byte locked: so the limit is exact, and the kernel gives back what
a process held when it dies, however it dies. A process keeps the permits that it once needed, so calls that follow
each other cost no system call; it gives idle ones back when another process asks for them.

Asking is a changed word in memory that all share, and the ring of a bell (an eventfd) that each process hears on its
event loop. Who was asked, and has no permit idle, gives back the next one that a call leaves, even where calls wait
here: else who came first would keep all. Who has just got a permit keeps it for some milliseconds, else it would do
nothing but travel; and who has given one back leaves it alone for a moment, else it never would.

All of this belongs to one event loop in each process. A process that is stopped (SIGSTOP) keeps what it holds.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import mmap
import os
import time
from typing import TYPE_CHECKING, Final

from hookline_runtime.errors import OverloadError
from hookline_runtime.host.byte_locks import ByteLocks
from hookline_runtime.plugin.stats import MAX_PLUGINS

if TYPE_CHECKING:
    from pathlib import Path

_WAITING_PER_PERMIT: Final = 4
_QUICK_WAITING: Final = 256
"""At the least, of a quick plugin. A permit that comes from another process takes as long as many of its calls, and
with one process they all would wait in their connections, where nobody counts them."""
_KEPT_S: Final = 0.001
_KEPT_MOST_S: Final = 0.01
"""How long a process keeps its permits, at least, since it last got or gave one: the first for each other process, the
second at the most. All of them may want what one gives back, so that has to be the rarer the more they are."""
_LEFT_S: Final = 0.002
"""How long who gave permits back leaves them to others, unless it hears from them."""
_POLL_FIRST_S: Final = 0.002
_POLL_LAST_S: Final = 0.002
"""How often who waits looks by itself, the last one for each process: no bell tells of a process that died."""


class Permits:
    """The permits of one plugin in a process that shares them with none.

    ``limit`` is how many calls may run, ``most`` how many of them in this process; four times ``limit`` may wait in it.
    """

    def __init__(self, limit: int, *, most: int) -> None:
        self.limit = limit
        self.most = min(limit, most)
        self.running = 0
        """Calls that have a permit. One that begins and ends within a step of the event loop need not take it."""
        self.held = self.most
        """Permits that this process has; a call may run where it is more than ``running``, or ``get`` says so."""
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    def allow(self, most: int) -> None:
        """Let so many calls run in this process at the most, before any does."""
        self.most = self.held = min(self.limit, most)

    def get(self) -> bool:
        """Get one permit more than calls run, at once or not at all."""
        return False

    async def enter(self, seconds: float | None, *, quick: bool = False) -> None:
        """Take a permit for a call, or wait that long for one. A ``quick`` one needs no thread. Raises OverloadError.

        Without a number it waits as long as it takes, however many wait: for calls that come one at a time.
        """
        if self.running < self.held or self.get():
            self.running += 1
            return
        room = self.limit * _WAITING_PER_PERMIT
        if seconds is not None and len(self._waiting) >= (max(room, _QUICK_WAITING) if quick else room):
            raise OverloadError(
                f"{self.running} calls run and {len(self._waiting)} wait; limits.concurrency allows {self.limit}"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._want()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was given in the same moment: pass it on
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)  # who gave up leaves the queue
            if seconds is not None and isinstance(error, TimeoutError):
                raise OverloadError(f"waited {seconds * 1000:.0f} ms for one of {self.limit} calls to end") from None
            raise

    def leave(self) -> None:
        """A call that took a permit has ended: its permit is the next one's."""
        if not self._pass_on():
            self.running -= 1

    def close(self) -> None:
        """Give everything back. No call has a permit any more, and none gets one."""

    def _pass_on(self) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False

    def _want(self) -> None:
        """A call waits. Here one that ends gives it its permit."""


class SharedPermits:
    """What processes share permits by. Made before they are forked; each then joins.

    Raises OSError where the file's file system has no locks.
    """

    def __init__(self, path: Path, processes: int) -> None:
        self.path = path
        self.processes = processes
        self.asked = memoryview(mmap.mmap(-1, MAX_PLUGINS * 8)).cast("Q")
        """One word for each plugin's number; it changes when somebody asks for one of its permits."""
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(processes)]
        try:
            ByteLocks(path, "", 1, first=0).check()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{path}: {error.strerror}; several workers need locks there: take another "
                "folder for the state, or one worker",
            ) from None

    def join(self, process: int) -> Member:
        """What one process does, by its number."""
        return Member(self, process)

    def close(self) -> None:
        """Give the bells back."""
        for bell in self.bells:
            os.close(bell)


class Member:
    """One process that shares permits."""

    def __init__(self, shared: SharedPermits, process: int) -> None:
        self.asked = shared.asked
        self.path = shared.path
        """The file whose bytes they lock."""
        self.processes = shared.processes
        self._shared = shared
        self.process = process
        """Which of ``processes`` it is, from 0."""
        self._bell = shared.bells[process]
        self._others = [bell for bell in shared.bells if bell != self._bell]
        self._permits: set[_Held] = set()

    def listen(self) -> None:
        """Hear the bell, on the running event loop."""
        asyncio.get_running_loop().add_reader(self._bell, self._rung)

    def make_permits(self, *, plugin: int, key: str, limit: int, most: int) -> Permits:
        """The permits of one plugin: ``plugin`` is its number, and all with the same ``key`` share one limit.

        Raises OSError where the process has no descriptor left.
        """
        first = limit * self.process // self._shared.processes  # each begins elsewhere, so that none is in the way
        locks = ByteLocks(self._shared.path, key, limit, first=first)
        made = _Held(self, plugin, locks, limit=limit, most=most)
        self._permits.add(made)
        return made

    def forget(self, permits: _Held) -> None:
        """These are closed."""
        self._permits.discard(permits)

    def ring(self) -> None:
        """Make all others look: somebody asks for a permit, or has given one back."""
        for bell in self._others:
            with contextlib.suppress(BlockingIOError):  # it has been rung 2**64 times, and will be heard
                os.eventfd_write(bell, 1)

    def _rung(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        for each in tuple(self._permits):
            each.rung()


class _Held(Permits):
    """The permits of one plugin, where other processes have the same limit."""

    def __init__(self, member: Member, plugin: int, locks: ByteLocks, *, limit: int, most: int) -> None:
        super().__init__(limit, most=most)
        self.held = 0
        self._member = member
        self._plugin = plugin
        self._locks = locks
        self._seen = member.asked[plugin]
        self._owes = False
        """Whether the next permit that a call leaves is for another process."""
        self._kept = min(_KEPT_S * (member.processes - 1), _KEPT_MOST_S)
        self._moved_at = 0.0
        """When a permit last came or went."""
        self._not_before = 0.0
        self._poll: asyncio.TimerHandle | None = None
        self._pause = _POLL_FIRST_S
        self._answer: asyncio.TimerHandle | None = None

    def allow(self, most: int) -> None:
        self.most = min(self.limit, most)

    def get(self) -> bool:
        # Not before those that wait already: what looks for them is under way.
        return not self._waiting and self._get()

    def leave(self) -> None:
        if not self._owes:
            super().leave()
            return
        self.running -= 1
        self._give()
        if self._waiting:
            self._want()

    def close(self) -> None:
        self.held = self.most = 0
        self._member.forget(self)
        self._locks.close()
        for timer in (self._poll, self._answer):
            if timer is not None:
                timer.cancel()

    def rung(self) -> None:
        """Somebody asks, or has given something back."""
        self._not_before = 0.0
        self._hand_out()
        if self._member.asked[self._plugin] != self._seen:
            self._seen = self._member.asked[self._plugin]
            self._be_asked()

    def _get(self) -> bool:
        now = time.monotonic()
        if self.held >= self.most or now < self._not_before or not self._locks.take():
            return False
        self.held += 1
        self._moved_at = now
        return True

    def _be_asked(self) -> None:
        if not self.held or self._answer is not None:
            return
        left = self._moved_at + self._kept - time.monotonic()
        if left > 0:
            self._answer = asyncio.get_running_loop().call_later(left, self._answer_now)
        else:
            self._answer_now()

    def _answer_now(self) -> None:
        self._answer = None
        if self.held > self.running:
            self._give()
        else:
            self._owes = True

    def _give(self) -> None:
        """Give back what is idle."""
        self._owes = False
        while self.held > self.running:
            self._locks.give()
            self.held -= 1
        self._moved_at = time.monotonic()
        self._not_before = self._moved_at + _LEFT_S
        self._member.ring()

    def _want(self) -> None:
        if self._poll is None:
            self._pause = _POLL_FIRST_S
            self._ask()

    def _ask(self) -> None:
        # Any value that it had not before: who asked a moment ago asks again soon, if this overwrites it.
        self._seen = self._member.asked[self._plugin] = time.monotonic_ns()
        self._member.ring()
        self._poll = asyncio.get_running_loop().call_later(self._pause, self._look)
        self._pause = min(self._pause * 2, _POLL_LAST_S * self._member.processes)

    def _look(self) -> None:
        self._poll = None
        self._hand_out()
        if self._waiting:
            self._ask()

    def _hand_out(self) -> None:
        """Give the calls that wait what can be had now."""
        while self._waiting and (self.running < self.held or self._get()):
            if self._pass_on():
                self.running += 1
