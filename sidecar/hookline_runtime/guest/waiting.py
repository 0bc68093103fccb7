"""Host functions that wait, for guests whose calls run on threads: the thread stands still meanwhile.

It is what runs where calls cannot have a stack of their own (``fibers.py``), with the same meaning: the work is done on
the event loop, one bound covers all waiting of a call, and a call whose waiting has ended is a failed one. Such a call
costs three times as much, and a thread while it waits. And the guest is not cut at once: it gets the function's error,
and may go on for what is left of ``limits.timeout``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING

from hookline_runtime.errors import CallError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from hookline_runtime.guest.border import GuestMemory, Waiting


def waited_too_long(limit_ms: int) -> DeadlineError:
    """The failure of a call that spent more than ``limits.wait`` in host functions."""
    return DeadlineError(f"the host functions of one call took longer than limits.wait ({limit_ms} ms)")


class _Work:
    """One piece of work on the event loop for a thread, which may give it up.

    DANGER: it reads and writes the guest's memory. A thread that gives up goes on and drops its instance, so from then
    on nothing of the work may run: neither what the event loop had not begun, nor what it is about to cancel.
    """

    def __init__(self, work: Coroutine[Any, Any, int | bytes]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._begun = self._given_up = False
        self._over = threading.Event()

    async def run(self) -> int | bytes:
        """What it comes to."""
        with self._lock:
            if self._given_up:
                raise asyncio.CancelledError
            self._begun = True
        try:
            return await self._work
        finally:
            self._over.set()

    def give_up(self) -> None:
        """After it was cancelled: return once nothing of it runs any more."""
        with self._lock:
            self._given_up = True
            begun = self._begun
        if begun:
            self._over.wait()
        else:
            self._work.close()


class Waiter:
    """All waiting of one call. Its thread waits; ``end`` may be called on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit_ms: int) -> None:
        self.error: CallError | None = None
        """Why the call has failed, whatever its guest makes of it."""
        self.waited_ns = 0
        self._loop = loop
        self._limit_ms = limit_ms
        self._left_s = limit_ms / 1000
        self._work: concurrent.futures.Future[int | bytes] | None = None

    def wait(self, work: Coroutine[Any, Any, int | bytes]) -> int | bytes | None:
        """What it comes to; None where there is no time for it, or it ends the call."""
        if self.error is not None:
            work.close()
            return None
        begin = time.perf_counter_ns()
        given = _Work(work)
        self._work = asyncio.run_coroutine_threadsafe(given.run(), self._loop)
        if self.error is not None:  # ``end`` was called while there was nothing to cancel yet
            self._work.cancel()
        try:
            return self._work.result(self._left_s)
        except TimeoutError:
            self._work.cancel()
            given.give_up()
            self.error = self.error or waited_too_long(self._limit_ms)
        except CallError as error:
            self.error = error
        except concurrent.futures.CancelledError:
            given.give_up()
            self.error = self.error or DeadlineError("the call was ended while it waited")
        finally:
            took = time.perf_counter_ns() - begin
            self.waited_ns += took
            self._left_s = max(0.0, self._left_s - took / 1e9)
        return None

    def end(self, error: CallError) -> None:
        """Let the call fail so, now where it waits."""
        self.error = self.error or error
        if self._work is not None:
            self._work.cancel()


class _Thread(threading.local):
    waiter: Waiter | None = None


THREAD = _Thread()
"""The waiter of the call that runs on this thread; None where its guest may not wait."""


def waited_ns() -> int:
    """What the call that runs on this thread has waited in such functions."""
    return 0 if THREAD.waiter is None else THREAD.waiter.waited_ns


def blocking(function: Waiting) -> Callable[..., int]:
    """The same as a function that returns when it has its answer."""

    def call(memory: GuestMemory, *numbers: float) -> int:
        waiter = THREAD.waiter
        if waiter is None or not memory.may_wait:
            return function.unavailable
        answer = waiter.wait(function.run(memory, *numbers))
        if answer is None:
            return function.unavailable
        return memory.give(answer) if isinstance(answer, bytes) else answer

    return call
