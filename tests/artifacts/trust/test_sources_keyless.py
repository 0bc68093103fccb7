"""Plugins from files, URLs and ConfigMaps that somebody signed without a key, as cosign does (``make_keyless.py``)."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

import keyless_cases as cases
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.requirement import load
from hookline_artifacts.trust.verdict import judge, subject_of
from signed_plugins import Rig, module, objects, plugin

FILES = Path(__file__).parent / "signed_files"
BUNDLE = (FILES / "keyless-plugin.wasm.sigstore.json").read_bytes()
ROOT = (FILES / "trusted_root.json").read_bytes()
with tarfile.open(FILES / "packed.tar.gz") as _archive:
    MODULE = _archive.extractfile("plugin.wasm").read()


def asked(**more):
    """``spec.verify`` that asks for the identity, by the root of its authority."""
    identity = {"issuer": "https://token.actions.githubusercontent.com", "subject": cases.ABOUT["subject"], **more}
    return {"anyOf": [{"keyless": identity}], "trustRoot": {"file": "trusted_root.json"}}


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder that holds the root and the signature."""
    made = Rig(tmp_path / "plugins", fetcher)
    made.put("trusted_root.json", ROOT)
    made.put("guard.wasm.sigstore.json", BUNDLE)
    return made


async def test_an_identity_counts_beside_a_file(rig):
    """For the file that it has signed, and for no other one; and no other identity."""
    found = await rig.file("guard.wasm", MODULE, asked())
    ((_, proof),) = found.trust.proofs
    assert (proof.identity, proof.key) == (cases.ABOUT["subject"], None)
    assert proof.log_index is not None
    for data, verify in (
        (module("another"), asked()),
        (MODULE, asked(subject="somebody@else.test")),
        (MODULE, asked(issuer="https://elsewhere.test")),
    ):
        with pytest.raises(SignatureError):
            await rig.file("guard.wasm", data, verify)


async def test_it_is_none_of_an_archive_that_holds_the_file(rig):
    """What was signed is the module, and the archive says more."""
    rig.put("guard.tar.gz.sigstore.json", BUNDLE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("plugin.wasm")
        entry.size = len(MODULE)
        archive.addfile(entry, io.BytesIO(MODULE))
    with pytest.raises(SignatureError, match="another digest"):
        await rig.file("guard.tar.gz", buffer.getvalue(), asked())


async def test_it_counts_at_a_url_and_in_a_config_map(rig, server):
    """As a signature with a key does."""
    server._content = {"/p.wasm": MODULE, "/p.wasm.sigstore.json": BUNDLE}
    http = {"http": {"url": f"http://{server.host}/p.wasm", "sha256": hashlib.sha256(MODULE).hexdigest()}}
    assert (await rig.resolve(http, asked())).trust.proofs
    assert server.paths() == ["/p.wasm", "/p.wasm.sigstore.json"]
    data = {"plugin.wasm": MODULE, "plugin.wasm.sigstore.json": BUNDLE}
    source = {"configMap": {"name": "plugins"}}
    assert (await rig.resolve(source, asked(), config_maps={"plugins": data})).trust.proofs


async def test_whoever_has_the_evidence_verifies_again(rig):
    """Offline, by the root alone: what it is about is the file's digest, which is the module's."""
    found = await rig.file("guard.wasm", MODULE, asked())
    evidence = Evidence.read(found.trust.evidence)
    sha256 = hashlib.sha256(MODULE).hexdigest()
    assert evidence.digest == f"sha256:{sha256}"
    verify = plugin({"file": {"path": "p"}}, asked()).spec.verify
    requirement = await load(
        verify.signatures, objects=objects(), namespace=None, base=rig.folder, where="the sidecar's policy"
    )
    subject = subject_of(evidence, repository="", plugin="guard", module=sha256)
    assert judge(requirement, evidence, subject, whose="the sidecar's policy")
