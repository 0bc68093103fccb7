"""``hello_httptools.py SOCKET``: a bare protocol on httptools and uvloop that reads a body and answers a constant.

It is the least that a Python server can do and still parse HTTP: no routes, no headers kept, one write for each
message.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import cast

import httptools  # type: ignore[import-not-found, unused-ignore]  # in the peers' environment
import uvloop

BODY = b'{"action":"node","target":"somewhere","plugin":"quick","request_id":"r-1","bundle":"0123456789ab"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Hello(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        mine = cast("asyncio.Transport", transport)
        self.write = mine.write
        self.close = mine.close

    def data_received(self, data: bytes) -> None:
        """Parse, and answer each message that is whole."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, as a server that wants to use it has to."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """Answer."""
        self.body.clear()
        self.write(ANSWER)


async def serve(path: str) -> None:
    """Answer until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(Hello, path)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
