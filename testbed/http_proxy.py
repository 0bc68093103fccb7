"""An HTTP proxy on this machine: CONNECT for https, and whole URLs for http, as RFC 9110 has them.

It looks names up in a table of the test's, so that what only it knows can be asked for, and does what a real one will
not do on demand:

    async with HttpProxy({"registry.test": ("127.0.0.1", port)}) as proxy:
        proxy.password = "user:secret"    # it wants this login
        proxy.answer = 502                # it answers this to all
        proxy.silent = True               # it takes connections, and says nothing
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_PIECE = 64 * 1024


class HttpProxy:
    """One proxy. ``asked`` is the request line of each request, ``seen`` the heads as they came."""

    def __init__(self, names: Mapping[str, tuple[str, int]], *, tls: ssl.SSLContext | None = None) -> None:
        self.names = dict(names)
        self.password = ""
        self.answer: int | None = None
        self.silent = False
        self.asked: list[str] = []
        self.seen: list[str] = []
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """For the environment."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=_PIECE, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.strip().split("\r\n")
        self.asked.append(line)
        self.seen.append(head)
        if self.silent:
            await asyncio.Event().wait()
        method, url, _ = line.split(" ")
        login = "Basic " + base64.b64encode(self.password.encode()).decode()
        status = self.answer
        if self.password and f"proxy-authorization: {login}".lower() not in [each.lower() for each in fields]:
            status = 407
        host = urlsplit(f"//{url}" if method == "CONNECT" else url).hostname or ""
        if status is None and host not in self.names:
            status = 502
        if status is not None:
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        far_reader, far = await asyncio.open_connection(*self.names[host], limit=_PIECE)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                parts = urlsplit(url)
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                kept = [each for each in fields if not each.lower().startswith(("proxy-", "connection:"))]
                far.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode())
            both = [asyncio.ensure_future(_copy(reader, far)), asyncio.ensure_future(_copy(far_reader, writer))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            far.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await far.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
