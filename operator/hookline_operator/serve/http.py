"""The operator's two HTTP servers, and how much strangers may take of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from hookline_serving import Bounds, Closed, HttpServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

HEALTH_BOUNDS: Final = Bounds()
HTTPS_BOUNDS: Final = Bounds(
    fresh=256, unproven=2048, unproven_of_one=256, every=4096, of_one=1536, arriving=64 * 2**20
)  # fmt: skip
"""After a restart, all sidecars of a fleet come at once: two thousand may say hello. Each has an address of its own, or
all have the same one behind a gateway or a node. From one address come as many hellos at a time as take half a
second, and as many questions as wait for a review. Connections that are known (``vouch``) are counted by
``Distribution``. Reviews have bounds of their own (``reviews``), within those bytes."""


async def serve(
    routes: Iterable[web.RouteDef],
    where: tuple[str, int],
    *,
    bounds: Bounds,
    closed: Closed,
    tls: ssl.SSLContext | None = None,
) -> HttpServer:
    """A server that listens; ``closed`` counts the connections that it ends. Raises OSError."""
    app = web.Application()
    app.add_routes(routes)
    server = HttpServer(app, bounds, closed, shutdown_timeout=2, handler_cancellation=True)
    await server.listen(where, tls=tls)
    return server
