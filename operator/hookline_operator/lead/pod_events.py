"""Events on pods, for ``kubectl describe pod``: for pods without a sidecar, and for pods that wait for a plugin.

The leader writes one for each state of a pod. A namespace has a ration of them; what is over it is written later, if it
is still true. A pod may wait for some seconds before its Event, since most wait no longer.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hookline_api.sentences import first_load_choice
from hookline_operator.cluster.kube import MANAGER, Kube, KubeError, path
from hookline_operator.rations import Rations

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.distribution import PluginReport
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.lead.unguarded import Unguarded
    from hookline_operator.metrics import Metrics
    from hookline_operator.serve.fleet import Fleet, PodState

UNGUARDED: Final = "Unguarded"
WAITS: Final = "WaitsForPlugin"
_BURST: Final = 20
"""Events of one namespace's pods at once."""
_EACH_SECOND: Final = 1 / 10
"""And so many more in each second."""
_REMEMBERED: Final = 20_000
_PATIENCE_S: Final = 3.0
"""How long a pod may wait before that is told: a module is fetched and compiled in less."""
_LOOK_S: Final = 1.0
_AT_ONCE: Final = 50
"""Events of one look, so that a thousand pods do not make the next one late."""
_AGAIN_S: Final = 10.0
_NAMED: Final = 3
_DONE: Final = {"fetching": "fetched", "compiling": "compiled", None: "loaded"}
_MAX_MESSAGE: Final = 1024

log = logging.getLogger("hookline.pods")


class _Pod(NamedTuple):
    namespace: str
    name: str
    uid: str


def waits_for(state: PodState, catalogue: Catalogue) -> list[PluginReport]:
    """The plugins that keep a sidecar from being ready, by name; none where it is."""
    return [each for each in state.waited_for if not _only_observes(catalogue.plugin((state.namespace, each.name)))]


def waiting_sentence(blamed: list[PluginReport]) -> str:
    """For the pod's Event: which plugin it waits for, why, and what the author may choose."""
    first, others = blamed[0], blamed[1:]
    stage = first.failure.stage if first.failure is not None else first.loading
    why, choice = f"it is being {_DONE[stage]}", ""
    if first.failure is not None and stage is None:
        why, choice = (
            f"it cannot be loaded ({first.failure.cause}): {first.failure.message}",
            first_load_choice(first.failure.cause),
        )
    more = ", ".join(f"'{each.name}'" for each in others[:_NAMED])
    more += f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    tail = (f"; {choice}" if choice else "") + (f"; it also waits for {more}" if others else "")
    text = f"the sidecar waits for plugin '{first.name}': {why}"
    room = _MAX_MESSAGE - len(tail)
    return (text if len(text) <= room else text[: room - 1] + "…") + tail


def _only_observes(plugin: Plugin | None) -> bool:
    return plugin is not None and plugin.facts is not None and plugin.facts.observes


class PodEvents:
    """Writes these Events, while this replica leads."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        fleet: Fleet,
        unguarded: Unguarded,
        metrics: Metrics,
        *,
        leads: Callable[[], bool],
    ) -> None:
        """``leads`` is asked before each write: whether no other replica can lead meanwhile."""
        self._kube = kube
        self._catalogue = catalogue
        self._fleet = fleet
        self._unguarded = unguarded
        self._metrics = metrics
        self._leads = leads
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()
        """By reason and uid: what was told of a pod in this process' life."""
        self._rations: Rations[str] = Rations(burst=_BURST, each_second=_EACH_SECOND, kept=_REMEMBERED)
        self._since: dict[str, float] = {}
        """By uid: since when (monotonic) a sidecar is not ready."""
        self._judged: dict[str, PodState] = {}
        """By uid: the last word of a sidecar of which there is nothing more to tell."""
        self._bare: dict[str, float] = {}
        """By namespace: when (monotonic) its pods without a sidecar are looked at."""

    async def run(self) -> None:
        """Lead until cancelled."""
        self._bare = dict.fromkeys(self._unguarded.namespaces(), 0.0)
        self._since.clear()
        self._judged.clear()
        for uid, state in self._fleet.states.items():
            self.sidecar_changed(uid, state, state.namespace, "")
        while True:
            await asyncio.sleep(_LOOK_S)
            left = await self._tell_unguarded(_AT_ONCE)
            await self._tell_waiting(left)

    def sidecar_changed(self, uid: str, state: PodState | None, _namespace: str, _replica: str) -> None:
        """A sidecar may be ready now, or not any more."""
        if state is not None and not state.report.ready:
            self._since.setdefault(uid, time.monotonic())
        else:
            self._since.pop(uid, None)
            self._judged.pop(uid, None)
            self._told.pop((WAITS, uid), None)

    def unguarded_changed(self, namespace: str) -> None:
        """Other pods of a namespace have no sidecar now."""
        self._bare.setdefault(namespace, 0.0)

    async def _tell_unguarded(self, most: int) -> int:
        """How many of so many are left."""
        now = time.monotonic()
        for namespace in [name for name, due in self._bare.items() if due <= now]:
            del self._bare[namespace]
            for name, uid, why in self._unguarded.in_namespace(namespace):
                if (UNGUARDED, uid) in self._told:
                    continue
                if most <= 0 or not self._rations.of(namespace).take():
                    self._bare[namespace] = now + (_AGAIN_S if most > 0 else 0.0)
                    break
                most -= 1
                text = f"this pod has no sidecar, so no plugin guards it: {why}"
                await self._write(_Pod(namespace, name, uid), UNGUARDED, text, state="")
        return most

    async def _tell_waiting(self, most: int) -> None:
        now = time.monotonic()
        for uid in [uid for uid, since in self._since.items() if now - since >= _PATIENCE_S]:
            state = self._fleet.states.get(uid)
            if state is self._judged.get(uid, False):
                continue  # two thousand pods that wait for a thousand plugins are two million names
            pod = self._catalogue.pod((state.namespace, state.name)) if state is not None else None
            if state is None or pod is None or pod.uid != uid or not pod.live:
                continue
            blamed = waits_for(state, self._catalogue)
            told = " ".join(f"{each.name}/{each.failure.cause if each.failure else ''}" for each in blamed)
            if not blamed or self._told.get((WAITS, uid)) == told:
                self._judged[uid] = state
                continue
            if most <= 0:
                return
            if not self._rations.of(state.namespace).take():
                continue
            most -= 1
            await self._write(_Pod(pod.namespace, pod.name, uid), WAITS, waiting_sentence(blamed), state=told)

    async def _write(self, pod: _Pod, reason: str, message: str, *, state: str) -> None:
        """One that cannot be written is not worth a failure."""
        if not self._leads():
            return
        self._told[reason, pod.uid] = state
        self._told.move_to_end((reason, pod.uid))
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        try:
            await self._kube.request("POST", path("v1", "events", pod.namespace), body=_event(pod, reason, message))
            self._metrics.wrote("event")
        except KubeError as error:
            log.info("an Event for pod '%s/%s' cannot be written: %s", pod.namespace, pod.name, error)


def _event(pod: _Pod, reason: str, message: str) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
