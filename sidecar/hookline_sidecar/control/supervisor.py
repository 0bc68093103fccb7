"""The control road: from what a source wants to workers that run it.

Each plugin has a *slot*, which resolves it (``slots``). Whenever a slot settles, a bundle is assembled of what every
slot has: the new, or the last good, or a placeholder that fails closed. A bundle that differs from the running one
is handed to the workers, and kept as the last good one.

What stands for a plugin that cannot be loaded, by its failure policy:

- LastGood: what it was before. A plugin that is new while others run is left out, since nothing ran before it; at
  the start of a sidecar without any last good bundle it fails closed, since nothing may run without its guard;
- Closed: a placeholder that gives each deciding hook's refusing answer;
- Open: nothing.

While the source holds what it wants, the workers prepare it and what runs goes on: all slots settle first, so that
what is then committed is everything that can be had, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_api.hooks import OBSERVERS, Hook
from hookline_api.sentences import first_load_choice
from hookline_api.standing import policy_of, stands
from hookline_artifacts import apart, memory
from hookline_artifacts.errors import FetchError, LoadError
from hookline_artifacts.store import ArtifactStore
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.host import kv_initial
from hookline_runtime.host.kv import KvStore
from hookline_runtime.plugin.budget import STORE, Plan
from hookline_runtime.plugin.stats import MAX_PLUGINS, StatsTable
from hookline_sidecar.control import report, waiting
from hookline_sidecar.control.admin.access import Access
from hookline_sidecar.control.admin.kv import KvAdmin
from hookline_sidecar.control.admin.server import AdminServer
from hookline_sidecar.control.authorities import Authorities
from hookline_sidecar.control.health import Watch
from hookline_sidecar.control.probation import LOOK_S, Probations, counts_of
from hookline_sidecar.control.slots import Slot, Slots
from hookline_sidecar.control.sources.folder import STAND_IN, FolderSource
from hookline_sidecar.control.sources.operator import OperatorSource
from hookline_sidecar.control.workers import Fleet, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_api.distribution import PluginState
    from hookline_sidecar.board import Board
    from hookline_sidecar.control.sources.source import Source, Wants
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.sockets import AdminSockets
    from hookline_sidecar.state import StateFolder

_FIRST_WAIT_S: Final = 5.0
"""How long a first start waits for slow plugins, once the source wants them, before they fail closed."""
_DOOR_S: Final = 2.0
_INITIAL_S: Final = 20.0
"""For the store to take initial keys; another process may be writing."""
_SETTLE_S: Final = 0.02
"""How long several changes are gathered into one bundle."""
_LEISURE: Final = 10
"""It rests so many times as long as a look at probation took: 256 plugins and four workers take some 50 ms."""

log = logging.getLogger("hookline.supervisor")


class Supervisor:
    """The process that makes bundles and answers the admin port."""

    def __init__(
        self,
        settings: Settings,
        state: StateFolder,
        *,
        tables: list[StatsTable],
        board: Board,
        admin_sockets: AdminSockets,
    ) -> None:
        self.settings = settings
        self.tables = tables
        self.board = board
        self._memory = settings.memory or memory.limit()
        self._in_memory = memory.in_memory(state.root)
        self.fleet = Fleet(size=settings.workers, plan=self._plan, refused=self._refused_by_one, changed=self._tell)
        apart.set_room(self._room_for_child)
        self.started = time.time()
        self.changes = 0
        """Bundles that replaced another one."""
        self.bundle: Bundle | None = None
        """What the workers run."""
        self.runs: str | None = None
        """The source's word for it, where it is all of that or differs only by what failed here; else its version."""
        self.numbers = state.load_numbers()
        """Which rows of the statistics belong to which plugin."""
        self.health = Watch(self, self._tell)
        self.draining = False
        self.access = Access(settings.admin_token)
        self._kv = KvStore(state.kv)
        self.kv_admin = KvAdmin(self._kv, plugins=self._names, body_timeout=settings.body_timeout)
        self.admin = AdminServer(self, admin_sockets, state.admin)
        self._state = state
        self._store = ArtifactStore(state.artifacts)
        self._compiler = Compiler(state.compiled)
        self.probations = Probations(
            state,
            count=lambda name: counts_of(self.tables, self.numbers.get(name), Hook),
            reports=self.fleet.reports,
        )
        self.slots = Slots(
            self._compiler, running=self._last_of, refused=self.probations.judge, settled=self._slot_settled
        )
        self.source: Source = self._make_source()
        self._wants: Wants | None = None
        """What the slots were last made of."""
        self._held_as: str | None = None
        """The source's word for what the workers hold."""
        self._ran: str | None = None
        self._assemble = asyncio.Event()
        self._first_wait: asyncio.TimerHandle | None = None
        self._first_wait_over = False
        self._refusals: list[tuple[RefusedError, Bundle]] = []
        self._going_back: list[str] = []
        """Plugins that have failed on probation."""
        self._compiled_again: set[Path] = set()
        self._unkept = False

    def _plan(self, bundle: Bundle) -> Plan | None:
        """What the parts of the sidecar may have of its memory; None where nothing bounds it."""
        if self._memory is None:
            return None
        state = 0
        if self._in_memory:
            writes = any("kv.write" in entry.permissions for entry in bundle.plugins)
            state = self._state.size() + max(self._state.store_size(), STORE if writes else 0)
        return Plan.of(self._memory, workers=self.settings.workers, state=state)

    def _room_for_child(self) -> int | None:
        """Bytes for one that compiles: all that guests do not have, and while there are none, theirs too."""
        plan = self._plan(self.bundle or Bundle.of([]))
        return None if plan is None else plan.child(self.fleet.guests())

    def _make_source(self) -> Source:
        if self.settings.operator is not None:
            authorities = Authorities(self._state.authorities, self.settings.operator.url)
            return OperatorSource(
                self.settings.operator, self._store, report=lambda: report.of(self), authorities=authorities
            )
        assert self.settings.plugins is not None  # noqa: S101 - settings have exactly one of the two
        key = self._state.seal_key()
        return FolderSource(self.settings.plugins, self._store, running=lambda: self.bundle, key=key)

    async def run(self) -> None:
        """Work until SIGTERM."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        await self._restore()
        await self.fleet.listen(self._state.control)
        await self.admin.open()
        tasks = [
            loop.create_task(self.source.run(), name="source"),
            loop.create_task(self._take_on_change(), name="take"),
            loop.create_task(self._assemble_on_change(), name="assemble"),
            loop.create_task(self._stay_reachable(), name="admin-socket"),
            loop.create_task(self.health.run(), name="health"),
            loop.create_task(waiting.watch(self), name="waiting"),
            loop.create_task(self._watch_probation(), name="probation"),
        ]
        ended, _ = await asyncio.wait(
            [*tasks, loop.create_task(stop.wait(), name="stop")], return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            task.result()  # a road that ends by itself is a defect: let the parent start this process again
        for task in tasks:
            task.cancel()
        self.slots.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.source.close()
        await self.admin.close()
        self.kv_admin.close()
        await self.fleet.close()

    def state_of(self, slot: Slot) -> PluginState:
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

    def _last_of(self, name: str) -> BundlePlugin | None:
        """What was last loaded of a plugin, also where it has failed on probation since."""
        refused = self.probations.refused.get(name)
        return refused.entry if refused is not None else self.entry(name)

    def _names(self) -> set[str]:
        """The plugins that are asked for, or run."""
        return {*self.slots, *(entry.name for entry in (self.bundle.plugins if self.bundle else ()))}

    def not_ready(self, *, in_our_words: bool = False) -> list[str]:
        """Why the pod should get no traffic: one sentence each; empty where it should.

        ``in_our_words`` for strangers: nothing that a plugin, a registry or the other side of a connection has said.
        """
        reasons = []
        if self.draining:
            reasons.append("the sidecar is draining")
        if self.bundle is None:
            reasons.append("there is no bundle yet" if in_our_words else self._not_loaded())
        elif self.fleet.running(self.bundle.version) == 0:
            reasons.append("no worker runs the bundle yet")
        for entry in self.bundle.plugins if self.bundle else ():
            if entry.artifact is None and any(hook not in OBSERVERS for hook in entry.hooks):
                why = "it is not loaded"
                if entry.failure:
                    why = f"cause {entry.failure.cause}" if in_our_words else entry.failure.message
                    choice = first_load_choice(entry.failure.cause)
                    why = f"{why}; {choice}" if choice else why
                reasons.append(f"plugin '{entry.name}' fails closed: {why}")
        return reasons

    def _not_loaded(self) -> str:
        if self._wants is None:
            return self.source.waiting
        held = self._wants.held and self._settled()
        return "the source holds the first bundle" if held else "the plugins are being loaded"

    async def _stay_reachable(self) -> None:
        """Make sockets anew where somebody deleted them: without one, a worker that is replaced gets no bundle."""
        made = (
            (self._state.control, functools.partial(self.fleet.listen, self._state.control)),
            (self._state.admin, self.admin.open_socket),
        )
        while True:
            await asyncio.sleep(_DOOR_S)
            for path, make in made:
                if not await asyncio.to_thread(path.is_socket):
                    with contextlib.suppress(OSError):
                        await make()
                        log.warning("%s was gone, and is made again; keep out of the state folder", path)

    def prepared(self) -> str | None:
        """The source's word for what is held, once all workers could switch to it."""
        held, wants = self.fleet.held, self._wants
        if held is None or wants is None or not wants.held or not self.fleet.prepared(held.version):
            return None
        return wants.version if self._held_as == wants.version else None

    def running(self) -> str | None:
        """The source's word for what all workers run; while they switch, for what they ran."""
        if self.bundle is not None and self.fleet.runs(self.bundle.version):
            self._ran = self.runs
        return self._ran

    # ── from the source to slots ──

    async def _restore(self) -> None:
        """Serve the last good bundle before any source is asked."""
        bundle = await asyncio.to_thread(self._state.load_bundle)
        if bundle is None:
            return
        bundle = self.probations.restored(bundle)
        for entry in bundle.plugins:
            if entry.artifact is None or self._compiler.has(entry.artifact.sha256, fuel=entry.limits.fuel is not None):
                continue
            # Another version of wasmtime, or a cache that was cleaned.
            try:
                await self._compile_again(entry)
            except LoadError as error:
                log.warning("plugin '%s' of the last good bundle cannot be compiled again: %s", entry.name, error)
                bundle = _with_placeholder(bundle, entry, LoadFailure(cause=error.cause, message=str(error)))
        behind = self.probations.modules()
        self._store.pin({*behind, *(entry.artifact.sha256 for entry in bundle.plugins if entry.artifact)})
        self.slots.restore(bundle.plugins, from_files=self.settings.plugins is not None)
        while True:
            try:
                await self._deploy(bundle)
                break
            except RefusedError as error:  # of the store: no worker is there yet
                refused = _find(bundle, error.plugin)
                assert refused is not None  # noqa: S101 - it was in the bundle that is refused
                log.warning("plugin '%s' of the last good bundle cannot run: %s", error.plugin, error)
                bundle = _with_placeholder(bundle, refused, LoadFailure(cause=error.cause, message=str(error)))
        self.runs = bundle.version
        log.info("the last good bundle %s runs again (%d plugins)", bundle.version, len(bundle.plugins))

    async def _compile_again(self, entry: BundlePlugin) -> None:
        """Make the compiled form of what is in the bundle from the module that is kept. Raises LoadError."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing to compile
        path = await asyncio.to_thread(self._store.module, entry.artifact.sha256)
        if path is None:
            raise FetchError("its module in the state folder is gone or damaged")
        fuel = entry.limits.fuel is not None
        await self._compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=fuel, plugin=entry.name))

    def _reread(self) -> None:
        log.info("SIGHUP: asking the source again")
        self.slots.anew()
        self.source.reread()

    def _drain(self) -> None:
        self.draining = True
        self._tell()

    def _tell(self) -> None:
        self.source.tell()

    async def _take_on_change(self) -> None:
        while True:
            await self.source.changed.wait()
            self.source.changed.clear()
            wants = self.source.wants
            if wants is None:
                self.slots.blame(self.source.failure)
            else:
                self._wants = wants
                self.probations.forget(self.probations.refused.keys() - wants.plugins.keys())
                self.slots.take(wants.plugins)
                if self._first_wait is None:
                    loop = asyncio.get_running_loop()
                    self._first_wait = loop.call_later(_FIRST_WAIT_S, self._end_first_wait)
                self._assemble.set()
            self._tell()

    def _slot_settled(self) -> None:
        self._assemble.set()

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
                await self._refused(*self._refusals.pop())
            while self._going_back:
                await self._go_back(self._going_back.pop())
            if self._may_assemble():
                await self._assemble_once()
            self._tell()

    def _settled(self) -> bool:
        return all(slot.settled for slot in self.slots.values())

    def _may_assemble(self) -> bool:
        if self._wants is None:
            return self.bundle is not None
        if self._wants.held:
            return self._settled()
        return self.bundle is not None or self._settled() or self._first_wait_over

    async def _assemble_once(self) -> None:
        while True:
            bundle = self._compose()
            # Not what the slots are when the workers have it: what is told of it has to be true then too.
            wants, settled = self._wants, self._settled()
            told = wants.version if wants is not None and settled else None
            if self.bundle is not None and bundle.version == self.bundle.version:
                await self.fleet.discard()
                changed = bundle != self.bundle
                self.bundle = bundle  # the same plugins; what failed beside them may have changed
                self.runs = told or self.runs
                if changed:
                    await self._keep(bundle)
                return
            try:
                if wants is not None and wants.held:
                    before = self.probations.before(bundle, self.bundle)
                    await self.fleet.prepare(bundle, self._number(bundle), before)
                    await self._write_initial_keys(bundle, only_try=True)
                    self._held_as = told
                    return
                await self._deploy(bundle)
            except RefusedError as error:
                await self._refused(error, bundle)
                continue
            self.runs = told or bundle.version
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
            slot.wanted.file
            for slot in self.slots.values()
            if slot.wanted.file is not None and slot.resolved is None and self.entry(slot.name) is None
        }
        return [entry for entry in running if entry.name not in self.slots and entry.origin in coming]

    def _stands(self, slot: Slot) -> BundlePlugin | None:
        """What stands for a plugin in the bundle: see the module's docstring."""
        if slot.resolved is not None:
            entry = slot.resolved.entry if slot.refused is None else slot.refused.before
            return entry.model_copy(update={"failure": slot.failure})
        now, wanted = self.entry(slot.name), slot.wanted
        last = now if now is not None and (now.artifact is not None or not wanted.known) else None
        hooks = wanted.placeholder.hooks or (now.hooks if now is not None else [])
        return stands(
            last,
            slot.failure or (last.failure if last is not None and last.artifact is None else None),
            policy_of(wanted.failure_policy, slot.failure),
            placeholder=wanted.placeholder.model_copy(update={"hooks": hooks}),
            is_new=now is None and self.bundle is not None and not self._stands_in(),
        )

    def _stands_in(self) -> bool:
        """Whether something refuses for a file that could not be read, and can by now.

        What was in that file goes on refusing until it is loaded.
        """
        running = self.bundle.plugins if self.bundle else []
        return any(entry.name.startswith(STAND_IN) and entry.name not in self.slots for entry in running)

    async def _watch_probation(self) -> None:
        spent = 0.0
        while True:
            await asyncio.sleep(max(LOOK_S, _LEISURE * spent))
            begin = time.thread_time()
            proven, back = self.probations.look(self.bundle)
            if proven:
                self.fleet.prove(proven)
                self._tell()
            if back:
                self._going_back = back
                self._assemble.set()
            spent = time.thread_time() - begin

    async def _go_back(self, name: str) -> None:
        """Run the version before one that has failed on probation, whatever is wanted or held meanwhile."""
        running, slot = self.entry(name), self.slots.get(name)
        # Where something else is wanted by now, that wish is not what asked for it.
        asked = running and slot and slot.resolved and slot.resolved.entry.revision == running.revision
        before = self.probations.refuse(running, slot.wanted.key if slot and asked else "") if running else None
        if before is None or self.bundle is None:
            return
        before = before.model_copy(update={"failure": self.probations.refused[name].failure})
        await self._deploy_again(Bundle.of([before if each is running else each for each in self.bundle.plugins]))
        self.slots.judge_all()  # also where another plugin could not be loaded with it: it is in the next bundle

    async def _deploy(self, bundle: Bundle) -> None:
        before = self.probations.before(bundle, self.bundle)
        await self.fleet.prepare(bundle, self._number(bundle), before)
        await self._write_initial_keys(bundle)
        await self.fleet.commit()
        self._compiled_again.clear()
        if self.bundle is not None:
            self.changes += 1
        self.bundle = bundle
        alone = self.fleet.alone()
        self.probations.begin(bundle, before, alone)
        self.slots.judge_all()  # what is told of what was refused is true from here on
        if alone:  # what some workers have no room for, the others do without too
            self.fleet.prove({entry.name: entry.revision for entry in bundle.plugins if entry.name in alone})
        # Also a plugin that could not be had keeps what it stored: it may be back.
        await asyncio.to_thread(self._kv.make_room, {entry.name for entry in bundle.plugins})

    async def _write_initial_keys(self, bundle: Bundle, *, only_try: bool = False) -> None:
        """Once all workers could switch, and before one does. Raises RefusedError where the store takes them not."""
        writing = asyncio.to_thread(kv_initial.write, self._kv, bundle.plugins, only_try=only_try)
        try:
            async with asyncio.timeout(_INITIAL_S):
                await writing
        except kv_initial.InitialKeysError as error:
            raise RefusedError(error.plugin, error.cause, str(error), passing=True) from None
        except TimeoutError:
            first = next(entry.name for entry in bundle.plugins if entry.kv.initial)
            message = f"the store did not take the keys of spec.kv.initial within {_INITIAL_S:g} s: who else writes?"
            raise RefusedError(first, "config", message, passing=True) from None

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

    def _refused_by_one(self, error: RefusedError, bundle: Bundle) -> None:
        """A worker that was started later cannot load what the others have."""
        self._refusals.append((error, bundle))
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
            if error.passing:
                self.slots.try_again(slot)
        self._assemble.set()
        if not runs and self.probations.give_up(refused):  # it would be tried again at once, and for ever
            self.slots.judge_all()
            if running is not None:
                self.fleet.prove({running.name: running.revision})
        if not runs or self.bundle is None or running is None:
            return
        # What runs, or what was the last good one, is what does not load.
        self.bundle = _with_placeholder(self.bundle, running, failure)
        await self._deploy_again(self.bundle)
        if slot is not None and error.damaged:
            slot.key = ""  # fetch it anew
            self.source.changed.set()

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
        kept |= self.probations.modules()
        self._store.pin(kept)
        self._compiler.keep(kept)


def _find(bundle: Bundle, name: str) -> BundlePlugin | None:
    return next((entry for entry in bundle.plugins if entry.name == name), None)


def _with_placeholder(bundle: Bundle, entry: BundlePlugin, failure: LoadFailure) -> Bundle:
    """The bundle with something that fails closed in a plugin's place."""
    placeholder = entry.model_copy(update={"artifact": None, "failure": failure})
    return Bundle.of([placeholder if each is entry else each for each in bundle.plugins])
