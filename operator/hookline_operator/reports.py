"""What a sidecar reports, as far as anybody here wants to know it: read within bounds, and cut down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from hookline_api import json_cost
from hookline_api.distribution import MAX_REPORT_VALUES, PluginReport, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.bundle import LoadFailure

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
    """What concerns the plugins that the pod was told of, each once.

    With sentences of a length that is kept for twenty thousand sidecars, and that may stand in a status; and with
    revisions as they are called here, whatever a sidecar calls them (``unsealed``).
    """
    plugins: dict[str, PluginReport] = {}
    for each in report.plugins:
        if each.name in told and each.name not in plugins:
            update = {
                "revision": (unsealed or {}).get((each.name, each.revision or ""), each.revision),
                "failure": each.failure and _said(each.failure),
            }
            plugins[each.name] = each.model_copy(update=update)
    return report.model_copy(update={"plugins": list(plugins.values())})


def _said(failure: LoadFailure) -> LoadFailure:
    return failure.model_copy(update={"message": failure.message[:_MAX_SENTENCE].translate(_CONTROL)})
