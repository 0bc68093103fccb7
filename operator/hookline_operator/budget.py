"""How much of what a namespace's plugins say is kept: a budget for each namespace, and who is left out above it.

Whoever may create plugins can create thousands, each of a mebibyte, and every replica would keep them all. So the
specs of a namespace have a budget. Above it the newest plugins are left out, by the API's own time and then by uid: all
replicas come to the same from what is in the API, whatever they saw first, and what is older is never pushed out by
what is newer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

NAMESPACE_SPECS: Final = 16 * 2**20
"""Bytes of all specs of one namespace as JSON. A spec has 1.5 MiB at the most and a kilobyte as a rule: sixteen
thousand plugins, or a dozen with a mebibyte of settings."""


class _Weight(NamedTuple):
    created: str
    """RFC 3339 in UTC, as the API has it: later ones sort behind."""
    uid: str
    name: str
    size: int


class Budget:
    """The specs of one namespace."""

    def __init__(self, most: int = NAMESPACE_SPECS) -> None:
        self.most = most
        self.total = 0
        """Bytes of all of them."""
        self.over: frozenset[str] = frozenset()
        """The plugins that are left out, by name."""
        self._weights: dict[str, _Weight] = {}

    def put(self, name: str, *, created: str, uid: str, size: int) -> None:
        """A plugin as it is now."""
        self._set(name, _Weight(created, uid, name, size))

    def drop(self, name: str) -> None:
        """A plugin that is gone."""
        self._set(name, None)

    def refusal(self) -> str:
        """Why a plugin is left out, in one sentence."""
        return (
            f"the specs of its namespace's plugins have {self.total} bytes, and {self.most} are kept of one namespace: "
            "this is one of the newest, and does not fit; make its settings smaller, or those of others; "
            "what ran goes on"
        )

    def _set(self, name: str, weight: _Weight | None) -> None:
        before = self._weights.pop(name, None)
        if weight is not None:
            self._weights[name] = weight
        self.total += (weight.size if weight else 0) - (before.size if before else 0)
        if self.total <= self.most:
            self.over = frozenset()
        elif weight != before:
            self.over = self._newest()

    def _newest(self) -> frozenset[str]:
        kept, over = 0, []
        for each in sorted(self._weights.values()):
            if kept + each.size <= self.most:
                kept += each.size
            else:
                over.append(each.name)
        return frozenset(over)
