"""What two thousand sidecars do at once, and what that must not cost; ``make bench-operator`` has the figures."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from types import SimpleNamespace

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_operator import blobs, identity
from hookline_operator.blobs import Blobs
from hookline_operator.identity import Reviewer
from hookline_operator.metrics import Metrics
from hookline_operator.publisher import Publisher
from hookline_runtime.artifacts import ArtifactStore


class Api:
    """An API server that says yes to every token, and counts."""

    def __init__(self):
        self.reviews = 0

    async def request(self, *_args, **_more):
        """A TokenReview."""
        self.reviews += 1
        user = {"username": "system:serviceaccount:shop:default"}
        return {"status": {"authenticated": True, "audiences": ["hookline.dev"], "user": user}}


def request(token):
    """What a sidecar sends."""
    return SimpleNamespace(headers={"Authorization": f"Bearer {token}"})


async def test_a_token_is_not_asked_about_again_while_its_session_is_open(monkeypatch):
    """For what a session may have; who connects is asked about, and nobody's word is taken for another's token."""
    monkeypatch.setattr(identity, "_KEPT_S", 0.0)
    api = Api()
    reviewer = Reviewer(api)
    caller = await reviewer.caller(request("a"))
    with reviewer.held(request("a"), caller), reviewer.held(request("a"), caller):
        for _ in range(3):
            assert await reviewer.caller(request("a"), in_session=True) is caller
        assert api.reviews == 1
        await reviewer.caller(request("a"))
        await reviewer.caller(request("b"), in_session=True)
        assert api.reviews == 3
    await reviewer.caller(request("a"), in_session=True)
    assert api.reviews == 4


@pytest.fixture
def store(tmp_path):
    """A store of modules."""
    return ArtifactStore(tmp_path)


def put(store, data):
    """Keep a module; the entry of a bundle that names it."""
    sha256 = hashlib.sha256(data).hexdigest()
    with store.scratch() as file:
        file.write(data)
        store.add(file, digest=f"sha256:{sha256}", sha256=sha256, size=len(data), layout="raw", description=None)
    artifact = {"sha256": sha256, "digest": f"sha256:{sha256}", "size": len(data), "layout": "raw", "reference": "r"}
    return BundlePlugin.model_validate({"name": "p", "artifact": artifact})


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
    assert len(made._checked) <= blobs._KEPT


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
    while reports < 300:
        publisher.soon(plugin)
        reports += 1
        await asyncio.sleep(0.001)
    publisher.end()
    assert 1 <= len(looks) < reports / 2
    assert all(after - before >= 0.1 for before, after in itertools.pairwise(looks))
