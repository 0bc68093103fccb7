"""What is kept of pods without a sidecar is little, bounded, and right whatever order things come in.

The API server is stood in for: it lists what a test says, and its watch brings nothing by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc

import pytest

from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kube import KubeError
from hookline_operator.lead import unguarded as module
from hookline_operator.lead.unguarded import Unguarded
from waiting import until_true

AGAIN = "delete it, so that it is made again"
MISSED = f"it is older than that label, or was made while no operator answered: {AGAIN}"
PROXY = {"matchLabels": {"app": "proxy"}}


class Api:
    """Pods and namespaces, by namespace and name; ``reading`` is run while a list of one namespace is under way."""

    def __init__(self):
        self.pods, self.namespaces = {}, {}
        self.watches = []
        self.reading = None
        self.forbidden = False

    async def pages(self, where, **_):
        """As ``Kube.pages``."""
        if where.endswith("/namespaces"):
            if self.forbidden:
                raise KubeError(403, "namespaces is forbidden")
            yield [self._object("", name, labels) for name, labels in self.namespaces.items()], "1"
            return
        wanted = where.split("/")[4] if "namespaces" in where else None
        found = [
            self._object(namespace, name, labels)
            for (namespace, name), labels in self.pods.items()
            if wanted in {None, namespace}
        ]
        if wanted is not None and self.reading is not None:
            self.reading()
        yield found, "1"

    async def version(self, _):
        """As ``Kube.version``."""
        return "1"

    async def watch(self, where, *_, **__):
        """As ``Kube.watch``."""
        queue = asyncio.Queue()
        self.watches.append((where, queue))
        while True:
            yield await queue.get()

    def tell(self, plural, kind, namespace, name, labels=None, **metadata):
        """Have the watches of a collection bring something."""
        for where, queue in self.watches:
            if where.endswith(plural):
                queue.put_nowait((kind, self._object(namespace, name, labels or {}, **metadata)))

    @staticmethod
    def _object(namespace, name, labels, **more):
        metadata = {"namespace": namespace} if namespace else {}
        return {"metadata": metadata | {
            "name": name, "uid": f"00000000-0000-4000-8000-{hash((namespace, name)) % 10**12:012}", "labels": labels,
            "resourceVersion": "2", **more,
        }}  # fmt: skip


@pytest.fixture
def api():
    """An empty cluster."""
    return Api()


@pytest.fixture
def catalogue():
    """Without plugins."""
    return Catalogue()


def plugin(catalogue, name, namespace="shop", *, gone=False, **spec):
    """Put one there, or take it away; it."""
    found = {
        "metadata": {"namespace": namespace, "name": name, "uid": name, "generation": 1},
        "spec": {"source": {"configMap": {"name": "m"}}, **spec},
    }
    catalogue.put_plugin(found, gone=gone)
    return catalogue.plugin((namespace, name))


@contextlib.asynccontextmanager
async def following(api, catalogue, *, namespaces=(), injects=True):
    """One that has read what there is."""
    found = Unguarded(api, catalogue, namespaces=namespaces, own_namespace="hookline-system", injects=injects)
    catalogue.plugin_changed.append(found.plugin_changed)
    task = asyncio.create_task(found.run())
    try:
        await until_true(found.synced.is_set, "the first list")
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("pod", "namespace", "annotations", "options", "why"),
    [
        ({}, {"hookline.dev/inject": "true"}, {}, {}, f"its namespace asks for sidecars, and {MISSED}"),
        ({}, {"hookline.dev/require-injection": "true"}, {}, {}, f"its namespace asks for sidecars, and {MISSED}"),
        ({"hookline.dev/inject": "true"}, {}, {}, {}, f"its label asks for a sidecar, and {MISSED}"),
        ({}, {}, {}, {}, ("neither it nor its namespace asks for a sidecar: label one of them hookline.dev/inject=true,"
                         f" and {AGAIN}")),
        ({}, {}, {}, {"namespaces": ("shop",)}, ("it does not ask for a sidecar: label it or its namespace "
                                                f"hookline.dev/inject=true, if neither is, and {AGAIN}")),
        ({}, {}, {}, {"injects": False}, ("this operator injects nothing: write the sidecar into the pod, as "
                                         "docs/operate/injection.md has it")),
        ({}, {}, {"kubernetes.io/config.mirror": "x"}, {}, ("it mirrors a static pod, which no API server can change: "
                                                           "write the sidecar into its manifest")),
    ],
)  # fmt: skip
async def test_a_sentence_says_why_and_what_to_do(api, catalogue, pod, namespace, annotations, options, why):
    """By what is known of the pod and its namespace."""
    api.namespaces["shop"] = namespace
    guard = plugin(catalogue, "guard", selector=PROXY)
    async with following(api, catalogue, **options) as unguarded:
        api.tell("pods", "ADDED", "shop", "web", {"app": "proxy", **pod}, annotations=annotations)
        await until_true(lambda: unguarded.of(guard)[1], "the pod")
        (found,), count = unguarded.of(guard)
        assert (found.name, found.why, count) == ("web", why, 1)


async def test_without_the_right_to_namespaces_the_rest_is_counted(api, catalogue):
    """The chart of the version before does not grant it."""
    api.forbidden = True
    api.pods["shop", "web"] = {"app": "proxy"}
    guard = plugin(catalogue, "guard", selector=PROXY)
    async with following(api, catalogue) as unguarded:
        (found,), count = unguarded.of(guard)
        assert count == unguarded.count == 1
        assert found.why.startswith("it does not ask for a sidecar: label it or its namespace")


async def test_a_few_are_named_and_all_are_counted(api, catalogue):
    """The first by name, so that the status is the same each time."""
    api.pods = {("shop", f"web-{number:03}"): {"app": "proxy", "n": str(number)} for number in range(100)}
    guard = plugin(catalogue, "guard", selector=PROXY)
    plugin(catalogue, "other", selector={"matchLabels": {"n": "7"}})
    async with following(api, catalogue) as unguarded:
        found, count = unguarded.of(guard)
        assert count == 100
        assert [each.name for each in found] == [f"web-{number:03}" for number in range(5)]
        assert unguarded.of(catalogue.plugin(("shop", "other")))[1] == 1
        assert unguarded.count == 100, "each once"


async def test_what_went_while_a_namespace_is_read_stays_gone(api, catalogue):
    """The list is older than the watch."""
    api.pods = {("shop", "web"): {"app": "proxy"}, ("shop", "old"): {"app": "proxy"}}
    async with following(api, catalogue) as unguarded:
        (pods,) = (each for each in unguarded._reflectors)
        gone = Api._object("shop", "old", {"app": "proxy"})
        api.reading = lambda: pods._take(gone, gone=True)
        guard = plugin(catalogue, "guard", selector=PROXY)
        await until_true(lambda: unguarded.of(guard)[1], "the pod")
        found, count = unguarded.of(guard)
        assert ([each.name for each in found], count) == (["web"], 1)


async def test_plugins_hear_of_pods_that_concern_them_and_of_no_others(api, catalogue):
    """Each would have its status looked at."""
    guard = plugin(catalogue, "guard", selector=PROXY)
    plugin(catalogue, "other", selector={"matchLabels": {"app": "other"}})
    async with following(api, catalogue) as unguarded:
        told = []
        catalogue.plugin_changed.append(told.append)
        api.tell("pods", "ADDED", "shop", "web", {"app": "proxy"})
        await until_true(lambda: told, "the news")
        api.tell("pods", "DELETED", "shop", "web", {"app": "proxy"})
        await until_true(lambda: len(told) > 1, "the news")
        assert {*told} == {("shop", "guard")}
        assert unguarded.of(guard) == ([], 0)


async def test_nothing_is_kept_for_plugins_that_are_gone(api, catalogue):
    """Nor of namespaces that ask no longer."""
    api.pods["shop", "web"] = {"app": "proxy"}
    api.namespaces["bank"] = {"hookline.dev/inject": "true"}
    api.pods["bank", "teller"] = {}
    plugin(catalogue, "guard", selector=PROXY)
    async with following(api, catalogue) as unguarded:
        assert unguarded.count == 2
        plugin(catalogue, "guard", gone=True, selector=PROXY)
        api.tell("namespaces", "MODIFIED", "", "bank", {})
        await until_true(lambda: not unguarded._pods, "an empty store")
        await until_true(lambda: unguarded.count == 0, "none")
        kept = (unguarded._kept, unguarded._selectors, unguarded._keys, unguarded._naming, unguarded._unread)
        assert not any(kept)
        assert unguarded._total == 0


async def test_one_namespace_has_a_bound_in_pods_and_in_shapes(api, catalogue, monkeypatch):
    """Others are counted all the same."""
    monkeypatch.setattr(module, "_MOST_OF_ONE", 50)
    monkeypatch.setattr(module, "_MOST_SHAPES", 10)
    api.pods = {("shop", f"web-{number}"): {"app": "proxy"} for number in range(100)}
    api.pods |= {("bank", f"web-{number}"): {"app": str(number)} for number in range(100)}
    api.pods["small", "web"] = {"app": "proxy"}
    anything = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    found = {each: plugin(catalogue, "guard", each, selector=anything) for each in ("shop", "bank", "small")}
    async with following(api, catalogue) as unguarded:
        counts = {name: unguarded.of(each)[1] for name, each in found.items()}
        assert counts == {"shop": 50, "bank": 10, "small": 1}


@pytest.mark.parametrize(("wanted", "at_most"), [(False, 2**20), (True, 8 * 2**20)])
async def test_twenty_thousand_pods_cost_a_few_mebibytes(api, catalogue, wanted, at_most):
    """Nothing where nobody asks; and some 300 bytes each where every single one should have a sidecar."""
    for number in range(20_000):
        labels = {"app": "web", "pod-template-hash": f"{number // 100:010}", "team": f"team-{number // 100}"}
        api.pods[f"team-{number // 100}", f"web-{number // 100:010}-{number:05}"] = labels
    for number in range(200):
        plugin(catalogue, "guard", f"team-{number}", selector={"matchLabels": {"app": "web" if wanted else "other"}})
    if not wanted:
        api.pods = {key: {"team": "x"} for key in api.pods}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        async with following(api, catalogue) as unguarded:
            assert unguarded.count == (20_000 if wanted else 0)
            used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used < at_most
