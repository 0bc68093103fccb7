"""Label selectors: which labels they look at. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookline_api.resources import Selector


def says_which(selector: Selector) -> bool:
    """Whether a selector names pods, and not only some that it leaves out: then those are meant, sidecar or not."""
    return bool(selector.match_labels) or any(each.operator in {"In", "Exists"} for each in selector.match_expressions)


def labels_of(selector: Selector | None) -> set[str]:
    """The labels that it looks at."""
    if selector is None:
        return set()
    return {*selector.match_labels, *(each.key for each in selector.match_expressions)}


def naming_labels(selector: Selector | None) -> set[str]:
    """A label that all pods have which the selector selects; none where it does not say which."""
    if selector is None or not says_which(selector):
        return set()
    if selector.match_labels:
        return {min(selector.match_labels)}
    return {min(each.key for each in selector.match_expressions if each.operator in {"In", "Exists"})}


def identity_of(selector: Selector) -> tuple[Any, ...]:
    """The same for selectors that say the same."""
    expressions = tuple((each.key, each.operator, *each.values) for each in selector.match_expressions)
    return tuple(sorted(selector.match_labels.items())), expressions
