"""What one machine can do with connections alone: heads that never end, drips, floods, and answers that nobody reads.

All of them run for some seconds on the event loop of a process of their own, and count what they sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

_LINE: Final = b"x-filler: " + b"a" * 8000 + b"\r\n"
"""A header as long as aiohttp takes one by default."""
_DRIP_S: Final = 0.2

Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def source(number: int) -> tuple[str, int]:
    """An address that attacks come from, and no honest call: an attacker is not the one whom he wants to harm."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}", 0


def tcp(host: str, port: int, *, sources: int = 1) -> Open:
    """Opens plain connections, from so many addresses in turn."""
    turns = itertools.cycle(range(sources))
    return lambda: asyncio.open_connection(host, port, local_addr=source(next(turns)), limit=2**16)


def tls(host: str, port: int, ca: str, server_name: str) -> Open:
    """Opens connections that have done their handshake."""
    trust = ssl.create_default_context(cafile=ca)
    return lambda: asyncio.open_connection(
        host, port, ssl=trust, server_hostname=server_name, local_addr=source(0), limit=2**16
    )


async def unfinished_heads(
    opened: Open, *, count: int, lines: int, seconds: float, path: str = "/healthz"
) -> Counter[str]:
    """So many connections at a time, each with a head of so many long lines, and no end of it.

    Who is thrown out comes again.
    """
    begin = f"GET {path} HTTP/1.1\r\nhost: x\r\n".encode()

    async def one(writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        writer.write(begin)
        for _ in range(lines):
            if writer.is_closing():
                return
            writer.write(_LINE)
            await writer.drain()
            told["bytes"] += len(_LINE)
        await _until_closed(writer)

    return await _crowd(opened, one, count=count, seconds=seconds)


async def dripping_heads(opened: Open, *, count: int, seconds: float) -> Counter[str]:
    """Heads that go on: a byte each fifth of a second."""

    async def one(writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ")
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            told["bytes"] += 1
            await asyncio.sleep(_DRIP_S)  # the fault itself

    return await _crowd(opened, one, count=count, seconds=seconds)


async def dripping_bodies(opened: Open, *, count: int, seconds: float, path: str) -> Counter[str]:
    """Bodies that were promised to be large, and come a byte at a time."""

    async def one(writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 8000000\r\n\r\n"
        writer.write(head.encode())
        while not writer.is_closing():
            writer.write(b"[")
            await writer.drain()
            told["bytes"] += 1
            await asyncio.sleep(_DRIP_S)  # the fault itself

    return await _crowd(opened, one, count=count, seconds=seconds)


async def idle_connections(opened: Open, *, count: int, seconds: float) -> Counter[str]:
    """Connections on which nothing is ever said."""

    async def one(writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        told["bytes"] += 0
        await _until_closed(writer)

    return await _crowd(opened, one, count=count, seconds=seconds)


async def slow_readers(opened: Open, *, count: int, requests: int, seconds: float, request: bytes) -> Counter[str]:
    """So many requests on each connection, and no answer is read."""

    async def one(writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(requests):
            if writer.is_closing():
                return
            writer.write(request)
            await writer.drain()
            told["bytes"] += len(request)
        await asyncio.Event().wait()

    return await _crowd(opened, one, count=count, seconds=seconds)


async def bodies(opened: Open, *, count: int, seconds: float, path: str, body: bytes) -> Counter[str]:
    """Whole requests with this body, from so many at a time, one after the other."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Counter[str]) -> None:
        writer.write(head)
        writer.write(body)
        told["bytes"] += len(body)
        first = await reader.readline()
        told[f"answers {first[9:12].decode(errors='replace') or 'none'}"] += 1
        while await reader.read(2**16):
            pass

    return await _crowd(opened, None, count=count, seconds=seconds, both=one)


async def _crowd(
    opened: Open,
    one: Callable[[asyncio.StreamWriter, Counter[str]], Awaitable[None]] | None,
    *,
    count: int,
    seconds: float,
    both: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Counter[str]], Awaitable[None]] | None = None,
) -> Counter[str]:
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds

    async def member() -> None:
        while time.monotonic() < end:
            told["tried"] += 1
            try:
                reader, writer = await opened()
            except (OSError, asyncio.IncompleteReadError):
                told["refused"] += 1
                await asyncio.sleep(0.1)  # who is refused comes again, and not at full speed
                continue
            told["connections"] += 1
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, end - time.monotonic())):
                    if both is not None:
                        await both(reader, writer, told)
                    elif one is not None:
                        await one(writer, told)
                told["closed by it"] += 1
            except TimeoutError:
                pass
            except (OSError, asyncio.IncompleteReadError, ValueError):
                told["closed by it"] += 1
            finally:
                if writer.transport is not None:
                    writer.transport.abort()
                with contextlib.suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()
            await asyncio.sleep(0.02)

    await asyncio.gather(*(member() for _ in range(count)))
    return told


async def _until_closed(writer: asyncio.StreamWriter) -> None:
    """Stay until the other side has enough of it."""
    while not writer.is_closing():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.1)  # the end of a connection that nobody reads is seen by looking
