"""Modules by digest: from this replica's store, else from the leader's, else from the plugin's source.

So are the files by which a sidecar verifies a module again: the evidence, which the sealed revision holds, and the
layers that the evidence leads to, where the module was packed in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import ValidationError

from hookline_artifacts.errors import FetchError, LoadError, VerifyError
from hookline_artifacts.package.layouts import module_layers, read_manifest
from hookline_artifacts.resolve import fetch, registry_access
from hookline_artifacts.threads import in_thread, on_behalf_of
from hookline_artifacts.trust.evidence import Evidence
from hookline_operator.cluster.plugins import parse_plugin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hookline_api.bundle import BundleArtifact, BundlePlugin, EvidenceFile
    from hookline_api.resources import OCISource, WasmPlugin
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.login.access import RegistryAccess
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.store import ArtifactStore
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.revisions import Template

_CHECKED_S: Final = 5.0
"""Seconds that a file's digest is trusted. Two thousand sidecars ask within seconds, and check it themselves."""
_SMALL: Final = 2**20
"""Bytes of a module that is kept in memory meanwhile, and of how many."""
_KEPT: Final = 16
_LAYERS_KEPT: Final = 1024
"""Of so many evidence files it is remembered which layers they lead to: a few hundred bytes each."""

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
        self._layers_of: dict[tuple[str, str], dict[str, Descriptor]] = {}
        """By namespace and the evidence's sha256."""
        self._checked: dict[tuple[str, str], tuple[float, Blob]] = {}
        """By namespace and sha256: until when (monotonic) the file needs no new check. The oldest comes first."""

    def has(self, namespace: str, entry: BundlePlugin, sha256: str) -> bool:
        """Whether an entry has such a blob: its module, its evidence, or a layer that the evidence leads to."""
        if entry.artifact is None:
            return False
        evidence = entry.artifact.evidence
        if sha256 in {entry.artifact.sha256, evidence.sha256 if evidence is not None else None}:
            return True
        return evidence is not None and sha256 in self._layers(namespace, entry.name, evidence)

    async def fetch(self, namespace: str, entry: BundlePlugin, sha256: str = "") -> Blob:
        """Have a blob that an entry has on this replica's disk, by default its module. Raises LoadError.

        A module that the cache holds for another namespace does not count: whoever has seen a sha256 knows it.
        """
        assert entry.artifact is not None  # noqa: S101 - nobody can ask for the module of a placeholder
        sha256 = sha256 or entry.artifact.sha256
        key = namespace, sha256
        known = self._checked.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        looking = self._looking.get(key)
        if looking is None:  # a thousand sidecars ask at the same moment, and the first of them may hang up
            looking = self._looking[key] = asyncio.create_task(self._find(namespace, entry, entry.artifact, sha256))
            looking.add_done_callback(lambda task: self._found(key, task))
        return await asyncio.shield(looking)

    async def _find(self, namespace: str, entry: BundlePlugin, artifact: BundleArtifact, sha256: str) -> Blob:
        evidence = artifact.evidence
        with on_behalf_of(namespace):
            found = await in_thread(self._look, namespace, sha256)
            if found is None and sha256 == artifact.sha256:
                if await self._take_from_leader(namespace, sha256, artifact.size):
                    found = await in_thread(self._look, namespace, sha256)
                if found is None:
                    await self._fetch(namespace, entry)
            elif found is None and evidence is not None and sha256 == evidence.sha256:
                await self._keep(namespace, sha256, self._evidence(namespace, entry.name, evidence))
            elif found is None and evidence is not None:
                await self._fetch_layer(namespace, entry, self._layers(namespace, entry.name, evidence).get(sha256))
            found = found or await in_thread(self._look, namespace, sha256)
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
        await self._keep(namespace, sha256, data)
        return True

    async def _keep(self, namespace: str, sha256: str, data: bytes) -> None:
        def keep() -> None:
            with self._store.scratch() as file:
                file.write(data)
                # As a plain file: what its manifest says of it is not known here.
                self._store.grant_file(file, owner=namespace, sha256=sha256, size=len(data))

        await in_thread(keep)

    def _evidence(self, namespace: str, name: str, file: EvidenceFile) -> bytes:
        """The file, from a revision that is believed. Raises FetchError."""
        plugin = self._catalogue.plugin((namespace, name))
        if plugin is not None:
            current = self._catalogue.current(plugin)
            for each in dict.fromkeys((self._catalogue.to_run(plugin), current, self._catalogue.before(plugin))):
                with contextlib.suppress(ValidationError):
                    data = each.parsed().evidence.encode() if each is not None else b""
                    if hashlib.sha256(data).hexdigest() == file.sha256:
                        return data
        raise FetchError("no revision of the plugin has this evidence any longer")

    def _layers(self, namespace: str, name: str, file: EvidenceFile) -> dict[str, Descriptor]:
        """By sha256, the layers that a module may be packed in, as the signed manifest names them; none if unknown."""
        known = self._layers_of.get((namespace, file.sha256))
        if known is None:
            known = {}
            try:
                data = self._evidence(namespace, name, file)
            except FetchError:
                return known  # it may be there in a moment
            with contextlib.suppress(LoadError):
                known = layers_in(data)
            self._layers_of[namespace, file.sha256] = known
            while len(self._layers_of) > _LAYERS_KEPT:
                del self._layers_of[next(iter(self._layers_of))]
        return known

    async def _fetch_layer(self, namespace: str, entry: BundlePlugin, layer: Descriptor | None) -> None:
        """Download it anew, by its digest: the store keeps modules, and not what they were packed in."""
        resource, _ = self._resource(namespace, entry)
        source = resource.spec.source.oci
        if layer is None or source is None:
            raise FetchError("the plugin has another source by now")
        await self._fetcher.fetch_layer(source, layer, access=await self._access(namespace, source), owner=namespace)

    def _resource(self, namespace: str, entry: BundlePlugin) -> tuple[WasmPlugin, Template]:
        """The resource as its pods run it. Raises FetchError."""
        plugin = self._catalogue.plugin((namespace, entry.name))
        revision = self._catalogue.to_run(plugin) if plugin is not None else None
        if revision is None:
            raise FetchError("the plugin is gone")
        try:
            template = revision.parsed()
            return parse_plugin(namespace, template.plugin, revision.plugin_uid, 0, template.spec), template
        except ValidationError:
            raise FetchError(f"revision '{revision.name}' was stored by another version of the operator") from None

    async def _access(self, namespace: str, source: OCISource) -> RegistryAccess:
        more = self._catalogue.default_pull_secrets.get(namespace, ())
        return await registry_access(source, namespace, self._objects, more)

    async def _fetch(self, namespace: str, entry: BundlePlugin) -> None:
        resource, template = self._resource(namespace, entry)
        source = resource.spec.source.oci
        access = await self._access(namespace, source) if source is not None else None
        await fetch(resource, self._fetcher, self._objects, digest=template.artifact.digest, access=access)


def layers_in(evidence: bytes) -> dict[str, Descriptor]:
    """By sha256, the layers that a module may be packed in, as evidence has its manifest. Raises LoadError."""
    found: dict[str, Descriptor] = {}
    for document in Evidence.read(evidence).documents.values():
        manifest = read_manifest(document)
        layers = module_layers(manifest)[0] if manifest.entries is None else ()
        found |= {each.digest.removeprefix("sha256:"): each for each in layers}
    return found
