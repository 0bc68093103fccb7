"""What the operator is told of this sidecar."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import LoadFailure
from hookline_api.distribution import MAX_REPORT, PluginReport, Report

if TYPE_CHECKING:
    from hookline_sidecar.supervisor import Supervisor

_MAX_PLUGINS: Final = 1000
_SENTENCES: Final = (1024, 256, 32)
"""Characters of a failure's message; the shorter ones where there are so many that a report would be too long."""
_VERSION: Final = importlib.metadata.version("hookline")


def of(supervisor: Supervisor) -> Report:
    """All of a sidecar's state."""
    plugins = []
    for name, slot in sorted(supervisor.slots.items())[:_MAX_PLUGINS]:
        entry = supervisor.entry(name)
        plugins.append(
            PluginReport(
                name=name,
                state=supervisor.state_of(slot),
                revision=entry.revision if entry is not None and entry.artifact is not None else None,
                failure=slot.failure,
                probation=entry is not None and supervisor.probations.has(entry),
                rolled_back=slot.refused.told if slot.refused else None,
            )
        )
    return Report(
        running=supervisor.running(),
        prepared=supervisor.prepared(),
        ready=not supervisor.not_ready(),
        plugins=plugins,
        sidecar=_VERSION,
    )


def written(report: Report) -> str:
    """The message; at most ``MAX_REPORT`` bytes, whatever the failures' messages are."""
    for length in _SENTENCES:
        text = _shortened(report, length).model_dump_json(by_alias=True)
        if len(text.encode()) <= MAX_REPORT:
            break
    return text


def _shortened(report: Report, length: int) -> Report:
    plugins = [
        plugin.model_copy(
            update={
                "failure": plugin.failure
                and LoadFailure(cause=plugin.failure.cause, message=plugin.failure.message[:length])
            }
        )
        for plugin in report.plugins
    ]
    return report.model_copy(update={"plugins": plugins})
