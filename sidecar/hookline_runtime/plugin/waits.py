"""Calls of guests that wait for somebody else: how long they may, and how they are driven along.

On a fiber (``guest.fibers``), a call goes in steps. Between two of them the event loop is free, and what the guest
waits for is awaited here. A step runs on the event loop while its plugin is quick, and on a thread of the plugin's
otherwise, as whole calls of other plugins do. One bound covers all waiting of a call: ``limits.wait``, and the end of
the process. A call that is cancelled, or whose time is over, is dropped where it stands, and its instance with it.

DANGER: what a guest asks for may be answered without any waiting (a request that no rule allows, a short text, what is
kept), and a guest may ask for that again and again. Nothing of asyncio, and so no time-out of its, comes in between. So
the time is looked at before each wait, and the calls of one plugin share a part of each turn of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hookline_runtime.errors import DeadlineError, OverloadError
from hookline_runtime.guest.waiting import Waiter, waited_too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from concurrent.futures import Executor

    Steps = Generator[Coroutine[Any, Any, int | bytes], int | bytes, bytes | None]
    """A call, as ``guest.fibers.Instance.steps`` gives it."""

T = TypeVar("T")

_TURN_S: Final = 0.002
"""How long one turn of the event loop may belong to one plugin's waiting calls, before they let others go first."""


class Waits:
    """The waiting of one plugin's calls, ``limit_ms`` for each."""

    def __init__(self, limit_ms: int) -> None:
        self._limit_ms = limit_ms
        self._until: float | None = None
        self._under_way: set[asyncio.Timeout] = set()
        self._waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()
        self._turn: float | None = None
        """When the first of its calls had this turn of the event loop; None before that."""

    def end_by(self, when: float) -> None:
        """Let no call wait beyond that moment of the event loop's clock: the process ends."""
        self._until = when
        for each in self._under_way:
            due = each.when()
            if not each.expired() and (due is None or due > when):
                each.reschedule(when)
        loop = asyncio.get_running_loop()
        for waiter in self._waiters:
            loop.call_at(when, waiter.end, _process_ends())

    def waiter(self) -> Waiter:
        """All waiting of a call that has a thread of its own."""
        loop = asyncio.get_running_loop()
        made = Waiter(loop, limit_ms=self._limit_ms)
        self._waiters.add(made)
        if self._until is not None:
            loop.call_at(self._until, made.end, _process_ends())
        return made

    async def drive(self, begin: Callable[[], Steps], executor: Executor | None) -> bytes | None:
        """One call: what its guest answers. Raises CallError.

        With an executor its steps run there, the first of which is ``begin``. Where it is cancelled, the step under way
        ends first.
        """
        steps = await _run(executor, begin)
        left, answer = self._limit_ms / 1000, None
        try:
            while True:
                await self._have_turn()
                work, result = await _run(executor, functools.partial(_step, steps, answer))
                if work is None:
                    return result
                if left <= 0:
                    raise waited_too_long(self._limit_ms)
                if self._until is not None and asyncio.get_running_loop().time() >= self._until:
                    raise _process_ends()
                if executor is not None:
                    await self._have_turn()
                started = time.perf_counter()
                answer = await self._bounded(work, left)
                left -= time.perf_counter() - started
        finally:
            steps.close()

    async def _have_turn(self) -> None:
        """Go on where its calls have had little of this turn of the event loop; else when they have."""
        while True:
            now = time.perf_counter()
            if self._turn is None:
                self._turn = now
                asyncio.get_running_loop().call_soon(self._end_turn)
            if now - self._turn < _TURN_S:
                return
            await asyncio.sleep(0)

    def _end_turn(self) -> None:
        self._turn = None

    async def _bounded(self, work: Coroutine[Any, Any, int | bytes], seconds: float) -> int | bytes:
        when = asyncio.get_running_loop().time() + max(0.0, seconds)
        ends = self._until is not None and self._until < when
        timeout = asyncio.timeout_at(self._until if ends else when)
        try:
            async with timeout:
                self._under_way.add(timeout)
                return await work
        except TimeoutError:
            if not timeout.expired():
                raise
            if self._until is not None and asyncio.get_running_loop().time() >= self._until:
                raise _process_ends() from None
            raise waited_too_long(self._limit_ms) from None
        finally:
            self._under_way.discard(timeout)


def _process_ends() -> DeadlineError:
    return DeadlineError("the process ends, and the call still waited for a host function")


def _step(steps: Steps, answer: int | bytes | None) -> tuple[Coroutine[Any, Any, int | bytes] | None, bytes | None]:
    """What is to be awaited next; or None, and what the call came to."""
    try:
        return steps.send(answer), None  # type: ignore[arg-type]  # None begins it
    except StopIteration as end:
        return None, end.value


async def _run(executor: Executor | None, function: Callable[[], T]) -> T:
    """Call a function, here or there; where we are cancelled, it ends first, or does not begin any more.

    Raises OverloadError where the process has no thread left to give.
    """
    if executor is None:
        return function()
    try:
        work = executor.submit(function)
    except RuntimeError as error:
        raise OverloadError(f"no thread for the call: {error}") from error
    future = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        work.cancel()  # of no effect once a thread has it: else nobody would wait behind others for nothing
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):  # whoever asks twice waits, too: it is bounded
                await asyncio.wait([future])
        raise
