"""Every layout, in every kind of place, with every form of signature: the first table of docs/trust.md."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re

import pytest

import signed_artifacts as signed
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.package import layouts
from hookline_artifacts.trust.ed25519 import MEDIA_TYPE
from own_sigstore import ISSUER, SUBJECT, OwnSigstore
from registries import sha256
from signed_plugins import Signer

SBOM = "https://spdx.dev/Document"
EMPTY, WASM = "application/vnd.oci.empty.v1+json", "application/wasm"
TAR = "application/vnd.oci.image.layer.v1.tar+gzip"
UNSIGNED = json.loads(signed.content(signed.digest_of("unsigned")))
MODULE = signed.content(UNSIGNED["layers"][0]["digest"])
PACKED = {"manifest.json": b'{"name": "guard", "version": "1.2.3", "hooks": ["authorize"]}'}
SINGLE = {
    "wasm-oci": ("application/vnd.wasm.config.v0+json", WASM),
    "artifact-type": (EMPTY, WASM),
    "wasm-layer": (EMPTY, WASM),
    "krustlet": (EMPTY, "application/vnd.wasm.content.layer.v1+wasm"),
    "module-wasm": (EMPTY, "application/vnd.module.wasm.content.layer.v1+wasm"),
    "titled": (EMPTY, "application/octet-stream"),
    "raw": (EMPTY, "application/octet-stream"),
    "image": ("application/vnd.oci.image.config.v1+json", TAR),
    "tar": (EMPTY, "application/gzip"),
    "heliosdb-tar": (EMPTY, TAR),
}
"""The config and the layer of a manifest in each layout."""
LAYOUTS = (*SINGLE, "index", "entry")
FORMS = ("simple", "bundle", "keyless", "attestation", "ed25519", "legacy")
PLACES = ("fallback tag", "referrers API", "folder")
KEY, OTHER = signed.Key(), signed.Key()
SIGNER, STRANGER = Signer(1), Signer(2)
OWN = OwnSigstore()


@dataclasses.dataclass
class Made:
    """An artifact: manifests with their blobs, the outer one last; and which of them is signed."""

    parts: list[tuple[bytes, tuple[bytes, ...]]]
    digest: str
    documents: dict[str, bytes]


def made(oci, layout):
    """The same module in a layout; an index of one entry, of which either may be signed."""
    config, kind = SINGLE.get(layout, SINGLE["wasm-oci"])
    documents = PACKED if layout == "heliosdb-tar" else {}
    packed = layout in {"image", "tar", "heliosdb-tar"}
    blob = oci.tar({**documents, "plugin.wasm": MODULE}) if packed else MODULE
    layers, blobs, more = [oci.descriptor(blob, kind)], [blob], {}
    if layout == "titled":
        layers[0]["annotations"] = {"org.opencontainers.image.title": "guard.wasm"}
        layers.append(oci.descriptor(b"# readme", kind, annotations={"org.opencontainers.image.title": "README.md"}))
        blobs.append(b"# readme")
    if layout == "artifact-type":
        more["artifactType"] = "application/vnd.acme.plugin"
    inner = oci.manifest(*layers, config_type=config, **more)
    parts = [(inner, tuple(blobs))]
    if layout in {"index", "entry"}:
        parts.append((oci.index((inner, {"platform": {"os": "wasi", "architecture": "wasm"}})), ()))
    return Made(parts, sha256(parts[0 if layout == "entry" else -1][0]), documents)


def signature(form, artifact, name):
    """What is put beside an artifact: a tag's ending or None for a referrer, the manifest and its blobs."""
    digest = artifact.digest
    if form == "simple":
        pair = KEY.simple(digest, name)
        return ".sig", signed.sig_manifest(pair), pair[0]
    if form in {"ed25519", "legacy"}:
        text = SIGNER.sign(MODULE, artifact.documents) if form == "ed25519" else SIGNER.sign_as_heliosdb(MODULE)
        return None, signed.referrer(digest, text, kind=MEDIA_TYPE), text
    blob = {
        "bundle": lambda: KEY.bundle(digest),
        "attestation": lambda: KEY.bundle(digest, predicate_type=SBOM),
        "keyless": lambda: OWN.bundle(digest).payload,
    }[form]()
    return None, signed.referrer(digest, blob), blob


def asked(form, *, right):
    """``spec.verify`` for whoever has signed in a form, or for somebody else."""
    if form == "keyless":
        subject = SUBJECT if right else f"{SUBJECT}-other"
        identity = {"keyless": {"issuer": ISSUER, "subject": subject}}
        return {"anyOf": [identity], "trustRoot": {"file": "trusted_root.json"}}
    if form in {"ed25519", "legacy"}:
        return (SIGNER if right else STRANGER).asked(legacy=form == "legacy")
    signer = signed.signer((KEY if right else OTHER).pem)
    if form == "attestation":
        return {"attestations": [{"predicateType": SBOM, "signers": [signer]}]}
    return {"anyOf": [signer]}


async def in_registry(registry, repository, artifact, beside, *, api):
    """Push both; the source."""
    for number, (manifest, blobs) in enumerate(artifact.parts, 1):
        where = ":v1" if number == len(artifact.parts) else f"@{sha256(manifest)}"
        await registry.push(f"{repository}{where}", manifest, *blobs)
    ending, manifest, blob = beside
    tag = artifact.digest.replace(":", "-")
    await registry.push(f"{repository}:{tag}{ending}" if ending else f"{repository}@{sha256(manifest)}", manifest, blob)
    if not ending and not api:
        await registry.push(f"{repository}:{tag}", signed.listing(manifest))
    return registry.source(f"{repository}:v1")


def in_folder(folder, artifact, beside):
    """The same as an OCI layout folder, with an entry for each tag."""
    ending, manifest, blob = beside
    tag = artifact.digest.replace(":", "-")
    tagged = {"v1": artifact.parts[-1][0]}
    tagged |= {f"{tag}{ending}": manifest} if ending else {tag: signed.listing(manifest)}
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    everything = [each for part, more in artifact.parts for each in (part, *more)]
    for each in (b"{}", manifest, blob, *tagged.values(), *everything):
        (blobs / hashlib.sha256(each).hexdigest()).write_bytes(each)
    entries = [
        {"mediaType": json.loads(each)["mediaType"], "digest": sha256(each), "size": len(each),
         "annotations": {"org.opencontainers.image.ref.name": name}}
        for name, each in tagged.items()
    ]  # fmt: skip
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return {"oci": {"reference": "oci-layout:layout:v1"}}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_signature_counts(request, oci, tmp_path, resolve_signed, layout, form, place):
    """By whom it is; whoever else is asked for has not signed."""
    artifact = made(oci, layout)
    beside = signature(form, artifact, signed.NAME)
    if place == "folder":
        source = in_folder(tmp_path / "layout", artifact, beside)
    else:
        api = place == "referrers API"
        registry = request.getfixturevalue("referrers_registry" if api else "registry")
        source = await in_registry(registry, f"every/{layout}-{form}", artifact, beside, api=api)
    (tmp_path / "trusted_root.json").write_bytes(OWN.root())
    with pytest.raises(SignatureError, match=r"^spec\.verify: "):
        await resolve_signed(source, base=tmp_path, **asked(form, right=False))
    resolved = await resolve_signed(source, base=tmp_path, **asked(form, right=True))
    ((whose, proof),) = resolved.trust.proofs
    assert (whose, proof.predicate_type) == ("spec.verify", SBOM if form == "attestation" else "")
    assert resolved.entry.artifact.layout == {"index": "wasm-oci", "entry": "wasm-oci"}.get(layout, layout)
    assert resolved.entry.artifact.sha256 == hashlib.sha256(MODULE).hexdigest()


def test_all_layouts_are_here():
    """Each of those that ``layouts`` names, and an index: signed itself, or by its entry."""
    named = set(re.findall(r"^\| ``([a-z-]+)`` \|", layouts.__doc__, re.MULTILINE))
    assert named == {*LAYOUTS} - {"index", "entry"}
