"""Modules by digest: from this replica's store, else from the leader's, else from the plugin's source."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from hookline_artifacts.errors import FetchError, LoadError, VerifyError
from hookline_artifacts.resolve import fetch, registry_access
from hookline_artifacts.threads import in_thread, on_behalf_of
from hookline_operator.cluster.plugins import parse_plugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hookline_api.bundle import BundleArtifact, BundlePlugin
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.store import ArtifactStore
    from hookline_operator.cluster.catalogue import Catalogue

_CHECKED_S: Final = 5.0
"""Seconds that a file's digest is trusted. Two thousand sidecars ask within seconds, and check it themselves."""
_SMALL: Final = 2**20
"""Bytes of a module that is kept in memory meanwhile, and of how many."""
_KEPT: Final = 16

log = logging.getLogger("hookline.blobs")


class Blob(NamedTuple):
    """A module on this replica's disk."""

    path: Path
    data: bytes | None
    """The bytes of a small module, so that two thousand downloads do not read it two thousand times."""


class Blobs:
    """The modules that sidecars download."""

    def __init__(
        self,
        store: ArtifactStore,
        fetcher: Fetcher,
        catalogue: Catalogue,
        objects: Objects,
        of_leader: Callable[[str, str, int], Awaitable[bytes | None]],
    ) -> None:
        """``of_leader`` gives a namespace's module from the leader's store, by sha256 and size.

        It gives None where no other replica leads.
        """
        self._store = store
        self._fetcher = fetcher
        self._catalogue = catalogue
        self._objects = objects
        self._of_leader = of_leader
        self._looking: dict[tuple[str, str], asyncio.Task[Blob]] = {}
        """By namespace, whose credentials count, and sha256."""
        self._checked: dict[tuple[str, str], tuple[float, Blob]] = {}
        """By namespace and sha256: until when (monotonic) the file needs no new check. The oldest comes first."""

    async def fetch(self, namespace: str, entry: BundlePlugin) -> Blob:
        """Have the module of an entry on this replica's disk. Raises LoadError.

        A module that the cache holds for another namespace does not count: whoever has seen a sha256 knows it.
        """
        assert entry.artifact is not None  # noqa: S101 - nobody can ask for the module of a placeholder
        sha256 = entry.artifact.sha256
        key = namespace, sha256
        known = self._checked.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        looking = self._looking.get(key)
        if looking is None:  # a thousand sidecars ask at the same moment, and the first of them may hang up
            looking = self._looking[key] = asyncio.create_task(self._find(namespace, entry, entry.artifact))
            looking.add_done_callback(lambda task: self._found(key, task))
        return await asyncio.shield(looking)

    async def _find(self, namespace: str, entry: BundlePlugin, artifact: BundleArtifact) -> Blob:
        with on_behalf_of(namespace):
            found = await in_thread(self._look, namespace, artifact.sha256)
            if found is None and await self._take_from_leader(namespace, artifact.sha256, artifact.size):
                found = await in_thread(self._look, namespace, artifact.sha256)
            if found is None:
                await self._fetch(namespace, entry)
                found = await in_thread(self._look, namespace, artifact.sha256)
        if found is None:
            raise VerifyError("its source now gives other bytes for the same digest, or the cache is too small for it")
        return found

    def _found(self, key: tuple[str, str], task: asyncio.Task[Blob]) -> None:
        del self._looking[key]
        if task.cancelled() or task.exception() is not None:
            return
        now = time.monotonic()
        kept = {other: each for other, each in self._checked.items() if each[0] > now and other != key}
        in_memory = [other for other, (_, blob) in kept.items() if blob.data is not None]
        for other in in_memory[: max(len(in_memory) - _KEPT + 1, 0)]:
            del kept[other]
        kept[key] = now + _CHECKED_S, task.result()
        self._checked = kept

    def _look(self, namespace: str, sha256: str) -> Blob | None:
        """What the store has for a namespace, if it has it whole."""
        artifact = self._store.granted(sha256, owner=namespace)
        if artifact is None:
            return None
        path = artifact.path
        try:
            return Blob(path, path.read_bytes() if path.stat().st_size <= _SMALL else None)
        except OSError:  # somebody cleans up at this moment
            return None

    async def _take_from_leader(self, namespace: str, sha256: str, size: int) -> bool:
        try:
            data = await self._of_leader(namespace, sha256, size)
        except LoadError as error:
            log.info("module %.12s is fetched from its source: %s", sha256, error)
            return False
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            return False

        def keep(data: bytes) -> None:
            with self._store.scratch() as file:
                file.write(data)
                # As a plain file: what its manifest says of it is not known here.
                self._store.grant_file(file, owner=namespace, sha256=sha256, size=len(data))

        await in_thread(keep, data)
        return True

    async def _fetch(self, namespace: str, entry: BundlePlugin) -> None:
        plugin = self._catalogue.plugin((namespace, entry.name))
        revision = self._catalogue.to_run(plugin) if plugin is not None else None
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
