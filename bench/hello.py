"""The peer of the hook endpoint: aiohttp on uvloop that reads a body and answers a constant, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

_ANSWER: Final = b'{"action":"node","target":"somewhere","plugin":"quick","request_id":"r-1","bundle":"0123456789ab"}'


@contextlib.asynccontextmanager
async def hello() -> AsyncIterator[str]:
    """The peer in a process of its own; its unix socket."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        path = Path(folder) / "hello.sock"
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, path)
        try:
            while not path.exists() and process.returncode is None:  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.02)
            yield str(path)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _serve(path: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/hooks/{hook}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
