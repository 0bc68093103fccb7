"""Reports of sidecars: read within bounds, and cut down to what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from hookline_api import json_cost
from hookline_api.distribution import MAX_REPORT_VALUES, PluginReport, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.bundle import LoadFailure
    from hookline_api.distribution import HookHealth, RolledBack, UnavailableSource
    from hookline_api.hooks import Hook

_MAX_SENTENCE: Final = 1024
_CONTROL: Final = dict.fromkeys((*range(32), *range(0x7F, 0xA0)), " ")
"""What has no place in a sentence that stands in a status, an Event and a log."""


def read(text: str) -> Report | None:
    """A report; None for a message of a type that this version does not know. Raises ValidationError and CostError."""
    json_cost.check(text, what="a report", max_values=MAX_REPORT_VALUES)
    try:
        # By the model's own parser: what a report is not to hold is passed over, and never becomes an object of ours.
        found = Report.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        if any(each["loc"] == ("type",) and each["type"] != "missing" for each in wrong):
            return None
        raise
    return found if "type" in found.model_fields_set else None


def about(report: Report, told: set[str], *, unsealed: Mapping[tuple[str, str], str] | None = None) -> Report:
    """The report cut down to the plugins that the pod was told of, each once.

    Sentences are cut, since those of twenty thousand sidecars are kept and may stand in a status. Revisions get the
    names that they have here, whatever a sidecar calls them (``unsealed``).
    """
    names = unsealed or {}
    plugins: dict[str, PluginReport] = {}
    for each in report.plugins:
        if each.name in told and each.name not in plugins:
            update = {
                "revision": names.get((each.name, each.revision or ""), each.revision),
                "failure": each.failure and _said(each.failure),
                "health": _health(each.health),
                "rolled_back": each.rolled_back and _rolled_back(each.name, each.rolled_back, names),
                "unavailable": _unavailable(each.unavailable),
            }
            plugins[each.name] = each.model_copy(update=update)
    return report.model_copy(update={"plugins": list(plugins.values())})


def revisions(report: Report) -> set[str | None]:
    """All revisions that a report names."""
    return {each.revision for each in report.plugins} | {
        each.rolled_back.revision for each in report.plugins if each.rolled_back is not None
    }


def _said(failure: LoadFailure) -> LoadFailure:
    return failure.model_copy(update={"message": _sentence(failure.message)})


def _health(hooks: list[HookHealth]) -> list[HookHealth]:
    """Each hook once, with figures that make sense."""
    found: dict[Hook, HookHealth] = {}
    for each in hooks:
        update = {"message": _sentence(each.message), "bad": min(each.bad, each.calls)}
        found.setdefault(each.hook, each.model_copy(update=update))
    return list(found.values())


def _rolled_back(name: str, told: RolledBack, names: Mapping[tuple[str, str], str]) -> RolledBack:
    update = {
        "revision": names.get((name, told.revision), told.revision),
        "message": _sentence(told.message),
        "failures": min(told.failures, told.calls),
    }
    return told.model_copy(update=update)


def _unavailable(sources: list[UnavailableSource]) -> list[UnavailableSource]:
    """Each source once."""
    found: dict[str, UnavailableSource] = {}
    for each in sources:
        name = _sentence(each.source)
        found.setdefault(name, each.model_copy(update={"source": name, "message": _sentence(each.message)}))
    return list(found.values())


def _sentence(text: str) -> str:
    return text[:_MAX_SENTENCE].translate(_CONTROL)
