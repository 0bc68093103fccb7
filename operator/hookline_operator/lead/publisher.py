"""Writes what is true of a plugin where people look: its status, and an Event for each change.

The controller says when there may be something new. Then the plugin is observed (its resolution, and what the matching
pods run), ``reconcile`` makes a status of that, and the status is written if it differs. It is written at most once a
second, ever later while the API server does not take it, and only while no other replica can lead.

Nothing is remembered beyond a term: the next one begins with the statuses in the API.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import ValidationError

from hookline_api.base import API_VERSION, KIND, PLURAL
from hookline_api.status import Failure, WasmPluginStatus
from hookline_operator.cluster.kube import MANAGER, Kube, KubeError, path
from hookline_operator.lead.unwritten import Unwritten
from hookline_operator.rations import Ration
from hookline_operator.status.health import without_figures
from hookline_operator.status.observation import Observation, PodObservation, Resolution
from hookline_operator.status.reasons import CAUSES, NO_PODS, NOT_WRITTEN, RESOLVED, SOURCES_AVAILABLE, WRONG
from hookline_operator.status.reconcile import NAMED, Event, Outcome, as_json, reconcile
from hookline_operator.status.staleness import confirmed, restored

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.pods import Pod
    from hookline_operator.metrics import Metrics
    from hookline_operator.serve.bundles import Bundles, Offer
    from hookline_operator.serve.fleet import Fleet, PodState

_WRITES_AT_ONCE: Final = 16
_OF_ONE_NAMESPACE: Final = 4
"""Writes at once for one namespace, so that a tenant's 5,000 plugins do not keep other statuses waiting."""
_EVENTS: Final = 100
"""Events of one plugin at once: four for each version that somebody tries in an hour's work."""
_EVENTS_EACH_SECOND: Final = 1 / 10
"""And so many more in each second. The status shows one that flaps, and etcd keeps each Event for an hour."""
_REFUSALS: Final = 100
"""Events at once that tell of unwritten statuses: mostly none of them can be written."""
_REFUSALS_EACH_SECOND: Final = 1
_WRITE_EVERY_S: Final = 1.0
_FIGURES_EVERY_S: Final = 30.0
"""Seconds between writes for figures alone, which move with each report of a plugin that fails."""
_REST: Final = 20
"""The next look at the pods waits this many times as long as the last one took: each report asks for one."""
_BACK_S: Final = 2.0
"""How long the watch may take to bring back what was written."""
_REWRITE_FIRST_S: Final = 2.0
_REWRITE_LAST_S: Final = 30.0
_INVALID: Final = 422
_OF_TRUST: Final = frozenset({"version", "signer", "signatures"})
"""Fields of ``status.artifact`` that came later."""
_UNDECLARED: Final = "field not declared in schema"
_RECONNECT_S: Final = 12.0
"""How long a new leader waits for sidecars before it says that they are gone."""

log = logging.getLogger("hookline.publisher")


@dataclass(slots=True)
class _Page:
    """What was written of one plugin in this term, and when it is written again."""

    uid: str
    applied: dict[str, Any] = field(default_factory=dict)
    """The status that was last written."""
    stored: dict[str, Any] = field(default_factory=dict)
    """What the API server stored: an older definition drops fields that it does not know."""
    written: float = 0.0
    """When (monotonic) that was."""
    rested: float = 0.0
    """When (monotonic) the pods may be looked at again."""
    refusals: int = 0
    """How often it could not, one after the other."""
    not_before: float = 0.0
    """When (monotonic) that is tried again."""
    write: asyncio.TimerHandle | None = None
    figures: asyncio.TimerHandle | None = None
    """When figures that have moved are written."""
    writing: bool = False
    rewrite: bool = False
    confirm: bool = False
    """Whether the status is to be written for its heartbeat alone."""
    events: Ration = field(default_factory=lambda: Ration(burst=_EVENTS, each_second=_EVENTS_EACH_SECOND))


class Publisher:
    """Writes statuses and Events, while this replica leads."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        bundles: Bundles,
        fleet: Fleet,
        metrics: Metrics,
        *,
        check_term: Callable[[], None],
        update: Callable[[Key], None],
        resolution: Callable[[Plugin], Resolution | None],
    ) -> None:
        """What it needs of the controller.

        ``check_term`` raises KubeError where another replica may lead by now. ``update`` is called with a key that has
        to be looked at again. ``resolution`` tells how far a plugin's resolution is; None where nothing is known.
        """
        self._kube = kube
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._metrics = metrics
        self._check_term = check_term
        self._update = update
        self._resolution = resolution
        self._unwritten = Unwritten(kube, metrics)
        self._refusals = Ration(burst=_REFUSALS, each_second=_REFUSALS_EACH_SECOND)
        self._said_old = False
        self._since = 0.0
        self._pages: dict[Key, _Page] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._shares: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OF_ONE_NAMESPACE))

    def begin(self) -> None:
        """A term begins. Nothing was written in it yet, and the sidecars are still connecting."""
        self._since = time.monotonic()

    def end(self) -> list[asyncio.Task[None]]:
        """The term has ended: write nothing more. Returns the tasks that were under way, cancelled."""
        for key in list(self._pages):
            self.forget(key)
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    def forget(self, key: Key) -> None:
        """Forget a plugin that is gone."""
        self._unwritten.forget(key)
        page = self._pages.pop(key, None)
        for timer in (page.write, page.figures) if page is not None else ():
            if timer is not None:
                timer.cancel()

    def confirm(self, plugin: Plugin) -> None:
        """Write the plugin's status soon, to confirm that it is still true."""
        self.soon(plugin)
        self._pages[plugin.key].confirm = True

    def soon(self, plugin: Plugin, *, not_before: float = 0.0) -> None:
        """Write the plugin's status if it differs: at most once a second, and not before this time (monotonic)."""
        page = self._pages.get(plugin.key)
        if page is None or page.uid != plugin.uid:
            self.forget(plugin.key)
            page = self._pages[plugin.key] = _Page(uid=plugin.uid)
        if page.writing:
            page.rewrite = True
            return
        due = max(page.written + _WRITE_EVERY_S, page.rested, page.not_before, not_before)
        loop = asyncio.get_running_loop()
        when = loop.time() + max(due - time.monotonic(), 0.0)
        if page.write is not None:
            if page.write.when() <= when:
                return
            page.write.cancel()

        def write() -> None:
            page.write, page.writing = None, True
            task = loop.create_task(self._publish(page, plugin.key), name=f"publish {plugin.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        page.write = loop.call_at(when, write)

    async def _publish(self, page: _Page, key: Key) -> None:
        try:
            async with self._shares[key[0]], self._writes:
                await self._write(page, key)
        except KubeError as error:
            refusal = await self._unwritten.explain(key, error)
            if refusal is not None:
                await self._tell_refused(page, key, self._note_refusal(page, key, refusal))
        except Exception as error:  # a defect of ours: it must not end in a status that is never written again
            log.exception("the status of plugin '%s/%s' could not be made", *key)
            self._note_refusal(page, key, KubeError(0, f"the operator failed: {type(error).__name__}"))
        finally:
            page.writing = False
        if page.rewrite:
            page.rewrite = False
            self._update(key)

    def _note_refusal(self, page: _Page, key: Key, error: KubeError) -> str:
        """The status could not be written: try again later and later, and say it once; what an Event should say."""
        says = self._unwritten.put(key, error)
        pause = min(_REWRITE_FIRST_S * 2 ** min(page.refusals, 16), _REWRITE_LAST_S) * random.uniform(0.7, 1.0)  # noqa: S311
        page.refusals, page.not_before = page.refusals + 1, time.monotonic() + max(pause, error.retry_after)
        page.rewrite = True
        return says

    async def _tell_refused(self, page: _Page, key: Key, says: str) -> None:
        """Events have rights of their own, and no subresource: they may get through where a status does not."""
        plugin = self._catalogue.plugin(key)
        if says and plugin is not None and self._refusals.take() and page.events.take():
            await self._tell(plugin, Event(type="Warning", reason=NOT_WRITTEN, message=says))

    async def _write(self, page: _Page, key: Key) -> None:
        plugin = self._catalogue.plugin(key)
        if plugin is None or plugin.uid != page.uid:
            return
        stored = orjson.loads(plugin.status)
        known, ours = stored, bool(page.applied) and stored == page.stored
        if ours or (time.monotonic() - page.written < _BACK_S and page.applied):
            known = page.applied  # the watch may not have brought it back yet, or there is not all of it
        previous = _status(known)
        begin = time.monotonic()
        pods, complete, offered = await self._pods(plugin)
        now = time.monotonic()
        page.rested = now + min((now - begin) * _REST, _WRITE_EVERY_S)
        left = self._since + _RECONNECT_S - time.monotonic()
        same = previous.observed_generation == plugin.generation
        if not complete and left > 0 and same and _had_reports(previous):
            # A new leader, or a new process: its sidecars are on their way. What was true a moment ago stands.
            asyncio.get_running_loop().call_later(left, self._update, key)
            return
        written_at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        outcome = self._outcome(plugin, previous, pods, offered=offered, now=written_at)
        if outcome is None:
            return
        sent = [previous, *([_status(page.applied)] if page.applied else [])]
        new = as_json(confirmed(outcome.status, sent, due=page.confirm, now=written_at))
        if new == known:
            if known is page.applied and new != stored and not ours:
                # Either the watch is behind, or somebody wrote over it: it is known in a moment.
                asyncio.get_running_loop().call_later(_BACK_S, self._update, key)
            self._unwritten.written(key)
            return
        left = page.written + _FIGURES_EVERY_S - time.monotonic()
        if left > 0 and page.applied and not page.confirm and without_figures(new) == without_figures(known):
            self._figures_later(page, key, left)
            return
        self._check_term()
        await self._apply(page, plugin, new)
        self._metrics.wrote("status")
        page.written = time.monotonic()
        page.refusals, page.confirm = 0, False
        self._unwritten.written(key)
        await self._tell_changes(page, plugin, previous, outcome)

    def _outcome(
        self, plugin: Plugin, previous: WasmPluginStatus, pods: list[PodObservation], *, offered: bool, now: str
    ) -> Outcome | None:
        """What there is to write; None where nothing is known of its resolution."""
        resolution = self._resolution(plugin)
        if resolution is None:
            return None
        unguarded, unguarded_count = self._catalogue.unguarded(plugin)
        return reconcile(
            Observation(
                generation=plugin.generation,
                previous=restored(previous),
                resolution=resolution,
                pods=pods,
                unguarded=unguarded,
                unguarded_count=unguarded_count,
                offered=offered,
                asks=plugin.facts is not None and plugin.facts.asks,
                needs_pods=plugin.selector.required,
                can_go_back=self._catalogue.can_go_back(plugin),
                now=now,
            )
        )

    async def _tell_changes(self, page: _Page, plugin: Plugin, previous: WasmPluginStatus, outcome: Outcome) -> None:
        """Write the Events that are due, and say in the log what an operator of the cluster wants to know."""
        programmed = next(each for each in outcome.status.conditions if each.type == "Programmed")
        there = programmed.status == "True" or programmed.reason == NO_PODS
        switched = there and self._metrics.note_switch(plugin.key)
        was_wrong = any(each.type == "Ready" and each.reason in WRONG for each in previous.conditions)
        for event in outcome.events:
            # The log has why it cannot be resolved, and does not need each pod that comes or goes.
            news = event.reason == RESOLVED or event.reason in WRONG
            if event.reason not in CAUSES and (switched or was_wrong or news):
                log.info("plugin '%s/%s': %s: %s", *plugin.key, event.reason, event.message)
            if page.events.take():
                await self._tell(plugin, event)

    async def _apply(self, page: _Page, plugin: Plugin, status: dict[str, Any]) -> None:
        """Send a status. Raises KubeError."""
        where = path(API_VERSION, PLURAL, plugin.namespace, plugin.name, "status")
        metadata = {"name": plugin.name, "namespace": plugin.namespace, "uid": plugin.uid}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
        try:
            answer = await self._kube.apply(where, body)
        except KubeError as error:
            if error.status != _INVALID and _UNDECLARED not in str(error):
                raise
            answer = await self._kube.apply(where, body | {"status": _as_before(status)})
            if not self._said_old:
                self._said_old = True
                log.warning("WasmPlugins' definition is older than this operator, so statuses say less than they "
                            "should: apply the chart's CustomResourceDefinitions (crds/)")  # fmt: skip
        page.applied, page.stored = status, answer.get("status") or {}

    def _figures_later(self, page: _Page, key: Key, seconds: float) -> None:
        """Look again then, once for all reports that come meanwhile."""

        def look() -> None:
            page.figures = None
            self._update(key)

        if page.figures is None:
            page.figures = asyncio.get_running_loop().call_later(seconds, look)

    async def _pods(self, plugin: Plugin) -> tuple[list[PodObservation], bool, bool]:
        """The matching pods, whether all of them have reported, and whether they are offered any version."""
        if not self._catalogue.pods.get(plugin.namespace):
            return [], True, True
        offer = await self._bundles.offer(plugin)
        runs = offer is not None and offer.entry.artifact is not None
        selector = offer.selector if offer is not None and runs else plugin.selector
        found, complete = [], True
        for pod in self._catalogue.matching(plugin.namespace, selector):
            state = self._fleet.states.get(pod.uid)
            if state is None:
                complete = False
                why = self._fleet.stranded.get(pod.uid)
                gone = Failure(cause="fetch", message=why) if why else None
                found.append(PodObservation(name=pod.name, ready=pod.ready, failure=gone))
                continue
            found.append(_observed(plugin.name, pod, state, offer))
        return found, complete, runs

    async def _tell(self, plugin: Plugin, event: Event) -> None:
        """An Event for ``kubectl describe``; one that cannot be written is not worth a failure."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{plugin.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": plugin.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": plugin.name,
                "namespace": plugin.namespace,
                "uid": plugin.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.request("POST", path("v1", "events", plugin.namespace), body=body)
            self._metrics.wrote("event")
        except KubeError as error:
            log.info("an Event for plugin '%s/%s' cannot be written: %s", *plugin.key, error)


def _observed(name: str, pod: Pod, state: PodState, offer: Offer | None) -> PodObservation:
    """What a pod that is connected says of a plugin; ``offer`` is what it is to run."""
    report = state.by_name.get(name)
    revision = report.revision if report is not None else None
    runs = offer is not None and offer.entry.artifact is not None
    current = runs and offer is not None and revision == offer.revision
    failed = offer is not None and not current and state.failed(name, offer.revision)
    failure = report.failure if report is not None and failed else None
    back = report.rolled_back if report is not None else None
    return PodObservation(
        name=pod.name,
        ready=pod.ready,
        connected=True,
        runs="Current" if current else "Older" if revision is not None else "Nothing",
        failure=failure and Failure(cause=failure.cause, message=failure.message[:1024]),
        health=report.health if report is not None else [],
        unavailable=report.unavailable if report is not None else [],
        rolled_back=back if back is not None and offer is not None and back.revision == offer.revision else None,
        waits=name in state.waited_names,
        waits_for=[each for each in state.closed[: NAMED + 1] if each != name][:NAMED],
        waits_for_number=len(state.closed) - (bool(state.closed) and report is not None and report.state == "Closed"),
    )


def _had_reports(status: WasmPluginStatus) -> bool:
    """Whether sidecars had said what they run when it was written."""
    known = any(each.type == "Healthy" and each.status != "Unknown" for each in status.conditions)
    return known or status.pods.loaded > 0


def _as_before(status: dict[str, Any]) -> dict[str, Any]:
    """What a definition of the version before takes: no field that it has not got, and eight conditions."""
    later = {"Observed", SOURCES_AVAILABLE}
    conditions = [each for each in status.get("conditions") or () if each.get("type") not in later]
    failures = [{name: told for name, told in each.items() if name != "hook"} for each in status.get("failures") or ()]
    pods = {name: number for name, number in (status.get("pods") or {}).items() if name != "unguarded"}
    artifact = {name: told for name, told in (status.get("artifact") or {}).items() if name not in _OF_TRUST}
    rest = {name: told for name, told in status.items() if name not in {"rolledBack", "artifact"}}
    rest |= {"artifact": artifact} if artifact else {}
    return rest | {"conditions": conditions, "failures": failures, "pods": pods}


def _status(data: dict[str, Any]) -> WasmPluginStatus:
    try:
        return WasmPluginStatus.model_validate(data)
    except ValidationError:
        return WasmPluginStatus()
