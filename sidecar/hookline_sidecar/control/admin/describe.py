"""``/v1/plugins``: every plugin that the source asks for, what is done for it, and what is wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hookline_api.errors_page import pointer
from hookline_runtime.guest import accelerator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hookline_runtime.plugin.stats import Summary
    from hookline_sidecar.control.view import View, WantedPlugin
    from hookline_sidecar.messages import PluginFacts


def describe(view: View, *, is_folder: bool) -> dict[str, Any]:
    """The JSON; ``is_folder`` says that a folder of manifests is the source."""
    return {
        "source": view.source.description,
        "bundle": view.bundle.version if view.bundle else None,
        "workers": {
            "wanted": view.workers.size,
            "current": view.workers.current,
            "accelerator": accelerator.unused or "used",
        },
        "trust": view.trust.description,
        "plugins": [_plugin(view, plugin, is_folder=is_folder) for plugin in view.plugins],
        "problems": [
            {"file": each.file, "field": each.field, "message": each.message, "plugin": each.plugin}
            for each in view.source.problems
        ],
    }


def _plugin(view: View, plugin: WantedPlugin, *, is_folder: bool) -> dict[str, Any]:
    name, resolved, entry = plugin.name, plugin.resolved, view.entry(plugin.name)
    facts = [each[name] for each in view.workers.facts if name in each]
    failures = [each.last_failure for each in facts if each.last_failure is not None]
    paused = _paused(facts)
    return {
        "name": name,
        "manifest": plugin.file or (entry.origin if entry and is_folder else None),
        "state": view.state_of(plugin),
        "failure": plugin.failure.model_dump(exclude_none=True) if plugin.failure else None,
        "loading": plugin.stage,
        "steps": [{"name": each.name, "at": each.at, "seconds": each.seconds, "ok": each.ok} for each in plugin.steps],
        "more": _more(plugin),
        "revision": entry.revision if entry else None,
        "probation": name in view.on_probation,
        "rolled_back": plugin.rolled_back.model_dump(mode="json", by_alias=True) if plugin.rolled_back else None,
        "artifact": entry.artifact.model_dump(mode="json", by_alias=True) if entry and entry.artifact else None,
        "verified": view.trust.signers(name),
        "hooks": [hook.value for hook in entry.hooks] if entry else [],
        "priority": entry.priority if entry else None,
        "mode": entry.mode if entry else None,
        "description": {"version": resolved.description.version, "notes": resolved.notes} if resolved else None,
        "ungranted": resolved.ungranted if resolved else [],
        "inline": all(each.inline for each in facts) if facts else None,
        "health": [each.model_dump(mode="json", by_alias=True) for each in view.health.get(name, [])],
        "unavailable": view.unavailable(name),
        "paused": paused,
        "off_the_road": paused,  # its older name, for one release
        "last_failure": max(failures, key=lambda failure: failure.at, default=None),
        "denied": _sum(each.denied for each in facts),
        "refused": _sum(each.refused for each in facts),
        "stats": {hook.value: _stats(summary) for hook, summary in view.rows.summaries(name).items()},
    }


def _more(plugin: WantedPlugin) -> str | None:
    """The page that explains why it does not run as it should."""
    failure = plugin.failure
    return None if failure is None else pointer(failure.stage or failure.cause)


def _paused(facts: Iterable[PluginFacts]) -> list[dict[str, Any]]:
    """The hooks whose breaker is open, by worker."""
    return [
        {
            "hook": hook,
            "failures": pause.failures,
            "for_seconds": round(max(0, pause.until - time.time()), 1),
        }
        for each in facts
        for hook, pause in each.paused.items()
    ]


def _stats(summary: Summary) -> dict[str, Any]:
    return {
        "calls": summary.calls,
        "skipped": summary.skipped,
        "failures": summary.failures,
        "dropped": summary.dropped,
        "waited": summary.waited,
        "waited_seconds": round(summary.waited_seconds, 6),
        "p50_us": summary.quantile(0.5),
        "p90_us": summary.quantile(0.9),
        "p99_us": summary.quantile(0.99),
        "fuel": summary.fuel,
        "memory_max_bytes": summary.memory,
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
