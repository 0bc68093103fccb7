"""``http_fetch`` as a guest calls it, and servers for it to ask: honest ones by aiohttp, broken ones by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.host.http import HttpFunctions
from host_calls import Memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOPBACK = ["127.0.0.0/8"]
NAMES = ("api.test", "other.test", "evil.test")


class HttpGuest:
    """A plugin that asks."""

    def __init__(self, egress: list[dict[str, Any]], **fields: Any) -> None:
        settings = {"name": "guest", "permissions": ["http.fetch"], "egress": egress, "limits": {"wait": "60s"}}
        self.host = PluginHost(BundlePlugin.model_validate(settings | fields), HostContext())
        self._functions = {name: getattr(each, "run", each) for (_, name), each in self.host.functions().items()}

    @property
    def client(self) -> Any:
        """What asks on its behalf."""
        return client(self.host)

    async def raw(self, request: bytes) -> dict[str, Any]:
        """What these bytes come to."""
        memory = Memory(len(request) + 1024)
        return json.loads(await self._functions["http_fetch"](memory, *memory.put(512, request)))

    async def fetch(self, url: str, **request: Any) -> dict[str, Any]:
        """What a request comes to, as JSON says it."""
        return await self.raw(json.dumps({"url": url} | request).encode())

    async def post(self, url: str, kind: str, body: bytes) -> dict[str, Any]:
        """The same of ``http_post``."""
        memory = Memory(len(body) + 8192)
        places = (*memory.put(0, url.encode()), *memory.put(4096, kind.encode()), *memory.put(8000, body))
        return json.loads(await self._functions["http_post"](memory, *places))


def client(host: PluginHost) -> Any:
    """What asks on behalf of a plugin."""
    return next(each for each in host._families if isinstance(each, HttpFunctions))._client


def cause(answer: dict[str, Any]) -> str:
    """Why there is no response."""
    assert set(answer) == {"error"}, answer
    assert set(answer["error"]) == {"cause", "message"}
    return answer["error"]["cause"]


def body(answer: dict[str, Any]) -> bytes:
    """A response's body."""
    assert "error" not in answer, answer
    return base64.b64decode(answer["bodyBase64"]) if "bodyBase64" in answer else answer["body"].encode()


@dataclass
class Site:
    """A server that answers as a test says, and remembers what it was asked."""

    port: int = 0
    secure: bool = True
    host: str = "127.0.0.1"
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Methods, targets, headers (lower case) and bodies."""
    pages: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=dict)

    def url(self, path: str = "/", host: str | None = None) -> str:
        """Of a path."""
        return f"{'https' if self.secure else 'http'}://{host or self.host}:{self.port}{path}"

    def rule(self, **fields: Any) -> dict[str, Any]:
        """One that allows it, for a bundle whose credentials have the authority as ``tls/ca``."""
        rule = {"scheme": "https" if self.secure else "http", "host": self.host, "port": self.port}
        ca = {"caFrom": {"name": "tls", "key": "ca"}} if self.secure else {}
        return rule | {"addresses": LOOPBACK} | ca | fields

    def page(self, path: str, body: bytes | str = b"", status: int = 200, **headers: str) -> None:
        """Have a path answer this."""

        async def answer(_: web.Request) -> web.Response:
            raw = body.encode() if isinstance(body, str) else body
            return web.Response(status=status, body=raw, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.pages[path] = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.path_qs, headers, await request.read()))
        page = self.pages.get(request.rel_url.raw_path)
        return web.Response(status=404, text="no such page") if page is None else await page(request)


@contextlib.asynccontextmanager
async def served(tls: ssl.SSLContext | None, port: int = 0):
    """A site, as long as it is there."""
    site = Site(secure=tls is not None)
    server = web.Server(site.handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await place.start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def spoken(speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):
    """A server by hand, in the clear; ``speak`` is called after each head of a request has come. Its port."""
    open_ones: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await reader.readuntil(b"\r\n\r\n")
                await speak(reader, writer)
        finally:
            open_ones.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(open_ones):
            task.cancel()
        await server.wait_closed()
