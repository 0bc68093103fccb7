"""Every form of signature is verified again by a sidecar that asks for it, offline and by keys of its own."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json

import pytest

import signed_artifacts
from hookline_api.bundle import EvidenceFile
from hookline_artifacts.trust.collect import BUNDLE
from hookline_artifacts.trust.evidence import Evidence, Signature
from own_sigstore import ISSUER, SUBJECT, OwnSigstore
from trust_policies import MATERIAL, policy

SBOM = "https://spdx.dev/Document"
NAME = "r.test/acme/signed"
KEY, OWN = signed_artifacts.Key(), OwnSigstore()
US = {"key": {"pem": KEY.pem}}
THEM = {"keyless": {"issuer": ISSUER, "subject": SUBJECT}}
ROOT = {"trustRoot": {"file": "trusted_root.json"}}
FORMS = {
    "simple": {"anyOf": [US]},
    "bundle": {"anyOf": [US]},
    "keyless": {"anyOf": [THEM], **ROOT},
    "keyless simple": {"anyOf": [THEM], **ROOT},
    "attestation": {"attestations": [{"predicateType": SBOM, "signers": [US]}]},
    "keyless attestation": {"attestations": [{"predicateType": SBOM, "signers": [THEM]}], **ROOT},
}
"""What a policy asks for, by the form in which it is there."""


def signature(form, digest, *, by=KEY, authority=OWN):
    """A signature of an artifact."""
    if form == "simple":
        payload, raw = by.simple(digest, NAME)
        return Signature(form="simple", payload=payload, signature=raw)
    if form == "keyless simple":
        payload, raw, annotations = authority.simple(digest, NAME)
        return Signature(form="simple", payload=payload, signature=raw, annotations=annotations)
    kind = {"predicate_type": SBOM} if form == "attestation" else {}
    if form in {"bundle", "attestation"}:
        return Signature(form="bundle", payload=by.bundle(digest, **kind))
    return authority.bundle(digest, **({"kind": SBOM} if form == "keyless attestation" else {}))


def test_what_is_made_here_is_a_bundle():
    """As ``collect`` would name it."""
    made = json.loads(signature("keyless", "sha256:" + "1" * 64).payload)
    assert made["mediaType"].startswith(BUNDLE)
    assert base64.b64decode(made["dsseEnvelope"]["payload"])


@pytest.mark.parametrize("form", FORMS)
async def test_it_is_verified_again(sidecar, operator, policies, signed, told, form):
    """By somebody else it proves nothing, whatever the operator says of it; by the right one it runs."""
    policies.write("policy.yaml", policy(signatures=FORMS[form]))
    policies.write("trusted_root.json", OWN.root().decode())
    entry = signed()
    evidence = Evidence.read((MATERIAL / "signed.evidence").read_bytes())

    def of(**by):
        found = dataclasses.replace(evidence, signatures=(signature(form, evidence.digest, **by),)).write()
        name = hashlib.sha256(found).hexdigest()
        operator.blobs[name] = found
        known = {"evidence": EvidenceFile(sha256=name, size=len(found))}
        return entry.model_copy(update={"artifact": entry.artifact.model_copy(update=known)})

    operator.send(of(by=signed_artifacts.Key(), authority=OwnSigstore()))
    sidecar.start(wait=False)
    told("Closed", "this sidecar's policy.yaml ('only-signed'): ")
    assert not list((sidecar.state / "compiled").glob("*.cwasm"))
    operator.send(of())
    await sidecar.wait_says("signed")
