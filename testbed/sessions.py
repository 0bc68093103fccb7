"""aiohttp sessions whose end is the end of their connections too.

A connection of TLS that is closed says goodbye first, and waits for the other side's; aiohttp's session does not wait
for it. A loop that ends meanwhile leaves an open socket behind, which a test much later is blamed for.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from waiting import until_true


@contextlib.asynccontextmanager
async def client_session(
    base_url: str | None = None, *, headers: dict[str, str] | None = None, **connector: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session; what it is not told itself are options of its ``aiohttp.TCPConnector``."""
    sockets: list[socket.socket] = []

    def opened(address: Any) -> socket.socket:
        sockets[:] = [each for each in sockets if each.fileno() != -1]
        sockets.append(socket.socket(*address[:3]))
        return sockets[-1]

    made = aiohttp.TCPConnector(socket_factory=opened, **connector)
    async with aiohttp.ClientSession(base_url, headers=headers, connector=made) as session:
        yield session
    await until_true(lambda: all(each.fileno() == -1 for each in sockets), "the end of all sockets")
