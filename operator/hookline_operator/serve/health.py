"""The pages for kubelet and Prometheus: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from hookline_operator.cluster.sight import Sights
    from hookline_operator.metrics import Metrics
    from hookline_operator.webhooks.certificates import CertificateKeeper


class Health:
    """Whether this replica works, and whether it should be asked anything new."""

    def __init__(self, sights: Sights, certificates: CertificateKeeper, metrics: Metrics) -> None:
        self.synced = False
        """Whether all that is in the API was read once, and the HTTPS server listens."""
        self._sights = sights
        self._certificates = certificates
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """For the HTTP server."""
        return [
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._exposition),
        ]

    def not_ready(self) -> list[str]:
        """Why this replica should be asked nothing new, in sentences; none where it is ready."""
        if self.synced:
            reasons = self._sights.not_ready()
        else:
            reasons = self._sights.troubles() or ["what is in the Kubernetes API is not read completely yet"]
        return [*reasons, *self._certificates.not_ready()]

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self.not_ready()
        body = {"ready": not reasons, "reasons": reasons, "blind": self._sights.sentences()}
        return web.json_response(body, status=503 if reasons else 200)

    async def _exposition(self, _: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(body=self._metrics.exposition(), headers=headers)
