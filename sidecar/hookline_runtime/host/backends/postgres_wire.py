"""The bytes between libpq and a server, in our hands.

libpq reads what there is, and keeps a message until it is whole: a row of 100 MB would be in memory before anybody
could say no. So once a connection is made, its descriptor is one end of a pair of sockets, and the other one is here:
what the server sends is counted, and given to libpq piece by piece. libpq and its TLS know descriptors by their numbers
alone, and notice nothing; what is counted is what TLS has made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import termios
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

_PIECE: Final = 32 * 1024
_NOTHING: Final = bytes(4)
_TLS_READS: Final = 3
"""What TLS has decrypted and libpq not read yet, a record of 16 KiB, is in no socket: so often libpq is let look, 8 KiB
at a time, before it is taken to have read all."""


class Wire:
    """One connection, from when it is made. ``received`` is how many bytes have come since."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._number = connection.socket
        self._reads = _TLS_READS if connection.ssl_in_use else 0
        self._blind = 0
        self._unsent = b""
        self.received = 0
        self._far = socket.socket(fileno=os.dup(self._number))
        self._far.setblocking(False)  # noqa: FBT003 - its own signature
        near, self._near = socket.socketpair()
        with near:
            near.setblocking(False)  # noqa: FBT003 - its own signature
            self._near.setblocking(False)  # noqa: FBT003 - its own signature
            os.dup2(near.fileno(), self._number, inheritable=False)

    def begin(self) -> int:
        """Something is asked anew: the bytes that were received until then."""
        self._blind = 0
        return self.received

    def is_idle(self) -> bool:
        """Whether nothing has come on a connection that nobody uses: what comes then is its end."""
        poll = select.poll()
        poll.register(self._far, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it; what libpq wrote last, which says so to the server, is sent if there is room."""
        if self._far.fileno() < 0:
            return
        self._connection.finish()
        with contextlib.suppress(OSError):
            self._far.send(self._near.recv(_PIECE))
        self._far.close()
        self._near.close()

    def read_rest(self) -> bool:
        """Let libpq read what is here already; False where there is nothing. Raises psycopg.OperationalError."""
        if fcntl.ioctl(self._number, termios.FIONREAD, _NOTHING) == _NOTHING:
            if not self._blind:
                return False
            self._blind -= 1
        self._connection.consume_input()
        return True

    def send(self) -> bool:
        """Send what libpq wrote; whether all of it is sent. Raises OSError."""
        more = self._connection.flush()
        while True:
            size = _PIECE
            if not self._unsent:
                try:
                    self._unsent = self._near.recv(_PIECE)
                except BlockingIOError:
                    if not more:
                        return True
                    more = self._connection.flush()
                    continue
                size = len(self._unsent)
            try:
                sent = self._far.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
            if not self._unsent and size < _PIECE and not more:
                return True  # that was all

    async def receive(self, *, writing: bool) -> None:
        """Wait for the server, and give libpq a piece of what it sends; with ``writing`` also until it takes more.

        Raises OSError, and psycopg.OperationalError at the end of the connection.
        """
        await self._ready(writing=writing)
        try:
            data = self._far.recv(_PIECE)
        except BlockingIOError:
            return
        self._blind = self._reads
        if data:
            self.received += len(data)
            self._near.sendall(data)  # there is room: libpq has read all that was there
        else:
            self._near.shutdown(socket.SHUT_WR)
        self._connection.consume_input()

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        number = self._far.fileno()
        loop.add_reader(number, _wake, future)
        if writing:
            loop.add_writer(number, _wake, future)
        try:
            await future
        finally:
            loop.remove_reader(number)
            if writing:
                loop.remove_writer(number)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
