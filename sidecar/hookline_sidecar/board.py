"""What workers tell each other, and the supervisor, in memory that they share: a line of words for each of them."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from hookline_serving.bounds import Closed

if TYPE_CHECKING:
    from hookline_serving.bounds import Reason

LINE: Final = 16
"""Words of 64 bits for each worker: cache lines of its own."""
CONNECTIONS: Final = 0
LOOKS: Final = 1
"""Counts how often it came to look for connections: while one waits, a worker that is well looks every millisecond."""
LEAVING: Final = 2
_UNCLEAR: Final = 3
"""Counts subrequests of proxies that were refused because they could be read in two ways."""
_CLOSED: Final = 4
"""The first of the counts of connections that had to go, one for each of these reasons."""
_REASONS: Final[tuple[Reason, ...]] = ("head", "crowd", "full", "unread", "malformed")


class Board:
    """How many connections each worker has. Made before the workers are forked; each writes its own line."""

    def __init__(self, workers: int) -> None:
        self.words = memoryview(mmap.mmap(-1, workers * LINE * 8)).cast("q")

    def clear(self, worker: int) -> None:
        """A worker has ended, and its connections with it. For the parent. What was counted stays."""
        for at in (CONNECTIONS, LOOKS, LEAVING):
            self.words[worker * LINE + at] = 0

    def write_closed(self, worker: int, closed: Closed) -> None:
        """Write down what this worker has counted; ``closed`` begins where the worker before it ended."""
        for at, reason in enumerate(_REASONS, worker * LINE + _CLOSED):
            self.words[at] = closed[reason]

    def closed_of(self, worker: int) -> Closed:
        """What was counted for this worker so far."""
        first = worker * LINE + _CLOSED
        words = self.words[first : first + len(_REASONS)]
        return Closed(dict(zip(_REASONS, words, strict=True)))

    def closed(self) -> Closed:
        """The sum over all workers."""
        found = Closed()
        for worker in range(len(self.words) // LINE):
            found.update(self.closed_of(worker))
        return found

    def connections(self, worker: int) -> int:
        """How many one worker has."""
        return self.words[worker * LINE + CONNECTIONS]

    def count_unclear(self, worker: int) -> None:
        """One worker refused a subrequest that could be read in two ways."""
        self.words[worker * LINE + _UNCLEAR] += 1

    def unclear(self) -> int:
        """How many all workers refused."""
        return sum(self.words[_UNCLEAR::LINE].tolist())
