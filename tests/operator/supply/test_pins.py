"""The store keeps what the revisions of the API name, of each plugin and on each replica, and that is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging

import pytest

from hookline_artifacts.store import ArtifactStore
from hookline_artifacts.trust.evidence import Evidence
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from hookline_operator.serve import pins as pins_module
from hookline_operator.serve.pins import Pins
from waiting import until_true

SPEC = {"source": {"oci": {"reference": "r.test/a:1"}}}
SEAL = Seal(lambda: b"k" * 32)


@pytest.fixture
def catalogue():
    """An empty one."""
    return Catalogue()


@pytest.fixture
def store(tmp_path):
    """One with room for nothing."""
    return ArtifactStore(tmp_path / "store", max_bytes=1)


def add(store, data, owner="shop"):
    """Put bytes there for a namespace; their sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    with store.scratch() as file:
        file.write(data)
        store.grant_file(file, owner=owner, sha256=sha256, size=len(data))
    return sha256


def plugin(catalogue, name, *, namespace="shop", gone=False):
    """Let there be a plugin, or none any more."""
    metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}", "generation": 1}
    catalogue.put_plugin({"metadata": metadata, "spec": SPEC}, gone=gone)


def revision(catalogue, name, data, *, number=1, namespace="shop", seal=SEAL, evidence=None, size=None):
    """Let a plugin have a revision with a module."""
    sha256 = hashlib.sha256(data).hexdigest()
    artifact = {
        "digest": f"sha256:{sha256}", "sha256": sha256, "size": len(data) if size is None else size, "layout": "raw",
        "reference": "r.test/a:1",
    }  # fmt: skip
    more = {}
    if evidence is not None:
        artifact["evidence"] = {"sha256": hashlib.sha256(evidence).hexdigest(), "size": len(evidence)}
        more["evidence"] = evidence.decode()
    template = {"plugin": name, "spec": SPEC, "artifact": artifact, "hooks": [], "imports": [], "inputs": {}, **more}
    body = body_of(
        namespace=namespace, plugin=name, uid=f"uid-{name}", number=number, template=json.dumps(template).encode(),
        seal=seal,
    )  # fmt: skip
    made = Revision.of(body, SEAL)
    catalogue.put_revision((namespace, made.name), None, made)
    return made


@contextlib.asynccontextmanager
async def running(pins):
    """Let it work."""
    task = asyncio.create_task(pins.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_ran_and_what_runs_is_kept_until_its_revision_goes(catalogue, store):
    """A pod may ask for the one before; with the plugin both go."""
    pins = Pins(catalogue, store, most=1)
    catalogue.plugin_changed.append(pins.plugin_changed)
    plugin(catalogue, "guard")
    revision(catalogue, "guard", b"one")
    revision(catalogue, "guard", b"two", number=2)
    async with running(pins):
        await until_true(lambda: len(store._pinned) == 2, "two pins")
        one, two = add(store, b"one"), add(store, b"two")
        for other in range(5):
            add(store, b"other %d" % other)
        assert store.granted(one, owner="shop") is not None
        assert store.granted(two, owner="shop") is not None
        plugin(catalogue, "guard", gone=True)
        await until_true(lambda: not store._pinned, "no pin")
    add(store, b"last")
    assert store.granted(one, owner="shop") is None


def test_a_revision_that_nobody_vouches_for_pins_nothing(catalogue, store):
    """Whoever may write revisions could fill the disk."""
    plugin(catalogue, "guard")
    revision(catalogue, "guard", b"forged", seal=Seal(lambda: b"x" * 32))
    Pins(catalogue, store, most=1).pin()
    assert not store._pinned


def test_one_namespace_pins_no_more_than_the_cache_has(catalogue, store, monkeypatch, caplog):
    """What runs comes first; others keep all of theirs; and it is said once."""
    monkeypatch.setattr(pins_module, "_LEAST", 0)
    for name, size in (("a", 60), ("b", 60)):
        plugin(catalogue, name)
        revision(catalogue, name, name.encode(), size=size)
    plugin(catalogue, "c", namespace="other")
    revision(catalogue, "c", b"c", namespace="other", size=60)
    pins = Pins(catalogue, store, most=100)
    with caplog.at_level(logging.WARNING):
        pins.pin()
        pins.pin()
    assert store._pinned == {hashlib.sha256(each).hexdigest() for each in (b"a", b"c")}
    (record,) = caplog.records
    assert "namespace 'shop'" in record.getMessage()


async def test_what_is_known_of_a_pinned_module_is_kept_too(catalogue, store, monkeypatch):
    """However many others there are: without it nobody could have the module."""
    monkeypatch.setattr("hookline_artifacts.store._MAX_RECORDS", 16)
    monkeypatch.setattr("hookline_artifacts.store._DROPPED", 1)
    names = [f"p{number}" for number in range(24)]
    for name in names:
        plugin(catalogue, name)
        revision(catalogue, name, name.encode())
    Pins(catalogue, store, most=1).pin()
    kept = [add(store, name.encode()) for name in names]
    for number in range(40):
        add(store, b"other %d" % number, owner="hostile")
    assert all(store.granted(each, owner="shop") is not None for each in kept)
    assert len(list(store._index.iterdir())) <= 24 + 17


async def test_layers_that_evidence_leads_to_are_kept(catalogue, store):
    """A sidecar with a policy of its own may ask for them, while the registry is away."""
    layer = b"layer"
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(layer)},
        "layers": [{"mediaType": "application/wasm", "digest": digest, "size": len(layer)}],
    }).encode()  # fmt: skip
    named = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    evidence = Evidence(digest=named, documents={named: manifest}).write()
    plugin(catalogue, "guard")
    revision(catalogue, "guard", b"module", evidence=evidence)
    async with running(Pins(catalogue, store, most=1)):
        await until_true(lambda: digest.removeprefix("sha256:") in store._pinned, "the layer is pinned")
    assert hashlib.sha256(evidence).hexdigest() in store._pinned
