"""Modules by digest: from this replica's store, else from the leader's, else from where the plugin's source is."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from hookline_operator.catalogue import parse_plugin
from hookline_runtime.artifacts.resolve import Objects, fetch, registry_access
from hookline_runtime.errors import FetchError, LoadError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hookline_api.bundle import BundlePlugin
    from hookline_operator.catalogue import Catalogue
    from hookline_runtime.artifacts import ArtifactStore, Fetcher

_CHECKED_S: Final = 5.0
"""How long a file's digest is taken for granted: two thousand sidecars ask within seconds, and check it themselves."""
_SMALL: Final = 2**20
"""Bytes of a module that is kept in memory meanwhile."""
_KEPT: Final = 16

log = logging.getLogger("hookline.blobs")


class Blob(NamedTuple):
    """A module on this replica's disk."""

    path: Path
    data: bytes | None
    """Where it is small: so that what two thousand sidecars ask for is not read two thousand times."""


class Blobs:
    """What sidecars download."""

    def __init__(
        self,
        store: ArtifactStore,
        fetcher: Fetcher,
        catalogue: Catalogue,
        objects: Objects,
        of_leader: Callable[[str, int], Awaitable[bytes | None]],
    ) -> None:
        """``of_leader`` gives a module of the leader's store by sha256 and size, or None where there is no other."""
        self._store = store
        self._fetcher = fetcher
        self._catalogue = catalogue
        self._objects = objects
        self._of_leader = of_leader
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._checked: dict[str, tuple[float, Blob]] = {}
        """By sha256: until when (monotonic) the file need not be looked at again. The oldest first."""

    async def find(self, namespace: str, entry: BundlePlugin) -> Blob:
        """The module of an entry, on this replica's disk. Raises LoadError."""
        assert entry.artifact is not None  # noqa: S101 - nobody can ask for the module of a placeholder
        sha256 = entry.artifact.sha256
        known = self._known(sha256)
        if known is not None:
            return known
        async with self._locks[sha256]:  # a thousand sidecars ask at the same moment: the first one looks
            known = self._known(sha256)
            if known is not None:
                return known
            try:
                found = await asyncio.to_thread(self._look, sha256)
                if found is None and await self._take_from_leader(sha256, entry.artifact.size):
                    found = await asyncio.to_thread(self._look, sha256)
                if found is None:
                    await self._fetch(namespace, entry)
                    found = await asyncio.to_thread(self._look, sha256)
            finally:
                self._locks.pop(sha256, None)
        if found is None:
            raise VerifyError("its source now gives other bytes for the same digest, or the cache is too small for it")
        now = time.monotonic()
        self._checked.pop(sha256, None)
        while self._checked:
            oldest = next(iter(self._checked))
            if self._checked[oldest][0] > now and len(self._checked) < _KEPT:
                break
            del self._checked[oldest]
        self._checked[sha256] = (now + _CHECKED_S, found)
        return found

    def _known(self, sha256: str) -> Blob | None:
        known = self._checked.get(sha256)
        return known[1] if known is not None and known[0] > time.monotonic() else None

    def _look(self, sha256: str) -> Blob | None:
        """What the store has, if it has it whole."""
        path = self._store.module(sha256)
        if path is None:
            return None
        try:
            return Blob(path, path.read_bytes() if path.stat().st_size <= _SMALL else None)
        except OSError:  # somebody cleans up at this moment
            return None

    async def _take_from_leader(self, sha256: str, size: int) -> bool:
        try:
            data = await self._of_leader(sha256, size)
        except LoadError as error:
            log.info("module %.12s is asked of its source: %s", sha256, error)
            return False
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            return False

        def keep(data: bytes) -> None:
            with self._store.scratch() as file:
                file.write(data)
                # Under its own digest, as a plain file: what its manifest says of it is not known here.
                self._store.add(
                    file, digest=f"sha256:{sha256}", sha256=sha256, size=len(data), layout="raw", description=None
                )

        await asyncio.to_thread(keep, data)
        return True

    async def _fetch(self, namespace: str, entry: BundlePlugin) -> None:
        plugin = self._catalogue.plugin((namespace, entry.name))
        revision = self._catalogue.current(plugin) if plugin is not None else None
        if revision is None:
            raise FetchError("the plugin is gone")
        try:
            template = revision.parsed()
            resource = parse_plugin(namespace, template.plugin, revision.plugin_uid, 0, template.spec)
        except ValidationError:
            raise FetchError(f"revision '{revision.name}' was stored by another version of the operator") from None
        access = None
        if resource.spec.source.oci is not None:
            more = self._catalogue.default_pull_secrets.get(namespace, ())
            access = await registry_access(resource.spec.source.oci, namespace, self._objects, more)
        await fetch(resource, self._fetcher, self._objects, digest=template.artifact.digest, access=access)
