"""What host functions take from a guest's memory and put there, and the codes that they answer with."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from hookline_api.abi import E_MEMORY, E_SIZE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_runtime.guest.border import GuestMemory

U32: Final = 0xFFFFFFFF
ABSENT: Final = -1
"""What HeliosDB's functions answer where there is nothing, and a length that says the same."""


class CodeError(Exception):
    """A host function says no; its wrapper turns the code into the function's own way to say so."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def read(memory: GuestMemory, pointer: int, length: int, at_most: int = U32) -> bytes:
    """A copy of a guest's bytes. Raises CodeError where they are too many, or outside memory."""
    if length & U32 > at_most:
        raise CodeError(E_SIZE)
    data = memory.read(pointer, length)
    if data is None:
        raise CodeError(E_MEMORY)
    return data


def write(memory: GuestMemory, pointer: int, data: bytes) -> None:
    """Put bytes where the guest wants them. Raises CodeError where that is outside memory."""
    if not memory.write(pointer, data):
        raise CodeError(E_MEMORY)


BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets of ``Times``, in seconds."""


class Times:
    """How long the calls of one host function that waits took."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        """Calls by ``BOUNDS_S``; the last takes the rest."""
        self.seconds = 0.0
        """In all."""

    def count(self, seconds: float) -> None:
        """Count one call."""
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1


Answer = int | bytes
"""What a host function that waits comes to: a number, or bytes that are put where the guest's ``alloc`` says."""


def timed(times: Times, function: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """The same function, each call of it counted."""

    async def counted(memory: GuestMemory, *numbers: int) -> Answer:
        begin = time.perf_counter()
        try:
            return await function(memory, *numbers)
        finally:
            times.count(time.perf_counter() - begin)

    return counted
