"""The admin surface: health, metrics, what runs, and the keys of plugins. Of the supervisor; no hook call comes here.

All of it is answered on a socket in the state folder, and on the port of ``--admin`` where that is this machine's
alone. The port of ``--health``, and one of ``--admin`` that others can reach, is for strangers: health and metrics,
without a word that a plugin, a registry or an operator has said. The rest, and what lies below ``/admin/`` on any
port, is for those whom ``access`` lets in; to a stranger those paths are all the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from hookline_serving import Bounds, Closed, HttpServer
from hookline_serving.bounds import MAX_HEAD
from hookline_sidecar import sockets
from hookline_sidecar.control.admin import kv as admin_kv
from hookline_sidecar.control.admin import metrics, openapi
from hookline_sidecar.control.admin.access import is_by_socket
from hookline_sidecar.control.admin.describe import describe
from hookline_sidecar.control.admin.metrics import Counters
from hookline_sidecar.replies import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hookline_sidecar.board import Board
    from hookline_sidecar.control.admin.access import Access
    from hookline_sidecar.control.admin.kv import KvAdmin
    from hookline_sidecar.control.view import View
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.sockets import AdminSockets

_PROTECTED: Final = "/admin/"
_HEALTH: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What probes and Prometheus ask, and all that strangers are answered."""
_HEALTH_BOUNDS: Final = Bounds()
_ADMIN_BOUNDS: Final = Bounds(line=admin_kv.MAX_REQUEST_LINE, head=admin_kv.MAX_REQUEST_LINE + MAX_HEAD)
"""A key is part of the path."""
_SHUTDOWN_S: Final = 1.0
_KEPT_S: Final = 1.0
"""How long strangers get the same metrics: to add them up takes some milliseconds, and nobody scrapes more often."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("hookline.admin")


class AdminServer:
    """Answers on the listening sockets, and on the socket ``path`` of the state folder."""

    def __init__(
        self,
        settings: Settings,
        listening: AdminSockets,
        path: Path,
        *,
        view: Callable[[], View],
        board: Board,
        access: Access,
        keys: KvAdmin,
        modules: Callable[[str], Path | None],
    ) -> None:
        """``modules`` has a module's file by its sha256, checked; it may block."""
        self._listening = listening
        self._path = path
        address = settings.admin
        exposed = address is not None and not _is_this_machine(address[0])
        if address is not None and exposed and settings.admin_token is None:
            log.warning(
                "--admin %s:%d can be reached by others, so it answers %s and nothing else; that is what --health is "
                "for. With --admin-token FILE, who has the token sees the rest, and the socket %s has it anyway",
                *address, ", ".join(sorted(_HEALTH)), path,
            )  # fmt: skip
        self.closed = {"health": Closed(), "admin": Closed()}
        """Connections that had to go, by where and why."""
        counters = Counters(board=board, closed=self.closed, access=access, keys=keys)
        health = _health(view, counters)
        whole = _application(view, counters, modules, exposed=exposed, is_folder=settings.plugins is not None)
        self._health = HttpServer(health, _HEALTH_BOUNDS, self.closed["health"], shutdown_timeout=_SHUTDOWN_S)
        self._admin = HttpServer(whole, _ADMIN_BOUNDS, self.closed["admin"], shutdown_timeout=_SHUTDOWN_S)

    async def open(self) -> None:
        """Begin. Raises OSError where the socket cannot be made."""
        if self._listening.health is not None:
            await self._health.listen(self._listening.health)
        if self._listening.admin is not None:
            await self._admin.listen(self._listening.admin)
        await self.open_socket()

    async def open_socket(self) -> None:
        """Make the socket in the state folder, in the place of what is there. Raises OSError."""
        await self._admin.listen(await asyncio.to_thread(sockets.listen_private, self._path))

    async def close(self) -> None:
        """Answer no more."""
        await self._health.close()
        await self._admin.close()
        await asyncio.to_thread(self._path.unlink, missing_ok=True)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name may mean anything by tomorrow
        return host.lower() == "localhost"


def _add_health(
    app: web.Application,
    view: Callable[[], View],
    counters: Counters,
    is_ours: Callable[[web.Request], Awaitable[bool]],
) -> None:
    """The paths of ``_HEALTH``; what plugins and others have said only for who is one of ours."""

    async def healthz(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        in_our_words = not await is_ours(request)
        reasons = view().not_ready(in_our_words=in_our_words)
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    kept, kept_until = b"", 0.0

    async def metric_text(request: web.Request) -> web.Response:
        nonlocal kept, kept_until
        if await is_ours(request):
            body = metrics.exposition(view(), counters, guests=True)
        elif (now := time.monotonic()) < kept_until:
            body = kept
        else:
            body = kept = metrics.exposition(view(), counters, guests=False)
            kept_until = now + _KEPT_S
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metric_text)


def _health(view: Callable[[], View], counters: Counters) -> web.Application:
    async def nobody(_: web.Request) -> bool:
        return False

    app = web.Application(middlewares=[_problems(sorted(_HEALTH))])
    _add_health(app, view, counters, nobody)
    return app


def _application(
    view: Callable[[], View],
    counters: Counters,
    modules: Callable[[str], Path | None],
    *,
    exposed: bool,
    is_folder: bool,
) -> web.Application:
    """All of it. ``exposed``: strangers can reach its TCP port."""
    access = counters.access

    def is_inside(request: web.Request) -> bool:
        return not exposed or is_by_socket(request)

    async def is_ours(request: web.Request) -> bool:
        return is_inside(request) or await access.try_admit(request)

    @web.middleware
    async def protected(request: web.Request, handler: _Handler) -> web.StreamResponse:
        # By the target as it came, which is also what is answered: no normal form of it may lead elsewhere.
        if request.raw_path.startswith(_PROTECTED):
            return await counters.keys.answer(request, await access.admit(request))
        if request.path not in _HEALTH and not is_inside(request):
            await access.admit(request)
        return await handler(request)

    app = web.Application(middlewares=[_problems([*openapi.ADMIN, admin_kv.ROOT]), protected])

    async def plugins(_: web.Request) -> web.Response:
        return _json(describe(view(), is_folder=is_folder))

    async def bundle(_: web.Request) -> web.Response:
        running = view().bundle
        if running is None:
            return Problem(404, "no bundle runs yet").reply().response()
        body = {"version": running.version, **running.redacted().model_dump(mode="json", by_alias=True)}
        for entry, plugin in zip(body["plugins"], running.plugins, strict=True):
            entry["revision"] = plugin.revision
        return _json(body)

    async def module(request: web.Request) -> web.StreamResponse:
        name = request.match_info["plugin"]
        entry = view().entry(name)
        if entry is None or entry.artifact is None:
            return Problem(404, f"nothing of a plugin {name!r:.80} runs").reply().response()
        path = await asyncio.to_thread(modules, entry.artifact.sha256)
        if path is None:
            gone = "it runs, and its module is not kept any more: it was compiled before"
            return Problem(404, f"plugin {name!r:.80}: {gone}").reply().response()
        return web.FileResponse(path, headers={"Content-Type": "application/wasm"})

    async def specification(_: web.Request) -> web.Response:
        return _json(openapi.document())

    _add_health(app, view, counters, is_ours)
    app.router.add_get("/v1/plugins", plugins)
    app.router.add_get("/v1/bundle", bundle)
    app.router.add_get("/v1/modules/{plugin}", module)
    app.router.add_get("/openapi.json", specification)
    return app


def _problems(paths: Sequence[str]) -> Any:
    """Answers what is refused as a problem document; ``paths`` are all that there are."""

    @web.middleware
    async def answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return problem.reply().response()
        except web.HTTPMethodNotAllowed as error:
            allow = error.headers["Allow"]
            return Problem(405, f"{request.method} is not answered here", allow=allow).reply().response()
        except web.HTTPNotFound:
            known = ", ".join(paths)
            detail = f"there is nothing at {request.path:.100}; this port has {known}, and hooks have another"
            return Problem(404, detail).reply().response()

    return answered


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
