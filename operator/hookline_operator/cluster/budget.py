"""How much of a namespace's plugin specs is kept in memory, and which plugins are left out above that.

Whoever may create plugins can create thousands of a mebibyte each, and every replica would keep them all. So the specs
of a namespace have a budget. Above it the newest plugins are left out, ordered by the API's own time and then by uid.
All replicas come to the same result, in whatever order they saw the plugins, and a newer plugin never pushes out an
older one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
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
        self.over: set[str] = set()
        """The plugins that are left out, by name."""
        self._changed: set[str] = set()
        self._kept = 0
        """Bytes of those that are not left out."""
        self._weights: dict[str, _Weight] = {}
        self._in_order: list[_Weight] = []

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

    def take_changes(self) -> set[str]:
        """The names that ``over`` gained or lost since the last call. Thousands of others need no look."""
        found, self._changed = self._changed, set()
        return found

    def _set(self, name: str, weight: _Weight | None) -> None:
        before = self._weights.pop(name, None)
        if weight is not None:
            self._weights[name] = weight
        if weight == before:
            return
        if before is not None:
            del self._in_order[bisect_left(self._in_order, before)]
        if weight is not None:
            insort(self._in_order, weight)
        self.total += (weight.size if weight else 0) - (before.size if before else 0)
        if self.total <= self.most:
            self._leave_out(set(), self.total)
        elif weight is not None and before is None and weight is self._in_order[-1]:
            # The newest of all, as nearly all that come: it changes nothing for others.
            if self._kept + weight.size <= self.most:
                self._kept += weight.size
            else:
                self.over.add(name)
                self._changed.add(name)
        else:
            kept, over = 0, set()
            for each in self._in_order:
                if kept + each.size <= self.most:
                    kept += each.size
                else:
                    over.add(each.name)
            self._leave_out(over, kept)

    def _leave_out(self, over: set[str], kept: int) -> None:
        self._changed |= self.over ^ over
        self.over, self._kept = over, kept
