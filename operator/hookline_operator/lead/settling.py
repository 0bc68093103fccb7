"""Decides when the revision before the current one can be deleted.

Two revisions of a plugin are kept while the newer one is on probation in any pod. So all pods have something to go back
to, new ones and restarted ones too. The older revision is deleted once all connected pods run the newer one and none
has it on probation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from hookline_operator.cluster.kube import KubeError

if TYPE_CHECKING:
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.lead.keeping import Keeper
    from hookline_operator.serve.bundles import Bundles
    from hookline_operator.serve.fleet import Fleet

_LOOK_S: Final = 1.0
"""Seconds between two looks at one plugin: two thousand pods end their probation at about the same time."""
_RECONNECT_S: Final = 15.0
"""How long a new leader waits for sidecars before it takes those that are connected for all."""

log = logging.getLogger("hookline.settling")


class Settling:
    """The leader's part of it, for one term."""

    def __init__(self, catalogue: Catalogue, bundles: Bundles, fleet: Fleet, keeper: Keeper) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._keeper = keeper
        self._since = 0.0
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """A term begins; the sidecars are still connecting."""
        self._since = time.monotonic()

    def end(self) -> list[asyncio.Task[None]]:
        """The term has ended. Returns the tasks that were under way, cancelled."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    def update(self, plugin: Plugin) -> None:
        """Have a plugin looked at soon, because something about it may have changed."""
        if plugin.key in self._timers or self._catalogue.before(plugin) is None:
            return
        self._again(plugin.key, _LOOK_S)

    def _again(self, key: Key, seconds: float) -> None:
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._begin, key)

    def _begin(self, key: Key) -> None:
        del self._timers[key]
        task = asyncio.get_running_loop().create_task(self._settle(key), name=f"settle {key[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, key: Key) -> None:
        plugin = self._catalogue.plugin(key)
        before = self._catalogue.before(plugin) if plugin is not None else None
        if plugin is None or before is None or not await self._has_settled(plugin):
            return
        if self._catalogue.plugin(key) is plugin and self._catalogue.before(plugin) == before:
            try:
                await self._keeper.drop(before)
            except KubeError as error:  # it goes with the next report, or with the next revision
                log.info("the revision '%s' of plugin '%s/%s' cannot be deleted: %s", before.name, *key, error)

    async def _has_settled(self, plugin: Plugin) -> bool:
        current = self._catalogue.current(plugin)
        if plugin.rolled_back is not None and current is not None and plugin.rolled_back.revision == current.short:
            return False
        offer = await self._bundles.offer(plugin)
        if offer is None or offer.entry.artifact is None or offer.entry.failure is not None:
            return False
        pods = self._catalogue.matching(plugin.namespace, offer.selector)
        states = [self._fleet.states.get(pod.uid) for pod in pods]
        reports = [state.by_name.get(plugin.name) for state in states if state is not None]
        left = self._since + _RECONNECT_S - time.monotonic()
        if len(reports) < len(pods) and left > 0:
            if plugin.key not in self._timers:
                self._again(plugin.key, left)
            return False
        if pods and not reports:
            return False
        return all(
            report is not None and report.revision == offer.revision and not report.probation for report in reports
        )
