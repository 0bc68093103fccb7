"""``hello_aiohttp.py SOCKET``: aiohttp on uvloop that reads a body and answers a constant, and nothing else."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from aiohttp import web

ANSWER = b'{"action":"node","target":"somewhere","plugin":"quick","request_id":"r-1","bundle":"0123456789ab"}'


async def serve(path: str) -> None:
    """Answer until SIGTERM."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

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
    uvloop.run(serve(sys.argv[1]))
