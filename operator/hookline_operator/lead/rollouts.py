"""Decides when a revision is released: all pods switch once all have prepared it, or at its deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.serve.bundles import Bundles, Offer
    from hookline_operator.serve.fleet import Fleet, PodState

log = logging.getLogger("hookline.fleet")

_GATHER_S: Final = 0.02


class Rollouts:
    """The leader's part of rollouts."""

    def __init__(self, catalogue: Catalogue, bundles: Bundles, fleet: Fleet) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._dirty: set[Key] = set()
        self._woken = asyncio.Event()
        self._offered: dict[Key, tuple[str, float]] = {}
        """By plugin: the newest revision, and since when (monotonic) it waits to be released."""

    async def run(self) -> None:
        """Decide, as long as this replica leads."""
        loop = asyncio.get_running_loop()
        self._offered.clear()
        self._dirty = {
            plugin.key for plugin in self._catalogue.all_plugins() if self._catalogue.pods.get(plugin.namespace)
        }
        self._woken.set()
        while True:
            await self._woken.wait()
            await asyncio.sleep(_GATHER_S)  # two thousand reports of one switch are one question
            self._woken.clear()
            dirty, self._dirty = self._dirty, set()
            for key in dirty:
                try:
                    again = await self._decide(key)
                except Exception:  # a defect of ours, or somebody's forgery: one plugin must not end all
                    log.exception("whether plugin '%s/%s' is released cannot be decided", *key)
                    continue
                if again is not None:
                    loop.call_later(again, self.plugin_changed, key)

    def plugin_changed(self, key: Key) -> None:
        """Its revision may be another, or the pods that are to run it."""
        self._dirty.add(key)
        self._woken.set()

    def sidecar_changed(self, _uid: str, state: PodState | None, namespace: str, _replica: str) -> None:
        """A sidecar may have prepared what waits to be released, or be waited for no longer."""
        if state is not None:
            for each in state.report.plugins:
                self.plugin_changed((namespace, each.name))
            for name in state.prepared:
                self.plugin_changed((namespace, name))
            return
        for waiting in self._offered:  # a pod that is gone is waited for no longer
            if waiting[0] == namespace:
                self.plugin_changed(waiting)

    async def _decide(self, key: Key) -> float | None:
        """Release the plugin's revision if it is time; else in how many seconds it is time at the latest."""
        plugin = self._catalogue.plugin(key)
        if plugin is None:
            self._offered.pop(key, None)
            return None
        # Without pods nobody waits. A pod that comes is a change of every plugin of its namespace.
        offer = await self._bundles.offer(plugin) if self._catalogue.pods.get(plugin.namespace) else None
        if offer is None or offer.entry.artifact is None:
            self._offered.pop(key, None)
            return None
        if self._fleet.released.get(key) == offer.revision:
            self._offered.pop(key, None)
            return None
        revision, since = self._offered.get(key, ("", 0.0))
        now = time.monotonic()
        if revision != offer.revision:
            since = now
            self._offered[key] = (offer.revision, now)
        left = since + self._bundles.deadline(plugin) / 1000 - now
        if self._catalogue.held(plugin) is not None:
            left = 0.0  # what fails is not to run until the slowest pod has got ready
        if left > 0 and not self._all_prepared(key, offer):
            return left
        self._offered.pop(key, None)
        self._fleet.release((*key, offer.revision))
        return None

    def _all_prepared(self, key: Key, offer: Offer) -> bool:
        states: Mapping[str, PodState] = self._fleet.states
        for pod in self._catalogue.matching(key[0], offer.selector):
            state = states.get(pod.uid)
            if state is None:
                continue  # not connected: it gets what it needs when it is
            if offer.revision in {state.runs(key[1]), state.prepared.get(key[1])} or state.failed(
                key[1], offer.revision
            ):
                continue
            return False
        return True
