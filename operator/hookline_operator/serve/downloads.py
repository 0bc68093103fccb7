"""Downloads of modules, and of what proves them, by their digest: by a pod whose bundle names it, or by a peer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from hookline_api.distribution import BLOBS_PATH
from hookline_artifacts.errors import LoadError
from hookline_operator.rations import Rations
from hookline_operator.serve.identity import Caller, DeniedError
from hookline_operator.serve.sending import download
from hookline_operator.serve.sessions import denied
from hookline_serving import vouch

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import BundlePlugin
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.serve.blobs import Blob
    from hookline_operator.serve.bundles import Bundles
    from hookline_operator.serve.callers import Callers
    from hookline_operator.serve.identity import Reviewer

_ASKED: Final = 1_000
_ASKED_EACH_SECOND: Final = 20.0
"""Requests of one pod for modules, each a look at its bundle. At once: every plugin of the largest bundle."""
_DOWNLOADS_AT_ONCE: Final = 8
"""Downloads of one pod at once. A sidecar makes four; one that nobody reads holds some memory."""


class HasBlobs(Protocol):
    """The blobs of bundles' entries."""

    def has(self, namespace: str, entry: BundlePlugin, sha256: str) -> bool:
        """Whether an entry of a namespace has such a blob."""

    async def fetch(self, namespace: str, entry: BundlePlugin, sha256: str = "") -> Blob:
        """Find it. Raises LoadError."""


class Downloads:
    """The downloads of this replica."""

    def __init__(
        self,
        catalogue: Catalogue,
        bundles: Bundles,
        reviewer: Reviewer,
        callers: Callers,
        blobs: HasBlobs,
        *,
        is_peer: Callable[[Caller], bool],
    ) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._reviewer = reviewer
        self._callers = callers
        self._blobs = blobs
        self._is_peer = is_peer
        self._asked: Rations[str] = Rations(burst=_ASKED, each_second=_ASKED_EACH_SECOND)
        """By the pod's uid, as what is under way."""
        self._under_way: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [web.get(BLOBS_PATH + "{sha256}", self._blob, allow_head=False)]

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        """A module, for a pod whose bundle names it, or for a peer."""
        sha256 = request.match_info["sha256"]
        try:
            caller = await self._reviewer.identify(request)
            found = await self._look_up(caller, sha256, request.query.get("namespace"))
        except DeniedError as error:
            return denied(error)
        namespace, entry = found
        pod = caller.pod_uid or ""
        if self._under_way[pod] >= _DOWNLOADS_AT_ONCE and not self._is_peer(caller):
            return denied(DeniedError(503, f"this pod has {_DOWNLOADS_AT_ONCE} downloads under way; end one first"))
        vouch(request)
        self._under_way[pod] += 1
        try:
            blob = await self._blobs.fetch(namespace, entry, sha256)
        except BaseException as error:
            self._downloaded(pod)
            if isinstance(error, LoadError):
                return denied(DeniedError(503, f"the file cannot be fetched now: {error}"))
            raise
        return download(request, blob, lambda: self._downloaded(pod))

    def _downloaded(self, pod: str) -> None:
        self._under_way[pod] -= 1
        if not self._under_way[pod]:
            del self._under_way[pod]

    async def _look_up(self, caller: Caller, sha256: str, namespace: str | None) -> tuple[str, BundlePlugin]:
        """The entry that names this blob, of those that the caller may have. Raises DeniedError.

        A peer says for which namespace it asks, whose right to the module is then looked at.
        """
        if self._is_peer(caller):
            for plugin in self._catalogue.all_plugins():
                if namespace not in {None, plugin.namespace}:
                    continue
                revision = self._catalogue.to_run(plugin)
                if revision is not None and sha256.encode() in revision.template:
                    offer = await self._bundles.offer(plugin)
                    if offer is not None and self._blobs.has(plugin.namespace, offer.entry, sha256):
                        return plugin.namespace, offer.entry
        else:
            pod = await self._callers.look_up(caller)
            if not self._asked.of(pod.uid).take():
                raise DeniedError(429, "this pod asks for modules too often; try again later")
            bundle = (await self._bundles.of_pod(pod)).bundle
            for entry in bundle.plugins:
                if self._blobs.has(pod.namespace, entry, sha256):
                    return pod.namespace, entry
        # Whether it exists elsewhere is nobody's business.
        raise DeniedError(404, "no plugin of this pod has such a module")
