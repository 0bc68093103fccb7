"""Rows: which counters of the shared statistics belong to which plugin, and what is in them.

Each worker counts in a table of its own. A plugin has the same rows in all of them, for as long as it is there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hookline_api.hooks import Hook
from hookline_runtime.plugin.stats import MAX_PLUGINS, StatsTable, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hookline_runtime.plugin.stats import Row
    from hookline_sidecar.state import StateFolder


class Rows:
    """The rows of one sidecar's plugins. They outlive the supervisor, as the workers that count in them do."""

    def __init__(self, state: StateFolder, tables: Sequence[StatsTable]) -> None:
        self._state = state
        self._tables = tables
        self._numbers = state.load_numbers()

    def assign(self, names: Iterable[str]) -> dict[str, int]:
        """Give each of these plugins its rows, those that others left where there are no others: their numbers."""
        wanted = list(names)
        free = sorted(set(range(MAX_PLUGINS)) - set(self._numbers.values()))
        new = [name for name in wanted if name not in self._numbers]
        before = dict(self._numbers)
        if len(new) > len(free):
            for name in self._numbers.keys() - set(wanted):
                free.append(self._numbers.pop(name))
        for name, number in zip(new, free, strict=False):
            for table in self._tables:
                table.clear(number)
            self._numbers[name] = number
        if self._numbers != before:
            with contextlib.suppress(OSError):  # only a supervisor that dies would miss it
                self._state.save_numbers(self._numbers)
        return {name: self._numbers[name] for name in wanted}

    def plugins(self) -> list[str]:
        """All plugins that have rows, by name."""
        return sorted(self._numbers)

    def of_hook(self, plugin: str, hook: Hook) -> list[Row]:
        """The counters of one hook in each table; empty where the plugin has none, now or no longer."""
        number = self._numbers.get(plugin)
        return [] if number is None else [table.row(number, hook) for table in self._tables]

    def summary(self, plugin: str) -> Summary:
        """All that was counted of a plugin."""
        return Summary.of([row.values() for hook in Hook for row in self.of_hook(plugin, hook)])

    def summaries(self, plugin: str) -> dict[Hook, Summary]:
        """What was counted of each hook of a plugin that was called."""
        if plugin not in self._numbers:
            return {}
        found = {hook: Summary.of([row.values() for row in self.of_hook(plugin, hook)]) for hook in Hook}
        return {hook: each for hook, each in found.items() if each.calls or each.skipped or each.waited}
