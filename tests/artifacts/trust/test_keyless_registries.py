"""Signatures without a key are found where cosign puts them, and go along as evidence that can be judged again."""

from __future__ import annotations

import base64
import json
import re

import pytest

import signed_artifacts as signed
from hookline_api.trust import Signatures
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.trust import keyless
from hookline_artifacts.trust.collect import SIGNATURE, SIMPLE_SIGNING
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.requirement import load
from hookline_artifacts.trust.verdict import judge, subject_of
from own_sigstore import ISSUER, SOURCE, SUBJECT, OwnSigstore
from registries import sha256

CASE = "simple-p256"
DIGEST = signed.digest_of(CASE)
SBOM = "https://spdx.dev/Document"
THEM = {"keyless": {"issuer": ISSUER, "subject": SUBJECT}}
ROOT = {"file": "trusted_root.json"}


@pytest.fixture
def own(tmp_path):
    """The authority, whose root is in the manifest's folder."""
    made = OwnSigstore()
    (tmp_path / "trusted_root.json").write_bytes(made.root())
    return made


@pytest.fixture(params=["fallback tag", "referrers API"])
def place(request):
    """A registry of each kind, and whether it lists referrers by itself."""
    api = request.param == "referrers API"
    return request.getfixturevalue("referrers_registry" if api else "registry"), api


async def _refer(place, repository, blob):
    registry, api = place
    manifest = signed.referrer(DIGEST, blob)
    await registry.push(f"{repository}@{sha256(manifest)}", manifest, blob)
    if not api:
        await registry.push(f"{repository}:{DIGEST.replace(':', '-')}", signed.listing(manifest))


async def _tag(place, repository, kind, payload, media_type, annotations):
    """Under the tag at which cosign 2 leaves it."""
    layer = {"mediaType": media_type, "digest": sha256(payload), "size": len(payload), "annotations": annotations}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": signed.MANIFEST, "config": config, "layers": [layer]}
    name = f"{repository}:{DIGEST.replace(':', '-')}.{kind}"
    await place[0].push(name, json.dumps(manifest).encode(), payload)


async def test_a_bundle_beside_the_artifact_counts(place, own, resolve_signed, tmp_path):
    """The proof names identity, entry and time; another identity is refused in words that say whose it is."""
    repository = "keyless/bundle"
    await signed.push(place[0], CASE, repository)
    await _refer(place, repository, own.bundle(DIGEST).payload)
    source = place[0].source(f"{repository}:v1")
    resolved = await resolve_signed(source, base=tmp_path, anyOf=[THEM], trustRoot=ROOT)
    ((whose, proof),) = resolved.trust.proofs
    assert (whose, proof.signer, proof.identity) == ("spec.verify", SUBJECT, SUBJECT)
    assert (proof.log_index, proof.time) == (7, "2025-01-10T12:05:00Z")

    other = {"keyless": {"issuer": ISSUER, "repository": f"{SOURCE}-other"}}
    with pytest.raises(SignatureError, match=rf"it is signed by {re.escape(SOURCE)}/"):
        await resolve_signed(source, base=tmp_path, anyOf=[other], trustRoot=ROOT)
    with pytest.raises(SignatureError, match="does not count"):
        await resolve_signed(source, base=tmp_path, anyOf=[THEM])


async def test_what_version_2_leaves_counts_and_travels(place, own, resolve_signed, tmp_path, monkeypatch):
    """A signature and an attestation under their tags; the evidence alone proves both again, and the rest is left."""
    repository = "keyless/tags"
    await signed.push(place[0], CASE, repository)
    payload, signature, annotations = own.simple(DIGEST, f"{place[0].host}/{repository}")
    annotations |= {SIGNATURE: base64.b64encode(signature).decode()}
    await _tag(place, repository, "sig", payload, SIMPLE_SIGNING, annotations)
    envelope, annotations = own.attached(DIGEST, kind=SBOM)
    annotations |= {SIGNATURE: ""}
    await _tag(place, repository, "att", envelope, "application/vnd.dsse.envelope.v1+json", annotations)
    asked = {"anyOf": [THEM], "attestations": [{"predicateType": SBOM, "signers": [THEM]}], "trustRoot": ROOT}
    source = place[0].source(f"{repository}:v1")
    resolved = await resolve_signed(source, base=tmp_path, **asked)
    assert [proof.predicate_type for _, proof in resolved.trust.proofs] == ["", SBOM]

    monkeypatch.setattr(keyless, "_outcomes", keyless._Outcomes())
    evidence = Evidence.read(resolved.trust.evidence)
    told = Signatures.model_validate(asked)
    requirement = await load(told, objects=signed.NoObjects(), namespace=None, base=tmp_path, where="policy")
    subject = subject_of(evidence, repository=f"{place[0].host}/{repository}", plugin="guard")
    assert [each.log_index for each in judge(requirement, evidence, subject, whose="policy")] == [7, 7]
    assert {each.form for each in evidence.signatures} == {"simple", "dsse"}


async def test_junk_around_the_same_signature_hides_nothing(place, own, resolve_signed, tmp_path):
    """Whoever may push puts the signature there again, with a certificate and an entry that are none."""
    repository = "keyless/junk"
    await signed.push(place[0], CASE, repository)
    payload, signature, annotations = own.simple(DIGEST, f"{place[0].host}/{repository}")
    annotations |= {SIGNATURE: base64.b64encode(signature).decode()}
    junk = annotations | {keyless.CERTIFICATE: "junk", keyless.ENTRY: "{}"}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}
    for order in ([annotations, junk], [junk, annotations]):
        layers = [
            {"mediaType": SIMPLE_SIGNING, "digest": sha256(payload), "size": len(payload), "annotations": each}
            for each in order
        ]
        manifest = {"schemaVersion": 2, "mediaType": signed.MANIFEST, "config": config, "layers": layers}
        name = f"{repository}:{DIGEST.replace(':', '-')}.sig"
        await place[0].push(name, json.dumps(manifest).encode(), payload)
        source = place[0].source(f"{repository}:v1")
        assert (await resolve_signed(source, base=tmp_path, anyOf=[THEM], trustRoot=ROOT)).trust.proofs


async def test_a_signature_moved_to_another_repository_does_not_count(place, own, resolve_signed, tmp_path):
    """It names the one that it was made for; ``signedAs`` lets it."""
    repository = "keyless/moved"
    await signed.push(place[0], CASE, repository)
    payload, signature, annotations = own.simple(DIGEST, "registry.example/acme/guard")
    annotations |= {SIGNATURE: base64.b64encode(signature).decode()}
    await _tag(place, repository, "sig", payload, SIMPLE_SIGNING, annotations)
    source = place[0].source(f"{repository}:v1")
    with pytest.raises(SignatureError, match=r"for the repository registry\.example/acme/guard"):
        await resolve_signed(source, base=tmp_path, anyOf=[THEM], trustRoot=ROOT)
    moved = THEM | {"signedAs": ["registry.example/acme/*"]}
    assert (await resolve_signed(source, base=tmp_path, anyOf=[moved], trustRoot=ROOT)).trust.proofs
