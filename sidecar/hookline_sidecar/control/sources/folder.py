"""The folder of manifests as a source: read whole, each time anything in it changes."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.resolve import Resolved, resolve
from hookline_sidecar.control.sources import foreign
from hookline_sidecar.control.sources.manifests import Manifest, Scan, scan
from hookline_sidecar.control.sources.source import STAND_IN, Problem, Wanted, Wants
from hookline_sidecar.control.sources.watch import FolderWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hookline_api.bundle import BundleArtifact
    from hookline_artifacts.fetch import Fetcher
    from hookline_sidecar.control.sources.trust import Trust

log = logging.getLogger("hookline.folder")


class FolderSource:
    """Wants what the manifests of a folder say. ``running`` is the bundle that runs now.

    ``fetcher`` is closed with it. ``key`` seals what has the values of Secrets: revisions are shown to whoever reads
    metrics.
    """

    def __init__(
        self,
        folder: Path,
        fetcher: Fetcher,
        *,
        running: Callable[[], Bundle | None],
        key: bytes,
        trust: Trust,
    ) -> None:
        self.changed = asyncio.Event()
        self.wants: Wants | None = None
        self.problems: tuple[Problem, ...] = ()
        self.failure: LoadFailure | None = None
        self.waiting = "the plugins are being loaded"
        self.link = None
        self._folder = folder
        self._fetcher = fetcher
        self._running = running
        self._key = key
        self._trust = trust
        self._rescan = asyncio.Event()
        self._watch = FolderWatch(folder, self._rescan)
        self._unreadable = False

    async def run(self) -> None:
        """Read it now, and whenever it is not what it was."""
        self._rescan.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run(), name="watch")
            group.create_task(self._scan_on_change(), name="scan")

    def reread(self) -> None:
        """Read it again."""
        self._rescan.set()

    def tell(self) -> None:
        """A folder does not want to know."""

    def describe(self) -> dict[str, Any]:
        """Which folder."""
        return {"kind": "folder", "folder": str(self._folder)}

    async def close(self) -> None:
        """End the pulls that are under way."""
        await self._fetcher.close()

    async def _scan_on_change(self) -> None:
        while True:
            await self._rescan.wait()
            self._rescan.clear()
            before = await self._watch.glance()
            try:
                found = await asyncio.to_thread(scan, self._folder)
            except OSError as error:
                await self._cannot_read(error, before)
            else:
                self._unreadable = False
                await self._watch.remember(found, before)
                self._take(found)
            self.changed.set()

    async def _cannot_read(self, error: OSError, before: object) -> None:
        if not self._unreadable:
            log.warning("the plugin folder %s cannot be read (%s); what runs goes on", self._folder, error.strerror)
        self._unreadable = True
        await self._watch.remember(None, before)
        why = foreign.of_path(self._folder)
        message = f"cannot be read: {error.strerror}{f'; {why}' if why else ''}"
        problem = Problem(file=str(self._folder), field="", message=message)
        self.failure = LoadFailure(cause="config", message=problem.sentence)
        if self._running() is None:
            self._take(Scan(manifests={}, problems=(problem,), secrets={}, config_maps={}))
        else:
            self.problems = (problem,)

    def _take(self, found: Scan) -> None:
        for problem in set(found.problems) - set(self.problems):
            log.warning("%s", problem.sentence)
        self.problems = found.problems
        plugins = {name: self._wanted(manifest, found) for name, manifest in found.manifests.items()}
        for problem in found.problems:
            if not problem.hides:
                continue
            for name in self._behind(problem):
                if name not in plugins:
                    plugins[name] = Wanted(
                        key=f"problem {problem.sentence}",
                        placeholder=BundlePlugin(name=name),
                        failure=LoadFailure(cause="config", message=problem.sentence),
                        readable=False,
                    )
        self.wants = Wants(plugins=plugins)

    def _wanted(self, manifest: Manifest, found: Scan) -> Wanted:
        name, spec = manifest.plugin.metadata.name, manifest.plugin.spec
        oci = spec.source.oci
        return Wanted(
            key=found.key(name, self._folder),
            placeholder=BundlePlugin(
                name=name,
                origin=manifest.file,
                hooks=list(spec.hooks),
                priority=spec.priority,
                match=spec.match,
                probation=spec.rollout.probation,
            ),
            failure_policy=spec.failure_policy,
            resolve=functools.partial(self._resolve, manifest, found),
            file=manifest.file,
            again=oci.track_interval / 1000 if oci is not None and oci.track_interval is not None else None,
        )

    async def _resolve(
        self, manifest: Manifest, found: Scan, *, previous: BundleArtifact | None, ask_again: bool
    ) -> Resolved:
        policies = self._trust.policies
        try:
            resolved = await resolve(
                manifest.plugin,
                fetcher=self._fetcher,
                objects=found,
                previous=previous,
                ask_again=ask_again,
                base=self._folder,
                origin=manifest.file,
                key=self._key,
                policies=policies,
            )
        except VerifyError as error:
            self._trust.note_refusal(error)
            raise
        try:
            await self._trust.keep(resolved)
            await self._trust.admit(resolved.entry)
        except OSError as error:
            raise FetchError(f"what its signatures prove cannot be kept: {error.strerror}; make room") from None
        return resolved

    def _behind(self, problem: Problem) -> list[str]:
        """The plugins that a problem is about."""
        if problem.plugin is not None:
            return [problem.plugin]
        running = self._running()
        known = [entry.name for entry in running.plugins if entry.origin == problem.file] if running else []
        # Nothing is known of what is in that file: a stand-in, so that it can neither be overlooked nor fail open.
        return known or [STAND_IN + _slug(problem.file)]


def _slug(file: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", file.lower())[:200].strip("-.") or "file"
