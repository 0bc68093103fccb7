"""The connected sidecars of all replicas, and the revisions that they may switch to.

Every pod first *prepares* a new revision. The leader *releases* it when all have prepared it or have said why they
cannot, or at its deadline. Then all switch. The leader tells the other replicas. All of this is in memory only, and
comes again with the sidecars' next reports.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from hookline_api.base import Resource
from hookline_api.distribution import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.distribution import PluginReport
    from hookline_operator.cluster.kube import Key

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
        """Its report of each plugin, by name."""
        return {each.name: each for each in reversed(self.report.plugins)}

    @cached_property
    def waited_for(self) -> list[PluginReport]:
        """The plugins without a revision that keep it from being ready, sorted by name; none while it is ready."""
        if self.report.ready:
            return []
        found = (each for each in self.by_name.values() if each.revision is None)
        return sorted((each for each in found if each.state in {"Closed", "Updating"}), key=lambda each: each.name)

    @cached_property
    def waited_names(self) -> frozenset[str]:
        """The names of ``waited_for``, for quick look-ups."""
        return frozenset(each.name for each in self.waited_for)

    @cached_property
    def closed(self) -> list[str]:
        """The plugins that refuse all calls and so keep it from being ready, by name; none while it is ready."""
        if self.report.ready:
            return []
        return sorted(each.name for each in self.by_name.values() if each.state == "Closed")

    def runs(self, plugin: str) -> str | None:
        """The revision of a plugin that answers calls in the pod."""
        said = self.by_name.get(plugin)
        return said.revision if said is not None else None

    def failed(self, plugin: str, revision: str) -> bool:
        """Whether the pod has said that it cannot run this very revision."""
        said = self.by_name.get(plugin)
        return self.answered.get(plugin) == revision and said is not None and said.failure is not None


@dataclass(slots=True)
class Fleet:
    """All connected sidecars: this replica's own, and those of its peers."""

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
        """Take in what a sidecar reports, and to which replica. Of several connections the newest counts."""
        there = self._by_replica.setdefault(state.uid, {})
        there[replica] = state
        self.states[state.uid] = next(reversed(there.values()))
        for hear in self.changed:
            hear(state.uid, state, state.namespace, replica)

    def drop(self, uid: str, *, replica: str = "") -> None:
        """A sidecar is no longer connected to that replica."""
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
        """A peer is gone: drop all that it told of."""
        for uid in self.of_replica(replica):
            self.drop(uid, replica=replica)

    def of_replica(self, replica: str) -> dict[str, PodState]:
        """The sidecars that are connected to one replica, by uid."""
        return {uid: there[replica] for uid, there in self._by_replica.items() if replica in there}

    def release(self, released: Released) -> None:
        """Let pods switch to this revision; it replaces an older one of the same plugin."""
        namespace, plugin, revision = released
        if self.released.get((namespace, plugin)) == revision:
            return
        self.released[namespace, plugin] = revision
        for hear in self.newly_released:
            hear(released)

    def forget(self, key: Key) -> None:
        """Forget a plugin that is gone."""
        self.released.pop(key, None)
