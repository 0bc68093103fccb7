"""Label selectors: which labels they select. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.resources import LabelSelector


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels, as Kubernetes has it."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for each in selector.match_expressions:
        there = each.key in labels
        holds = {
            "In": there and labels[each.key] in each.values,
            "NotIn": not there or labels[each.key] not in each.values,
            "Exists": there,
            "DoesNotExist": not there,
        }[each.operator]
        if not holds:
            return False
    return True
