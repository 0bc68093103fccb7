"""Sentences that operator and sidecars both say, so that a person meets one wording everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hookline_api.text import found

if TYPE_CHECKING:
    from hookline_api.bundle import LoadCause

_PRIVATE: Final = frozenset({"config", "url", "kv", "egress", "data", "stringData"})
"""Fields whose values may be nobody else's business: settings, and what may hold a password."""
_OF_NAMES: Final = frozenset({"missing", "extra_forbidden"})
"""Errors that are not about a value."""
_MOST: Final = 40


def found_in(error: Any) -> str:
    """``, found "many"`` for one of a ValidationError's ``errors()``; empty where that may not be said."""
    value = error.get("input")
    if error["type"] in _OF_NAMES or not _PRIVATE.isdisjoint(map(str, error["loc"])):
        return ""
    if error["type"].endswith("_type") and isinstance(value, list | dict | None):
        return f", found {found(value)}"
    if isinstance(value, str | bool | int | float) and str(value) not in error["msg"]:
        return f", found {found(value, _MOST)}"
    return ""


def first_load_choice(cause: LoadCause) -> str:
    """What its author may choose for a plugin that has never been loaded and keeps pods from starting.

    Empty for ``verify``: what is not the module that was asked for never opens anything.
    """
    return "" if cause == "verify" else f"spec.failurePolicy.{cause}: Open lets pods start without it"
