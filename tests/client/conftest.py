"""Real sidecars, as the sidecar's own tests start them, and a server for the faults that a sidecar will not produce."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest

import sidecars
from waiting import PATIENCE_S, until_true

guests, new_sidecar, eventually, ports = sidecars.guests, sidecars.new_sidecar, sidecars.eventually, sidecars.ports
"""Fixtures."""


class FaultyServer:
    """Reads calls as they should be, and answers what a test says; on a unix socket."""

    def __init__(self, path):
        self.path = str(path)
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.bodies = []
        self.arrived = asyncio.Condition()
        self.ended = asyncio.Event()
        self._behave = None
        self._server = None
        self._writers = set()

    @contextlib.asynccontextmanager
    async def behaving(self, behave):
        """Serve; ``behave(peer, number)`` plays the connection of this number, from 0."""
        self._behave = behave
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        try:
            yield self
        finally:
            self._server.close()
            self.ended.set()
            for writer in self._writers:
                writer.transport.abort()
            await until_true(lambda: not self.open, "the end of all connections", pause=0)

    async def calls(self, count):
        """Return when so many calls have come."""
        async with asyncio.timeout(PATIENCE_S), self.arrived:
            await self.arrived.wait_for(lambda: len(self.bodies) >= count)

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        number, self.connections = self.connections, self.connections + 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._behave(Peer(self, reader, writer), number)
        finally:
            self.open -= 1
            writer.close()


class Peer:
    """One connection of the faulty server."""

    def __init__(self, server, reader, writer):
        self._server = server
        self._reader = reader
        self.writer = writer

    async def call(self):
        """The body of the next call."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
        async with self._server.arrived:
            self._server.bodies.append(body)
            self._server.arrived.notify_all()
        return body

    async def send(self, *pieces):
        """Write these pieces, each in a packet of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def frozen(self):
        """Read nothing for as long as the server is there."""
        self.writer.transport.pause_reading()
        await self._server.ended.wait()

    async def gone(self):
        """Return when the client has closed."""
        while await self._reader.read(65536):
            pass


@pytest.fixture
def faulty(tmp_path):
    """A server that behaves as a test says."""
    return FaultyServer(tmp_path / "faulty.sock")


@pytest.fixture(autouse=True)
def no_defect(caplog):
    """The loop catches what a protocol or a callback of ours raises, and would go on."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "asyncio"]
