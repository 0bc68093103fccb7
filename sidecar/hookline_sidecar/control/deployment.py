"""Deployment: how a bundle gets to the workers, and stays for the next start.

In steps: all workers prepare it, the store takes its initial keys, all workers switch, probation begins, and it is kept
as the last good bundle. A bundle that is *held* stops after the second step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import Bundle, LoadFailure
from hookline_artifacts.errors import FetchError, LoadError
from hookline_runtime.guest.compiler import Job
from hookline_runtime.host import kv_initial
from hookline_runtime.host.cache import wanted_sizes
from hookline_sidecar.control.steps import Steps
from hookline_sidecar.control.workers import LoadRefusedError
from hookline_sidecar.messages import LoadRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hookline_api.bundle import BundlePlugin, LoadCause
    from hookline_artifacts.store import ArtifactStore
    from hookline_runtime.guest.compiler import Compiler
    from hookline_runtime.host.cache_store import CacheStore
    from hookline_runtime.host.kv import KvStore
    from hookline_sidecar.control.probation import Probations
    from hookline_sidecar.control.rows import Rows
    from hookline_sidecar.control.sources.trust import Trust
    from hookline_sidecar.control.workers import Workers
    from hookline_sidecar.state import StateFolder

_INITIAL_S: Final = 20.0
"""For the store to take initial keys; another process may be writing."""

log = logging.getLogger("hookline.supervisor")


class Deployment:
    """What the workers run."""

    def __init__(
        self,
        state: StateFolder,
        *,
        workers: Workers,
        probations: Probations,
        rows: Rows,
        kv: KvStore,
        caches: CacheStore,
        store: ArtifactStore,
        compiler: Compiler,
        trust: Trust,
        resolved: Callable[[], Iterable[BundlePlugin]],
        switched: Callable[[], None],
    ) -> None:
        """``resolved`` are the entries of what is resolved, and perhaps not in a bundle yet.

        ``switched`` is called once the workers run another bundle.
        """
        self.bundle: Bundle | None = None
        """What the workers run."""
        self.known_as: str | None = None
        """The source's word for it, where it differs at most by what failed; else the bundle's version."""
        self.changes = 0
        """Bundles that replaced another one."""
        self.steps: dict[str, Steps] = {}
        """How each plugin of the running bundle got to the workers."""
        self.mended = 0
        """Compiled modules that were refused and made again."""
        self._state = state
        self._workers = workers
        self._probations = probations
        self._rows = rows
        self._kv = kv
        self._caches = caches
        self._store = store
        self._compiler = compiler
        self._trust = trust
        self._resolved = resolved
        self._switched = switched
        self._unkept = False
        self._saved: Bundle | None = None
        """What is on disk, or came from there."""
        self._compiled_again: set[Path] = set()

    def entry(self, name: str) -> BundlePlugin | None:
        """A plugin of the running bundle."""
        return find(self.bundle, name) if self.bundle is not None else None

    async def restore(self, bundle: Bundle) -> Bundle:
        """Run what is left of the last good bundle; what does not load any more, or may not, fails closed."""
        for entry, error in await self._trust.forbidden_in(bundle, offline=True):
            log.warning("plugin '%s' of the last good bundle may not run: %s", entry.name, error)
            bundle = with_placeholder(bundle, entry, LoadFailure(cause=error.cause, message=str(error)))
        for entry in bundle.plugins:
            if entry.artifact is None or self._compiler.has(entry.artifact.sha256, fuel=entry.limits.fuel is not None):
                continue
            # Another version of wasmtime, or a cache that was cleaned.
            try:
                await self._compile(entry)
            except LoadError as error:
                log.warning("plugin '%s' of the last good bundle cannot be compiled again: %s", entry.name, error)
                bundle = with_placeholder(bundle, entry, LoadFailure(cause=error.cause, message=str(error)))
        self._store.pin(self._probations.modules() | _modules(bundle))
        while True:
            try:
                await self.run(bundle, known_as=bundle.version)
            except LoadRefusedError as error:  # of the store: no worker is there yet
                refused = find(bundle, error.plugin)
                assert refused is not None  # noqa: S101 - it was in the bundle that is refused
                log.warning("plugin '%s' of the last good bundle cannot run: %s", error.plugin, error)
                bundle = with_placeholder(bundle, refused, LoadFailure(cause=error.cause, message=str(error)))
            else:
                self._saved = self.bundle
                await self._tidy()
                return bundle

    async def mend(self, entry: BundlePlugin, *, why: str) -> bool:
        """Make a compiled form that may be damaged once more, before the next bundle runs; whether that was due.

        Raises LoadError where it cannot be made.
        """
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing that could be damaged
        compiled = self._compiler.path(entry.artifact.sha256, fuel=entry.limits.fuel is not None)
        if compiled in self._compiled_again:
            return False
        self._compiled_again.add(compiled)
        self.mended += 1
        self._compiler.discard(compiled)
        log.info("plugin '%s' does not load (%s); it is compiled again", entry.name, why)
        await self._compile(entry)
        return True

    async def hold(self, bundle: Bundle) -> None:
        """Have the workers prepare it. Raises LoadRefusedError."""
        await self._prepare(bundle)
        await self._write_initial_keys(bundle, only_try=True)

    async def run(self, bundle: Bundle, *, known_as: str | None = None) -> None:
        """Have the workers run it; without ``known_as``, under the word for what runs.

        Raises LoadRefusedError, and then they run what they ran.
        """
        steps = Steps()
        with steps.taken("prepare"):
            before = await self._prepare(bundle)
            await self._write_initial_keys(bundle)
        with steps.taken("switch"):
            await self._workers.commit()
        new = {entry.name for entry in self._new_in(bundle)}
        self.steps = {each.name: steps if each.name in new else self.steps.get(each.name, steps)
                      for each in bundle.plugins}  # fmt: skip
        self._compiled_again.clear()
        if self.bundle is not None:
            self.changes += 1
        self.adopt(bundle, known_as=known_as)
        alone = self._workers.alone()
        self._probations.begin(bundle, before, alone)
        self._switched()
        if alone:  # what some workers have no room for, the others do without too
            self._workers.prove({entry.name: entry.revision for entry in bundle.plugins if entry.name in alone})

    def adopt(self, bundle: Bundle, *, known_as: str | None = None) -> None:
        """Take this for what runs: the same plugins, of which something else is known, or one that has to go."""
        self.bundle, self.known_as = bundle, known_as or self.known_as

    async def keep(self) -> None:
        """Make what runs the last good bundle on disk, and give up what it no longer needs."""
        await self._save()
        await self._tidy()
        with contextlib.suppress(OSError):  # what is left over goes with the next bundle
            await asyncio.to_thread(self._clean_up)

    async def close(self) -> None:
        """Make what runs the last good bundle, where the end came between a switch and that."""
        if self.bundle is not None and self._saved is not self.bundle:
            await self._save()

    async def _save(self) -> None:
        bundle = self.bundle
        assert bundle is not None  # noqa: S101 - it is called for what runs
        writing = asyncio.ensure_future(asyncio.to_thread(self._state.save_bundle, bundle))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # the thread goes on, and whoever writes next writes the same file
            raise
        except OSError as error:
            if not self._unkept:
                log.warning("the bundle cannot be kept (%s): it runs, but a restart would serve an older one", error)
            self._unkept = True
        else:
            self._unkept = False
            self._saved = bundle

    async def _tidy(self) -> None:
        assert self.bundle is not None  # noqa: S101 - it is called for what runs
        # Also a plugin that could not be had keeps what it stored: it may be back.
        await asyncio.to_thread(self._kv.make_room, {entry.name for entry in self.bundle.plugins})
        await asyncio.to_thread(self._caches.tidy, wanted_sizes(self.bundle.plugins))

    async def _prepare(self, bundle: Bundle) -> list[BundlePlugin]:
        """Make all workers ready; the versions before its plugins that are on probation.

        Raises LoadRefusedError, also for what came in by another way than a slot and is not admitted.
        """
        for entry in self._new_in(bundle) if self._trust.configured else ():
            try:
                await self._trust.admit(entry, offline=True)
            except LoadError as error:
                raise LoadRefusedError(
                    LoadRefused(version=bundle.version, plugin=entry.name, cause=error.cause, message=str(error))
                ) from None
        before = []
        for entry in self._probations.before(bundle, self.bundle):
            try:
                await self._trust.admit(entry, offline=True)
            except LoadError as error:
                log.warning("plugin '%s' has no version to go back to: %s", entry.name, error)
            else:
                before.append(entry)
        modules = await self._compiler.share([*bundle.plugins, *before])
        await self._workers.prepare(bundle, self._rows.assign(entry.name for entry in bundle.plugins), before, modules)
        return before

    def _new_in(self, bundle: Bundle) -> list[BundlePlugin]:
        """The entries of a bundle that do not run: those that do are judged where they run."""
        running = {entry.name: entry for entry in self.bundle.plugins} if self.bundle is not None else {}

        def runs(entry: BundlePlugin) -> bool:
            now = running.get(entry.name)
            return now is not None and now.artifact == entry.artifact and now.revision == entry.revision

        return [entry for entry in bundle.plugins if not runs(entry)]

    async def _compile(self, entry: BundlePlugin) -> None:
        """Make the compiled form of what is in a bundle from the module that is kept. Raises LoadError."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing to compile
        path = await asyncio.to_thread(self._store.module, entry.artifact.sha256)
        if path is None:
            raise FetchError("its module in the state folder is gone or damaged")
        fuel = entry.limits.fuel is not None
        await self._compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=fuel, plugin=entry.name))

    async def _write_initial_keys(self, bundle: Bundle, *, only_try: bool = False) -> None:
        """Once all workers could switch, and before one does. Raises LoadRefusedError where the store does not."""
        writing = asyncio.to_thread(kv_initial.write, self._kv, bundle.plugins, only_try=only_try)
        try:
            async with asyncio.timeout(_INITIAL_S):
                await writing
        except kv_initial.InitialKeysError as error:
            raise _not_stored(bundle, error.plugin, error.cause, str(error)) from None
        except TimeoutError:
            first = next(entry.name for entry in bundle.plugins if entry.kv.initial)
            message = f"the store did not take the keys of spec.kv.initial within {_INITIAL_S:g} s: who else writes?"
            raise _not_stored(bundle, first, "config", message) from None

    def _clean_up(self) -> None:
        assert self.bundle is not None  # noqa: S101 - it is called for what runs
        entries = [*self.bundle.plugins, *self._resolved(), *self._probations.entries()]
        kept = {entry.artifact.sha256 for entry in entries if entry.artifact is not None}
        self._trust.forget_others(entries)
        self._store.pin(kept)
        self._compiler.keep(kept)


def find(bundle: Bundle, name: str) -> BundlePlugin | None:
    """A plugin of a bundle."""
    return next((entry for entry in bundle.plugins if entry.name == name), None)


def what_runs(bundle: Bundle) -> str:
    """The plugins that run, and those that refuse instead, with why: for the log."""
    runs = ", ".join(entry.name for entry in bundle.plugins if entry.artifact is not None) or "no plugins"
    missing = ", ".join(_why_not(entry) for entry in bundle.plugins if entry.artifact is None)
    return f"{runs}; refusing in place of {missing}" if missing else runs


def _why_not(entry: BundlePlugin) -> str:
    failure = entry.failure
    return f"{entry.name} ({'not loaded' if failure is None else failure.stage or failure.cause})"


def with_placeholder(bundle: Bundle, entry: BundlePlugin, failure: LoadFailure) -> Bundle:
    """The bundle with something that fails closed in a plugin's place."""
    placeholder = entry.model_copy(update={"artifact": None, "failure": failure})
    return Bundle.of([placeholder if each is entry else each for each in bundle.plugins])


def _modules(bundle: Bundle | None) -> set[str]:
    return {entry.artifact.sha256 for entry in bundle.plugins if entry.artifact} if bundle is not None else set()


def _not_stored(bundle: Bundle, plugin: str, cause: LoadCause, message: str) -> LoadRefusedError:
    return LoadRefusedError(
        LoadRefused(version=bundle.version, plugin=plugin, cause=cause, message=message, passing=True)
    )
