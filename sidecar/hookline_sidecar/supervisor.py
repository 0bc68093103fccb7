"""The control road: from manifests to workers that run them.

Each plugin has a *slot*. When a manifest, or anything it refers to, changes, the slot resolves it in a task of its
own (fetch, check, inspect, compile), so a registry that is slow for one plugin holds up no other. Whenever a slot
settles, a bundle is assembled of what every slot has: the new, or the last good, or a placeholder that fails
closed. A bundle that differs from the running one is handed to the workers, and kept as the last good one.

What stands for a plugin that cannot be loaded, by its failure policy:

- LastGood: what it was before. A plugin that is new while others run is left out, since nothing ran before it; at
  the start of a sidecar without any last good bundle it fails closed, since nothing may run without its guard;
- Closed: a placeholder that gives each deciding hook's refusing answer;
- Open: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_api.hooks import OBSERVERS, Hook
from hookline_api.resources import Match
from hookline_runtime.artifacts import ArtifactStore, Fetcher
from hookline_runtime.artifacts.resolve import resolve
from hookline_runtime.compiler import Compiler, Job
from hookline_runtime.errors import FetchError, LoadError, VerifyError
from hookline_runtime.stats import MAX_PLUGINS, StatsTable
from hookline_sidecar import admin
from hookline_sidecar.fleet import Fleet, RefusedError
from hookline_sidecar.manifests import Manifest, Problem, Scan, scan
from hookline_sidecar.slots import Slot, State
from hookline_sidecar.watch import FolderWatch

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_sidecar.settings import Settings
    from hookline_sidecar.state import StateFolder

_FIRST_WAIT_S: Final = 5.0
"""How long a first start waits for slow sources before their plugins fail closed."""
_DOOR_S: Final = 2.0
_SETTLE_S: Final = 0.02
"""How long several changes are gathered into one bundle."""
_STAND_IN: Final = "unreadable."
_DECIDING: Final = [hook for hook in Hook if hook not in OBSERVERS]

log = logging.getLogger("hookline.supervisor")


class Supervisor:
    """The process that makes bundles and answers the admin port."""

    def __init__(self, settings: Settings, state: StateFolder, tables: list[StatsTable], door: socket.socket) -> None:
        self.settings = settings
        self.tables = tables
        self.fleet = Fleet(size=settings.workers, refused=self._refused_by_one)
        self.started = time.time()
        self.changes = 0
        """Bundles that replaced another one."""
        self.bundle: Bundle | None = None
        """What the workers run."""
        self.slots: dict[str, Slot] = {}
        self.problems: tuple[Problem, ...] = ()
        self.numbers = state.load_numbers()
        """Which rows of the statistics belong to which plugin."""
        self.draining = False
        self._door = door
        self._state = state
        self._store = ArtifactStore(state.artifacts)
        self._fetcher = Fetcher(self._store)
        self._compiler = Compiler(state.compiled)
        self._rescan = asyncio.Event()
        self._watch = FolderWatch(settings.plugins, self._rescan)
        self._assemble = asyncio.Event()
        self._first_wait_over = False
        self._refusals: list[RefusedError] = []
        self._compiled_again: set[Path] = set()
        self._unreadable = False
        self._unkept = False

    async def run(self) -> None:
        """Work until SIGTERM."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        await self._restore()
        await self.fleet.listen(self._state.control)
        runner = await admin.serve(self, self._door)
        loop.call_later(_FIRST_WAIT_S, self._end_first_wait)
        self._rescan.set()
        tasks = [
            loop.create_task(self._watch.run(), name="watch"),
            loop.create_task(self._scan_on_change(), name="scan"),
            loop.create_task(self._assemble_on_change(), name="assemble"),
            loop.create_task(self._stay_reachable(), name="door"),
        ]
        ended, _ = await asyncio.wait(
            [*tasks, loop.create_task(stop.wait(), name="stop")], return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            task.result()  # a road that ends by itself is a defect: let the parent start this process again
        for task in tasks:
            task.cancel()
        for slot in self.slots.values():
            slot.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.close()
        await runner.cleanup()
        await self.fleet.close()

    def state_of(self, slot: Slot) -> State:
        """What the workers do for this plugin now."""
        entry = self.entry(slot.name)
        if entry is None:
            return "LeftOut" if slot.failure else "Updating"
        if entry.artifact is None:
            return "Closed"
        if slot.failure is None and slot.resolved is not None and entry.revision == slot.resolved.entry.revision:
            return "Running"
        return "LastGood" if slot.failure else "Updating"

    def entry(self, name: str) -> BundlePlugin | None:
        """A plugin of the running bundle."""
        return _find(self.bundle, name) if self.bundle else None

    def not_ready(self) -> list[str]:
        """Why the pod should get no traffic: one sentence each; empty where it should."""
        reasons = []
        if self.draining:
            reasons.append("the sidecar is draining")
        if self.bundle is None:
            reasons.append("the plugins are being loaded")
        elif self.fleet.running(self.bundle.version) == 0:
            reasons.append("no worker runs the bundle yet")
        for entry in self.bundle.plugins if self.bundle else ():
            if entry.artifact is None and any(hook not in OBSERVERS for hook in entry.hooks):
                why = entry.failure.message if entry.failure else "it is not loaded"
                reasons.append(f"plugin '{entry.name}' fails closed: {why}")
        return reasons

    async def _stay_reachable(self) -> None:
        """Make the socket anew where somebody deleted it: without it, a worker that is replaced gets no bundle."""
        while True:
            await asyncio.sleep(_DOOR_S)
            if not await asyncio.to_thread(self._state.control.is_socket):
                with contextlib.suppress(OSError):
                    await self.fleet.listen(self._state.control)
                    log.warning("%s was gone, and is made again; keep out of the state folder", self._state.control)

    # ── from the folder to slots ──

    async def _restore(self) -> None:
        """Serve the last good bundle before any source is asked."""
        bundle = await asyncio.to_thread(self._state.load_bundle)
        if bundle is None:
            return
        for entry in bundle.plugins:
            if entry.artifact is None or self._compiler.has(entry.artifact.sha256, fuel=entry.limits.fuel is not None):
                continue
            # Another version of wasmtime, or a cache that was cleaned.
            try:
                await self._compile_again(entry)
            except LoadError as error:
                log.warning("plugin '%s' of the last good bundle cannot be compiled again: %s", entry.name, error)
                bundle = _with_placeholder(bundle, entry, LoadFailure(cause=error.cause, message=str(error)))
        self._store.pin(entry.artifact.sha256 for entry in bundle.plugins if entry.artifact)
        self.slots = {entry.name: Slot(name=entry.name, manifest=None, key="") for entry in bundle.plugins}
        await self._deploy(bundle)
        log.info("the last good bundle %s runs again (%d plugins)", bundle.version, len(bundle.plugins))

    async def _compile_again(self, entry: BundlePlugin) -> None:
        """Make the compiled form of what is in the bundle from the module that is kept. Raises LoadError."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing to compile
        path = await asyncio.to_thread(self._store.module, entry.artifact.sha256)
        if path is None:
            raise FetchError("its module in the state folder is gone or damaged")
        await self._compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=entry.limits.fuel is not None))

    def _reread(self) -> None:
        log.info("SIGHUP: reading %s again", self.settings.plugins)
        for slot in self.slots.values():
            slot.key = ""  # resolve anew: what failed is tried now, and tags that are always asked for are asked
        self._rescan.set()

    def _drain(self) -> None:
        self.draining = True

    async def _scan_on_change(self) -> None:
        while True:
            await self._rescan.wait()
            self._rescan.clear()
            folder = self.settings.plugins
            try:
                found = await asyncio.to_thread(scan, folder)
            except OSError as error:
                if not self._unreadable:
                    log.warning("the plugin folder %s cannot be read (%s); what runs goes on", folder, error.strerror)
                self._unreadable = True
                await self._watch.remember(None)
                problem = Problem(file=str(folder), field="", message=f"cannot be read: {error.strerror}")
                self.problems = (problem,)
                for slot in self.slots.values():
                    if slot.manifest is None and slot.failure is None:  # ran last time
                        slot.failure = LoadFailure(cause="config", message=problem.sentence)
                if self.bundle is None:
                    self._take(Scan(manifests={}, problems=self.problems, secrets={}, config_maps={}))
                continue
            self._unreadable = False
            await self._watch.remember(found)
            self._take(found)

    def _take(self, found: Scan) -> None:
        """Make the slots what the folder asks for."""
        for problem in set(found.problems) - set(self.problems):
            log.warning("%s", problem.sentence)
        self.problems = found.problems
        wanted: dict[str, tuple[Manifest | None, str, LoadFailure | None]] = {
            name: (manifest, found.key(name, self.settings.plugins), None) for name, manifest in found.manifests.items()
        }
        for problem in found.problems:
            if not problem.hides:
                continue
            behind = LoadFailure(cause="config", message=problem.sentence)
            for name in self._behind(problem):
                if name not in found.manifests:
                    wanted.setdefault(name, (None, f"problem {problem.sentence}", behind))
        for name in self.slots.keys() - wanted.keys():
            self.slots.pop(name).cancel()
        for name, (manifest, key, failure) in wanted.items():
            slot = self.slots.get(name)
            if slot is not None and slot.key == key:
                slot.moved(manifest)
                continue
            if slot is not None:
                slot.cancel()
            slot = self.slots[name] = Slot(name=name, manifest=manifest, key=key, failure=failure)
            if manifest is not None:
                self._begin(slot, found)
        self._assemble.set()

    def _behind(self, problem: Problem) -> list[str]:
        """The plugins that a problem is about."""
        if problem.plugin is not None:
            return [problem.plugin]
        running = self.bundle.plugins if self.bundle else []
        known = [entry.name for entry in running if entry.origin == problem.file]
        # Nothing is known of what is in that file: a stand-in, so that it can neither be overlooked nor fail open.
        return known or [_STAND_IN + _slug(problem.file)]

    def _begin(self, slot: Slot, found: Scan, *, ask_again: bool = False) -> None:
        slot.task = asyncio.get_running_loop().create_task(
            self._resolve(slot, found, ask_again=ask_again), name=f"resolve {slot.name}"
        )

    async def _resolve(self, slot: Slot, found: Scan, *, ask_again: bool) -> None:
        manifest = slot.manifest
        assert manifest is not None  # noqa: S101 - a slot without a manifest is never begun
        spec = manifest.plugin.spec
        known = slot.resolved.entry if slot.resolved else self.entry(slot.name)
        try:
            resolved = await resolve(
                manifest.plugin,
                fetcher=self._fetcher,
                objects=found,
                previous=known.artifact if known else None,
                ask_again=ask_again,
                base=self.settings.plugins,
                origin=manifest.file,
            )
            await self._compiler.prepare(
                Job(
                    wasm=resolved.artifact.path,
                    sha256=resolved.artifact.sha256,
                    fuel=spec.limits.fuel is not None,
                    schema=resolved.description.config_schema,
                    config=resolved.entry.config,
                )
            )
            slot.resolved, slot.failure, slot.attempts = resolved, None, 0
            if resolved.ungranted:
                log.info(
                    "plugin '%s' asks for permissions that it is not granted: %s",
                    slot.name, ", ".join(resolved.ungranted),
                )  # fmt: skip
        except LoadError as error:
            slot.fail(error)
        except Exception as error:  # a defect of ours must be seen as this plugin's failure, not as silence
            log.exception("plugin '%s' could not be resolved", slot.name)
            slot.fail(VerifyError(f"the sidecar failed: {type(error).__name__}: {error}"))
        slot.task = None
        self._plan(slot, found)
        self._assemble.set()

    def _plan(self, slot: Slot, found: Scan) -> None:
        """Ask the source again: after a failure, or when the time of a tracked tag is over."""
        source = slot.manifest.plugin.spec.source if slot.manifest else None
        if slot.failure is not None and slot.pause:
            pause = slot.pause
        elif source is not None and source.oci is not None and source.oci.track_interval is not None:
            pause = source.oci.track_interval / 1000
        else:
            return
        loop = asyncio.get_running_loop()
        slot.again = loop.call_later(pause, lambda: self._begin(slot, found, ask_again=True))

    # ── from slots to the workers ──

    def _end_first_wait(self) -> None:
        self._first_wait_over = True
        self._assemble.set()

    async def _assemble_on_change(self) -> None:
        while True:
            await self._assemble.wait()
            await asyncio.sleep(_SETTLE_S)
            self._assemble.clear()
            while self._refusals:
                refusal = self._refusals.pop()
                if self.bundle is not None:
                    await self._refused(refusal, self.bundle)
            everything = all(slot.settled for slot in self.slots.values())
            if self.bundle is not None or everything or self._first_wait_over:
                await self._assemble_once()

    async def _assemble_once(self) -> None:
        while True:
            bundle = self._compose()
            if self.bundle is not None and bundle.version == self.bundle.version:
                changed = bundle != self.bundle
                self.bundle = bundle  # the same plugins; what failed beside them may have changed
                if changed:
                    await self._keep(bundle)
                return
            try:
                await self._deploy(bundle)
            except RefusedError as error:
                await self._refused(error, bundle)
                continue
            await self._keep(bundle)
            log.info("bundle %s runs: %s", bundle.version, ", ".join(e.name for e in bundle.plugins) or "no plugins")
            return

    def _compose(self) -> Bundle:
        """The bundle of what the slots have now."""
        entries: list[BundlePlugin] = []
        for slot in sorted(self.slots.values(), key=lambda slot: slot.name):
            entry = self._stands(slot)
            if entry is not None and len(entries) == MAX_PLUGINS:
                slot.failure = LoadFailure(cause="config", message=f"there are more than {MAX_PLUGINS} plugins")
            elif entry is not None:
                entries.append(entry)
        return Bundle.of([*entries, *self._renamed()])

    def _renamed(self) -> list[BundlePlugin]:
        """What goes on running although it is asked for no longer: its file now names a plugin that is not loaded yet.

        A guard that gets another name, and a mistake with it, must not be gone.
        """
        running = self.bundle.plugins if self.bundle else []
        coming = {
            slot.manifest.file
            for slot in self.slots.values()
            if slot.manifest is not None and slot.resolved is None and self.entry(slot.name) is None
        }
        return [entry for entry in running if entry.name not in self.slots and entry.origin in coming]

    def _stands(self, slot: Slot) -> BundlePlugin | None:
        """What stands for a plugin in the bundle: see the module's docstring."""
        if slot.resolved is not None:
            return slot.resolved.entry.model_copy(update={"failure": slot.failure})
        now = self.entry(slot.name)
        failure = slot.failure or LoadFailure(cause="fetch", message="the plugin is still being loaded")
        spec = slot.manifest.plugin.spec if slot.manifest else None
        policy = getattr(spec.failure_policy, failure.cause) if spec else "LastGood"
        if slot.failure is None:
            policy = "LastGood"  # nothing failed yet
        if policy == "Open":
            return None
        if policy == "LastGood":
            if now is not None and (now.artifact is not None or slot.manifest is None):
                return now.model_copy(update={"failure": slot.failure or (now.failure if not now.artifact else None)})
            if now is None and self.bundle is not None and not self._stands_in():
                return None
        hooks = list(spec.hooks) if spec else []
        return BundlePlugin(
            name=slot.name,
            origin=slot.manifest.file if slot.manifest else None,
            failure=failure,
            hooks=hooks or (now.hooks if now else _DECIDING),
            priority=spec.priority if spec else 0,
            match=spec.match if spec else Match(),
        )

    def _stands_in(self) -> bool:
        """Whether something refuses for a file that could not be read, and can by now.

        What was in that file goes on refusing until it is loaded.
        """
        running = self.bundle.plugins if self.bundle else []
        return any(entry.name.startswith(_STAND_IN) and entry.name not in self.slots for entry in running)

    async def _deploy(self, bundle: Bundle) -> None:
        await self.fleet.deploy(bundle, self._number(bundle))
        self._compiled_again.clear()
        if self.bundle is not None:
            self.changes += 1
        self.bundle = bundle

    async def _keep(self, bundle: Bundle) -> None:
        """Make it the last good bundle on disk, and give up what it no longer needs."""
        try:
            await asyncio.to_thread(self._state.save_bundle, bundle)
        except OSError as error:
            if not self._unkept:
                log.warning("the bundle cannot be kept (%s): it runs, but a restart would serve an older one", error)
            self._unkept = True
        else:
            self._unkept = False
        with contextlib.suppress(OSError):  # what is left over goes with the next bundle
            await asyncio.to_thread(self._clean_up)

    def _number(self, bundle: Bundle) -> dict[str, int]:
        """Give each plugin its rows of the statistics; it keeps them as long as it is there."""
        names = [entry.name for entry in bundle.plugins]
        free = sorted(set(range(MAX_PLUGINS)) - set(self.numbers.values()))
        new = [name for name in names if name not in self.numbers]
        if len(new) > len(free):
            for name in self.numbers.keys() - set(names):
                free.append(self.numbers.pop(name))
        known = dict(self.numbers)
        for name, number in zip(new, free, strict=False):
            for table in self.tables:
                table.clear(number)
            self.numbers[name] = number
        if self.numbers != known:
            with contextlib.suppress(OSError):  # only a supervisor that dies would miss it
                self._state.save_numbers(self.numbers)
        return {name: self.numbers[name] for name in names}

    def _refused_by_one(self, error: RefusedError) -> None:
        """A worker that was started later cannot load what the others run."""
        self._refusals.append(error)
        self._assemble.set()

    async def _refused(self, error: RefusedError, bundle: Bundle) -> None:
        """A worker cannot load a plugin of that bundle, which resolved and compiled.

        A compiled form that may be damaged is made again, once. Otherwise the plugin stands as failed.
        """
        refused = _find(bundle, error.plugin)
        if refused is None or refused.artifact is None:
            return  # it was replaced meanwhile
        running = self.entry(error.plugin)
        runs = running is not None and running.revision == refused.revision
        compiled = self._compiler.find(refused)
        if error.damaged and compiled not in self._compiled_again:
            self._compiled_again.add(compiled)
            compiled.unlink(missing_ok=True)
            log.info("plugin '%s' does not load (%s); it is compiled again", error.plugin, error)
            try:
                await self._compile_again(refused)
            except LoadError as cause:
                error = RefusedError(error.plugin, cause.cause, str(cause), damaged=True)
            else:
                if runs and self.bundle is not None:
                    await self._deploy_again(self.bundle)
                return
        log.warning("plugin '%s' cannot be loaded (%s): %s", error.plugin, error.cause, error)
        failure = LoadFailure(cause=error.cause, message=str(error))
        slot = self.slots.get(error.plugin)
        if slot is not None and slot.resolved is not None and slot.resolved.entry.revision == refused.revision:
            slot.resolved, slot.failure = None, failure
        self._assemble.set()
        if not runs or self.bundle is None or running is None:
            return
        # What runs, or what was the last good one, is what does not load.
        self.bundle = _with_placeholder(self.bundle, running, failure)
        await self._deploy_again(self.bundle)
        if slot is not None and error.damaged:
            slot.key = ""  # fetch it anew
            self._rescan.set()

    async def _deploy_again(self, bundle: Bundle) -> None:
        try:
            await self._deploy(bundle)
        except RefusedError as error:
            await self._refused(error, bundle)
        else:
            await self._keep(bundle)

    def _clean_up(self) -> None:
        kept = {entry.artifact.sha256 for entry in self.bundle.plugins if entry.artifact} if self.bundle else set()
        kept |= {slot.resolved.artifact.sha256 for slot in self.slots.values() if slot.resolved}
        self._store.pin(kept)
        self._compiler.keep(kept)


def _find(bundle: Bundle, name: str) -> BundlePlugin | None:
    return next((entry for entry in bundle.plugins if entry.name == name), None)


def _with_placeholder(bundle: Bundle, entry: BundlePlugin, failure: LoadFailure) -> Bundle:
    """The bundle with something that fails closed in a plugin's place."""
    placeholder = entry.model_copy(update={"artifact": None, "failure": failure})
    return Bundle.of([placeholder if each is entry else each for each in bundle.plugins])


def _slug(file: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", file.lower())[:200].strip("-.") or "file"
