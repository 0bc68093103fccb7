"""Pods that should be guarded, by their labels, and have no sidecar.

A pod counts for a plugin that selects it, if the selector says which pods (``says_which``), or if the pod asks for a
sidecar with ``hookline.dev/inject`` on itself or on its namespace. These never count: pods that decline (``inject:
"false"``), that have ended or are going, that use their node's network, and the cluster's and the operator's own.

Almost all pods of a large cluster are of no concern here. Of a pod its name, its uid and the labels that some selector
reads are kept, if the pod asks for a sidecar, or if a plugin of its namespace says which pods it is for. When that
changes for a namespace, its pods are read again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hookline_api.selectors import selects
from hookline_operator.cluster.kube import Key, Kube, KubeError, Object, key_of, path
from hookline_operator.cluster.labels import LABEL_ASKS, LABEL_REQUIRES
from hookline_operator.cluster.reflector import Reflector
from hookline_operator.cluster.selectors import identity_of, labels_of, naming_labels, says_which
from hookline_operator.cluster.sight import Sights
from hookline_operator.lead.bare_pods import ALIVE, WITHOUT, Bare, BarePods, Shape
from hookline_operator.status.observation import UnguardedPod

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from hookline_api.resources import Selector
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.plugins import Plugin

_CLUSTERS_OWN: Final = "kube-system"
_NAMED: Final = 5
_MOST: Final = 50_000
_MOST_OF_ONE: Final = 5_000
"""Pods that are kept of all namespaces, and of one. Each takes some 300 bytes; the rest are not counted."""
_MOST_SHAPES: Final = 256
"""Shapes that are kept of one namespace: each of its plugins looks at each of them."""
_GATHER_S: Final = 0.2
_REST: Final = 20
"""The next look waits this many times as long as the last one took: a tenant's pods may come and go all the time."""
_REST_LAST_S: Final = 30.0
_STEPS: Final = 500
"""Questions between which others have their turn."""
_STEP_S: Final = 0.05
_AGAIN_S: Final = 5.0

log = logging.getLogger("hookline.unguarded")

_MIRROR: Final = "it mirrors a static pod, which no API server can change: write the sidecar into its manifest"
_BY_HAND: Final = "this operator injects nothing: write the sidecar into the pod, as docs/operate/injection.md has it"
_AGAIN: Final = "delete it, so that it is made again"
_MISSED: Final = f"it is older than that label, or was made while no operator answered: {_AGAIN}"
_POD_ASKS: Final = f"its label asks for a sidecar, and {_MISSED}"
_NAMESPACE_ASKS: Final = f"its namespace asks for sidecars, and {_MISSED}"
_NOBODY_ASKS: Final = (
    f"neither it nor its namespace asks for a sidecar: label one of them {LABEL_ASKS}=true, and {_AGAIN}"
)
_NOT_KNOWN: Final = (
    f"it does not ask for a sidecar: label it or its namespace {LABEL_ASKS}=true, if neither is, and {_AGAIN}"
)


@dataclass(frozen=True, slots=True)
class _Group:
    """The pods of one shape."""

    shape: Shape
    uids: dict[str, str] = field(default_factory=dict)
    """By name."""


class Unguarded:
    """The pods that this replica knows of.

    ``changed`` is called with each namespace whose unguarded pods have changed.
    """

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        *,
        namespaces: Collection[str],
        own_namespace: str,
        injects: bool,
        sights: Sights | None = None,
    ) -> None:
        """``namespaces`` are those that are watched; none for all, and only then the labels of namespaces are known."""
        self.changed: list[Callable[[str], None]] = []
        self.synced = asyncio.Event()
        """What there is has been read, as far as the API server lets it be."""
        self._kube = kube
        self._catalogue = catalogue
        self._sights = sights or Sights()
        self._labels = None if namespaces else self._namespaces()
        self._injects = injects
        self._spared = {_CLUSTERS_OWN} if own_namespace in namespaces else {_CLUSTERS_OWN, own_namespace}
        self._asking: set[str] = set()
        """Namespaces whose label asks for sidecars."""
        self._selectors: defaultdict[str, dict[str, Selector]] = defaultdict(dict)
        """Of each plugin, by namespace and name."""
        self._keys: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By namespace: the labels that selectors look at."""
        self._naming: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By namespace: labels without which a selector selects no pod, for selectors that say which pods."""
        self._unread: dict[str, set[str]] = {}
        """By namespace: the labels that selectors look at, and that the shapes of its pods do not have yet."""
        self._pods: dict[str, dict[Shape, _Group]] = {}
        """By namespace and shape."""
        self._kept: Counter[str] = Counter()
        """Pods, by namespace."""
        self._total = 0
        self._full = False
        self._meant: dict[str, frozenset[Shape]] = {}
        """By namespace: the shapes whose pods are meant to be guarded, by any plugin or by themselves."""
        self._dirty: defaultdict[str, set[Shape]] = defaultdict(set)
        self._relabelled: set[str] = set()
        """Namespaces that ask for sidecars, or ask no longer, since the last look."""
        self._stale: dict[str, None] = {}
        """Namespaces whose pods have to be read again, in order."""
        self._woken = asyncio.Event()
        self._reads = asyncio.Event()
        self._reflectors = [self._reflector(namespace) for namespace in namespaces or (None,)]

    # ── what others ask ──

    @property
    def count(self) -> int:
        """How many such pods there are in all namespaces, each counted once."""
        return sum(len(self._uids(name, each)) for name, shapes in self._meant.items() for each in shapes)

    def of(self, plugin: Plugin) -> tuple[list[UnguardedPod], int]:
        """The pods that this plugin should guard and does not: the first by name, and how many there are."""
        namespace, selector = plugin.namespace, plugin.selector
        named, count = list[tuple[str, Shape]](), 0
        if not labels_of(selector).isdisjoint(self._unread.get(namespace, ())):
            return [], 0  # its pods are being read
        for shape, group in self._pods.get(namespace, {}).items():
            if self._concerns(selector, namespace, shape):
                count += len(group.uids)
                named += [(name, shape) for name in heapq.nsmallest(_NAMED, group.uids)]
        first = heapq.nsmallest(_NAMED, named)
        return [UnguardedPod(name=name, why=self._why(namespace, shape)) for name, shape in first], count

    def in_namespace(self, namespace: str) -> Iterator[tuple[str, str, str]]:
        """Name, uid and reason of all such pods of a namespace."""
        for shape in self._meant.get(namespace, ()):
            for name, uid in list(self._uids(namespace, shape).items()):
                yield name, uid, self._why(namespace, shape)

    def namespaces(self) -> list[str]:
        """The namespaces that have any."""
        return [name for name, shapes in self._meant.items() if shapes]

    def _uids(self, namespace: str, shape: Shape) -> dict[str, str]:
        group = self._pods.get(namespace, {}).get(shape)
        return group.uids if group is not None else {}

    def _why(self, namespace: str, shape: Shape) -> str:
        if shape.mirror:
            return _MIRROR
        if not self._injects:
            return _BY_HAND
        if shape.asks:
            return _POD_ASKS
        if namespace in self._asking:
            return _NAMESPACE_ASKS
        return _NOBODY_ASKS if self._labels is not None and self._labels.synced.is_set() else _NOT_KNOWN

    def _concerns(self, selector: Selector, namespace: str, shape: Shape) -> bool:
        meant = shape.asks or namespace in self._asking or says_which(selector)
        return meant and selects(selector, dict(shape.labels))

    # ── what it hears ──

    async def run(self) -> None:
        """Follow pods, namespaces and plugins, for ever."""
        for plugin in self._catalogue.all_plugins():
            self.plugin_changed(plugin.key)
        async with asyncio.TaskGroup() as tasks:
            if self._labels is not None:
                tasks.create_task(self._labels.run(), name="namespaces")
                await _either(self._labels)
            # Nothing was read yet: the first list knows what is wanted.
            self._stale.clear()
            self._unread.clear()
            for each in self._reflectors:
                tasks.create_task(each.run(), name="pods without a sidecar")
            for each in self._reflectors:
                await _either(each)
            await self._look()
            self.synced.set()
            tasks.create_task(self._read_again(), name="pods again")
            tasks.create_task(self._follow(), name="unguarded")

    def _namespaces(self) -> Reflector[str]:
        where = path("v1", "namespaces")
        return Reflector(
            self._kube, where, project=_asking, changed=self._put_namespace, metadata_only=True,
            sight=self._sights.new("namespaces", needed=False),
        )  # fmt: skip

    def _reflector(self, namespace: str | None) -> BarePods:
        return BarePods(
            self._kube, path("v1", "pods", namespace), project=self._project, changed=self._put,
            selector=WITHOUT, fields=ALIVE, metadata_only=True,
            sight=self._sights.new("pods-without-sidecar", needed=False),
        )  # fmt: skip

    def _project(self, found: Object) -> Bare | None:
        """What is kept of a pod, or None; the log says once where there are too many."""
        metadata = found["metadata"]
        namespace, labels = metadata["namespace"], metadata.get("labels") or {}
        says = labels.get(LABEL_ASKS)
        if "deletionTimestamp" in metadata or namespace in self._spared or says == "false":
            return None
        naming = self._naming.get(namespace)
        if says != "true" and namespace not in self._asking and (naming is None or naming.keys().isdisjoint(labels)):
            return None
        keys, shapes = self._keys.get(namespace, ()), self._pods.get(namespace, {})
        pairs = tuple(sorted((key, value) for key, value in labels.items() if key in keys))
        mirror = "kubernetes.io/config.mirror" in (metadata.get("annotations") or {})
        shape = Shape(pairs, says == "true", mirror)
        group = shapes.get(shape)
        known = key_of(found) in self._reflector_of(namespace).items
        full = self._total >= _MOST or self._kept[namespace] >= _MOST_OF_ONE
        if (full and not known) or (group is None and len(shapes) >= _MOST_SHAPES):
            self._say_full(namespace)
            return None
        return Bare(shape if group is None else group.shape, metadata["uid"])

    def _say_full(self, namespace: str) -> None:
        if not self._full:
            log.warning("there are too many pods without a sidecar to count them all; namespace '%s' has some of them",
                        namespace)  # fmt: skip
        self._full = True

    def _put(self, key: Key, old: Bare | None, new: Bare | None) -> None:
        namespace, name = key
        shapes = self._pods.setdefault(namespace, {})
        if old is not None:
            del shapes[old.shape].uids[name]
            if not shapes[old.shape].uids:
                del shapes[old.shape]
        if new is not None:
            shapes.setdefault(new.shape, _Group(new.shape)).uids[name] = new.uid
        if not shapes:
            del self._pods[namespace]
        more = (new is not None) - (old is not None)
        self._total += more
        self._kept[namespace] += more
        if not self._kept[namespace]:
            del self._kept[namespace]
        self._dirty[namespace] |= {each.shape for each in (old, new) if each is not None}
        self._woken.set()

    def _put_namespace(self, key: Key, _old: str | None, new: str | None) -> None:
        namespace = key[1]
        if new is not None:
            self._asking.add(namespace)
        else:
            self._asking.discard(namespace)
        self._relabelled.add(namespace)
        self._read(namespace)

    def plugin_changed(self, key: Key) -> None:
        """Its selector may have changed, and with it the pods that count."""
        namespace, name = key
        plugin, known = self._catalogue.plugin(key), self._selectors.get(namespace, {}).get(name)
        selector = plugin.selector if plugin is not None else None
        if selector == known:
            return
        keys, naming = self._keys[namespace], self._naming[namespace]
        before, named_before = {*keys}, {*naming}
        for each, more in ((known, -1), (selector, 1)):
            _add(keys, labels_of(each), more)
            _add(naming, naming_labels(each), more)
        if selector is not None:
            self._selectors[namespace][name] = selector
        else:
            del self._selectors[namespace][name]
        if not self._selectors[namespace]:
            del self._selectors[namespace], self._keys[namespace], self._naming[namespace]
        if ({*keys}, {*naming}) != (before, named_before):
            self._unread.setdefault(namespace, set()).update({*keys} - before)
            self._read(namespace)
        self._dirty[namespace] |= set()
        self._woken.set()

    def _read(self, namespace: str) -> None:
        self._stale[namespace] = None
        self._reads.set()
        self._dirty[namespace] |= self._pods.get(namespace, {}).keys()
        self._woken.set()

    # ── what it does about it ──

    async def _read_again(self) -> None:
        while True:
            await self._reads.wait()
            self._reads.clear()
            while self._stale:
                namespace = next(iter(self._stale))
                del self._stale[namespace]
                unread = {*self._unread.get(namespace, ())}
                try:
                    if namespace not in self._spared:
                        await self._reflector_of(namespace).read_again(self._kube, namespace)
                except KubeError as error:
                    log.info("the pods of namespace '%s' cannot be read: %s", namespace, error)
                    self._stale[namespace] = None
                    await asyncio.sleep(_AGAIN_S)
                    continue
                if namespace in self._unread and not (left := self._unread[namespace] - unread):
                    del self._unread[namespace]
                elif namespace in self._unread:
                    self._unread[namespace] = left
                self._dirty[namespace] |= self._pods.get(namespace, {}).keys()
                self._woken.set()

    def _reflector_of(self, namespace: str) -> BarePods:
        return next((each for each in self._reflectors if each.is_of(namespace)), self._reflectors[0])

    async def _follow(self) -> None:
        while True:
            await self._woken.wait()
            begin = time.monotonic()
            await asyncio.sleep(_GATHER_S)
            self._woken.clear()
            began = time.monotonic()
            await self._look()
            rest = min((time.monotonic() - began) * _REST, _REST_LAST_S)
            await asyncio.sleep(max(begin + rest - time.monotonic(), 0.0))

    async def _look(self) -> None:
        """Find which shapes are meant where something changed, and tell the plugins that it concerns."""
        dirty, self._dirty = self._dirty, defaultdict(set)
        relabelled, self._relabelled = self._relabelled, set()
        steps = 0
        for namespace, changed in dirty.items():
            there = [*self._pods.get(namespace, {})]
            unmeant = {each for each in there if not each.asks} if namespace not in self._asking else set[Shape]()
            meant, told = {*there} - unmeant, set[str]()
            seen = set[tuple[Any, ...]]()
            for name, selector in list(self._selectors.get(namespace, {}).items()):
                concerned = any(self._concerns(selector, namespace, each) for each in changed)
                # What a label concerned that is gone, nobody can tell any more.
                if name not in told and (concerned or namespace in relabelled):
                    told.add(name)
                    self._catalogue.tell_plugin((namespace, name))
                identity = identity_of(selector)
                if unmeant and identity not in seen and says_which(selector):
                    seen.add(identity)
                    found = {each for each in unmeant if self._concerns(selector, namespace, each)}
                    meant |= found
                    unmeant -= found
                steps += len(changed) + len(unmeant) + 1
                if steps > _STEPS:
                    steps = 0
                    await asyncio.sleep(0)
            if meant:
                self._meant[namespace] = frozenset(meant)
            else:
                self._meant.pop(namespace, None)
            for hear in self.changed:
                hear(namespace)


def _asking(found: Object) -> str | None:
    """The label by which a namespace asks for sidecars, as the chart's webhooks have it; None where it does not."""
    labels = found["metadata"].get("labels") or {}
    return next((each for each in (LABEL_ASKS, LABEL_REQUIRES) if labels.get(each) == "true"), None)


def _add(counter: Counter[str], labels: set[str], more: int) -> None:
    for label in labels:
        counter[label] += more
        if not counter[label]:
            del counter[label]


async def _either(reflector: Reflector[Any]) -> None:
    """Wait until it has listed all, or could not: without this right the rest goes on."""
    while not reflector.synced.is_set() and not reflector.trouble:  # noqa: ASYNC110 - of two, only one has an event
        await asyncio.sleep(_STEP_S)
