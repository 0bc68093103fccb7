"""One replica: which parts there are, who hears of what, and in which order they start and stop.

Every replica watches, serves distribution and both webhooks; the holder of the Lease reconciles too. A part that
ends by itself is a defect, and ends the process: a pod that is started again is seen, one that is half dead is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.mirrors import MirrorFile
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.net.proxies import NO_PROXIES
from hookline_artifacts.store import ArtifactStore
from hookline_operator.cluster.authority import peer_name
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kube import Kube, KubeError
from hookline_operator.cluster.objects import ClusterObjects
from hookline_operator.cluster.plugin_watch import PluginWatch
from hookline_operator.cluster.policies import Policies
from hookline_operator.cluster.reading import Reading
from hookline_operator.cluster.reflectors import reflectors
from hookline_operator.cluster.replica import Replica
from hookline_operator.cluster.revisions import Seal
from hookline_operator.cluster.sealing import SealingKey
from hookline_operator.cluster.sight import Sights
from hookline_operator.lead.controller import Controller
from hookline_operator.lead.election import Election
from hookline_operator.lead.heartbeat import keep_confirming, say_farewell
from hookline_operator.lead.pod_events import PodEvents
from hookline_operator.lead.policy_status import PolicyStatuses
from hookline_operator.lead.rollouts import Rollouts
from hookline_operator.lead.unguarded import Unguarded
from hookline_operator.metrics import Metrics
from hookline_operator.serve.blobs import Blobs
from hookline_operator.serve.bundles import Bundles
from hookline_operator.serve.callers import Callers
from hookline_operator.serve.config_check import ConfigCheck
from hookline_operator.serve.downloads import Downloads
from hookline_operator.serve.fleet import Fleet
from hookline_operator.serve.health import Health
from hookline_operator.serve.http import HEALTH_BOUNDS, HTTPS_BOUNDS, serve
from hookline_operator.serve.identity import Reviewer
from hookline_operator.serve.peers import Peers
from hookline_operator.serve.pins import Pins
from hookline_operator.serve.server import Distribution
from hookline_operator.serve.trust import Trust
from hookline_operator.webhooks import admission
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.certificates import CertificateKeeper
from hookline_operator.webhooks.deletion import Deletions
from hookline_operator.webhooks.dry_run import ENTRY, DryRun, secret_path
from hookline_operator.webhooks.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from aiohttp import web

    from hookline_operator.serve.identity import Caller
    from hookline_operator.settings import Settings

_FETCHES_AT_ONCE: Final = 16
_POLLED_S: Final = 60.0
"""What is looked at twice a minute is not seen after this long."""
_UNGUARDED_S: Final = 10.0
"""Seconds that a start waits for the pods without a sidecar. After that, statuses learn of them later."""

_LAST_LOOK_S: Final = 3.0

log = logging.getLogger("hookline.operator")


class Operator:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._sights = Sights()
        self._metrics.see(self._sights)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Work until SIGTERM; the exit code. Raises KubeError and OSError where it cannot even begin."""
        settings, loop, stop = self._settings, asyncio.get_running_loop(), self._stop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        store = await asyncio.to_thread(ArtifactStore, settings.cache, max_bytes=settings.cache_size)
        kube = await Kube.connect(settings.kubeconfig)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(kube.close)
            cluster = _Cluster(settings, kube, self._sights)
            health = Health(self._sights, cluster.certificates, self._metrics)
            pages = await serve(
                health.routes(), settings.health, bounds=HEALTH_BOUNDS, closed=self._metrics.closed["health"]
            )
            stack.push_async_callback(pages.close)
            cluster.plugins.start()
            stack.callback(cluster.plugins.stop)
            serving = _Serving(settings, cluster, store, self._metrics)
            stack.push_async_callback(serving.fetcher.close)
            leading = _Leading(cluster, serving, self._metrics)
            _listen(cluster, serving)
            _measure(self._metrics, cluster, serving)
            self._metrics.watch_policies(leading.policy_statuses.counts)
            ended = await _until(stop.wait(), self._work(cluster, serving, leading, health))
        if not stop.is_set():
            log.error("a part of the operator ended: %s", ended)
            return 1
        return 0

    async def _work(self, cluster: _Cluster, serving: _Serving, leading: _Leading, health: Health) -> None:
        """Everything that needs the API server, as long as all of it works."""
        await cluster.sealing.first_sync()  # before the first revision is read, which is believed by it
        followed = [
            *reflectors(
                cluster.kube,
                cluster.catalogue,
                cluster.objects,
                cluster.seal,
                self._sights,
                namespaces=self._settings.namespaces,
                migrate=self._settings.migrate,
            ),
            *cluster.plugins.reflectors,
            *cluster.policies.reflectors,
        ]

        async def begin() -> None:
            await asyncio.gather(*(each.synced.wait() for each in followed))
            await cluster.plugins.first_sync()
            await cluster.policies.first_sync()
            await cluster.objects.settle()
            # Once the plugins are known: they say which pods are kept.
            async with _following(cluster.unguarded) as unguarded:
                await cluster.certificates.first_sync()
                await self._serve(cluster, serving, leading, health, unguarded)

        await _until(begin(), *(each.run() for each in followed))

    async def _serve(
        self, cluster: _Cluster, serving: _Serving, leading: _Leading, health: Health, unguarded: Awaitable[None]
    ) -> None:
        """Answer sidecars, peers and the API server, and take part in the election."""
        server = await serve(
            serving.routes(),
            self._settings.listen,
            bounds=HTTPS_BOUNDS,
            closed=self._metrics.closed["https"],
            tls=cluster.certificates.context,
        )
        try:
            health.synced = True
            where = ", ".join(self._settings.namespaces) or "all namespaces"
            log.info("ready: %d plugins in %s", sum(1 for _ in cluster.catalogue.all_plugins()), where)
            await _until(
                cluster.certificates.run(),
                cluster.sealing.run(),
                cluster.election.run(lambda: self._lead(cluster, serving, leading)),
                serving.peers.run(),
                serving.pins.run(),
                cluster.plugins.run(),
                cluster.policies.run(),
                serving.trust.run(),
                unguarded,
            )
        finally:
            await self._look_once_more(cluster.certificates)
            await serving.distribution.close()
            await server.close()

    async def _look_once_more(self, certificates: CertificateKeeper) -> None:
        """Find the authority that the replica in this one's place has made, if the old one was lost.

        Sidecars that are connected here hear of it now. Later they could not: they would not know whom to trust.
        """
        if self._stop.is_set():
            with contextlib.suppress(KubeError, OSError, TimeoutError):
                async with asyncio.timeout(_LAST_LOOK_S):
                    await certificates.sync()

    async def _lead(self, cluster: _Cluster, serving: _Serving, leading: _Leading) -> None:
        """What the leader does beside all others; where it ends in order and is alone, its statuses say so."""
        catalogue, election, peers = cluster.catalogue, cluster.election, serving.peers
        self._metrics.leader.set(1)
        confirming = keep_confirming(catalogue, leading.controller.confirm, lambda: not self._sights.blind)
        try:
            with _listening_leader(cluster, serving, leading):
                await _until(
                    leading.controller.run(),
                    leading.rollouts.run(),
                    leading.pod_events.run(),
                    leading.policy_statuses.run(),
                    confirming,
                )
        finally:
            self._metrics.leader.set(0)
            if self._stop.is_set():
                await say_farewell(cluster.kube, catalogue, alone=lambda: election.leading and not peers.followed)


# ── the parts: each is made of those above it ──


class _Cluster:
    """What the API says, what is kept of it, and this replica's place among the others."""

    def __init__(self, settings: Settings, kube: Kube, sights: Sights) -> None:
        self.kube = kube
        self.catalogue = Catalogue()
        self.reading = Reading(kube, self.catalogue)
        self.plugins = PluginWatch(
            kube, self.catalogue, sights, namespaces=settings.namespaces, kubeconfig=settings.kubeconfig
        )
        self.policies = Policies(kube, sights, own_namespace=settings.own_namespace)
        self.sealing = SealingKey(
            kube,
            namespace=settings.own_namespace,
            secret=settings.key_secret,
            sight=sights.new("sealing-key", grace_s=_POLLED_S, needed=False),
        )
        self.seal = Seal(self.key)
        self.objects = ClusterObjects(kube, self.catalogue, key=self.key)
        self.certificates = CertificateKeeper(
            kube,
            service=settings.service,
            namespace=settings.own_namespace,
            secret=settings.tls_secret,
            config_map=settings.ca_config_map,
            webhooks=settings.webhooks,
            paths=lambda: {ENTRY: secret_path(self.key())},
            sight=sights.new("certificates", grace_s=_POLLED_S, needed=False),
        )
        self.unguarded = Unguarded(
            kube,
            self.catalogue,
            namespaces=settings.namespaces,
            own_namespace=settings.own_namespace,
            injects=bool(settings.webhooks),
            sights=sights,
        )
        self.election = Election(
            kube,
            name=settings.lease,
            namespace=settings.own_namespace,
            replica=Replica(settings.pod_name, f"{_bracketed(settings.pod_ip)}:{settings.listen[1]}"),
            sight=sights.new("lease", needed=False),
        )

    def key(self) -> bytes:
        """What seals revisions and the values of Secrets. Raises RuntimeError before it was read."""
        return self.sealing.value

    def leads(self) -> bool:
        """Whether this replica leads, and no other can."""
        return self.election.leading


class _Serving:
    """What every replica answers: sidecars, peers and the API server."""

    def __init__(self, settings: Settings, cluster: _Cluster, store: ArtifactStore, metrics: Metrics) -> None:
        kube, catalogue, certificates = cluster.kube, cluster.catalogue, cluster.certificates

        def is_peer(caller: Caller) -> bool:
            return (caller.namespace, caller.account) == (settings.own_namespace, settings.service_account)

        self.fleet = Fleet()
        self.bundles = Bundles(catalogue, cluster.objects, key=cluster.key, policies=cluster.policies.applying)
        self.fetcher = _fetcher(settings, store)
        self.pins = Pins(catalogue, store, most=settings.cache_size)
        reviewer = Reviewer(kube, is_pod=catalogue.is_pod, counted=metrics.called)
        self.peers = Peers(
            self.fleet,
            reviewer,
            own_name=settings.pod_name,
            leader=lambda: cluster.election.leader,
            leading=cluster.leads,
            is_peer=is_peer,
            client_context=certificates.client_context,
            server_name=peer_name(settings.service, settings.own_namespace),
            token=settings.token,
        )
        blobs = Blobs(store, self.fetcher, catalogue, cluster.objects, self.peers.blob)
        callers = Callers(kube, catalogue)
        self.distribution = Distribution(
            catalogue, self.bundles, self.fleet, reviewer, callers,
            authority=lambda: certificates.bundle, reported=metrics.reported, cut=metrics.cut,
        )  # fmt: skip
        self._downloads = Downloads(catalogue, self.bundles, reviewer, callers, blobs, is_peer=is_peer)
        self.trust = Trust(
            catalogue, self.fleet, certificates, tell=self.distribution.authority_changed, leads=cluster.leads
        )
        check = ConfigCheck(catalogue, self.bundles, store, blobs)
        self._webhooks = admission.routes(
            settings=lambda: InjectionSettings.of(settings, authority=certificates.bundle),
            check_config=check,
            check_permissions=check.lacks,
            check_policies=Gate(cluster.policies),
            rehearse=DryRun(catalogue, cluster.policies),
            policies_path=lambda: secret_path(cluster.key()),
            deleted=Deletions(catalogue).note,
            injected=metrics.injected,
            admitted=metrics.admitted,
        )

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [*self.distribution.routes(), *self._downloads.routes(), *self.peers.routes(), *self._webhooks]


class _Leading:
    """What the leader does beside that."""

    def __init__(self, cluster: _Cluster, serving: _Serving, metrics: Metrics) -> None:
        self.controller = Controller(
            cluster.kube,
            cluster.catalogue,
            serving.bundles,
            serving.fleet,
            serving.fetcher,
            cluster.objects,
            metrics,
            policies=cluster.policies.applying,
            seal=cluster.seal,
            leads=cluster.leads,
        )
        self.policy_statuses = PolicyStatuses(
            cluster.kube, cluster.catalogue, cluster.policies, metrics, leads=cluster.leads
        )
        self.rollouts = Rollouts(cluster.catalogue, serving.bundles, serving.fleet)
        self.pod_events = PodEvents(
            cluster.kube, cluster.catalogue, serving.fleet, cluster.unguarded, metrics, leads=cluster.leads
        )


def _fetcher(settings: Settings, store: ArtifactStore) -> Fetcher:
    # The machine's own passwords are nobody's: a file that is not there.
    nobody = settings.cache / "no" / "config.json"
    limits = FetchLimits(parallel=_FETCHES_AT_ONCE)
    return Fetcher(
        store,
        limits=limits,
        docker_config=nobody,
        addresses=_source_addresses(settings),
        mirrors=MirrorFile(settings.mirrors),
        proxies=settings.proxies or NO_PROXIES,
    )


def _source_addresses(settings: Settings) -> AddressPolicy:
    """Whom a tenant cannot have asked: this pod, what else is in it, and the API server."""
    own = []
    for text in (settings.pod_ip, os.environ.get("KUBERNETES_SERVICE_HOST", "")):
        with contextlib.suppress(ValueError):  # none, or a name
            own.append(ipaddress.ip_address(text))
    return AddressPolicy(own_machine=False, own=tuple(own), allowed=settings.allow_source_addresses)


# ── who hears of what, in this order ──


def _listen(cluster: _Cluster, serving: _Serving) -> None:
    """Every replica's listeners."""
    catalogue, fleet = cluster.catalogue, serving.fleet
    catalogue.plugin_changed += [
        serving.bundles.plugin_changed,  # first: what is sent must not be made of a plugin that is gone
        serving.distribution.plugin_changed,
        serving.pins.plugin_changed,
        cluster.unguarded.plugin_changed,
    ]
    cluster.policies.changed += [catalogue.tell_all]
    cluster.policies.namespace_changed += [catalogue.tell_in]
    catalogue.pod_changed += [serving.distribution.pod_changed]
    catalogue.room_again += [cluster.reading.read]
    catalogue.unguarded = cluster.unguarded.of
    fleet.changed += [serving.peers.sidecar_changed, serving.trust.sidecar_changed]
    fleet.newly_released += [serving.peers.released, serving.distribution.released]
    cluster.certificates.changed += [serving.trust.authority_changed]
    cluster.sealing.changed += [lambda: catalogue.verify_again(cluster.seal)]


@contextlib.contextmanager
def _listening_leader(cluster: _Cluster, serving: _Serving, leading: _Leading) -> Iterator[None]:
    """Beside them the leader's, for as long as it leads."""
    listeners: list[tuple[list[Any], Callable[..., None]]] = [
        (cluster.catalogue.plugin_changed, leading.controller.update),
        (cluster.catalogue.plugin_changed, leading.rollouts.plugin_changed),
        (cluster.catalogue.plugin_changed, leading.policy_statuses.plugin_changed),
        (cluster.policies.written, leading.policy_statuses.policy_written),
        (serving.fleet.changed, leading.controller.sidecar_changed),
        (serving.fleet.changed, leading.rollouts.sidecar_changed),
        (serving.fleet.changed, leading.pod_events.sidecar_changed),
        (cluster.unguarded.changed, leading.pod_events.unguarded_changed),
    ]
    for event, listener in listeners:
        event.append(listener)
    try:
        yield
    finally:
        for event, listener in listeners:
            event.remove(listener)


def _measure(metrics: Metrics, cluster: _Cluster, serving: _Serving) -> None:
    """What the gauges show when they are asked."""
    catalogue, fleet = cluster.catalogue, serving.fleet
    metrics.watch(
        ready=lambda: sum(each.is_ready for each in catalogue.all_plugins()),
        not_ready=lambda: sum(not each.is_ready for each in catalogue.all_plugins()),
        sidecars=lambda: serving.distribution.connected,
        unsealed=lambda: catalogue.unsealed,
        troubled=lambda reason: sum(each.trouble == reason for each in catalogue.all_plugins()),
        rolled_back=lambda: sum(each.is_rolled_back for each in catalogue.all_plugins()),
        stranded=lambda: len(fleet.stranded),
        unguarded=lambda: cluster.unguarded.count,
    )


# ── starting and ending ──


@contextlib.asynccontextmanager
async def _following(unguarded: Unguarded) -> AsyncIterator[asyncio.Future[None]]:
    """Have it follow the pods, and wait a while until it knows them."""
    following = asyncio.ensure_future(unguarded.run())
    synced = asyncio.ensure_future(unguarded.synced.wait())
    try:
        await asyncio.wait([following, synced], timeout=_UNGUARDED_S, return_when=asyncio.FIRST_COMPLETED)
        yield following
    finally:
        synced.cancel()
        following.cancel()


async def _until(*works: Awaitable[Any]) -> str:
    """Run all until one ends, then end the others; what ended first. Raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return ", ".join(
            getattr(task.get_coro(), "__qualname__", "?") for task in done if isinstance(task, asyncio.Task)
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
