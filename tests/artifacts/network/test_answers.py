"""What arrives at once is bounded in heads and chunks, not in bytes alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from hookline_api.resources import HTTPSource
from hookline_artifacts.errors import FetchError

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.fixture
async def raw():
    """Starts a server that says these bytes to everybody, the second for as long as somebody reads."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(once, forever=b""):
            async def answer(reader, writer):
                with contextlib.suppress(ConnectionError):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(once)
                    while forever:
                        writer.write(forever)
                        await writer.drain()
                    await writer.drain()
                writer.close()

            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/module.wasm"

        yield serve


@pytest.mark.parametrize(
    ("once", "forever"),
    [(b"", _CONTINUE * 2000), (b"", _HINTS * 1000), (_CHUNKED, b"1\r\nx\r\n" * 10_000)],
    ids=["100", "103", "chunks of one byte"],
)
async def test_a_flood_of_heads_or_chunks_is_not_listened_to(raw, make_fetcher, once, forever):
    """Ten thousand objects of a quarter of a mebibyte, a third of a second of the event loop, for five minutes."""
    url = await raw(once, forever)
    with pytest.raises(FetchError, match="in more pieces than any honest server") as caught:
        await make_fetcher().fetch_http(HTTPSource(url=url, sha256="0" * 64))
    assert not caught.value.transient


async def test_honest_chunks_and_hints_are_read(raw, fetcher, oci):
    """Two heads before the answer, and chunks of two hundred bytes that all arrive at once."""
    module = oci.module("chunked", 300_000)
    chunks = [module[at : at + 200] for at in range(0, len(module), 200)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
    url = await raw(_CONTINUE + _HINTS + _CHUNKED + body)
    found = await fetcher.fetch_http(HTTPSource(url=url, sha256=hashlib.sha256(module).hexdigest()))
    assert found.path.read_bytes() == module
