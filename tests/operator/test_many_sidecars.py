"""What two thousand sidecars do at once, and what that must not cost; ``make bench-operator`` has the figures."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from types import SimpleNamespace

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_operator import blobs, distribution
from hookline_operator.blobs import Blobs
from hookline_operator.distribution import Session
from hookline_operator.metrics import Metrics
from hookline_operator.publisher import Publisher
from hookline_runtime.artifacts import ArtifactStore
from hookline_runtime.errors import FetchError


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
    found = await asyncio.gather(*(made.find("shop", entry) for _ in range(50)))
    first = await made.find("shop", entry)
    assert first.data == b"small" == first.path.read_bytes()
    assert {id(each) for each in found} == {id(first)}
    large = await made.find("shop", put(store, bytes(blobs._SMALL + 1)))
    assert large.data is None
    assert large.path.stat().st_size == blobs._SMALL + 1
    for number in range(40):
        assert (await made.find("shop", put(store, b"%d" % number))).data == b"%d" % number
    assert sum(blob.data is not None for _, blob in made._checked.values()) == blobs._KEPT


async def test_a_module_of_one_namespace_is_not_found_for_another(store):
    """Whatever a revision there says: whoever has seen a sha256 knows it. The leader is asked for that namespace."""
    asked = []

    async def of_leader(namespace, sha256, _size):
        asked.append((namespace, sha256))

    made = Blobs(store, None, SimpleNamespace(plugin=lambda _key: None), None, of_leader)
    entry = put(store, b"private")
    assert (await made.find("shop", entry)).data == b"private"
    with pytest.raises(FetchError, match="the plugin is gone"):
        await made.find("thief", entry)
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
    first = asyncio.create_task(made.find("shop", there))
    others = [asyncio.create_task(made.find("shop", there)) for _ in range(20)]
    await asyncio.sleep(0.01)
    first.cancel()
    assert {(await each).data for each in others} == {data}
    absent = entry_of(b"nowhere")
    found = await asyncio.gather(*(made.find("shop", absent) for _ in range(20)), return_exceptions=True)
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
            return [], True

    publisher = Slow(
        None, catalogue, None, None, Metrics(),
        check_term=lambda: None, look_again=lambda _key: publisher.soon(plugin), resolution=lambda _plugin: None,
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
    monkeypatch.setattr(distribution, "_CLOSE_S", 0.05)
    cut = []

    async def close(**_how):
        if closed is None:
            await asyncio.sleep(3600)
        return closed

    session = Session(None, None, SimpleNamespace(close=close), lambda: cut.append(1))
    await distribution._let_go(session, 1001, b"it goes")
    assert len(cut) == cuts
