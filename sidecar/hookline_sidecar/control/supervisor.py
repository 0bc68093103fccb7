"""The supervisor: from what a source wants to workers that run it.

Each plugin has a *slot*, which resolves it (``slots``). Whenever a slot settles, a bundle is assembled of what every
slot has (``assembly``). A bundle that differs from the running one is handed to the workers, and kept as the last good
one (``deployment``). What is true of all that at one moment is a ``View``.

While the source holds what it wants, the workers prepare it and what runs goes on: all slots settle first, so that
what is then committed is everything that can be had, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_artifacts import apart
from hookline_artifacts.errors import FetchError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.mirrors import MirrorFile
from hookline_artifacts.net.proxies import NO_PROXIES
from hookline_artifacts.store import ArtifactStore
from hookline_runtime.guest.compiler import Compiler
from hookline_runtime.host.cache_store import CacheStore
from hookline_runtime.host.kv import KvStore, key_on_server
from hookline_runtime.trial.self_test import SelfTests
from hookline_sidecar.control import waiting
from hookline_sidecar.control.admin.access import Access
from hookline_sidecar.control.admin.kv import KvAdmin
from hookline_sidecar.control.admin.server import AdminServer
from hookline_sidecar.control.assembly import assemble
from hookline_sidecar.control.authorities import Authorities
from hookline_sidecar.control.deployment import Deployment, what_runs, with_placeholder
from hookline_sidecar.control.probation import Probations, counts_of
from hookline_sidecar.control.readings import HealthWatch
from hookline_sidecar.control.report import report, written
from hookline_sidecar.control.room import Room
from hookline_sidecar.control.rows import Rows
from hookline_sidecar.control.setbacks import Setbacks
from hookline_sidecar.control.slots import Slots
from hookline_sidecar.control.sources.folder import FolderSource
from hookline_sidecar.control.sources.operator import OperatorSource
from hookline_sidecar.control.sources.policies import PolicyFiles, own_namespace
from hookline_sidecar.control.sources.trust import SOUGHT_S, Trust
from hookline_sidecar.control.view import SourceView, TrustView, View, WantedPlugin, WorkersView
from hookline_sidecar.control.workers import LoadRefusedError, Workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_runtime.plugin.stats import StatsTable
    from hookline_sidecar.board import Board
    from hookline_sidecar.control.sources.source import Source, Wants
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.sockets import AdminSockets
    from hookline_sidecar.state import StateFolder

_FIRST_WAIT_S: Final = 5.0
"""How long a first start waits for slow plugins, once the source wants them, before they fail closed."""
_SOCKETS_S: Final = 2.0
_SETTLE_S: Final = 0.02
"""How long several changes are gathered into one bundle."""

log = logging.getLogger("hookline.supervisor")


class Supervisor:
    """The process that makes bundles and answers the admin port."""

    def __init__(
        self,
        settings: Settings,
        state: StateFolder,
        *,
        tables: Sequence[StatsTable],
        board: Board,
        admin_sockets: AdminSockets,
    ) -> None:
        self._settings = settings
        self._state = state
        self._assemble = asyncio.Event()
        self._room = Room(settings, state, shared=lambda: self._compiler.shared_size)
        self._rows = Rows(state, tables)
        self._workers = Workers(size=settings.workers, plan=self._room.plan, refused=self._refused, changed=self._tell)
        self._store = ArtifactStore(state.artifacts, seal=state.own_key)
        self._trust = self._make_trust()
        self._compiler = Compiler(state.compiled, key=state.own_key)
        self._kv = KvStore(state.kv)
        self._caches = CacheStore(state.cache, limit=settings.cache_memory)
        self._probations = Probations(
            state, count=lambda name: counts_of(self._rows.summary(name)), reports=self._workers.facts
        )
        self._slots = Slots(
            self._compiler,
            SelfTests(self._compiler, state.compiled),
            running=self._last_of,
            refused=self._probations.take_wish,
            settled=self._assemble_soon,
        )
        self._deployment = self._make_deployment()
        self._setbacks = self._make_setbacks()
        apart.set_room(self._room_for_child)
        self._health = HealthWatch(
            self._rows, bundle=lambda: self._deployment.bundle, facts=self._workers.facts, changed=self._tell
        )
        self._kv_admin = KvAdmin(
            self._kv, plugins=self._names, elsewhere=self._shared_keys, body_timeout=settings.body_timeout
        )
        self._admin = self._make_admin(admin_sockets, board)
        self._source: Source = self._make_source()
        self._wants: Wants | None = None
        """What the slots were last made of."""
        self._draining = False
        self._held_as: str | None = None
        """The source's word for what the workers hold."""
        self._ran: str | None = None
        """What the last bundle that all workers ran was known as."""
        self._problems: Mapping[str, LoadFailure] = {}
        """What has no room in the bundle, by plugin."""
        self._first_wait: asyncio.TimerHandle | None = None
        self._first_wait_over = False

    def _make_admin(self, listening: AdminSockets, board: Board) -> AdminServer:
        return AdminServer(
            self._settings,
            listening,
            self._state.admin,
            view=self.view,
            board=board,
            access=Access(self._settings.admin_token),
            keys=self._kv_admin,
            modules=self._store.module,
        )

    def _room_for_child(self) -> int | None:
        """Bytes for one that compiles: all that guests do not have, and while there are none, theirs too."""
        plan = self._room.plan(self._deployment.bundle or Bundle.of([]))
        return None if plan is None else plan.child(self._workers.guests())

    def _make_setbacks(self) -> Setbacks:
        return Setbacks(
            self._deployment,
            slots=self._slots,
            probations=self._probations,
            workers=self._workers,
            came=self._assemble_soon,
            changed=self._tell,
            fetch=self._fetch_again,
        )

    def _make_trust(self) -> Trust:
        operator = self._settings.operator
        files = PolicyFiles(
            self._settings.trust_policies, namespace=own_namespace(operator.token) if operator is not None else None
        )
        return Trust(files, folder=self._state.trust, key=self._state.own_key, store=self._store)

    def _make_deployment(self) -> Deployment:
        return Deployment(
            self._state,
            workers=self._workers,
            probations=self._probations,
            rows=self._rows,
            kv=self._kv,
            caches=self._caches,
            store=self._store,
            compiler=self._compiler,
            trust=self._trust,
            resolved=self._slots.entries,
            switched=self._switched,
        )

    def _make_source(self) -> Source:
        if self._settings.operator is not None:
            authorities = Authorities(self._state.authorities, self._settings.operator.url)
            return OperatorSource(
                self._settings.operator, self._store, report=self._report, trust=self._trust, authorities=authorities
            )
        assert self._settings.plugins is not None  # noqa: S101 - settings have exactly one of the two
        key = self._state.make_seal_key()
        fetcher = Fetcher(
            self._store,
            mirrors=MirrorFile(self._settings.mirrors),
            proxies=self._settings.proxies or NO_PROXIES,
        )
        return FolderSource(
            self._settings.plugins,
            fetcher,
            running=lambda: self._deployment.bundle,
            key=key,
            trust=self._trust,
        )

    async def run(self) -> None:
        """Work until SIGTERM."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        await self._trust.read()
        await self._restore()
        await self._workers.listen(self._state.control)
        await self._admin.open()
        tasks = [
            loop.create_task(self._source.run(), name="source"),
            loop.create_task(self._take_on_change(), name="take"),
            loop.create_task(self._assemble_on_change(), name="assemble"),
            loop.create_task(self._stay_reachable(), name="admin-socket"),
            loop.create_task(self._health.run(), name="health"),
            loop.create_task(waiting.watch(self.view), name="waiting"),
            loop.create_task(self._setbacks.watch_probation(), name="probation"),
        ]
        if self._trust.configured:
            tasks.append(loop.create_task(self._follow_policies(), name="policies"))
        ended, _ = await asyncio.wait(
            [*tasks, loop.create_task(stop.wait(), name="stop")], return_when=asyncio.FIRST_COMPLETED
        )
        for task in ended:
            task.result()  # a task that ends by itself is a defect: let the parent start this process again
        for task in tasks:
            task.cancel()
        self._slots.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._deployment.close()
        await self._source.close()
        await self._admin.close()
        self._kv_admin.close()
        await self._workers.close()

    # ── what is true now ──

    def view(self) -> View:
        """All of it, for whoever shows or tells it."""
        bundle, source, workers = self._deployment.bundle, self._source, self._workers
        return View(
            draining=self._draining,
            bundle=bundle,
            changes=self._deployment.changes,
            running=self._ran,
            prepared=self._prepared(),
            plugins=tuple(
                WantedPlugin(
                    name=name,
                    file=slot.wanted.file,
                    resolved=slot.resolved,
                    failure=self._problems.get(name) or slot.failure,
                    rolled_back=slot.refused.rolled_back if slot.refused else None,
                    steps=(*slot.steps.values(), *self._deployment.steps.get(name, {}).values()),
                    stage=slot.stage if slot.task is not None else None,
                )
                for name, slot in sorted(self._slots.items())
            ),
            source=SourceView(
                description=source.describe(),
                problems=source.problems,
                link=source.link,
                waiting_for=self._waits_for(),
            ),
            workers=WorkersView(
                size=workers.size,
                current=workers.running(bundle.version) if bundle is not None else 0,
                connections=workers.connections,
                facts=workers.facts(),
            ),
            health=self._health.troubles,
            on_probation=self._probations.of_bundle(bundle),
            rows=self._rows,
            trust=TrustView(
                description=self._trust.describe(),
                refused=self._trust.refused,
                unsealed=self._compiler.unsealed + self._deployment.mended,
                signers=lambda name: self._trust.signers(self._deployment.entry(name)),
            ),
        )

    def _prepared(self) -> str | None:
        held, wants = self._workers.held, self._wants
        if held is None or wants is None or not wants.held or not self._workers.prepared(held.version):
            return None
        return wants.version if self._held_as == wants.version else None

    def _waits_for(self) -> str:
        if self._wants is None:
            return self._source.waiting
        held = self._wants.held and self._slots.settled
        return "the source holds the first bundle" if held else "the plugins are being loaded"

    def _report(self, authority: str | None) -> str:
        return written(report(self.view(), authority=authority))

    def _last_of(self, name: str) -> BundlePlugin | None:
        """What was last loaded of a plugin, also where it has failed on probation since."""
        refused = self._probations.refused.get(name)
        return refused.entry if refused is not None else self._deployment.entry(name)

    def _names(self) -> set[str]:
        """The plugins that are asked for, or run."""
        bundle = self._deployment.bundle
        return {*self._slots, *(entry.name for entry in (bundle.plugins if bundle else ()))}

    def _shared_keys(self) -> dict[str, str]:
        """Of the plugins that run and have their keys on a server: the hash that they are in there."""
        bundle = self._deployment.bundle
        return {
            entry.name: key_on_server(entry.namespace, entry.name, "entries")
            for entry in (bundle.plugins if bundle else ())
            if entry.kv.scope == "Cluster"
        }

    def _tell(self) -> None:
        """Something may be true that was not."""
        bundle = self._deployment.bundle
        if bundle is not None and self._workers.runs(bundle.version):
            self._ran = self._deployment.known_as
        self._source.tell()

    def _assemble_soon(self) -> None:
        self._assemble.set()

    def _refused(self, error: LoadRefusedError, bundle: Bundle) -> None:
        self._setbacks.note_refusal(error, bundle)

    def _fetch_again(self) -> None:
        self._source.changed.set()

    def _switched(self) -> None:
        self._slots.judge_all()  # what is told of what was refused is true from here on

    # ── at the start, and on signals ──

    async def _restore(self) -> None:
        """Serve the last good bundle before any source is asked."""
        bundle = await asyncio.to_thread(self._state.load_bundle)
        if bundle is None:
            return
        bundle = await self._deployment.restore(self._probations.restored(bundle))
        self._slots.restore(bundle.plugins, from_files=self._settings.plugins is not None)
        log.info("the last good bundle %s runs again: %s", bundle.version, what_runs(bundle))

    def _reread(self) -> None:
        log.info("SIGHUP: asking the source again")
        self._slots.anew()
        self._source.reread()

    def _drain(self) -> None:
        self._draining = True
        self._tell()

    async def _stay_reachable(self) -> None:
        """Make sockets anew where somebody deleted them: without one, a worker that is replaced gets no bundle."""
        made = (
            (self._state.control, functools.partial(self._workers.listen, self._state.control)),
            (self._state.admin, self._admin.open_socket),
        )
        while True:
            await asyncio.sleep(_SOCKETS_S)
            for path, make in made:
                if not await asyncio.to_thread(path.is_socket):
                    with contextlib.suppress(OSError):
                        await make()
                        log.warning("%s was deleted, and is made again; leave the state folder alone", path)

    # ── from the source to the workers ──

    async def _take_on_change(self) -> None:
        while True:
            await self._source.changed.wait()
            self._source.changed.clear()
            wants = self._source.wants
            if wants is None:
                self._slots.blame(self._source.failure)
            else:
                self._wants = wants
                self._probations.forget(self._probations.refused.keys() - wants.plugins.keys())
                self._slots.take(wants.plugins)
                if self._first_wait is None:
                    loop = asyncio.get_running_loop()
                    self._first_wait = loop.call_later(_FIRST_WAIT_S, self._end_first_wait)
                self._assemble.set()
            self._tell()

    async def _follow_policies(self) -> None:
        """Judge all that is wanted, and all that runs, each time that the policies of this machine change."""
        while True:
            await self._trust.changed()
            if await self._trust.read():
                log.info("the trust policies of this sidecar changed: everything is judged anew")
                if not self._trust.is_broken:
                    self._slots.anew()
                    if self._wants is not None:  # before anything of it is judged, so that its signatures are here
                        self._slots.take(self._wants.plugins)
                self._source.changed.set()
                self._assemble.set()
                asyncio.get_running_loop().call_later(SOUGHT_S + 1, self._assemble_soon)

    async def _without_forbidden(self, bundle: Bundle) -> Bundle:
        """The bundle with something that fails closed in place of what may not run.

        Nobody is waited for: slots have signatures fetched, and who is asked could take his time for one of them.
        """
        for entry, error in await self._trust.forbidden_in(bundle, busy=self._slots.busy, offline=True):
            log.warning("plugin '%s' may not run: %s", entry.name, error)
            failure = LoadFailure(cause=error.cause, message=str(error))
            passing = isinstance(error, FetchError) and error.transient
            self._slots.take_refusal(entry, failure, passing=passing)
            bundle = with_placeholder(bundle, entry, failure)
        before = Bundle.of([trial.before for trial in self._probations.trials.values()])
        ended = self._probations.end(entry for entry, _ in await self._trust.forbidden_in(before, offline=True))
        if ended:
            self._workers.prove(ended)
        return bundle

    def _end_first_wait(self) -> None:
        self._first_wait_over = True
        self._assemble.set()

    async def _assemble_on_change(self) -> None:
        while True:
            await self._assemble.wait()
            await asyncio.sleep(_SETTLE_S)
            self._assemble.clear()
            await self._setbacks.handle()
            if self._may_assemble():
                await self._assemble_once()
            self._tell()

    def _may_assemble(self) -> bool:
        if self._wants is None:
            return self._deployment.bundle is not None
        if self._wants.held:
            return self._slots.settled
        return self._deployment.bundle is not None or self._slots.settled or self._first_wait_over

    async def _assemble_once(self) -> None:
        while True:
            running = self._deployment.bundle
            bundle, self._problems = assemble(self._slots, running)
            bundle = await self._without_forbidden(bundle)
            # Not what the slots are when the workers have it: what is told of it has to be true then too.
            wants = self._wants
            wanted_as = wants.version if wants is not None and self._slots.settled else None
            if running is not None and bundle.full_version == running.full_version:
                await self._workers.discard()
                # The same plugins; what failed beside them may have changed.
                self._deployment.adopt(bundle, known_as=wanted_as)
                self._workers.blame(bundle)
                self._tell()
                if bundle != running:
                    await self._deployment.keep()
                return
            try:
                if wants is not None and wants.held:
                    await self._deployment.hold(bundle)
                    self._held_as = wanted_as
                    return
                await self._deployment.run(bundle, known_as=wanted_as or bundle.version)
            except LoadRefusedError as error:
                await self._setbacks.take_refusal(error, bundle)
                continue
            self._tell()
            await self._deployment.keep()
            log.info("bundle %s runs: %s", bundle.version, what_runs(bundle))
            return
