"""The sidecars that are connected, to whichever replica, and which revisions they may switch to.

A new revision is first *prepared* by every pod that is to run it, and *released* when all of them have (or have said
why they cannot), or when its deadline is over; then all switch. The leader decides, the other replicas are told.
What is in here is in memory only: it is all in the sidecars' next reports.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from hookline_api.distribution import Report
from hookline_api.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_api.distribution import PluginReport
    from hookline_operator.bundles import Bundles, Standing
    from hookline_operator.catalogue import Catalogue
    from hookline_operator.kube import Key

log = logging.getLogger("hookline.fleet")

_GATHER_S: Final = 0.02

Released = tuple[str, str, str]
"""Namespace, plugin and revision that pods may switch to."""


class PodState(Resource):
    """One connected sidecar."""

    uid: str
    namespace: str
    name: str
    report: Report
    prepared: dict[str, str] = {}
    """By plugin: the revision that the pod could switch to at once."""
    answered: dict[str, str] = {}
    """By plugin: the revision that the report is about, loaded or failed."""

    @cached_property
    def by_name(self) -> dict[str, PluginReport]:
        """What it says of each plugin: with thousands of them, each is asked for by each of its own changes."""
        return {each.name: each for each in reversed(self.report.plugins)}

    @cached_property
    def waited_for(self) -> list[PluginReport]:
        """The plugins that it has nothing to answer for with, by name, while it is not ready: it waits for these."""
        if self.report.ready:
            return []
        found = (each for each in self.by_name.values() if each.revision is None)
        return sorted((each for each in found if each.state in {"Closed", "Updating"}), key=lambda each: each.name)

    @cached_property
    def waited_names(self) -> frozenset[str]:
        """Their names: each of a thousand plugins asks of each pod whether it is among them."""
        return frozenset(each.name for each in self.waited_for)

    @cached_property
    def closed(self) -> list[str]:
        """The plugins that keep it from being ready, since they refuse all calls, by name; none while it is ready."""
        if self.report.ready:
            return []
        return sorted(each.name for each in self.by_name.values() if each.state == "Closed")

    def runs(self, plugin: str) -> str | None:
        """The revision of a plugin that answers calls in the pod."""
        said = self.by_name.get(plugin)
        return said.revision if said is not None else None

    def failed(self, plugin: str, revision: str) -> bool:
        """Whether the pod said that it cannot run this revision, and not one before it."""
        said = self.by_name.get(plugin)
        return self.answered.get(plugin) == revision and said is not None and said.failure is not None


@dataclass(slots=True)
class Fleet:
    """All connected sidecars: this replica's own, and those that peers told of."""

    states: dict[str, PodState] = field(default_factory=dict)
    """By the pod's uid."""
    released: dict[Key, str] = field(default_factory=dict)
    """By plugin: the revision that pods may switch to."""
    changed: list[Callable[[str, PodState | None, str, str], None]] = field(default_factory=list)
    """Hear the uid, the state (None: gone), the namespace, and where it is connected."""
    stranded: dict[str, str] = field(default_factory=dict)
    """By the pod's uid: why its sidecar cannot connect, and what to do (``trust``)."""
    newly_released: list[Callable[[Released], None]] = field(default_factory=list)
    _by_replica: dict[str, dict[str, PodState]] = field(default_factory=dict)
    """By the pod's uid and by replica, the newest connection last.

    A connection that died without a word is known to its replica until a heartbeat is missed. What that replica goes
    on to say of it must not hide the connection that the pod has now, and its end is not the pod's.
    """

    def put(self, state: PodState, *, replica: str = "") -> None:
        """What a sidecar says, and to which replica; of several connections the newest counts."""
        there = self._by_replica.setdefault(state.uid, {})
        there[replica] = state
        self.states[state.uid] = next(reversed(there.values()))
        for hear in self.changed:
            hear(state.uid, state, state.namespace, replica)

    def drop(self, uid: str, *, replica: str = "") -> None:
        """A sidecar is connected to that replica no longer."""
        there = self._by_replica.get(uid, {})
        state = there.pop(replica, None)
        if state is None:
            return
        if there:
            self.states[uid] = next(reversed(there.values()))
        else:
            del self._by_replica[uid], self.states[uid]
        for hear in self.changed:
            hear(uid, self.states.get(uid), state.namespace, replica)

    def drop_replica(self, replica: str) -> None:
        """A peer is gone, and what it told of with it."""
        for uid in self.of_replica(replica):
            self.drop(uid, replica=replica)

    def of_replica(self, replica: str) -> dict[str, PodState]:
        """What is connected to one replica, by uid."""
        return {uid: there[replica] for uid, there in self._by_replica.items() if replica in there}

    def release(self, released: Released) -> None:
        """Let pods switch to this revision; an older one of the same plugin is nobody's concern any more."""
        namespace, plugin, revision = released
        if self.released.get((namespace, plugin)) == revision:
            return
        self.released[namespace, plugin] = revision
        for hear in self.newly_released:
            hear(released)

    def forget(self, key: Key) -> None:
        """A plugin that is gone."""
        self.released.pop(key, None)


class Rollouts:
    """The leader's part: when is a revision released?"""

    def __init__(self, catalogue: Catalogue, bundles: Bundles, fleet: Fleet) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._dirty: set[Key] = set()
        self._woken = asyncio.Event()
        self._offered: dict[Key, tuple[str, float]] = {}
        """By plugin: the newest revision, and since when (monotonic) it waits to be released."""

    async def run(self) -> None:
        """Decide, as long as this replica leads."""
        loop = asyncio.get_running_loop()
        self._offered.clear()
        self._dirty = {plugin.key for plugin in self._catalogue.all_plugins() if self._catalogue.pods[plugin.namespace]}
        self._woken.set()
        self._catalogue.plugin_changed.append(self._look_at)
        self._fleet.changed.append(self._heard)
        try:
            while True:
                await self._woken.wait()
                await asyncio.sleep(_GATHER_S)  # two thousand reports of one switch are one question
                self._woken.clear()
                dirty, self._dirty = self._dirty, set()
                for key in dirty:
                    try:
                        again = await self._decide(key)
                    except Exception:  # a defect of ours, or somebody's forgery: one plugin must not end all
                        log.exception("whether plugin '%s/%s' is released cannot be decided", *key)
                        continue
                    if again is not None:
                        loop.call_later(again, self._look_at, key)
        finally:
            self._catalogue.plugin_changed.remove(self._look_at)
            self._fleet.changed.remove(self._heard)

    def _look_at(self, key: Key) -> None:
        self._dirty.add(key)
        self._woken.set()

    def _heard(self, _uid: str, state: PodState | None, namespace: str, _replica: str) -> None:
        if state is not None:
            for each in state.report.plugins:
                self._look_at((namespace, each.name))
            for name in state.prepared:
                self._look_at((namespace, name))
            return
        for waiting in self._offered:  # a pod that is gone is waited for no longer
            if waiting[0] == namespace:
                self._look_at(waiting)

    async def _decide(self, key: Key) -> float | None:
        """Release the plugin's revision if it is time; else in how many seconds it is time at the latest."""
        plugin = self._catalogue.plugin(key)
        if plugin is None:
            self._offered.pop(key, None)
            return None
        # Where there are no pods, nobody waits: a pod that comes is news of every plugin of its namespace.
        standing = await self._bundles.standing(plugin) if self._catalogue.pods.get(plugin.namespace) else None
        if standing is None or standing.entry.artifact is None:
            self._offered.pop(key, None)
            return None
        if self._fleet.released.get(key) == standing.revision:
            self._offered.pop(key, None)
            return None
        revision, since = self._offered.get(key, ("", 0.0))
        now = time.monotonic()
        if revision != standing.revision:
            since = now
            self._offered[key] = (standing.revision, now)
        left = since + self._bundles.deadline(plugin) / 1000 - now
        if self._catalogue.held(plugin) is not None:
            left = 0.0  # what fails is not to run until the slowest pod has got ready
        if left > 0 and not self._all_prepared(key, standing):
            return left
        self._offered.pop(key, None)
        self._fleet.release((*key, standing.revision))
        return None

    def _all_prepared(self, key: Key, standing: Standing) -> bool:
        states: Mapping[str, PodState] = self._fleet.states
        for pod in self._catalogue.matching(key[0], standing.selector):
            state = states.get(pod.uid)
            if state is None:
                continue  # not connected: it gets what it needs when it is
            if standing.revision in {state.runs(key[1]), state.prepared.get(key[1])} or state.failed(
                key[1], standing.revision
            ):
                continue
            return False
        return True
