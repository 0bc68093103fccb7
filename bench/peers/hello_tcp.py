"""``hello_tcp.py FILE``: a server on 127.0.0.1 that answers a constant to every head; it writes its port into FILE.

Quick enough that what is measured is its client.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import cast

BODY = b'{"keys":["%s"]}' % (b"x" * 1000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Hello(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each head that has ended."""
        *heads, self._begun = (self._begun + data).split(b"\r\n\r\n")
        self._transport.write(ANSWER * len(heads))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


async def serve(path: Path) -> None:
    """Answer until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Hello, "127.0.0.1", 0)
    _write(path, str(server.sockets[0].getsockname()[1]))
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
