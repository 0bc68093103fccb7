"""A Valkey that answers what it is told to, for faults that a real one does not produce."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Self

from hookline_api.outbound import ValkeyServer

Answer = bytes | None | Callable[[asyncio.StreamWriter], Awaitable[None]]
PONG = b"+PONG\r\n"


class FaultyValkey:
    """Answers PING as a real one, and each other command with the next of ``answers``; None for nothing at all.

    What is left when there are no more is that a command is answered with its last word.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[bytes, ...]] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers.copy():
            writer.transport.abort()
        await self._server.wait_closed()

    def settings(self, timeout: str = "200ms") -> ValkeyServer:
        """As a resource names it."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return ValkeyServer.model_validate({"url": f"redis://{host}:{port}", "timeout": timeout})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                command = await self._read(reader)
                if command == (b"PING",):
                    writer.write(PONG)
                    continue
                self.asked.append(command)
                answer = self.answers.pop(0) if self.answers else b"$%d\r\n%s\r\n" % (len(command[-1]), command[-1])
                if callable(answer):
                    await answer(writer)
                elif answer is not None:
                    writer.write(answer)
        self._writers.discard(writer)
        writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[bytes, ...]:
        count = int((await reader.readuntil(b"\r\n"))[1:])
        parts = []
        for _ in range(count):
            size = int((await reader.readuntil(b"\r\n"))[1:])
            parts.append((await reader.readexactly(size + 2))[:-2])
        return tuple(parts)
