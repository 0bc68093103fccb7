"""Who is calling: a service-account token of our own audience, asked of the API server.

Neither a name in a request nor an address counts; TokenReview names the pod that a token is bound to, and says no
when that pod is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_api.distribution import AUDIENCE
from hookline_operator.kube import KubeError, path

if TYPE_CHECKING:
    from aiohttp import web

    from hookline_operator.kube import Kube

_KEPT_S: Final = 20.0
"""How long an answer holds: a deleted pod's token opens nothing for longer than that."""
_KEPT: Final = 10_000
_MAX_TOKEN: Final = 16_384
_AT_ONCE: Final = 32
_EXTRA: Final = "authentication.kubernetes.io/pod-"
_ACCOUNT: Final = "system:serviceaccount:"


class DeniedError(Exception):
    """The caller is nobody we know (401), nobody that may do this (403), or cannot be asked about now (503)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Caller:
    """A service account, and the pod that its token is bound to."""

    namespace: str
    account: str
    pod: str | None
    pod_uid: str | None


class Reviewer:
    """Asks the API server about tokens."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def caller(self, request: web.Request) -> Caller:
        """Who sent this request. Raises DeniedError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN or not token.isascii():
            raise DeniedError(401, f"this takes a service-account token of the audience {AUDIENCE!r} as a Bearer token")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        async with self._places:
            caller = await self._review(token)
        self._known[digest] = (time.monotonic() + _KEPT_S, caller)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return caller

    async def _review(self, token: str) -> Caller:
        try:
            answer = await self._kube.request(
                "POST",
                path("authentication.k8s.io/v1", "tokenreviews"),
                body={
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview",
                    "spec": {"token": token, "audiences": [AUDIENCE]},
                },
            )
        except KubeError as error:
            raise DeniedError(503, f"the token cannot be checked now: {error}") from error
        status = answer.get("status") or {}
        # An API server that does not know audiences answers without them: such a token was not checked for ours.
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or []):
            why = status.get("error") or "it is not authenticated"
            raise DeniedError(401, f"the token is not good for the audience {AUDIENCE!r}: {why:.300}")
        user = status.get("user") or {}
        name = str(user.get("username", ""))
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        if not name.startswith(_ACCOUNT) or not account:
            raise DeniedError(403, "the token is no service account's")
        extra = user.get("extra") or {}
        pod, uid = (next(iter(extra.get(_EXTRA + part) or []), None) for part in ("name", "uid"))
        return Caller(namespace=namespace, account=account, pod=pod, pod_uid=uid)
