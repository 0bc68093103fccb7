"""Readings: what the workers count and report of each hook, once a second, for ``health`` to judge."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from hookline_runtime.plugin.stats import CAUSES, bucket_above
from hookline_sidecar.control.health import Counts, Failure, Health, PluginReading, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hookline_api.bundle import Bundle, BundlePlugin
    from hookline_api.distribution import HookHealth
    from hookline_api.hooks import Hook
    from hookline_runtime.plugin.stats import Row
    from hookline_sidecar.control.rows import Rows
    from hookline_sidecar.messages import PluginFacts

_SAMPLE_S: Final = 1.0
_LEISURE: Final = 10.0
"""It rests so many times as long as a look took of the processor: three thousand hooks take a tenth of a second."""


class _HookRows:
    """The counters of one hook of one plugin in all workers. Where nothing was called, a look costs next to nothing."""

    def __init__(self, rows: list[Row], timeout_ms: int) -> None:
        self._rows = rows
        self._slow = bucket_above(timeout_ms * 1_000_000 // 2)
        self._marks: list[list[int]] = []
        self._counts = Counts()

    def read(self) -> Counts:
        marks = [row.marks() for row in self._rows]
        if marks != self._marks:
            self._marks = marks
            failures = [sum(each) for each in zip(*(row.failures() for row in self._rows), strict=True)]
            self._counts = Counts(
                calls=sum(row.calls() for row in self._rows),
                skipped=sum(row.skipped() for row in self._rows),
                slow=sum(row.calls(above=self._slow) for row in self._rows),
                **dict(zip(CAUSES, failures, strict=True)),
            )
        return self._counts


class HealthWatch:
    """Looks at what workers count and report of the running bundle, and has it judged."""

    def __init__(
        self,
        rows: Rows,
        *,
        bundle: Callable[[], Bundle | None],
        facts: Callable[[], Iterable[Mapping[str, PluginFacts]]],
        changed: Callable[[], None],
    ) -> None:
        """``facts`` are what each worker reports; ``changed`` is called where something else is to be told."""
        self._rows = rows
        self._running = bundle
        self._facts = facts
        self._changed = changed
        self._health = Health()
        self._bundle: Bundle | None = None
        self._loaded: list[tuple[BundlePlugin, str, dict[Hook, _HookRows]]] = []
        """Each plugin of the bundle that has a module, its revision, and its counters."""

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            begin = time.thread_time()
            self._look()
            await asyncio.sleep(max(_SAMPLE_S, _LEISURE * (time.thread_time() - begin)))

    @property
    def troubles(self) -> Mapping[str, list[HookHealth]]:
        """The hooks that are not well, by plugin."""
        return self._health.troubles

    def _look(self) -> None:
        bundle = self._running()
        if bundle is not self._bundle:
            self._bundle = bundle
            loaded = [each for each in bundle.plugins if each.artifact] if bundle is not None else []
            self._loaded = [(each, each.revision, self._rows_of(each)) for each in loaded]
        facts = list(self._facts())
        readings = [
            PluginReading(name=entry.name, revision=revision, hooks=_readings(entry.name, revision, rows, facts))
            for entry, revision, rows in self._loaded
        ]
        if self._health.look(readings, time.monotonic()):
            self._changed()

    def _rows_of(self, entry: BundlePlugin) -> dict[Hook, _HookRows]:
        rows = {hook: self._rows.of_hook(entry.name, hook) for hook in entry.hooks}
        # Without rows, another bundle is being prepared, and needs those that it had.
        return {hook: _HookRows(each, entry.limits.timeout) for hook, each in rows.items() if each}


def _readings(
    name: str, revision: str, rows: dict[Hook, _HookRows], reports: list[Mapping[str, PluginFacts]]
) -> dict[Hook, Reading]:
    """What is counted of a plugin, with what the workers that run this revision of it say."""
    facts = [report[name] for report in reports if name in report and report[name].revision == revision]
    paused = {hook for each in facts for hook, pause in each.paused.items() if pause.until > time.time()}
    failures: dict[str, Failure] = {}
    for each in facts:
        for hook, failure in each.last_failures.items():
            if hook not in failures or failure.at > failures[hook].at:
                failures[hook] = Failure(failure.cause, failure.message, failure.at)
    return {
        hook: Reading(each.read(), paused=hook.value in paused, failure=failures.get(hook.value))
        for hook, each in rows.items()
    }
