"""How tests and tools wait: for a fact, however long a busy machine takes to bring it about.

There is one bound for all of them. It ends a wait that would never end, and says nothing about how fast anything is:
no test may come near it, on a machine with ten times as much to do as it has cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

PATIENCE_S: Final = 180.0
"""Seconds after which something that has not happened never will."""
_PAUSE_S: Final = 0.02

T = TypeVar("T")


def until(
    wanted: Callable[[], T],
    what: str | Callable[[], str],
    *,
    seconds: float = PATIENCE_S,
    ignoring: tuple[type[Exception], ...] = (),
) -> T:
    """Ask until the answer is a true one; that answer.

    ``what`` says what was waited for, or is asked for it once that is known to have failed. An error of ``ignoring``
    is as good as a false answer. Raises TimeoutError with the last answer.
    """
    end = time.monotonic() + seconds
    while True:
        last: object
        try:
            last = found = wanted()
            if found:
                return found
        except ignoring as error:
            last = error
        if time.monotonic() > end:
            raise TimeoutError(_failure(what, seconds, last))
        time.sleep(_PAUSE_S)  # between two looks


async def until_true(
    wanted: Callable[[], T] | Callable[[], Awaitable[T]],
    what: str | Callable[[], str],
    *,
    seconds: float = PATIENCE_S,
    pause: float = _PAUSE_S,
) -> T:
    """``until`` for what happens on the running event loop meanwhile; ``wanted`` may be a coroutine function.

    A ``pause`` of 0 looks in each turn of the loop.
    """
    end = time.monotonic() + seconds
    while True:
        answer = wanted()
        found: T = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(_failure(what, seconds, found))
        await asyncio.sleep(pause)  # between two looks


def _failure(what: str | Callable[[], str], seconds: float, last: object) -> str:
    said = what() if callable(what) else what
    return f"within {seconds:g} s there was not: {said}; the last answer was {last!r:.500}"
