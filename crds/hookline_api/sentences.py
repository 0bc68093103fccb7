"""What is wrong with a resource, as a sentence says it: what was found, where anybody may know it."""

from __future__ import annotations

from typing import Any, Final

from hookline_api.text import found

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
