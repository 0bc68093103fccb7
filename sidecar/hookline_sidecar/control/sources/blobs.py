"""Modules from the operator: by the sha256 of their bytes, into the sidecar's own store, once.

What is in the store is never fetched again. A connection that breaks goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import weakref
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, Final

from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.distribution import BLOBS_PATH
from hookline_api.resources import WasmPluginSpec
from hookline_artifacts import patience
from hookline_artifacts.entry import check_entry
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import ModuleInfo, inspect_file
from hookline_artifacts.module.own_cases import judge_cases, own_cases
from hookline_artifacts.net.body import Body
from hookline_artifacts.resolve import Resolved
from hookline_artifacts.threads import in_thread
from hookline_sidecar.control.sources import images
from hookline_sidecar.control.sources.operator_client import OperatorClient, OperatorError

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_api.bundle import BundleArtifact, BundlePlugin
    from hookline_artifacts.store import Artifact, ArtifactStore
    from hookline_sidecar.control.sources.trust import Trust

_LIMITS: Final = FetchLimits()
_SETTLED: Final = frozenset({400, 401, 403, 404, 410})
"""Statuses after which somebody has to change something first."""
_SETTINGS: Final = (
    "hooks", "priority", "match", "config", "permissions", "data_sources", "caches", "egress", "kv", "limits",
    "isolation", "observers", "auth", "failure_policy", "mode", "self_test",
)  # fmt: skip


class Blobs:
    """Resolves the entries of an operator's bundle, which ``trust`` has to admit."""

    def __init__(self, client: OperatorClient, store: ArtifactStore, trust: Trust, images: Path | None = None) -> None:
        """``images`` is a folder in which modules may be that the node has brought."""
        self._client = client
        self._store = store
        self._trust = trust
        trust.fetch = self.fetch
        self._images = images
        self._places = asyncio.Semaphore(_LIMITS.of_one_owner)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        """By sha256: plugins of one module fetch it once."""

    async def resolve(self, entry: BundlePlugin) -> Resolved:
        """An entry with its module in the store, checked. Raises FetchError, VerifyError or ConfigError."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder is never resolved
        _check_settings(entry)
        self._trust.check_settings(entry)
        try:
            artifact = await self._artifact(entry.artifact, entry.name)
            await self._trust.admit(entry)
            info = await in_thread(_inspect, artifact)
            cases = await in_thread(own_cases, info)
        except OSError as error:
            raise FetchError(f"the store cannot be used: {error.strerror}; make room or check its folder") from None
        description = PluginDescription()
        if info.description is not None:
            description = PluginDescription.from_json(info.description)
        of_cases = judge_cases(cases, info, entry.self_test)
        check_entry(entry, info)
        return Resolved(
            entry=entry.model_copy(update={"hooks": entry.hooks or list(info.hooks), "failure": None}),
            artifact=artifact,
            info=info,
            description=description,
            hooks=info.hooks,
            notes=(*description.notes, *of_cases),
            unreadable_cases=cases.unreadable is not None,
        )

    async def _artifact(self, wanted: BundleArtifact, name: str) -> Artifact:
        # Not under wanted.digest: that is the operator's word, and nothing here proves it.
        digest = f"sha256:{wanted.sha256}"
        lock = self._locks.setdefault(wanted.sha256, asyncio.Lock())
        async with lock:
            known = await in_thread(self._store.get, digest)
            if known is not None:
                return known
            if wanted.size > _LIMITS.module:
                raise FetchError(
                    f"the module has {wanted.size} bytes and only {_LIMITS.module} are allowed; make it smaller",
                    transient=False,
                )
            brought = await in_thread(self._of_images, wanted, digest)
            if brought is not None:
                return brought
            try:
                async with self._places, asyncio.timeout(_LIMITS.total):
                    return await self._fetch(wanted, f"the module of '{name}'", digest)
            except TimeoutError:
                raise FetchError(
                    f"the module could not be fetched from the operator within {_LIMITS.total:g} s"
                ) from None

    async def fetch(self, sha256: str, into: BinaryIO, *, size: int | None, cap: int, what: str) -> None:
        """Write what has this sha256 of the operator, checked. Raises FetchError and VerifyError."""
        try:
            async with self._places, asyncio.timeout(_LIMITS.total):
                await self._write(sha256, Body(into, what=what, cap=cap, expected=size))
        except TimeoutError:
            raise FetchError(f"{what} could not be fetched from the operator within {_LIMITS.total:g} s") from None

    async def _write(self, sha256: str, body: Body) -> None:
        for attempt in range(1, _LIMITS.attempts + 1):
            try:
                await self._receive(sha256, body)
                break
            except FetchError as error:
                pause = patience.pause_within(_LIMITS, error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        body.verify(f"sha256:{sha256}")

    def _of_images(self, wanted: BundleArtifact, digest: str) -> Artifact | None:
        """The module, where an image has it that is mounted here."""
        if self._images is None:
            return None
        with self._store.scratch() as file:
            if not images.take(self._images, sha256=wanted.sha256, size=wanted.size, into=file):
                return None
            return self._store.add(
                file,
                digest=digest,
                sha256=wanted.sha256,
                size=wanted.size,
                layout=wanted.layout,
                description=None,
            )

    async def _fetch(self, wanted: BundleArtifact, what: str, digest: str) -> Artifact:
        with self._store.scratch() as file:
            await self._write(wanted.sha256, Body(file, what=what, cap=wanted.size, expected=wanted.size))
            return await in_thread(
                self._store.add,
                file,
                digest=digest,
                sha256=wanted.sha256,
                size=wanted.size,
                layout=wanted.layout,
                description=None,
            )

    async def _receive(self, sha256: str, body: Body) -> None:
        """Take what one request gives. Raises FetchError and VerifyError; what came stays in ``body``."""
        headers = {"Range": f"bytes={body.length}-"} if body.length else {}
        try:
            async with self._client.get(BLOBS_PATH + sha256, headers) as response:
                await body.receive(response, sender="the operator", limits=_LIMITS)
        except OperatorError as error:
            if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                body.restart()
            raise FetchError(
                f"{body.what} cannot be fetched from the operator: {error}",
                transient=error.status not in _SETTLED,
                retry_after=error.retry_after,
            ) from None


def _check_settings(entry: BundlePlugin) -> None:
    """Whether a resource could have these settings: what a newer or a broken operator sends is not taken on trust."""
    settings = {name: getattr(entry, name) for name in _SETTINGS}
    nowhere = {"config_map": {"name": "none"}}
    try:
        WasmPluginSpec.model_validate({"source": nowhere, **settings})
    except ValidationError as error:
        raise ConfigError(f"the operator sent what no plugin can have in {sentences.without_values(error)}") from None


def _inspect(artifact: Artifact) -> ModuleInfo:
    return inspect_file(artifact.path)
