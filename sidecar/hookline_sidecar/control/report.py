"""What the operator is told of this sidecar."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final, TypeVar

import orjson

from hookline_api.bundle import LoadFailure
from hookline_api.distribution import (
    MAX_PLUGINS,
    MAX_REPORT,
    REPORT_BASE,
    REPORT_OF_PLUGIN,
    HookHealth,
    PluginReport,
    Report,
    RolledBack,
    UnavailableSource,
)
from hookline_sidecar.control.health import SEVERITY

if TYPE_CHECKING:
    from hookline_api.hooks import Hook
    from hookline_sidecar.control.view import View

_MAX_HOOKS: Final = 512
"""Hooks that are not well, in one report: one of each plugin that can be loaded, and as many more. Each takes some
fifteen of ``MAX_REPORT_VALUES``, and a thousand plugins have taken two thirds of these."""
_MAX_SOURCES: Final = 512
"""Sources that are not reached, in one report: each takes five of ``MAX_REPORT_VALUES``."""
_SENTENCES: Final = ((1024, 256), (256, 128), (32, 32), (32, 0))
"""Characters of the message of a failure to load, and of one in a call."""
T = TypeVar("T", LoadFailure, HookHealth, RolledBack, UnavailableSource)

_VERSION: Final = importlib.metadata.version("hookline")


def report(view: View, *, authority: str | None = None) -> Report:
    """All of a sidecar's state; ``authority`` is the version of the authorities by which it knows the operator."""
    plugins = []
    for each in view.plugins[:MAX_PLUGINS]:
        entry = view.entry(each.name)
        plugins.append(
            PluginReport(
                name=each.name,
                state=view.state_of(each),
                revision=entry.revision if entry is not None and entry.artifact is not None else None,
                failure=each.failure,
                loading=each.stage,
                health=view.health.get(each.name, []),
                probation=each.name in view.on_probation,
                rolled_back=each.rolled_back,
                unavailable=[
                    UnavailableSource(source=source, message=message)
                    for source, message in view.unavailable(each.name).items()
                ],
            )
        )
    return Report(
        running=view.running,
        prepared=view.prepared,
        ready=not view.not_ready(),
        authority=authority,
        plugins=plugins,
        sidecar=_VERSION,
    )


def written(report: Report) -> str:
    """The message, so short that an operator reads it, whatever is told of plugins and their hooks.

    First of all it has a hook of each plugin that is not well; the shorter sentences are for where there are so many.
    """
    report, most = _some_sources(_worst(report)), min(MAX_REPORT, REPORT_BASE + REPORT_OF_PLUGIN * len(report.plugins))
    for load, call in _SENTENCES:
        shortened = _shortened(report, load, call)
        # Without what is as an operator takes it to be: a thousand plugins are well for most of the time.
        told = shortened.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        text = orjson.dumps({"type": report.type, **told})
        if len(text) <= most:
            break
    return text.decode()


def _worst(report: Report) -> Report:
    """With no more hooks than there is room for: of each plugin the worst one first, and then the worse ones."""
    if sum(len(plugin.health) for plugin in report.plugins) <= _MAX_HOOKS:
        return report
    ranked: list[tuple[int, int, float, str, Hook]] = []
    for plugin in report.plugins:
        worst = sorted((SEVERITY[each.trouble], -each.bad / max(each.calls, 1), each.hook) for each in plugin.health)
        ranked += [(rank, severity, share, plugin.name, hook) for rank, (severity, share, hook) in enumerate(worst)]
    kept = {(name, hook) for *_, name, hook in sorted(ranked)[:_MAX_HOOKS]}
    plugins = [
        plugin.model_copy(update={"health": [each for each in plugin.health if (plugin.name, each.hook) in kept]})
        for plugin in report.plugins
    ]
    return report.model_copy(update={"plugins": plugins})


def _some_sources(report: Report) -> Report:
    """With no more sources that are not reached than there is room for: the first one of each plugin first."""
    left = _MAX_SOURCES - sum(bool(plugin.unavailable) for plugin in report.plugins)
    plugins = []
    for plugin in report.plugins:
        more = plugin.unavailable[1 : 1 + max(left, 0)]
        left -= len(more)
        plugins.append(plugin.model_copy(update={"unavailable": [*plugin.unavailable[:1], *more]}))
    return report.model_copy(update={"plugins": plugins})


def _shortened(report: Report, load: int, call: int) -> Report:
    """With sentences of so many characters, of loading and of calls."""
    plugins = [
        plugin.model_copy(
            update={
                "failure": plugin.failure and _cut(plugin.failure, load),
                "health": [_cut(each, call) for each in plugin.health],
                "rolled_back": plugin.rolled_back and _cut(plugin.rolled_back, call),
                "unavailable": [_cut(each, call) for each in plugin.unavailable],
            }
        )
        for plugin in report.plugins
    ]
    return report.model_copy(update={"plugins": plugins})


def _cut(said: T, length: int) -> T:
    return said.model_copy(update={"message": said.message[:length]})
