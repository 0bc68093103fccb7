"""A server between the operator and its API server, which lets all pass, or makes it slow, or refuses.

It shows a certificate of the cluster's authority: the operator is told of it as of any API server, by
KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, and brings its token as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
from aiohttp import web

from local_ports import reserve_port

if TYPE_CHECKING:
    from cluster import Cluster

Mood = Literal["honest", "slow", "crowded", "gone"]
SLOW_S: Final = 3.0
"""By which each answer is late."""
_DROPPED: Final = frozenset({"host", "transfer-encoding", "content-length", "connection", "content-encoding"})


class Between:
    """One such server; ``mood`` holds from the next request on, and for watches that are open."""

    def __init__(self, cluster: Cluster) -> None:
        # No registry may be at the address of an API server: the operator asks none there.
        self.address, self.port = cluster.another_gateway(), reserve_port()
        pair = cluster.pki.sign("between", "kube-apiserver", addresses=[self.address, "kubernetes.default.svc"])
        self._serves = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._serves.load_cert_chain(pair.certificate, pair.key)
        self._asks = ssl.create_default_context(cafile=str(cluster.ca_file))
        self._server = cluster.server
        self._mood: Mood = "honest"
        self._loop = asyncio.new_event_loop()
        self._watches: set[asyncio.Task[Any]] = set()

    @property
    def mood(self) -> Mood:
        """What it does."""
        return self._mood

    @mood.setter
    def mood(self, mood: Mood) -> None:
        self._mood = mood
        if mood != "honest":
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for task in self._watches:
            task.cancel()

    @contextmanager
    def running(self) -> Iterator[Between]:
        """As long as the ``with`` lasts, in a thread."""
        started, stop = threading.Event(), asyncio.Event()

        async def run() -> None:
            connector = aiohttp.TCPConnector(ssl=self._asks, limit=0)
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, trust_env=False
            ) as self._session:
                app = web.Application(client_max_size=2**26)
                app.router.add_route("*", "/{path:.*}", self._pass)
                runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
                await runner.setup()
                await web.TCPSite(runner, self.address, self.port, ssl_context=self._serves, reuse_address=True).start()
                started.set()
                await stop.wait()
                self._cut()
                await runner.cleanup()

        thread = threading.Thread(target=self._loop.run_until_complete, args=(run(),), daemon=True)
        thread.start()
        started.wait()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join()
            self._loop.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        mood = self._mood
        watch = request.query.get("watch") in {"1", "true", "True"}
        if mood == "slow":
            await asyncio.sleep(SLOW_S)
        if mood == "crowded":
            return _refusal(429, "TooManyRequests", "the server has received too many requests", {"Retry-After": "1"})
        if mood == "gone" and watch:
            return _refusal(410, "Expired", "too old resource version", {})
        if not watch:
            return await self._forward(request)
        task = asyncio.ensure_future(self._forward(request))
        self._watches.add(task)
        try:
            return await task
        finally:
            self._watches.discard(task)
            task.cancel()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _DROPPED}
        body = await request.read()
        async with self._session.request(
            request.method, f"{self._server}{request.rel_url}", headers=headers, data=body or None
        ) as found:
            kept = {key: value for key, value in found.headers.items() if key.lower() not in _DROPPED}
            if encoding := found.headers.get("Content-Encoding"):
                kept["Content-Encoding"] = encoding
            answer = web.StreamResponse(status=found.status, headers=kept)
            await answer.prepare(request)
            with contextlib.suppress(aiohttp.ClientError):  # the API server went: so does this answer
                async for chunk in found.content.iter_any():
                    await answer.write(chunk)
            await answer.write_eof()
            return answer


def _refusal(code: int, reason: str, message: str, headers: dict[str, str]) -> web.Response:
    status = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip
    return web.Response(status=code, text=json.dumps(status), content_type="application/json", headers=headers)
