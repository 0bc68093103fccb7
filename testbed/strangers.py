"""What strangers do to a server: connections that cost it something and never come to an end.

Each kind is a way to use one connection. ``besiege`` opens many of a kind at the same time and holds them for as long
as its block lasts; a connection that the server closes is a connection that has failed, and stays closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

Where = tuple[str, int] | Path
"""An address, or a unix socket."""

MANY: Final = 400
_STEP_S: Final = 0.02
_OPEN_S: Final = 30.0
_SETTLE_S: Final = 2.0
"""How long all of them do what they do before anybody looks."""
_PIECE: Final = 64 * 1024


class Line:
    """One connection of a stranger's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send it as far as the server takes it; not longer than a moment for one piece."""
        for at in range(0, len(data), _PIECE):
            self.writer.write(data[at : at + _PIECE])
            async with asyncio.timeout(2):
                await self.writer.drain()

    async def drip(self, data: bytes) -> None:
        """Send it byte by byte, for ever."""
        while True:
            for at in range(len(data)):
                self.writer.write(data[at : at + 1])
                await self.writer.drain()
                await asyncio.sleep(_STEP_S)

    @property
    def is_closed(self) -> bool:
        """Whether the server has ended it."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()


Kind = Callable[[Line], Awaitable[None]]
"""What is done with a connection; it may go on for ever."""


async def silent(_: Line) -> None:
    """Nothing at all."""


async def unfinished(line: Line) -> None:
    """A head of many large headers, without its end."""
    await line.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 8000) for n in range(100)))


async def just_allowed(line: Line) -> None:
    """As many headers as anybody takes, each as large as anybody takes, and not the end."""
    await line.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(30)))


async def small_headers(line: Line) -> None:
    """Headers of a byte, without end."""
    while True:
        await line.send(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 1000)
        await asyncio.sleep(_STEP_S)


async def dripping(line: Line) -> None:
    """A head, byte by byte."""
    await line.drip(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)


async def empty_lines(line: Line) -> None:
    """What parsers skip before a request."""
    while True:
        await line.send(b"\r\n" * 100)
        await asyncio.sleep(_STEP_S)


async def long_target(line: Line) -> None:
    """A request line without its end."""
    await line.send(b"GET /" + b"a" * 190_000)


def chunked(target: bytes, line: Line) -> Awaitable[None]:
    """A chunked body without end, in pieces, with extensions."""

    async def go() -> None:
        await line.send(
            b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        await line.send(b"10000;x=y\r\n" + b" " * 0x10000 + b"\r\n")
        await line.drip(b"1;z=" + b"a" * 1000 + b"\r\n \r\n")

    return go()


def cut_off(target: bytes, line: Line) -> Awaitable[None]:
    """A large body of which the last byte is always still to come."""

    async def go() -> None:
        await line.send(
            b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8000000\r\n\r\n" + b" " * 50_000
        )
        await line.drip(b" ")

    return go()


def idle(target: bytes, line: Line) -> Awaitable[None]:
    """One request, its answer, and silence."""

    async def go() -> None:
        await line.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await line.reader.readuntil(b"\r\n\r\n")

    return go()


def second_head(target: bytes, line: Line) -> Awaitable[None]:
    """One request, and with its last byte the beginning of another that never ends."""

    async def go() -> None:
        head = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(30))
        await line.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n" + head)

    return go()


def deaf(target: bytes, line: Line) -> Awaitable[None]:
    """Requests one behind the other, and no answer is read."""

    async def go() -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(TimeoutError):
            for _ in range(20):
                await line.send((b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n") * 500)

    return go()


def old(target: bytes, line: Line) -> Awaitable[None]:
    """HTTP/1.0 that wants to stay."""

    async def go() -> None:
        await line.send(b"GET " + target + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    return go()


def upgraded(target: bytes, token: str, line: Line) -> Awaitable[None]:
    """The beginning of a WebSocket, and silence."""

    async def go() -> None:
        await line.send(
            b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer " + token.encode() + b"\r\n\r\n" + b"x" * 60_000
        )

    return go()


def kinds(*, get: bytes, post: bytes, upgrade: bytes) -> dict[str, Kind]:
    """All of them, for a server with these paths."""
    return {
        "silent": silent, "unfinished": unfinished, "just allowed": just_allowed, "small headers": small_headers,
        "dripping": dripping, "empty lines": empty_lines, "long target": long_target,
        "chunked": functools.partial(chunked, post), "cut off": functools.partial(cut_off, post),
        "idle": functools.partial(idle, get), "second head": functools.partial(second_head, get),
        "deaf": functools.partial(deaf, get), "old": functools.partial(old, get),
        "upgraded": functools.partial(upgraded, upgrade, "e30.e30.AAAA"),
    }  # fmt: skip


@contextlib.asynccontextmanager
async def besiege(
    where: Where, kind: Kind, *, count: int = MANY, tls: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[list[Line]]:
    """So many connections of this kind, once each has done what it does for a moment; ``name`` is the server's."""
    lines: list[Line] = []

    async def one() -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_OPEN_S):
                line = await _open(where, tls, name)
            lines.append(line)
            await kind(line)

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    try:
        await asyncio.wait(tasks, timeout=_SETTLE_S)
        yield lines
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in lines:
            line.writer.transport.abort()
        await asyncio.sleep(0)


async def _open(where: Where, tls: ssl.SSLContext | None, name: str | None) -> Line:
    if isinstance(where, Path):
        return Line(*await asyncio.open_unix_connection(where))
    return Line(*await asyncio.open_connection(*where, ssl=tls, server_hostname=name if tls else None))


async def ask(where: Where, target: bytes, *, tls: ssl.SSLContext | None = None, name: str | None = None) -> int:
    """An honest request on a connection of its own; the status of its answer."""
    line = await _open(where, tls, name)
    try:
        await line.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await line.reader.read()
        return int(answer.split(b" ", 2)[1])
    finally:
        line.writer.transport.abort()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
