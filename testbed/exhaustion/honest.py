"""The honest load: calls at a steady pace, whatever came of those before, so that a stall is seen by all that it hits.

A call that fails is lost; one that takes long is not, and its time is in the figures. How late this process itself was
is kept beside them: on a busy machine that is part of each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

PATIENCE_S: Final = 60.0
"""Seconds for one call: longer than any stall that was measured before it was mended, but for those without an end."""


@dataclass
class Window:
    """What came of the calls that were made in some part of a run."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """Of the calls that were answered, in ms."""
        ordered = sorted(self.seconds)
        return round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1) if ordered else 0.0

    @property
    def gap_ms(self) -> float:
        """The longest call, in ms: for so long the event loop behind it stood still, or was busy with others."""
        return round(1000 * max(self.seconds, default=0.0), 1)


class Stream:
    """One kind of call, so many times a second."""

    def __init__(self, name: str, rate: float, call: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self._pause = 1 / rate
        self._call = call
        self.window = Window()
        self.late = 0.0
        """How late this process was for its own clock at the worst, in seconds."""
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Call until cancelled."""
        due = time.monotonic()
        while True:
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))  # the pace
            self.late = max(self.late, time.monotonic() - due)
            task = asyncio.create_task(self._one(self.window))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def settle(self) -> None:
        """Return when no call is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _one(self, window: Window) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._call()
        except TimeoutError:
            window.lost.append(f"no answer within {PATIENCE_S:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it was, a call was lost
            window.lost.append(f"{type(error).__name__}: {error}"[:200])
        window.seconds.append(time.monotonic() - began)


class Load:
    """All streams of a program."""

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = streams

    @contextlib.contextmanager
    def window(self) -> Iterator[dict[str, Window]]:
        """The calls that begin within the ``with`` block, by stream."""
        windows = {stream.name: Window() for stream in self.streams}
        for stream in self.streams:
            stream.window, stream.late = windows[stream.name], 0.0
        yield windows
        for stream in self.streams:
            stream.window = Window()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Calls are made meanwhile, and answered in the end."""
        tasks = [asyncio.create_task(stream.run()) for stream in self.streams]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in self.streams:
                await stream.settle()

    async def settle(self) -> None:
        """Return when the calls that are under way now have ended."""
        for stream in self.streams:
            await stream.settle()

    @property
    def late_ms(self) -> float:
        """How late this process was in the newest window, in ms."""
        return round(1000 * max(stream.late for stream in self.streams), 1)
