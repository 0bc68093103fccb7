"""The door itself (``control.sources.trust``), with what no test of a whole sidecar can make in its time."""

from __future__ import annotations

import hashlib
import json

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin, EvidenceFile
from hookline_artifacts.errors import LoadError
from hookline_artifacts.store import ArtifactStore
from hookline_sidecar.control.sources.policies import PolicyFiles
from hookline_sidecar.control.sources.trust import SOUGHT_S, Trust
from trust_policies import MATERIAL, STRANGER, Policies, policy


@pytest.fixture
def door(tmp_path):
    """Makes the door of a sidecar with one policy; what is put into the operator is what it serves."""

    async def make(rules=None, store=None, **more):
        policies = Policies(tmp_path / "policies")
        policies.write("policy.yaml", rules or policy())
        files = PolicyFiles([policies.path], namespace=None)
        store = store or ArtifactStore(tmp_path / "store")
        trust = Trust(files, folder=tmp_path / "trust", key=b"k" * 32, store=store, **more)
        trust.policies_of_mine = policies
        await trust.read()

        async def fetch(sha256, into, *, size, cap, what):
            del size, cap, what
            into.write(trust.served[sha256])

        trust.served, trust.fetch = {}, fetch
        return trust

    return make


def entry_of(trust, store, module, *, evidence=None):
    """An operator's entry of a module that is in the store."""
    sha256 = hashlib.sha256(module).hexdigest()
    trust.served[sha256] = module
    with store.scratch() as file:
        file.write(module)
        store.add(file, digest=f"sha256:{sha256}", sha256=sha256, size=len(module), layout="raw", description=None)
    digest, named = f"sha256:{sha256}", None
    if evidence is not None:
        known = hashlib.sha256(evidence).hexdigest()
        trust.served[known] = evidence
        digest, named = json.loads(evidence)["digest"], EvidenceFile(sha256=known, size=len(evidence))
    artifact = BundleArtifact(
        digest=digest, sha256=sha256, size=len(module), layout="raw", reference="r.test/acme/signed:1", evidence=named
    )
    return BundlePlugin(name="p", artifact=artifact, hooks=["custom_hook"])


def telling(module, version):
    """The same module, which says that it has this version."""
    said = b"\x0fhookline.plugin" + json.dumps({"version": version}).encode()
    assert len(said) < 128  # of one byte
    return module + bytes([0, len(said)]) + said


async def test_what_has_the_same_revision_is_not_the_same(door, tmp_path, monkeypatch):
    """An operator finds two entries with the same twelve digits in minutes: the one that is signed vouches for none."""
    store = ArtifactStore(tmp_path / "store")
    trust = await door(store=store)
    evidence = (MATERIAL / "signed.evidence").read_bytes()
    signed = entry_of(trust, store, (MATERIAL / "signed.module").read_bytes(), evidence=evidence)
    evil = entry_of(trust, store, (MATERIAL / "older.module").read_bytes(), evidence=evidence)
    monkeypatch.setattr(BundlePlugin, "revision", "c0ffeec0ffee")
    await trust.admit(signed)
    with pytest.raises(LoadError, match="the signatures are of an artifact with the module"):
        await trust.admit(evil)
    await trust.admit(signed)


async def test_a_version_is_of_the_bytes_that_are_hashed(door, tmp_path, guests):
    """Whoever may write to the store swaps the file between the look at it and its reading."""
    old = telling(guests.saying("old"), "1.0.0")
    new = telling(guests.saying("new"), "9.0.0")

    class Swapping(ArtifactStore):
        def module(self, sha256):
            path = super().module(sha256)
            path.write_bytes(new)
            return path

    store = Swapping(tmp_path / "store")
    rules = policy("new-enough", minimumVersions=[{"plugins": ["p"], "version": "2.0.0"}])
    trust = await door(rules, store=store)
    with pytest.raises(LoadError, match="gone or damaged"):
        await trust.admit(entry_of(trust, store, old))


async def test_an_operator_that_keeps_a_plugin_busy_does_not_keep_it_running(door, tmp_path):
    """For a while its signatures may be on their way; then what runs is judged by what is here."""
    clock = [100.0]
    store = ArtifactStore(tmp_path / "store")
    old = policy(signatures={"anyOf": [{"name": "them", "key": {"pem": STRANGER}}]})
    trust = await door(old, store=store, now=lambda: clock[0])
    evidence = (MATERIAL / "signed.stranger.evidence").read_bytes()
    signed = entry_of(trust, store, (MATERIAL / "signed.module").read_bytes(), evidence=evidence)
    await trust.admit(signed)
    runs = Bundle.of([signed])
    clock[0] += 10_000
    assert await trust.forbidden_in(runs, busy={"p"}, offline=True) == []
    trust.policies_of_mine.write("policy.yaml", policy())
    assert await trust.read()
    assert await trust.forbidden_in(runs, busy={"p"}, offline=True) == []
    clock[0] += SOUGHT_S
    ((entry, error),) = await trust.forbidden_in(runs, busy={"p"}, offline=True)
    assert entry is signed
    assert "not signed by us" in str(error)
