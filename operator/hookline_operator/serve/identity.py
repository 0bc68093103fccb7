"""Who is calling: a service-account token of our own audience, asked of the API server.

Neither a name in a request nor an address counts; TokenReview names the pod that a token is bound to, and says no
when that pod is gone. A review costs the API server a signature and us a place, and anybody can send tokens. So:

- what a look at the token's own claims shows to be wrong is refused without a review (never the other way round:
  what claims say is believed of nobody);
- an answer is remembered, a refusal too, and a token is under review once however many connections bring it;
- each address has a ration of tokens that turn out to be bad. A token that claims a pod that is really there has one of
  its own, and places of its own: strangers do not stand before sidecars in the queue, even behind the same address.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.distribution import AUDIENCE, MAX_TOKEN
from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.rations import Ration, Rations

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from hookline_operator.cluster.kube import Kube

_KEPT_S: Final = 20.0
"""How long an answer holds: a deleted pod's token opens nothing for longer than that."""
_KEPT: Final = 10_000
_REFUSED_S: Final = 10.0
"""Seconds that a refusal holds. They are few, because the API server may learn of a token's pod later."""
_REFUSED: Final = 10_000
"""Refusals that are remembered, at some 500 bytes each. They are apart from good answers, so that no flood pushes those
out."""
_MAX_CLAIMS: Final = 8_192
"""Characters of a token's middle part that are looked at; a projected token has some 600."""
_CLOCKS_S: Final = 600.0
"""How far our clock may be from the API server's, which alone says that a token has expired."""
_OF_PODS: Final = 16
"""Reviews at the same time of tokens that claim a pod of ours."""
_OF_OTHERS: Final = 16
"""Reviews at the same time of all other tokens."""
_BAD_AT_ONCE: Final = 8
"""Tokens of one address, or of one pod's name behind it, that may be under review or refused before others of it have
to wait. They are half of all reviews at a time, so it takes two addresses to fill them."""
_BAD_EACH_SECOND: Final = 0.5
"""How many more such tokens there may be in each second. A sidecar with a bad token comes once in 30 seconds."""
_WAITING: Final = 1_024
"""Callers that wait for a review at the same time, from whatever addresses."""
_SHARED_BITS: Final = 64
"""Bits of an IPv6 address that count: whoever has one address has all that begin with them."""
_EXTRA: Final = "authentication.kubernetes.io/pod-"
_ACCOUNT: Final = "system:serviceaccount:"


class DeniedError(Exception):
    """The caller is unknown (401), may not do this (403), asks too often (429), or cannot be judged now (503)."""

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
    """Asks the API server whose tokens these are."""

    def __init__(
        self,
        kube: Kube,
        *,
        is_pod: Callable[[str, str, str], bool] = lambda *_: False,
        counted: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``is_pod`` tells whether a namespace, a name and a uid are those of a pod with a sidecar.

        ``counted`` is called with how each question ended: ``known`` and ``remembered`` (good and bad ones, without a
        review), ``malformed`` (by a look), ``share``, ``crowded``, and of reviews ``good``, ``refused`` and
        ``unanswered``.
        """
        self._kube = kube
        self._is_pod = is_pod
        self._counted = counted
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, int, str]] = OrderedDict()
        self._under_review: dict[bytes, asyncio.Task[Caller]] = {}
        self._bad: Rations[tuple[str, str]] = Rations(burst=_BAD_AT_ONCE, each_second=_BAD_EACH_SECOND)
        """By address, and the uid of the pod that is claimed and there, or nothing."""
        self._of_pods = asyncio.Semaphore(_OF_PODS)
        self._of_others = asyncio.Semaphore(_OF_OTHERS)

    async def identify(self, request: web.Request) -> Caller:
        """Find who sent this request, by a review if need be. Raises DeniedError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN or not token.isascii():
            raise DeniedError(401, f"this takes a service-account token of the audience {AUDIENCE!r} as a Bearer token")
        digest = hashlib.sha256(token.encode()).digest()
        now = time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            self._counted("known")
            return known[1]
        refused = self._refused.get(digest)
        if refused is not None and refused[0] > now:
            self._counted("remembered")
            raise DeniedError(refused[1], refused[2])
        task = self._under_review.get(digest)
        if task is None:
            task = self._begin(token, digest, _shared(request.remote or ""))
        # Whoever brought it first may hang up, and is not the only one.
        return await asyncio.shield(task)

    def _begin(self, token: str, digest: bytes, address: str) -> asyncio.Task[Caller]:
        """Have it reviewed. Raises DeniedError where that is not worth a review, or not this caller's turn."""
        claims = _claims(token)
        why = "it is not a JSON Web Token" if claims is None else _wrong(claims)
        if claims is None or why:
            self._counted("malformed")
            raise DeniedError(401, f"the token is not good for the audience {AUDIENCE!r}: {why}")
        uid = self._claimed_pod(claims)
        ration = self._bad.of((address, uid))
        if not ration.take():
            self._counted("share")
            raise DeniedError(429, "this address has sent too many tokens that are not good; try again later")
        if len(self._under_review) >= _WAITING:
            ration.give()
            self._counted("crowded")
            raise DeniedError(503, "too many tokens are being checked; try again later")
        permits = self._of_pods if uid else self._of_others
        task = asyncio.create_task(self._review_once(token, digest, permits, ration), name="review")
        self._under_review[digest] = task
        task.add_done_callback(lambda task: self._ended(digest, task))
        return task

    def _ended(self, digest: bytes, task: asyncio.Task[Caller]) -> None:
        del self._under_review[digest]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: then nobody else looks at it

    def _claimed_pod(self, claims: dict[str, Any]) -> str:
        """The uid of the pod that it says it is of, where there is such a pod; else nothing."""
        # https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#schema-for-service-account-private-claims
        bound = claims.get("kubernetes.io")
        pod = bound.get("pod") if isinstance(bound, dict) else None
        if not isinstance(bound, dict) or not isinstance(pod, dict):
            return ""
        told = bound.get("namespace"), pod.get("name"), pod.get("uid")
        namespace, name, uid = (each if isinstance(each, str) else "" for each in told)
        return uid if self._is_pod(namespace, name, uid) else ""

    async def _review_once(self, token: str, digest: bytes, permits: asyncio.Semaphore, ration: Ration) -> Caller:
        try:
            async with permits:
                caller = await self._review(token)
        except DeniedError as error:
            if error.status == 503:  # noqa: PLR2004 - nobody's fault that is here
                ration.give()
                self._counted("unanswered")
            else:
                _keep(self._refused, digest, (time.monotonic() + _REFUSED_S, error.status, str(error)), _REFUSED)
                self._counted("refused")
            raise
        ration.give()
        self._counted("good")
        _keep(self._known, digest, (time.monotonic() + _KEPT_S, caller), _KEPT)
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
            raise DeniedError(403, "the token does not belong to a service account")
        extra = user.get("extra") or {}
        pod, uid = (next(iter(extra.get(_EXTRA + part) or []), None) for part in ("name", "uid"))
        return Caller(namespace=namespace, account=account, pod=pod, pod_uid=uid)


def _keep(kept: OrderedDict[bytes, Any], digest: bytes, value: object, most: int) -> None:
    kept[digest] = value
    kept.move_to_end(digest)
    while len(kept) > most:
        kept.popitem(last=False)


def _claims(token: str) -> dict[str, Any] | None:
    """What a token says of itself, unchecked; None where it cannot be read."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or len(parts[1]) > _MAX_CLAIMS:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        claims = orjson.loads(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars="-_", validate=True))
    except (binascii.Error, ValueError):
        return None
    return claims if isinstance(claims, dict) else None


def _wrong(claims: dict[str, Any]) -> str:
    """What is certainly wrong with claims, whoever signed them; empty where it may be right."""
    audience, expires = claims.get("aud"), claims.get("exp")
    if audience != AUDIENCE and not (isinstance(audience, list) and AUDIENCE in audience):
        return "it is for another"
    if isinstance(expires, int | float) and expires < time.time() - _CLOCKS_S:
        return "it has expired"
    return ""


def _shared(address: str) -> str:
    """What stands for everybody who may be behind an address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket file
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _SHARED_BITS), strict=False))
