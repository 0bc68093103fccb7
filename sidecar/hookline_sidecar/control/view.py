"""View: what is true of this sidecar now. The supervisor makes it; whoever shows or tells something reads it.

Reports, the admin surface, metrics and readiness are functions of a view, and know nothing of whoever made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hookline_api.hooks import OBSERVERS
from hookline_api.sentences import first_load_choice
from hookline_api.sources import MAX_UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure, Stage
    from hookline_api.distribution import HookHealth, PluginState, RolledBack
    from hookline_artifacts.resolve import Resolved
    from hookline_sidecar.control.rows import Rows
    from hookline_sidecar.control.sources.source import Link, Problem
    from hookline_sidecar.control.steps import Step
    from hookline_sidecar.messages import PluginFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceView:
    """Where bundles come from."""

    description: Mapping[str, Any]
    problems: tuple[Problem, ...]
    link: Link | None
    """The connection to an operator; None for a folder."""
    waiting_for: str
    """Why no bundle runs yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersView:
    """The processes that answer hooks."""

    size: int
    """How many there should be."""
    current: int
    """How many run the bundle."""
    connections: int
    """How many have come, ever."""
    facts: tuple[Mapping[str, PluginFacts], ...]
    """What each last reported of its plugins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustView:
    """What the policies of this machine do."""

    description: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """How much each forbade, by policy and mode."""
    unsealed: int = 0
    """Compiled modules that were not as this sidecar had made them."""
    signers: Callable[[str], list[dict[str, Any]]] = lambda _: []
    """Tells whose signatures were verified of what runs of a plugin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedPlugin:
    """One plugin that the source asks for."""

    name: str
    file: str | None
    """The manifest, where there is one."""
    resolved: Resolved | None
    failure: LoadFailure | None
    rolled_back: RolledBack | None
    """Why what resolved does not run here: it failed on probation."""
    steps: tuple[Step, ...] = ()
    """How it gets to the workers, as far as it got."""
    stage: Stage | None = None
    """How far it is, while it is fetched and compiled."""


@dataclass(frozen=True, kw_only=True)
class View:
    """All of it."""

    draining: bool
    bundle: Bundle | None
    """What the workers run."""
    changes: int
    """Bundles that replaced another one."""
    running: str | None
    """The source's word for what all workers run; while they switch, for what they ran."""
    prepared: str | None
    """The source's word for what is held, once all workers could switch to it."""
    plugins: tuple[WantedPlugin, ...]
    """By name."""
    source: SourceView
    workers: WorkersView
    health: Mapping[str, list[HookHealth]]
    """The hooks that are not well, by plugin."""
    on_probation: frozenset[str]
    """Of the running plugins."""
    rows: Rows
    """What the workers count, which goes on."""
    trust: TrustView = TrustView()

    @cached_property
    def _entries(self) -> dict[str, BundlePlugin]:
        return {entry.name: entry for entry in self.bundle.plugins} if self.bundle is not None else {}

    def entry(self, name: str) -> BundlePlugin | None:
        """A plugin of the running bundle."""
        return self._entries.get(name)

    def unavailable(self, name: str) -> dict[str, str]:
        """What a plugin asks and does not reach now, and why, as the workers that run its version say: sorted."""
        entry = self.entry(name)
        revision = entry.revision if entry is not None else None
        found: dict[str, str] = {}
        for report in self.workers.facts:
            facts = report.get(name)
            if facts is not None and facts.unavailable and facts.revision == revision:
                found = facts.unavailable | found
        return dict(sorted(found.items())[:MAX_UNAVAILABLE])

    def state_of(self, plugin: WantedPlugin) -> PluginState:
        """What the workers do for this plugin."""
        entry = self.entry(plugin.name)
        if entry is None:
            return "LeftOut" if plugin.failure else "Updating"
        if entry.artifact is None:
            return "Closed"
        resolved = plugin.resolved
        if plugin.failure is None and resolved is not None and entry.revision == resolved.entry.revision:
            return "Running"
        return "LastGood" if plugin.failure else "Updating"

    def not_ready(self, *, in_our_words: bool = False) -> list[str]:
        """Why the pod should get no traffic: one sentence each; empty where it should.

        ``in_our_words`` for strangers: nothing that a plugin, a registry or the other side of a connection has said.
        """
        reasons = []
        if self.draining:
            reasons.append("the sidecar is draining")
        if self.bundle is None:
            reasons.append("there is no bundle yet" if in_our_words else self.source.waiting_for)
        elif not self.workers.current:
            reasons.append("no worker runs the bundle yet")
        for entry in self.bundle.plugins if self.bundle else ():
            if entry.artifact is None and any(hook not in OBSERVERS for hook in entry.hooks):
                why = "it is not loaded"
                if entry.failure:
                    why = f"cause {entry.failure.cause}" if in_our_words else entry.failure.message
                    choice = first_load_choice(entry.failure.cause) if entry.failure.stage is None else ""
                    why = f"{why}; {choice}" if choice else why
                reasons.append(f"plugin '{entry.name}' fails closed: {why}")
        return reasons
