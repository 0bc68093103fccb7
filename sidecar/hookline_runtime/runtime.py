"""The runtime: a bundle becomes running plugins, and a hook call becomes a decision.

``prepare`` loads a bundle beside the one that runs, ``commit`` swaps one reference, and the old bundle ends with
its last call. So no call waits for a change, and none is lost to one. Plugins whose revision did not change are
carried over with their instances and their circuit breaker.

The caller may name versions ``before`` of some plugins. Each is held, or loaded again, and answers what the new one
fails on (``plugin.probation``). It is let go when the new one has proven itself (``prove``). A bundle that goes back to
the version before gets the very same plugin.

    runtime = Runtime()
    await runtime.load(bundle, find)     # find(plugin) is the path of its compiled module
    decision = await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1"}')
    await runtime.close()
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_artifacts.entry import check_entry
from hookline_artifacts.errors import ConfigError, FetchError, HooklineError, LoadError
from hookline_runtime.chain.pipeline import Chains, Later, Link
from hookline_runtime.errors import OverloadError
from hookline_runtime.guest.calls import link
from hookline_runtime.guest.engine import Ticker, load_compiled
from hookline_runtime.guest.reuse import first_instance
from hookline_runtime.host import kv_initial
from hookline_runtime.host.cache import wanted_sizes
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.plugin.backlog import Asker
from hookline_runtime.plugin.budget import Budget, TooLargeError, need
from hookline_runtime.plugin.permits import Member, Permits
from hookline_runtime.plugin.plugin import Plugin
from hookline_runtime.plugin.probation import Before
from hookline_runtime.plugin.runs import MAX_THREADS
from hookline_runtime.plugin.stats import MAX_PLUGINS, StatsTable

if TYPE_CHECKING:
    from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
    from hookline_api.hooks import Hook
    from hookline_runtime.call.decisions import Decision
    from hookline_runtime.guest.sealed import Inherited, SealedFile
    from hookline_runtime.host.cache_store import CacheStore
    from hookline_runtime.host.kv import KvStore

_FIRST_INSTANCE_MS: Final = 5_000
"""For the instances that are made when a plugin is loaded: longer than a call's, shorter than patience."""

log = logging.getLogger("hookline.runtime")


ModuleFinder = Callable[["BundlePlugin"], "Path | SealedFile | Inherited"]
"""The compiled module of a bundle's plugin on this machine: a file that nobody else can write, or one with a seal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A bundle that is loaded and not yet asked."""

    bundle: Bundle
    chains: Chains
    plugins: Mapping[str, Plugin]
    before: Mapping[str, Before[Plugin]]
    """By plugin: the version before it, where it is on probation."""
    alone: Mapping[str, str]
    """By plugin: why there cannot be the version before it, in one sentence."""

    def discard(self) -> None:
        """Give back what was loaded. The bundle will not run, or has been replaced."""
        self.chains.retire()
        for before in self.before.values():
            before.end()


class PrepareError(HooklineError):
    """One plugin of a bundle cannot be loaded: its name, and why."""

    def __init__(self, plugin: str, reason: LoadError) -> None:
        super().__init__(f"plugin '{plugin}': {reason}")
        self.plugin = plugin
        self.reason = reason


class Runtime:
    """Runs one bundle at a time in one process and one event loop.

    ``stats``, ``kv`` and ``cache`` are the caller's where it shares them with other processes. ``member`` is this
    process among those that have each plugin's ``limits.concurrency`` together; None where it has the limit for itself.
    ``initial_keys`` says whether ``prepare`` writes what plugins have in ``kv.initial``; where processes share a store,
    one of them does (``hookline_runtime.host.kv_initial``).
    """

    def __init__(
        self,
        *,
        kv: KvStore | None = None,
        cache: CacheStore | None = None,
        stats: StatsTable | None = None,
        member: Member | None = None,
        initial_keys: bool = True,
        stand_in: Callable[[str, Callable[..., Any]], Callable[..., Any]] | None = None,
        make_chains: Callable[[str, list[Link]], Chains] = Chains,
    ) -> None:
        """With ``initial_keys``, it is who tidies the store and writes ``kv.initial``; else somebody else does.

        ``stand_in`` is for trials: see ``HostContext``. ``make_chains`` is for who watches: see ``chain.watched``.
        """
        self._kv = kv
        worker, workers = (0, 1) if member is None else (member.process, member.processes)
        self._cache = cache
        locks = None if member is None else member.path
        self._context = HostContext(kv=kv, cache=cache, worker=worker, workers=workers, locks=locks, stand_in=stand_in)
        self._initial_keys = initial_keys
        self._make_chains = make_chains
        self._stats = stats or StatsTable()
        self._member = member
        self.budget = Budget()
        """The memory of guests; without bounds until ``follow`` sets some."""
        self._ticker = Ticker()
        self._ticker.start()
        self._current: Prepared | None = None
        self._ending: list[Plugin] = []

    @property
    def bundle(self) -> Bundle | None:
        """What runs now."""
        return self._current.bundle if self._current else None

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """The loaded plugins, by name."""
        return self._current.plugins if self._current else {}

    @property
    def chains(self) -> Chains:
        """The running bundle's chains; ``held`` keeps them for calls that have to be decided by one bundle."""
        if self._current is None:
            raise RuntimeError("no bundle is loaded")
        return self._current.chains

    async def prepare(
        self,
        bundle: Bundle,
        find: ModuleFinder,
        *,
        numbers: Mapping[str, int] | None = None,
        before: Iterable[BundlePlugin] = (),
    ) -> Prepared:
        """Load a bundle beside the running one. Raises PrepareError for the first plugin that cannot be.

        ``numbers`` says which rows of the statistics belong to which plugin; the caller keeps it stable over
        bundles. Default: by place in the bundle, for a runtime that has statistics of its own.
        ``before`` are the versions before those plugins that are on probation in this bundle. Where one cannot be had,
        or there is no memory for it, that plugin runs without.
        """
        plugins: dict[str, Plugin] = {}
        links: list[Link] = []
        try:
            for at, entry in enumerate(bundle.plugins):
                if any(link.name == entry.name for link in links):
                    raise PrepareError(entry.name, ConfigError("there are two plugins of this name in the bundle"))
                plugin = None
                if entry.artifact is not None:
                    number = at if numbers is None else numbers[entry.name]
                    plugin = plugins[entry.name] = await self._plugin(entry, find, number)
                    plugin.hold()  # from here on; another bundle may be committed before this one is loaded
                links.append(Link(entry, plugin))
            self._check_memory(plugins)
            if self._initial_keys:
                await self._write_initial_keys(bundle)
            befores, alone = await self._befores(before, plugins, find)
            chains = self._make_chains(bundle.version, links)
            return Prepared(bundle=bundle, chains=chains, plugins=plugins, before=befores, alone=alone)
        finally:
            for plugin in plugins.values():
                plugin.release()  # the chains hold them now, or they are not needed

    def _check_memory(self, plugins: Mapping[str, Plugin]) -> None:
        running = {name for name, plugin in plugins.items() if self.plugins.get(name) is plugin}
        try:
            self.budget.check(list(plugins.values()), running=running)
        except TooLargeError as error:
            raise PrepareError(error.plugin, error) from error

    async def _write_initial_keys(self, bundle: Bundle) -> None:
        if self._kv is not None:
            # Also a plugin that could not be had keeps what it stored: it may be back.
            keep = {entry.name for entry in bundle.plugins} | {
                entry.name for entry in (self.bundle.plugins if self.bundle else ())
            }
            await asyncio.to_thread(self._kv.make_room, keep)
        if self._cache is not None:
            running = self.bundle.plugins if self.bundle else []
            await asyncio.to_thread(self._cache.tidy, wanted_sizes((*running, *bundle.plugins)))
        try:
            await asyncio.to_thread(kv_initial.write, self._kv, bundle.plugins)
        except kv_initial.InitialKeysError as error:
            raise PrepareError(error.plugin, error) from error

    async def _befores(
        self, entries: Iterable[BundlePlugin], plugins: Mapping[str, Plugin], find: ModuleFinder
    ) -> tuple[dict[str, Before[Plugin]], dict[str, str]]:
        """The versions before these plugins, as far as they can be had; and why others cannot."""
        found: dict[str, Before[Plugin]] = {}
        alone: dict[str, str] = {}
        done = False
        try:
            for entry in entries:
                plugin = plugins.get(entry.name)
                if plugin is None or plugin.revision == entry.revision:
                    continue
                try:
                    beside = [*plugins.values(), *(each.plugin for each in found.values())]
                    found[entry.name] = await self._before(entry, find, plugin.number, beside)
                except LoadError as error:
                    alone[entry.name] = str(error)
            done = True
        finally:
            for each in () if done else found.values():
                each.end()
        return found, alone

    async def _before(
        self, entry: BundlePlugin, find: ModuleFinder, number: int, beside: list[Plugin]
    ) -> Before[Plugin]:
        """The version before a plugin, beside all these. Raises LoadError."""
        is_warm = self._warm(entry) is not None
        try:
            made = Before(await self._plugin(entry, find, number))
        except PrepareError as error:
            raise error.reason from error
        try:
            self.budget.check([*beside, made.plugin], running={plugin.name for plugin in beside})
        except TooLargeError as error:
            made.end()
            self.budget.check(beside, running=set())  # as it was before it was asked
            raise ConfigError(f"there is no room for the version before it beside it: {error}") from error
        if not is_warm:
            # It ran before, if not in this process: else the new one would be kept on threads because of it.
            made.plugin.trust()
        return made

    def _warm(self, entry: BundlePlugin) -> Plugin | None:
        """A plugin that runs, or stands behind one that does, and is of this revision."""
        plugin = self.plugins.get(entry.name)
        if plugin is not None and plugin.revision != entry.revision:
            plugin = plugin.before.plugin if plugin.before is not None else None
        return plugin if plugin is not None and plugin.revision == entry.revision else None

    async def _plugin(self, entry: BundlePlugin, find: ModuleFinder, number: int) -> Plugin:
        warm, plugin = self._warm(entry), self.plugins.get(entry.name)
        if warm is not None:
            return warm
        try:
            if number >= MAX_PLUGINS:
                raise ConfigError(f"there are more than {MAX_PLUGINS} plugins in the bundle")
            self.budget.check_one(entry)
            permits = self._permits(entry, number)
            try:
                # What is tried with it may take what a call may.
                async with self.budget.taken(min(need(entry), self.budget.total), _FIRST_INSTANCE_MS / 1000):
                    # On a thread: a Go module's first instance takes milliseconds, and calls go on meanwhile.
                    fresh = await asyncio.to_thread(self._load, entry, find(entry), number, permits)
            except OverloadError as error:
                permits.close()
                raise FetchError(f"there is no memory to load it: {error}") from error
            except BaseException:
                permits.close()
                raise
        except LoadError as error:
            raise PrepareError(entry.name, error) from error
        fresh.admit()
        if plugin is not None and plugin.on_loop:
            fresh.trust()
        return fresh

    def commit(self, prepared: Prepared) -> None:
        """Ask the prepared bundle from the next call on; the old one ends with its last call."""
        # What it was before is the plugin's from here on, and goes with it.
        old, self._current = self._current, dataclasses.replace(prepared, before={})
        for name, plugin in prepared.plugins.items():
            before = prepared.before.get(name)
            if before is None:
                plugin.prove()
            elif plugin.before is None or plugin.before.plugin is not before.plugin:
                plugin.put_on_probation(before)
            else:
                before.end()  # it is already
        gone = [before.plugin for before in prepared.before.values()]
        if old is not None:
            old.discard()
            gone += [plugin for name, plugin in old.plugins.items() if prepared.plugins.get(name) is not plugin]
        runs = set(prepared.plugins.values())
        if self._cache is not None:
            befores = (each.plugin.entry for each in prepared.before.values())
            self._cache.allot(wanted_sizes((*prepared.bundle.plugins, *befores)))
        for plugin in (*gone, *runs):
            plugin.count_as(current=plugin in runs)
        ending = dict.fromkeys((*self._ending, *gone))
        self._ending = [plugin for plugin in ending if not plugin.closed and plugin not in runs]

    def prove(self, name: str, revision: str) -> None:
        """End the probation of a plugin, if it is of this revision. The version before it is given back."""
        plugin = self.plugins.get(name)
        if plugin is not None and plugin.revision == revision:
            plugin.prove()
            self._ending = [each for each in self._ending if not each.closed]

    def blame(self, version: str, failures: Mapping[str, LoadFailure]) -> None:
        """Say something else of plugins of this bundle that are not there, if it runs."""
        if self._current is not None and self._current.bundle.version == version:
            self._current.chains.blame(failures)

    async def load(self, bundle: Bundle, find: ModuleFinder) -> None:
        """Prepare and commit."""
        self.commit(await self.prepare(bundle, find))

    async def call(self, hook: Hook, body: bytes) -> Decision:
        """Answer one hook call. Raises InputError where the body is malformed, and nothing else."""
        answer = self.answer(hook, body)
        decision: Decision = orjson.loads(answer if isinstance(answer, bytes) else await answer(Asker()))
        return decision

    def answer(self, hook: Hook, body: bytes) -> bytes | Later:
        """``call``, with the decision as JSON: made now, on this thread, or a ``Later``; then nothing has run."""
        current = self._current
        if current is None:
            raise RuntimeError("no bundle is loaded")
        return current.chains.answer(hook, body)

    async def drained(self) -> None:
        """Return when the calls of observing hooks that were accepted so far have run."""
        for plugin in (*self.plugins.values(), *self._ending):
            await plugin.backlog.drained()

    def end_waits(self, when: float) -> None:
        """Let no call wait for a host function beyond that moment of the event loop's clock: the process ends.

        Those that would are answered as a plugin's ``failurePolicy.timeout`` says.
        """
        for plugin in (*self.plugins.values(), *self._ending):
            plugin.end_waits(when)
            if plugin.before is not None:
                plugin.before.plugin.end_waits(when)

    def abandon(self) -> int:
        """Drop what observing hooks have accepted and not begun, because the process ends. The number of calls."""
        return sum(plugin.backlog.abandon() for plugin in (*self.plugins.values(), *self._ending))

    async def close(self) -> None:
        """Let what was accepted end, give everything back, and stop the clock."""
        await self.drained()
        plugins = (*self.plugins.values(), *self._ending)
        if self._current is not None:
            self._current.discard()
        self._current = None
        for plugin in plugins:
            await plugin.ended()  # without the clock, a guest that loops on a thread would never end
        self._ticker.stop()

    def _permits(self, entry: BundlePlugin, number: int) -> Permits:
        limit = entry.limits.concurrency
        if self._member is None:
            return Permits(limit, most=MAX_THREADS)
        try:
            # Of this revision: while the one before it ends, each has the limit for itself.
            key = f"{entry.name} {entry.revision}"
            return self._member.make_permits(plugin=number, key=key, limit=limit, most=MAX_THREADS)
        except OSError as error:
            raise FetchError(f"there is no descriptor left for the permits of its calls: {error.strerror}") from error

    def _load(
        self, entry: BundlePlugin, compiled: Path | SealedFile | Inherited, number: int, permits: Permits
    ) -> Plugin:
        limits = entry.limits
        module = load_compiled(compiled, fuel=limits.fuel is not None)
        host = PluginHost(entry, self._context)
        guest = link(module, limits=limits, host=host.functions(plain=module.is_component))
        check_entry(entry, guest.info)
        spare = first_instance(guest, timeout_ms=_FIRST_INSTANCE_MS, pooled=entry.isolation.mode == "Pooled")
        rows = {hook: self._stats.row(number, hook) for hook in entry.hooks}
        return Plugin(entry, guest, host, rows, spare=spare, permits=permits, budget=self.budget, number=number)
