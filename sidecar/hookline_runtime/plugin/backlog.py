"""The backlog of a plugin that observes: calls that run off the reply's path, one after the other.

It is bounded in calls and in bytes, and what waits counts as memory that is kept (``budget.py``).
What does not fit is dropped and counted, or, where the plugin says
``observers: {overflow: Wait}``, the call's answer waits until there is room; then only its client bounds the wait.
So many clients may wait as their calls have bytes that a worker has for those (``budget.WAITING``); others do not wait.
A client that goes away while it waits (``Asker.leave``) or that gives up (the task is cancelled) leaves the call
behind. It is taken on top of the bound, up to as much again, and dropped and counted beyond that: so neither clients
that come and go nor a slow plugin make this grow, and no call is lost without a trace.

All of this belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hookline_runtime.errors import CallError, OverloadError
from hookline_runtime.plugin.budget import WAITING, WAITING_CALLS, Budget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from hookline_api.hooks import Hook

MAX_BACKLOG: Final = 1024
"""Calls that wait to be run, of one plugin in one process."""
MAX_BACKLOG_BYTES: Final = 16 * 2**20
"""Bytes of them. A single call is taken whatever its size."""

log = logging.getLogger("hookline.plugin")


T = TypeVar("T")


class GoneError(OverloadError):
    """A call was dropped because its client is gone. It is counted apart, and is no failure of the plugin's."""


class Asker:
    """The client of a connection, for as long as it may be waited for. It asks one call at a time."""

    __slots__ = ("_call", "_turn", "gone")

    def __init__(self) -> None:
        self.gone = False
        """Whether nobody reads the answer: nothing waits for room any more."""
        self._call: asyncio.Timeout | None = None
        self._turn: asyncio.Future[bool] | None = None

    def leave(self) -> None:
        """The client is gone. What waits for it, for room or in a host function, stops waiting; the rest goes on.

        One that only sends nothing more looks the same: who asks has to stay for the answer.
        """
        self.gone = True
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(False)
        if self._call is not None and not self._call.expired():
            self._call.reschedule(0.0)

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call comes to. Raises GoneError as soon as the client leaves; the call is cancelled then.

        Where the client has left before, as in the middle of a batch, nothing of it runs.
        """
        if self.gone:
            call.close()
            raise GoneError("the client is gone, and the call was dropped")
        timeout = asyncio.timeout(None)  # it passes when the client leaves
        try:
            async with timeout:
                self._call = timeout
                return await call
        except TimeoutError:
            if timeout.expired():
                raise GoneError("the client is gone, and the call was dropped") from None
            raise
        finally:
            self._call = None

    async def wait(self, turn: asyncio.Future[bool]) -> bool:
        """What ``turn`` comes to; False as soon as the client is gone."""
        self._turn = turn
        try:
            return await turn
        finally:
            self._turn = None


class Backlog:
    """Calls of one plugin that nobody waits for.

    ``waits`` says what happens where one does not fit. ``run`` runs one and raises CallError, already counted;
    ``dropped`` counts one that will not run, ``waited`` one that had to wait, with its nanoseconds; ``idle`` is called
    when all have run.
    """

    def __init__(
        self,
        *,
        waits: bool,
        run: Callable[[Hook, bytes], Awaitable[object]],
        dropped: Callable[[Hook, str], None],
        waited: Callable[[Hook, int], None],
        idle: Callable[[], None],
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget()
        self.waits = waits
        self._run = run
        self._dropped = dropped
        self._waited = waited
        self._idle = idle
        self._calls: collections.deque[tuple[Hook, bytes]] = collections.deque()
        self._bytes = 0
        self._waiting: collections.OrderedDict[asyncio.Future[bool], tuple[Hook, bytes]] = collections.OrderedDict()
        """Calls whose answers wait for room, in their order. Each belongs to one request that is under way."""
        self._waiting_bytes = 0
        self._budget.backlogs += waits
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is any call that has not ended."""
        return self._task is not None

    def must_wait(self, size: int) -> bool:
        """Whether a call of so many bytes would have to wait for room."""
        return self.waits and not self._has_room(size)

    def add(self, hook: Hook, data: bytes) -> None:
        """Take a call that need not wait; where there is no room it is dropped, and counted."""
        if self._has_room(len(data)):
            self._take(hook, data)
        else:
            self._drop(hook)

    async def put(self, hook: Hook, data: bytes, asker: Asker) -> None:
        """Take a call once there is room for it, after those that wait already.

        Cancelled, or without a client any more, it does not wait: see ``leave``.
        """
        if not self.must_wait(len(data)):
            self.add(hook, data)
            return
        if asker.gone or self._many_wait(len(data)):
            self.leave(hook, data)
            return
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = hook, data
        self._waiting_bytes += len(data)
        begin = time.perf_counter_ns()
        try:
            await asker.wait(turn)
        finally:
            self._waited(hook, time.perf_counter_ns() - begin)
            self._waiting_bytes -= len(data)
            if self._waiting.pop(turn, None) is not None:  # else it was taken, whoever gave up in the same moment
                self.leave(hook, data)

    def leave(self, hook: Hook, data: bytes) -> None:
        """Take a call that nobody waits for any more: where calls wait, on top of the bound, up to as much again."""
        times = 2 if self.waits else 1
        few = len(self._calls) < times * MAX_BACKLOG and self._bytes + len(data) <= times * MAX_BACKLOG_BYTES
        if few and (not self._calls or self._budget.fits(len(data))):
            self._take(hook, data)
        else:
            self._drop(hook)

    async def drained(self) -> None:
        """Return when every call that was taken, or waits for room, has run."""
        if self._task is not None:
            await asyncio.wait([self._task])  # and not the task itself: who gives up waiting must not end it

    def abandon(self) -> int:
        """Drop, and count, what has not begun: the process ends. How many calls that were."""
        calls = [*self._calls, *self._waiting.values()]
        self._calls.clear()
        self._budget.give(self._bytes)
        self._bytes = 0
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(True)
        self._waiting.clear()
        for hook, _ in calls:
            self._dropped(hook, "the process ended before the call of an observing hook could run")
        return len(calls)

    def close(self) -> None:
        """Let go of the plugin, which holds this: nothing is observed any more."""
        self._budget.backlogs -= self.waits
        del self._run, self._dropped, self._waited, self._idle

    def _many_wait(self, size: int) -> bool:
        """Whether so many calls wait already that one of so many bytes may not."""
        most = WAITING // self._budget.backlogs
        return len(self._waiting) >= WAITING_CALLS and self._waiting_bytes + size > most

    def _has_room(self, size: int) -> bool:
        return not self._waiting and self._fits(size)

    def _fits(self, size: int) -> bool:
        return not self._calls or (
            len(self._calls) < MAX_BACKLOG and self._bytes + size <= MAX_BACKLOG_BYTES and self._budget.fits(size)
        )

    def _take(self, hook: Hook, data: bytes) -> None:
        self._bytes += len(data)
        self._budget.free -= len(data)
        self._calls.append((hook, data))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work_off())

    def _drop(self, hook: Hook) -> None:
        self._dropped(hook, f"{len(self._calls)} calls of observing hooks wait already")

    async def _work_off(self) -> None:
        try:
            while self._calls:
                hook, data = self._calls.popleft()
                self._bytes -= len(data)
                self._budget.give(len(data))
                self._let_in()
                try:
                    await self._run(hook, data)
                except CallError:
                    pass  # counted; there is no reply to change
                except Exception as error:  # ours: those behind it must not wait for ever
                    log.exception("a call of the observing hook %s could not be run", hook)
                    self._dropped(hook, f"the runtime failed: {type(error).__name__}")
                del data
                await asyncio.sleep(0)  # replies go first
        finally:
            self._task = None
            self._idle()

    def _let_in(self) -> None:
        """Take the calls that wait, in their order, as long as there is room."""
        while self._waiting:
            turn, (hook, data) = next(iter(self._waiting.items()))
            if not turn.done():
                if not self._fits(len(data)):
                    return
                turn.set_result(True)
                self._take(hook, data)
            else:  # its client left in this moment; what it asked is not behind those that came later
                self.leave(hook, data)
            del self._waiting[turn]
