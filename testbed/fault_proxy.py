"""A proxy between a client and a real server, on this machine, that does what a real server will not do on demand.

It copies bytes and knows no protocol. What it does is changed while it runs:

    async with FaultProxy("127.0.0.1", port) as proxy:
        proxy.delay = 0.2                 # each piece of an answer comes that much later, in seconds
        proxy.cut_after = 1_000           # so many bytes of an answer, then the end of the connection
        proxy.reset_after = 1_000         # the same with a reset
        proxy.silent = True               # connections are taken, and nothing comes back
        await proxy.refuse()              # connections are refused, and those that are there are reset
        await proxy.accept()              # all is well again
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

from local_ports import reserve_port

_PIECE = 64 * 1024


class FaultProxy:
    """One address in front of one server; all that is false is passed on as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.host = "127.0.0.1"
        self.port = reserve_port()
        self.delay = 0.0
        self.cut_after: int | None = None
        self.reset_after: int | None = None
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.accepted = 0
        """Connections that were taken so far."""
        self.answered = 0
        """Bytes of answers that were passed on so far."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def silent(self) -> bool:
        """Whether nothing comes back."""
        return not self._speaks.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        (self._speaks.clear if silent else self._speaks.set)()

    @property
    def open(self) -> int:
        """Connections of clients that are open now."""
        return sum(not each.is_closing() for each in self._open)

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    def heal(self) -> None:
        """No fault from here on."""
        self.delay, self.cut_after, self.reset_after, self.silent = 0.0, None, None, False

    async def accept(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = await asyncio.start_server(self._take, self.host, self.port, limit=_PIECE)

    async def refuse(self) -> None:
        """Take none, and reset those that are there."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._open.clear()
        if server is not None:
            await server.wait_closed()

    def reset(self) -> None:
        """Reset the connections that are there."""
        for writer in tuple(self._open):
            _reset(writer)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        asking: asyncio.Task[None] | None = None
        try:
            answers, far = await asyncio.open_connection(*self._target, limit=_PIECE)
            asking = asyncio.create_task(_copy(reader, far))
            await self._answer(answers, writer)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
        finally:
            both = [each for each in (writer, far) if each is not None]
            for each in both:
                each.close()
            if asking is not None:
                asking.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(*(each.wait_closed() for each in both), return_exceptions=True)
            self._open.discard(writer)

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await answers.read(_PIECE):
            if self.delay:
                await asyncio.sleep(self.delay)  # the fault itself
            await self._speaks.wait()
            end = min((each for each in (self.cut_after, self.reset_after) if each is not None), default=None)
            piece = data if end is None else data[: max(0, end - passed)]
            writer.write(piece)
            passed += len(piece)
            self.answered += len(piece)
            await writer.drain()
            if end is not None and passed >= end:
                if self.reset_after is not None:
                    _reset(writer)
                return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
