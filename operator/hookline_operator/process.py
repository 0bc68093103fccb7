"""One replica: which parts there are, what each needs of the others, and in which order they start and stop.

Every replica watches, serves distribution and both webhooks; the holder of the Lease reconciles too. A part that
ends by itself is a defect, and ends the process: a pod that is started again is seen, one that is half dead is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from pydantic import ValidationError

from hookline_api.abi import permission_refusal, permission_warning, ungranted_imports
from hookline_api.base import API_VERSION
from hookline_api.resources import Source
from hookline_api.revisions import REVISION_KIND, REVISION_PLURAL
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_file
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.resolve import is_asked_again
from hookline_artifacts.schema_check import check_apart
from hookline_artifacts.store import ArtifactStore
from hookline_artifacts.threads import in_thread
from hookline_operator.cluster.authority import peer_name
from hookline_operator.cluster.catalogue import Catalogue, Kind
from hookline_operator.cluster.kube import Key, Kube, KubeError, Object, path
from hookline_operator.cluster.labels import SIDECAR_LABEL
from hookline_operator.cluster.objects import ClusterObjects
from hookline_operator.cluster.plugin_watch import APPLY, PluginWatch
from hookline_operator.cluster.pods import Pod
from hookline_operator.cluster.reading import Reading
from hookline_operator.cluster.reflector import Reflector
from hookline_operator.cluster.replica import Replica
from hookline_operator.cluster.revisions import OLD_API, PLUGIN_LABEL, Revision, Seal, Template
from hookline_operator.cluster.sealing import SealingKey
from hookline_operator.cluster.sight import Sights, reason_of
from hookline_operator.lead.controller import Controller
from hookline_operator.lead.election import Election
from hookline_operator.lead.heartbeat import keep_confirming, say_farewell
from hookline_operator.lead.pod_events import PodEvents
from hookline_operator.lead.rollouts import Rollouts
from hookline_operator.lead.unguarded import Unguarded
from hookline_operator.metrics import Metrics
from hookline_operator.serve.blobs import Blobs
from hookline_operator.serve.bundles import Bundles
from hookline_operator.serve.fleet import Fleet
from hookline_operator.serve.identity import Reviewer
from hookline_operator.serve.peers import Peers
from hookline_operator.serve.server import Distribution
from hookline_operator.serve.trust import Trust
from hookline_operator.webhooks import admission
from hookline_operator.webhooks.certificates import CertificateKeeper
from hookline_operator.webhooks.deletion import Deletions
from hookline_operator.webhooks.injection import InjectionSettings
from hookline_serving import Bounds, Closed, HttpServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_api.resources import WasmPlugin
    from hookline_operator.serve.identity import Caller
    from hookline_operator.settings import Settings

_CHECK_S: Final = 2
_CHECKS_AT_ONCE: Final = 2
_FETCHES_AT_ONCE: Final = 16
_CERTIFICATE_S: Final = 30.0
_POLLED_S: Final = 60.0
"""What is looked at twice a minute is not seen after this long."""
_HEALTH_BOUNDS: Final = Bounds()
_HTTPS_BOUNDS: Final = Bounds(
    fresh=256, unproven=2048, unproven_of_one=256, every=4096, of_one=1536, arriving=64 * 2**20
)  # fmt: skip
"""After a restart, all sidecars of a fleet come at the same time: two thousand of them may say hello at once. They have
addresses of their own, or all the same one, where a gateway or a node stands between: then as many hellos at a time as
are done in half a second, and as many questions as wait for a review. Those that are known (``vouch``) are counted by
``Distribution``. Reviews that are here have bounds of their own (``admission``), within those bytes."""
_UNGUARDED_S: Final = 10.0
"""How long a start waits for the pods without a sidecar; longer, and the statuses learn of them later."""

log = logging.getLogger("hookline.operator")


class Operator:
    """One replica."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalogue = Catalogue()
        self._metrics = Metrics()
        self._fleet = Fleet()
        self._stop = asyncio.Event()
        self._synced = False
        self._sights = Sights()
        self._metrics.see(self._sights)
        self._certificates: CertificateKeeper | None = None
        self._election: Election | None = None

    async def run(self) -> int:
        """Work until SIGTERM; the exit code. Raises KubeError and OSError where it cannot even begin."""
        settings, loop = self._settings, asyncio.get_running_loop()
        stop = self._stop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        store = await asyncio.to_thread(ArtifactStore, settings.cache, max_bytes=settings.cache_size)
        kube = await Kube.connect(settings.kubeconfig)
        Reading(kube, self._catalogue)
        plugins = PluginWatch(
            kube, self._catalogue, self._sights, namespaces=settings.namespaces, kubeconfig=settings.kubeconfig
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(kube.close)
            health = await self._serve_health()
            stack.push_async_callback(health.close)
            plugins.start()
            stack.callback(plugins.stop)
            ended = await _until(stop.wait(), self._parts(kube, store, plugins, stack))
        if not stop.is_set():
            log.error("a part of the operator ended: %s", ended)
            return 1
        return 0

    async def _parts(
        self, kube: Kube, store: ArtifactStore, plugins: PluginWatch, stack: contextlib.AsyncExitStack
    ) -> None:
        """Everything that needs the API server, as long as all of it works."""
        settings, catalogue, fleet = self._settings, self._catalogue, self._fleet
        objects = ClusterObjects(kube, catalogue, key=lambda: sealing.value)

        def changed() -> None:
            catalogue.verify_again(seal)
            catalogue.tell_all()

        sealing = SealingKey(
            kube,
            namespace=settings.own_namespace,
            secret=settings.key_secret,
            changed=changed,
            sight=self._sights.new("sealing-key", grace_s=_POLLED_S, needed=False),
        )
        seal = Seal(lambda: sealing.value)
        bundles = Bundles(catalogue, objects, key=lambda: sealing.value)
        # The machine's own passwords are nobody's: a file that is not there.
        fetcher = Fetcher(
            store,
            limits=FetchLimits(parallel=_FETCHES_AT_ONCE),
            docker_config=settings.cache / "no" / "config.json",
            addresses=_source_addresses(settings),
        )
        stack.push_async_callback(fetcher.close)
        reviewer = Reviewer(kube, is_pod=catalogue.is_pod, counted=self._metrics.called)
        certificates = self._certificates = CertificateKeeper(
            kube,
            service=settings.service,
            namespace=settings.own_namespace,
            secret=settings.tls_secret,
            config_map=settings.ca_config_map,
            webhooks=settings.webhooks,
            sight=self._sights.new("certificates", grace_s=_POLLED_S, needed=False),
        )

        def is_peer(caller: Caller) -> bool:
            return (caller.namespace, caller.account) == (settings.own_namespace, settings.service_account)

        controller = Controller(
            kube,
            catalogue,
            bundles,
            fleet,
            fetcher,
            objects,
            self._metrics,
            seal=seal,
            leads=lambda: election.leading,
        )
        rollouts = Rollouts(catalogue, bundles, fleet)

        unguarded, pod_events = self._pods_without(kube, leads=lambda: election.leading)
        replica = Replica(settings.pod_name, f"{_bracketed(settings.pod_ip)}:{settings.listen[1]}")
        election = self._election = Election(
            kube,
            name=settings.lease,
            namespace=settings.own_namespace,
            replica=replica,
            sight=self._sights.new("lease", needed=False),
            lead=lambda: self._lead(
                kube, controller, rollouts, pod_events, alone=lambda: election.leading and not peers.followed
            ),
        )
        peers = Peers(
            fleet,
            reviewer,
            own_name=settings.pod_name,
            leader=lambda: election.leader,
            leading=lambda: election.leading,
            is_peer=is_peer,
            client_context=certificates.client_context,
            server_name=peer_name(settings.service, settings.own_namespace),
            token=settings.token,
        )
        blobs = Blobs(store, fetcher, catalogue, objects, peers.blob)
        distribution = Distribution(
            kube, catalogue, bundles, fleet, reviewer, blobs.find,
            is_peer=is_peer, authority=lambda: certificates.bundle,
            reported=self._metrics.reported, cut=self._metrics.cut,
        )  # fmt: skip
        self._metrics.watch(
            ready=lambda: sum(each.is_ready for each in catalogue.all_plugins()),
            not_ready=lambda: sum(not each.is_ready for each in catalogue.all_plugins()),
            sidecars=lambda: distribution.connected,
            refused=lambda: catalogue.refused,
            troubled=lambda reason: sum(each.trouble == reason for each in catalogue.all_plugins()),
            rolled_back=lambda: sum(each.is_rolled_back for each in catalogue.all_plugins()),
            stranded=lambda: len(fleet.stranded),
        )
        await self._first_key(sealing)  # before the first revision is read, which is believed by it
        reflectors = [*self._reflectors(kube, seal, objects), *plugins.reflectors]

        async def serve() -> None:
            await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
            await plugins.first_sync()
            await objects.settle()
            following = await _begun(unguarded, stack)  # once the plugins are known, which say what to keep
            await self._first_certificate(certificates)
            check = ConfigCheck(catalogue, bundles, store, blobs)
            routes = [
                *distribution.routes(),
                *peers.routes(),
                *admission.routes(
                    settings=lambda: injection_settings(settings, certificates.bundle),
                    check_config=check,
                    check_permissions=check.lacks,
                    deleted=Deletions(catalogue),
                    injected=self._metrics.injected,
                    admitted=self._metrics.admitted,
                ),
            ]
            closed = self._metrics.closed["https"]
            server = await _serve(routes, settings.listen, certificates, _HTTPS_BOUNDS, closed)
            try:
                self._synced = True
                where = ", ".join(settings.namespaces) or "all namespaces"
                log.info("ready: %d plugins in %s", sum(1 for _ in catalogue.all_plugins()), where)
                trust = Trust(
                    catalogue, fleet, certificates, tell=distribution.authority_changed, leads=lambda: election.leading
                )
                await _until(
                    certificates.run(),
                    sealing.run(),
                    election.run(),
                    peers.run(),
                    plugins.run(),
                    trust.run(),
                    following,
                )
            finally:
                await distribution.close()
                await server.close()

        await _until(serve(), *(reflector.run() for reflector in reflectors))

    async def _lead(
        self,
        kube: Kube,
        controller: Controller,
        rollouts: Rollouts,
        pod_events: PodEvents,
        *,
        alone: Callable[[], bool],
    ) -> None:
        """What the leader does beside all others; where it ends in order and is ``alone``, its statuses say so."""
        self._metrics.leader.set(1)
        confirming = keep_confirming(self._catalogue, controller.confirm, lambda: not self._sights.blind)
        try:
            await _until(controller.run(), rollouts.run(), pod_events.run(), confirming)
        finally:
            self._metrics.leader.set(0)
            if self._stop.is_set():
                await say_farewell(kube, self._catalogue, alone=alone)

    # ── what is in the API ──

    def _reflectors(self, kube: Kube, seal: Seal, objects: ClusterObjects) -> list[Reflector[Any]]:
        catalogue = self._catalogue

        def versions(kind: Kind) -> Any:
            return lambda key, _old, new: objects.put_version(kind, key, new)

        def account(key: Key, _old: list[str] | None, new: list[str] | None) -> None:
            catalogue.put_default_account(key[0], new or [])

        def version(found: Object) -> str:
            return str(found["metadata"]["resourceVersion"])

        def pull_secrets(found: Object) -> list[str] | None:
            if found["metadata"]["name"] != "default":
                return None
            return [each["name"] for each in found.get("imagePullSecrets") or [] if each.get("name")]

        reflectors: list[Reflector[Any]] = []
        for namespace in self._settings.namespaces or (None,):

            def add(api_version: str, plural: str, namespace: str | None = namespace, **rest: Any) -> None:
                where = path(api_version, plural, namespace)
                reflectors.append(Reflector(kube, where, sight=self._sights.new(plural), **rest))

            add("v1", "pods", project=Pod.of, changed=catalogue.put_pod, selector=f"{SIDECAR_LABEL}=true")
            revisions: Any = {"changed": catalogue.put_revision, "selector": PLUGIN_LABEL}
            add(API_VERSION, REVISION_PLURAL, project=lambda found: Revision.of(found, seal),
                unknown=f"{REVISION_KIND}s: {APPLY}", **revisions)  # fmt: skip
            if self._settings.migrate:
                add(*OLD_API, project=Revision.of_old, **revisions)
            # Names and versions of all; what is in them is read only where a plugin refers to it.
            add("v1", "secrets", project=version, changed=versions("Secret"), metadata_only=True)
            add("v1", "configmaps", project=version, changed=versions("ConfigMap"), metadata_only=True)
            add("v1", "serviceaccounts", project=pull_secrets, changed=account)
        return reflectors

    def _pods_without(self, kube: Kube, *, leads: Callable[[], bool]) -> tuple[Unguarded, PodEvents]:
        """What knows of the pods without a sidecar, and what tells pods of it."""
        settings, catalogue = self._settings, self._catalogue
        unguarded = Unguarded(
            kube, catalogue, namespaces=settings.namespaces, own_namespace=settings.own_namespace,
            injects=bool(settings.webhooks), sights=self._sights,
        )  # fmt: skip
        catalogue.unguarded = unguarded.of
        self._metrics.unguarded.set_function(lambda: unguarded.count)
        return unguarded, PodEvents(kube, catalogue, self._fleet, unguarded, self._metrics, leads=leads)

    # ── servers ──

    async def _first_certificate(self, certificates: CertificateKeeper) -> None:
        pause = 0.5
        while True:
            try:
                await certificates.sync()
                certificates.sight.heard()
                return
            except KubeError as error:
                certificates.sight.failed(reason_of(error), f"the certificate cannot be made yet: {error}")
            if certificates.has_material:
                return  # webhooks are not introduced yet, and /readyz says so; sidecars can be served
            pause = min(pause * 2, _CERTIFICATE_S)
            await asyncio.sleep(pause)

    async def _first_key(self, sealing: SealingKey) -> None:
        pause = 0.5
        while True:
            try:
                await sealing.sync()
                sealing.sight.heard()
                return
            except KubeError as error:
                sealing.sight.failed(reason_of(error), f"there is no key to seal revisions with yet: {error}")
            pause = min(pause * 2, _CERTIFICATE_S)
            await asyncio.sleep(pause)

    async def _serve_health(self) -> HttpServer:
        async def healthz(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        async def readyz(_: web.Request) -> web.Response:
            reasons = self._not_ready()
            told = {"ready": not reasons, "reasons": reasons, "blind": self._sights.sentences()}
            return web.json_response(told, status=503 if reasons else 200)

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

        routes = [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
        return await _serve(routes, self._settings.health, None, _HEALTH_BOUNDS, self._metrics.closed["health"])

    def _not_ready(self) -> list[str]:
        reasons = []
        if not self._synced:
            reasons = self._sights.troubles() or ["what is in the Kubernetes API is not read completely yet"]
        else:
            reasons += self._sights.not_ready()
        if self._certificates is not None:
            reasons += self._certificates.not_ready()
        return reasons


class ConfigCheck:
    """Settings against the schema of the module that the plugin has now: for admission, which may not wait.

    Anybody can reach a webhook, and say that it is about another tenant's plugin. So nothing is looked up, checked or
    said unless the review has that plugin's uid, which is random, and known to those who may read the plugin.
    """

    def __init__(self, catalogue: Catalogue, bundles: Bundles, store: ArtifactStore, blobs: Blobs) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._store = store
        self._blobs = blobs
        self._places = asyncio.Semaphore(_CHECKS_AT_ONCE)

    async def __call__(self, plugin: WasmPlugin) -> str | None:
        """One sentence about what is wrong; None where nothing is, or where it is not known here."""
        revision, template = self._known(plugin)
        if revision is None or template is None or plugin.spec.config_from:  # what comes from Secrets is not here
            return None
        try:
            schema = await self._schema(revision, template.artifact.sha256)
            if schema is not None:
                # Anybody can reach a webhook, and each check is a process. Who waits too long is let in with a warning.
                async with self._places:
                    await check_apart(plugin.spec.config, schema, secret_paths=[], seconds=_CHECK_S)
        except ConfigError as error:
            return str(error)
        except (LoadError, ValidationError, OSError):
            return None
        return None

    def lacks(self, plugin: WasmPlugin) -> admission.Lack | None:
        """What the module that it has now imports and the resource does not grant; None where nothing is known."""
        revision, template = self._known(plugin)
        ungranted = ungranted_imports(template.imports, plugin.spec.permissions) if template is not None else {}
        if not ungranted:
            return None
        strict = plugin.spec.permissions_policy == "Strict"
        if not strict:
            return admission.Lack(permission_warning(ungranted), refused=False)
        # What a tag or a ConfigMap means may be another module by now, which needs less: the status says it then.
        stays = revision is not None and self._catalogue.inputs_now(revision) == revision.inputs
        return admission.Lack(permission_refusal(ungranted), refused=stays and not is_asked_again(plugin.spec.source))

    def _known(self, plugin: WasmPlugin) -> tuple[Revision | None, Template | None]:
        """What the plugin runs now, where that is of the same source."""
        known = self._catalogue.plugin((plugin.metadata.namespace or "", plugin.metadata.name))
        told = (plugin.metadata.uid or "").encode(errors="replace")
        if known is None or not hmac.compare_digest(known.uid.encode(), told):
            return None, None
        revision = self._catalogue.current(known)
        if revision is None:
            return None, None
        with contextlib.suppress(ValidationError):
            template = revision.parsed()
            # As models: one that writes a default out means the same as one that does not.
            same = Source.model_validate(template.spec.get("source")) == plugin.spec.source
            return revision, template if same else None
        return None, None

    async def _schema(self, revision: Revision, sha256: str) -> dict[str, Any] | None:
        artifact = await in_thread(self._store.granted, sha256, owner=revision.namespace)
        if artifact is not None:
            where, told = artifact.path, artifact.description
        else:  # another replica resolved it, and no sidecar has asked this one for it yet
            _, entry = await self._bundles.entry(revision)
            async with asyncio.timeout(_CHECK_S):
                where, told = (await self._blobs.find(revision.namespace, entry)).path, PluginDescription()
        raw = (await in_thread(inspect_file, where)).description
        inside = PluginDescription.from_json(raw) if raw is not None else PluginDescription()
        return inside.over(told).config_schema


def _source_addresses(settings: Settings) -> AddressPolicy:
    """Whom a tenant cannot have asked: this pod, what else is in it, and the API server."""
    own = []
    for text in (settings.pod_ip, os.environ.get("KUBERNETES_SERVICE_HOST", "")):
        with contextlib.suppress(ValueError):  # none, or a name
            own.append(ipaddress.ip_address(text))
    return AddressPolicy(own_machine=False, own=tuple(own), allowed=settings.allow_source_addresses)


async def _begun(unguarded: Unguarded, stack: contextlib.AsyncExitStack) -> asyncio.Future[None]:
    """Have it follow the pods, and wait a while until it knows them."""
    following = asyncio.ensure_future(unguarded.run())
    stack.callback(following.cancel)
    synced = asyncio.ensure_future(unguarded.synced.wait())
    await asyncio.wait([following, synced], timeout=_UNGUARDED_S, return_when=asyncio.FIRST_COMPLETED)
    synced.cancel()
    return following


def injection_settings(settings: Settings, authority: str) -> InjectionSettings:
    """What is put into pods. Raises ValueError, with a sentence, for values that no pod could have."""
    return InjectionSettings(
        image=settings.sidecar_image,
        operator=f"https://{settings.service}.{settings.own_namespace}.svc",
        operator_ca=authority,
        image_pull_policy=settings.sidecar_image_pull_policy or None,
        log_level=settings.sidecar_log_level,
        **settings.sidecar_resources,
    )


async def _serve(
    routes: list[web.RouteDef],
    where: tuple[str, int],
    certificates: CertificateKeeper | None,
    bounds: Bounds,
    closed: Closed,
) -> HttpServer:
    app = web.Application()
    app.add_routes(routes)
    server = HttpServer(app, bounds, closed, shutdown_timeout=2, handler_cancellation=True)
    await server.listen(where, tls=certificates.context if certificates is not None else None)
    return server


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
