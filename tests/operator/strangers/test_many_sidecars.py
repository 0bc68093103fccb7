"""What two thousand sidecars do at once, and what that must not cost; ``make bench-operator`` has the figures."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from types import SimpleNamespace

import orjson
import pytest

from hookline_api.bundle import BundlePlugin, LoadFailure
from hookline_api.distribution import PluginReport, Report
from hookline_api.status import ArtifactStatus
from hookline_artifacts.errors import FetchError
from hookline_artifacts.store import ArtifactStore
from hookline_operator.lead.publisher import Publisher, _Page
from hookline_operator.metrics import Metrics
from hookline_operator.serve import blobs
from hookline_operator.serve.blobs import Blobs
from hookline_operator.serve.fleet import PodState
from hookline_operator.serve.sessions import Session, let_go
from hookline_operator.status.observation import Resolution
from steps import opcodes
from waiting import until_true


@pytest.fixture
def store(tmp_path):
    """A store of modules."""
    return ArtifactStore(tmp_path)


def entry_of(data):
    """What names a module in a bundle."""
    sha256 = hashlib.sha256(data).hexdigest()
    artifact = {"sha256": sha256, "digest": f"sha256:{sha256}", "size": len(data), "layout": "raw", "reference": "r"}
    return BundlePlugin.model_validate({"name": "p", "artifact": artifact})


def put(store, data):
    """Keep a module; what names it."""
    entry = entry_of(data)
    with store.scratch() as file:
        file.write(data)
        store.grant_file(file, owner="shop", sha256=entry.artifact.sha256, size=len(data))
    return entry


async def test_a_module_that_many_ask_for_is_read_once(store):
    """Where it is small; a large one is not kept in memory, and of small ones a few."""
    made = Blobs(store, None, None, None, None)
    entry = put(store, b"small")
    found = await asyncio.gather(*(made.fetch("shop", entry) for _ in range(50)))
    first = await made.fetch("shop", entry)
    assert first.data == b"small" == first.path.read_bytes()
    assert {id(each) for each in found} == {id(first)}
    large = await made.fetch("shop", put(store, bytes(blobs._SMALL + 1)))
    assert large.data is None
    assert large.path.stat().st_size == blobs._SMALL + 1
    for number in range(40):
        assert (await made.fetch("shop", put(store, b"%d" % number))).data == b"%d" % number
    assert sum(blob.data is not None for _, blob in made._checked.values()) == blobs._KEPT


async def test_a_module_of_one_namespace_is_not_found_for_another(store):
    """Whatever a revision there says: whoever has seen a sha256 knows it. The leader is asked for that namespace."""
    asked = []

    async def of_leader(namespace, sha256, _size):
        asked.append((namespace, sha256))

    made = Blobs(store, None, SimpleNamespace(plugin=lambda _key: None), None, of_leader)
    entry = put(store, b"private")
    assert (await made.fetch("shop", entry)).data == b"private"
    with pytest.raises(FetchError, match="the plugin is gone"):
        await made.fetch("thief", entry)
    assert asked == [("thief", entry.artifact.sha256)]


async def test_who_hangs_up_ends_nobody_elses_search(store):
    """And nothing is searched for twice meanwhile: not what is found, and not what is not."""
    asked = []

    async def of_leader(_namespace, sha256, _size):
        asked.append(sha256)
        await asyncio.sleep(0.05)
        return data if sha256 == hashlib.sha256(data).hexdigest() else None

    data = b"the leader's"
    there = entry_of(data)
    made = Blobs(store, None, SimpleNamespace(plugin=lambda _key: None), None, of_leader)
    first = asyncio.create_task(made.fetch("shop", there))
    others = [asyncio.create_task(made.fetch("shop", there)) for _ in range(20)]
    await asyncio.sleep(0.01)
    first.cancel()
    assert {(await each).data for each in others} == {data}
    absent = entry_of(b"nowhere")
    found = await asyncio.gather(*(made.fetch("shop", absent) for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in found} == {FetchError}
    assert asked == [there.artifact.sha256, absent.artifact.sha256]
    assert not made._looking


async def test_two_thousand_reports_that_change_nothing_are_few_looks_at_the_pods():
    """A look at two thousand pods takes ten milliseconds, and each of them reports twice for each plugin."""
    looks = []
    plugin = SimpleNamespace(key=("shop", "p"), name="p", uid="u", status=b"{}", generation=1)
    catalogue = SimpleNamespace(plugin=lambda _key: plugin)

    class Slow(Publisher):
        async def _pods(self, _plugin):
            looks.append(time.monotonic())
            while time.monotonic() < looks[-1] + 0.01:
                pass
            return [], True, True

    publisher = Slow(
        None, catalogue, None, None, Metrics(),
        check_term=lambda: None, update=lambda _key: publisher.soon(plugin), resolution=lambda _plugin: None,
    )  # fmt: skip
    publisher.begin()
    reports = 0
    while len(looks) < 4:
        publisher.soon(plugin)
        reports += 1
        await asyncio.sleep(0)
    publisher.end()
    assert len(looks) < reports / 2
    assert all(after - before >= 0.1 for before, after in itertools.pairwise(looks))


@pytest.mark.parametrize(("closed", "cuts"), [(True, 0), (False, 1), (None, 1)], ids=["at once", "already", "never"])
async def test_a_connection_that_does_not_close_is_cut(monkeypatch, closed, cuts):
    """Whoever reads nothing would keep its handler, and half a megabyte, for as long as it likes."""
    monkeypatch.setattr("hookline_operator.serve.sessions._CLOSE_S", 0.05)
    cut = []

    async def close(**_how):
        if closed is None:
            await asyncio.sleep(3600)
        return closed

    session = Session(None, None, SimpleNamespace(close=close), lambda: cut.append(1))
    await let_go(session, 1001, b"it goes")
    assert len(cut) == cuts


def _publisher(kind, names, kube=None, resolution=None):
    """Of plugins of these namespaces, one each."""
    plugins = {}
    for name in names:
        known = {"key": (name, "p"), "name": "p", "namespace": name, "uid": "u", "status": b"{}", "generation": 1}
        plugins[name, "p"] = SimpleNamespace(**known, facts=None, selector=SimpleNamespace(required=True))
    catalogue = SimpleNamespace(
        plugin=plugins.get, unguarded=lambda _plugin: ([], 0), can_go_back=lambda _plugin: False
    )  # fmt: skip
    made = kind(kube, catalogue, None, None, Metrics(), check_term=lambda: None, update=lambda _key: None,
                resolution=resolution or (lambda _plugin: None))  # fmt: skip
    made.begin()
    return made, plugins


async def test_statuses_of_one_namespace_keep_no_other_waiting():
    """A tenant with thousands of plugins that flap has a quarter of what is written at once."""
    ends, begun = asyncio.Event(), []

    class Stuck(Publisher):
        async def _write(self, _page, key):
            begun.append(key)
            if key[0] == "hostile":
                await ends.wait()

    publisher, plugins = _publisher(Stuck, ["other"])
    hostile = [SimpleNamespace(key=("hostile", f"p{each}"), name="p", uid="u") for each in range(40)]
    for each in hostile:
        publisher.soon(each)
    await until_true(lambda: len(begun) == 4, "four of the hostile are being written", pause=0)
    publisher.soon(plugins["other", "p"])
    await until_true(lambda: ("other", "p") in begun, "the other's is written", pause=0)
    assert len(begun) == 5
    ends.set()
    await until_true(lambda: len(begun) == 41, "all are", pause=0)
    publisher.end()


async def test_a_plugin_that_flaps_has_few_events():
    """Its status says what is so now; Events are kept for an hour, each an object of its own."""
    written, good = Counter(), itertools.cycle([True, False])

    class Api:
        async def apply(self, _path, body):
            written["status"] += 1
            return body

        async def request(self, _method, _path, *, body):
            written[body["kind"]] += 1

    class Podless(Publisher):
        async def _pods(self, _plugin):
            return [], True, True

    def resolution(_plugin):
        if next(good):
            artifact = ArtifactStatus(digest="sha256:" + "0" * 64, sha256="0" * 64, layout="raw", size=8, hooks=[])
            return Resolution(state="Good", artifact=artifact, revision="0123456789")
        return Resolution(state="Failed", cause="fetch", message="it is gone")

    publisher, plugins = _publisher(Podless, ["shop"], Api(), resolution)
    page = _Page(uid="u")
    for _ in range(300):
        await publisher._write(page, ("shop", "p"))
        plugins["shop", "p"].status = orjson.dumps(page.applied)
    assert written["status"] == 300
    assert 100 <= written["Event"] < 150


def test_what_a_pod_says_of_a_plugin_is_found_at_once_and_sent_to_nobody():
    """A thousand plugins' changes each asked for theirs, and read a thousand reports for it."""
    plugins = [PluginReport(name=f"p{each}", revision=f"r{each}", state="Running") for each in range(999)]
    failed = PluginReport(name="f", state="Closed", failure=LoadFailure(cause="fetch", message="it is gone"))
    told = {"uid": "u", "namespace": "n", "name": "a", "report": Report(plugins=[*plugins, failed])}
    state = PodState(**told, answered={"f": "r", "p1": "r1"})
    before = state.model_dump_json()
    steps = opcodes(lambda: [state.runs(f"p{each}") for each in range(999)])
    assert steps < 1000 * 50
    assert state.runs("p7") == "r7"
    assert state.runs("nobody") is None
    assert [state.failed("f", "r"), state.failed("f", "s"), state.failed("p1", "r1")] == [True, False, False]
    assert state.model_dump_json() == before
    assert state == PodState(**told, answered={"f": "r", "p1": "r1"})
