"""Who takes a new connection: the worker that has the fewest.

Proxies keep few connections for a long time, so it is the spread of connections that makes the spread of work. All
workers wait at the same listening sockets, and each takes a connection only while no other has clearly fewer; how
many each has stands in memory that they share.

A connection that nobody has taken yet waits in the listening socket, which dies with the last process that holds
it. So it is never lost with a worker, as it would be with a queue for each (``SO_REUSEPORT``) or on its way
from one process to another. And it does not wait for long: a worker that stands back looks again every
millisecond; it soon waits no longer for one that does nothing meanwhile (it is stopped, or busy with one thing), until
that one looks again; and it takes the connection after some looks whatever the others do.
"""

from __future__ import annotations

import asyncio
import logging
import select
from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_sidecar.board import CONNECTIONS, LEAVING, LINE, LOOKS, Board

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_AT_ONCE: Final = 64
"""Connections that are taken before calls on others get their turn."""
_LOOK_AGAIN_S: Final = 0.001
_PATIENCE_S: Final = 0.025
"""After which a worker that has stopped looking is not waited for. A busy machine lets a process wait for less."""
_LONGEST_S: Final = 0.04
_EXHAUSTED_S: Final = 0.1
_LOG_PAUSE_S: Final = 10.0

log = logging.getLogger("hookline.accepting")


class _Others(NamedTuple):
    """The workers with clearly fewer connections than this one."""

    awaited: dict[int, int]
    """Those to leave a connection to, each with its count of looks."""
    passed_over: bool
    """Whether there is one that is given up."""


class Acceptor:
    """Takes connections for one worker, on its event loop.

    ``serve`` makes the protocol of a connection; whoever made it calls ``ended`` when the connection is lost.
    """

    def __init__(
        self, hook_sockets: list[socket.socket], board: Board, worker: int, serve: Callable[[], asyncio.Protocol]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = [_Listener(self, each) for each in hook_sockets]
        self._words = board.words
        self._mine = worker * LINE
        self._others = [at for at in range(0, len(board.words), LINE) if at != self._mine]
        self._given_up: dict[int, int] = {}
        """Workers that are not waited for, each with its count of looks: until it looks again."""
        self._serve = serve
        self._arriving: set[asyncio.Task[None]] = set()
        self._logged_at = -_LOG_PAUSE_S

    def open(self) -> None:
        """Begin to take connections."""
        for each in self._sockets:
            each.watch()

    async def close(self) -> None:
        """Stop taking connections. Those that wait are for other workers, or refused when the last one has closed."""
        self._words[self._mine + LEAVING] = 1
        for each in self._sockets:
            each.close()
        if self._arriving:
            await asyncio.wait(self._arriving)

    def ended(self) -> None:
        """A connection of this worker has ended."""
        self._words[self._mine + CONNECTIONS] -= 1
        for each in self._sockets:
            each.one_less()

    def count_look(self) -> None:
        """Show the others that this worker is well."""
        self._words[self._mine + LOOKS] += 1

    def compare(self) -> _Others:
        """The other workers that have clearly fewer connections.

        A sixteenth is not clear: a storm of connections would come in one by one. Up to 15 connections, it is one.
        """
        words, own = self._words, self._words[self._mine + CONNECTIONS]
        enough = own - (own >> 4)
        awaited, passed_over = {}, False
        for at in self._others:
            if words[at] < enough and not words[at + LEAVING]:
                looks = words[at + LOOKS]
                if self._given_up.get(at) != looks:
                    awaited[at] = looks
                else:
                    passed_over = True
        return _Others(awaited, passed_over)

    def at_once(self, *, passed_over: bool) -> int:
        """How many connections to take before looking what the others do."""
        return 1 + (self._words[self._mine + CONNECTIONS] >> 4) if passed_over else _AT_ONCE

    def give_up(self, stuck: dict[int, int]) -> None:
        """Stop waiting for these."""
        self._given_up |= stuck

    def take(self, connection: socket.socket) -> None:
        """Serve a connection."""
        self._words[self._mine + CONNECTIONS] += 1
        task = self._loop.create_task(self._begin(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._serve, connection)
        except OSError:  # it is gone already
            connection.close()
            self.ended()

    def exhausted(self, error: OSError) -> None:
        """Say, but not as often as it happens, that connections cannot be taken."""
        now = self._loop.time()
        if now - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = now
            log.warning("connections cannot be accepted, and wait: %s", error.strerror)


class _Listener:
    """One listening socket, as one worker sees it."""

    def __init__(self, acceptor: Acceptor, listening: socket.socket) -> None:
        self._acceptor = acceptor
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._poll.register(listening, select.POLLIN)
        self._again: asyncio.TimerHandle | None = None
        self._ahead: dict[int, int] = {}
        """Who had fewer connections when this worker began to stand back."""
        self._since: float | None = None
        """When it began to; None while it does not."""

    def watch(self) -> None:
        """Wait for connections."""
        self._again = self._since = None
        self._loop.add_reader(self._listening, self._ready)

    def close(self) -> None:
        """Wait for none."""
        self._loop.remove_reader(self._listening)
        if self._again is not None:
            self._again.cancel()
            self._again = self._since = None
        self._listening.close()

    def _ready(self) -> None:
        """A connection waits, unless another worker was quicker."""
        acceptor = self._acceptor
        acceptor.count_look()
        others, taken = acceptor.compare(), 0
        while not others.awaited and taken < acceptor.at_once(passed_over=others.passed_over):
            if not self._accept():
                return
            others, taken = acceptor.compare(), taken + 1
        if others.awaited or others.passed_over:
            self._stand_back(others.awaited)

    def _accept(self) -> bool:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:  # no descriptor or no memory left: it is readable all the time, and must not spin
            self._acceptor.exhausted(error)
            self._loop.remove_reader(self._listening)
            self._again = self._loop.call_later(_EXHAUSTED_S, self.watch)
            return False
        self._acceptor.take(connection)
        return True

    def _stand_back(self, awaited: dict[int, int]) -> None:
        """Leave what waits to others, and look again soon. Meanwhile the socket wakes nobody here."""
        self._loop.remove_reader(self._listening)
        self._ahead, self._since = awaited, self._loop.time()
        self._again = self._loop.call_later(_LOOK_AGAIN_S, self._look)

    def one_less(self) -> None:
        """This worker may not be ahead any more: where connections are short, the next need not wait for the clock."""
        if self._since is not None and self._again is not None:
            others = self._acceptor.compare()
            if not others.awaited and not others.passed_over:
                self._again.cancel()
                self._look()

    def _look(self) -> None:
        acceptor = self._acceptor
        acceptor.count_look()
        if self._since is None or not self._poll.poll(0):
            self.watch()
            return
        waited = self._loop.time() - self._since
        others, ahead = acceptor.compare(), self._ahead
        stuck = {at: looks for at, looks in others.awaited.items() if ahead.get(at) == looks and waited >= _PATIENCE_S}
        acceptor.give_up(stuck)
        if len(others.awaited) > len(stuck) and waited < _LONGEST_S:
            self._again = self._loop.call_later(_LOOK_AGAIN_S, self._look)
            return
        # Nobody is left who should have it. Or others should, and look, and still it waits: then it is for us.
        self.watch()
        if self._accept() and not others.passed_over:
            self._ready()
