"""The leader's work: a change becomes a revision, and a status that is true.

::

    a plugin, a Secret, a pod or a report changes ──▶ ``Controller.update``
         ├─▶ resolver.py   ask the registry, look into the module, check the settings
         │     └─▶ keeping.py    a WasmPluginRevision; ``settling.py``: when the one before it can go
         └─▶ publisher.py  ``reconcile`` of what is known now ──▶ status and Events

All state here can be found again. A new leader begins with the revisions and the statuses that are in the API, and asks
no registry for what they already say.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from hookline_operator.cluster.kube import Kube, KubeError
from hookline_operator.lead.keeping import Keeper
from hookline_operator.lead.publisher import Publisher
from hookline_operator.lead.resolver import Resolver
from hookline_operator.lead.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.trust.policy import Policy
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.revisions import Seal
    from hookline_operator.metrics import Metrics
    from hookline_operator.serve.bundles import Bundles
    from hookline_operator.serve.fleet import Fleet, PodState

_SOON_S: Final = 0.02

log = logging.getLogger("hookline.controller")


class Controller:
    """Reconciles plugins while this replica leads; ``update`` is how everybody tells it of a change."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        bundles: Bundles,
        fleet: Fleet,
        fetcher: Fetcher,
        objects: Objects,
        metrics: Metrics,
        *,
        policies: Callable[[Plugin], tuple[Policy, ...]],
        seal: Seal,
        leads: Callable[[], bool],
    ) -> None:
        """``policies`` gives those that apply to a plugin.

        ``leads`` is asked before each write: whether no other replica can lead meanwhile.
        """
        self._catalogue = catalogue
        self._leads = leads
        self._dirty: set[Key] = set()
        self._woken = asyncio.Event()
        self._keeper = Keeper(kube, catalogue, seal, metrics, check_term=self._check_term, update=self.update)
        self._resolver = Resolver(
            catalogue, fetcher, objects, metrics, policies=policies, keep=self._keeper.keep, update=self.update
        )
        self._settling = Settling(catalogue, bundles, fleet, self._keeper)
        self._publisher = Publisher(
            kube,
            catalogue,
            bundles,
            fleet,
            metrics,
            check_term=self._check_term,
            update=self.update,
            resolution=self._resolver.resolution,
        )

    async def run(self) -> None:
        """Lead until cancelled."""
        self._publisher.begin()
        self._settling.begin()
        self._dirty = {plugin.key for plugin in self._catalogue.all_plugins()}
        self._woken.set()
        try:
            while True:
                await self._woken.wait()
                await asyncio.sleep(_SOON_S)
                self._woken.clear()
                dirty, self._dirty = self._dirty, set()
                for number, key in enumerate(dirty):
                    try:
                        self._reconcile(key)
                    except Exception:  # a defect of ours, or somebody's forgery: one plugin must not end all
                        log.exception("plugin '%s/%s' could not be processed", *key)
                    if number % 100 == 99:  # noqa: PLR2004 - thousands at the start: others have work too
                        await asyncio.sleep(0)
        finally:
            await asyncio.gather(
                *self._resolver.end(),
                *self._keeper.end(),
                *self._settling.end(),
                *self._publisher.end(),
                return_exceptions=True,
            )

    def confirm(self, plugin: Plugin) -> None:
        """Write the plugin's status again soon, to confirm that it is still true."""
        self._publisher.confirm(plugin)

    def update(self, key: Key) -> None:
        """Have a plugin looked at soon, because something about it may have changed. Returns at once."""
        self._dirty.add(key)
        self._woken.set()

    def sidecar_changed(self, _uid: str, state: PodState | None, namespace: str, _replica: str) -> None:
        """A sidecar came, reported or went: update the plugins that it runs."""
        # Of a sidecar that is gone it is not known any more what it ran: any of its namespace's.
        plugins = self._catalogue.plugins_in(namespace) if state is None else state.report.plugins
        for each in plugins:
            self.update((namespace, each.name))

    def _check_term(self) -> None:
        """Raises KubeError where another replica may lead by now: what it wrote is newer than what is known here."""
        if not self._leads():
            raise KubeError(0, "the Lease of this replica has ended")

    def _reconcile(self, key: Key) -> None:
        """Do what there is to do for a plugin."""
        plugin = self._catalogue.plugin(key)
        if self._resolver.forget_other(key, plugin.uid if plugin is not None else None):
            self._publisher.forget(key)
        if plugin is None:
            return
        self._resolver.update(plugin)
        revision = self._catalogue.current(plugin)
        if revision is not None and not revision.sealed:
            self._keeper.take_over(plugin, revision)
        self._settling.update(plugin)
        not_before = self._resolver.shown_from(plugin)
        if not_before is not None:
            self._publisher.soon(plugin, not_before=not_before)
