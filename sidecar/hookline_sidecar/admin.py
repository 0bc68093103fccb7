"""The admin port: health, metrics, what runs, and the keys of plugins. Of the supervisor; no hook call comes here.

The same is answered on a socket in the state folder. Paths below ``/admin/`` are for those alone whom ``admin_access``
lets in; to a stranger they are all the same.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from hookline_runtime import accelerator
from hookline_sidecar import admin_kv, metrics, openapi, sockets
from hookline_sidecar.replies import Refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hookline_sidecar.slots import Slot
    from hookline_sidecar.supervisor import Supervisor


_PROTECTED: Final = "/admin/"


class AdminServer:
    """Answers on ``door``, the socket of ``--admin``, and on the socket ``path`` of the state folder."""

    def __init__(self, supervisor: Supervisor, door: socket.socket, path: Path) -> None:
        self._door = door
        self._path = path
        self._runner = web.AppRunner(
            _application(supervisor),
            access_log=None,
            shutdown_timeout=1,
            lingering_time=1,
            max_line_size=admin_kv.MAX_REQUEST_LINE,
        )

    async def open(self) -> None:
        """Begin. Raises OSError where the socket cannot be made."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._door).start()
        await self.open_socket()

    async def open_socket(self) -> None:
        """Make the socket in the state folder, in the place of what is there. Raises OSError."""
        listening = await asyncio.to_thread(sockets.listen_private, self._path)
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()
        await asyncio.to_thread(self._path.unlink, missing_ok=True)


def _application(supervisor: Supervisor) -> web.Application:
    @web.middleware
    async def protected(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # By the target as it came, which is also what is answered: no normal form of it may lead elsewhere.
        if not request.raw_path.startswith(_PROTECTED):
            return await handler(request)
        return await supervisor.kv_admin.answer(request, await supervisor.access.caller(request))

    app = web.Application(middlewares=[_problems, protected])

    async def healthz(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = supervisor.not_ready()
        return _json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def metric_text(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(supervisor), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def plugins(_: web.Request) -> web.Response:
        return _json(describe(supervisor))

    async def bundle(_: web.Request) -> web.Response:
        if supervisor.bundle is None:
            return Refused(404, "no bundle runs yet").reply().response()
        shown = supervisor.bundle.redacted()
        body = {"version": supervisor.bundle.version, **shown.model_dump(mode="json", by_alias=True)}
        for entry, plugin in zip(body["plugins"], supervisor.bundle.plugins, strict=True):
            entry["revision"] = plugin.revision
        return _json(body)

    async def specification(_: web.Request) -> web.Response:
        return _json(openapi.document())

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metric_text)
    app.router.add_get("/v1/plugins", plugins)
    app.router.add_get("/v1/bundle", bundle)
    app.router.add_get("/openapi.json", specification)
    return app


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return refused.reply().response()
    except web.HTTPMethodNotAllowed as error:
        allow = error.headers["Allow"]
        return Refused(405, f"{request.method} is not answered here", allow=allow).reply().response()
    except web.HTTPNotFound:
        paths = ", ".join((*openapi.ADMIN, admin_kv.ROOT))
        detail = f"there is nothing at {request.path:.100}; this port has {paths}, and hooks have another"
        return Refused(404, detail).reply().response()


def describe(supervisor: Supervisor) -> dict[str, Any]:
    """Every plugin that the source asks for, what is done for it, and what is wrong."""
    return {
        "source": supervisor.source.describe(),
        "bundle": supervisor.bundle.version if supervisor.bundle else None,
        "workers": {
            "wanted": supervisor.fleet.size,
            "current": supervisor.fleet.running(supervisor.bundle.version) if supervisor.bundle else 0,
            "accelerator": accelerator.unused or "used",
        },
        "plugins": [_plugin(supervisor, slot) for _, slot in sorted(supervisor.slots.items())],
        "problems": [
            {"file": each.file, "field": each.field, "message": each.message, "plugin": each.plugin}
            for each in supervisor.source.problems
        ],
    }


def _plugin(supervisor: Supervisor, slot: Slot) -> dict[str, Any]:
    entry = supervisor.entry(slot.name)
    reports = [report[slot.name] for report in supervisor.fleet.reports() if slot.name in report]
    failures = [report["last_failure"] for report in reports if report["last_failure"]]
    return {
        "name": slot.name,
        "manifest": slot.wanted.file or (entry.origin if entry and supervisor.settings.plugins else None),
        "state": supervisor.state_of(slot),
        "failure": slot.failure.model_dump() if slot.failure else None,
        "revision": entry.revision if entry else None,
        "artifact": entry.artifact.model_dump(mode="json", by_alias=True) if entry and entry.artifact else None,
        "hooks": [hook.value for hook in entry.hooks] if entry else [],
        "priority": entry.priority if entry else None,
        "mode": entry.mode if entry else None,
        "description": {"version": slot.resolved.description.version, "notes": slot.resolved.notes}
        if slot.resolved
        else None,
        "ungranted": slot.resolved.ungranted if slot.resolved else [],
        "inline": all(report["inline"] for report in reports) if reports else None,
        "off_the_road": [
            {
                "hook": hook,
                "failures": facts["failures"],
                "for_seconds": round(max(0, facts["until"] - time.time()), 1),
            }
            for report in reports
            for hook, facts in report["off_the_road"].items()
        ],
        "last_failure": max(failures, key=lambda failure: float(failure["at"]), default=None),
        "denied": _sum(reports, "denied"),
        "refused": _sum(reports, "refused"),
        "stats": {hook.value: _stats(summary) for hook, summary in metrics.summaries(supervisor, slot.name).items()},
    }


def _stats(summary: Any) -> dict[str, Any]:
    return {
        "calls": summary.calls,
        "skipped": summary.skipped,
        "failures": summary.failures,
        "dropped": summary.dropped,
        "waited": summary.waited,
        "waited_seconds": round(summary.waited_seconds, 6),
        "p50_us": summary.quantile(0.5),
        "p90_us": summary.quantile(0.9),
        "p99_us": summary.quantile(0.99),
        "fuel": summary.fuel,
        "memory_max_bytes": summary.memory,
    }


def _sum(reports: list[dict[str, Any]], field: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for report in reports:
        for name, count in report[field].items():
            total[name] = total.get(name, 0) + count
    return total


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
