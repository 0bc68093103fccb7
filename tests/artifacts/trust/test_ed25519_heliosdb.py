"""A package that HeliosDB's tool has signed counts where ``legacy`` says so; of its manifest that says nothing."""

from __future__ import annotations

import base64
import io
import json
import tarfile

import pytest

import heliosdb_packages
from hookline_artifacts.errors import SignatureError, VerifyError
from hookline_artifacts.trust.ed25519 import ANNOTATION, MEDIA_TYPE
from signed_plugins import Rig, Signer, module

MODULE = module("heliosdb")
SIGNER, OTHER = Signer(1), Signer(2)
SIG = SIGNER.sign_as_heliosdb(MODULE)
PACKAGE = heliosdb_packages.pack(MODULE, SIG)
LEGACY = SIGNER.asked(legacy=True)
OCI = "org.opencontainers.image."


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


def test_the_helper_packs_as_that_tool_does():
    """Three entries at the top, in this order, with the fields of its manifest."""
    with tarfile.open(fileobj=io.BytesIO(PACKAGE)) as archive:
        entries = archive.getmembers()
        assert [(each.name, each.mode, each.mtime, each.uid) for each in entries] == [
            ("manifest.json", 0o644, 0, 0), ("plugin.wasm", 0o644, 0, 0), ("plugin.sig", 0o644, 0, 0),
        ]  # fmt: skip
        read = [archive.extractfile(each).read() for each in entries]
    assert read[1:] == [MODULE, SIG]
    assert json.loads(read[0])["signature_algorithm"] == "ed25519"
    assert len(base64.b64decode(SIG, validate=True)) == 64


async def test_it_counts_where_legacy_says_so(rig):
    """Whole, beside the module as its loader wants it, and by one of several keys of a folder."""
    found = await rig.file("guard.tar.gz", PACKAGE, LEGACY)
    assert (found.entry.artifact.layout, found.description.version) == ("heliosdb-tar", "1.2.3")
    assert [proof.signer for _, proof in found.trust.proofs] == ["releases"]
    rig.put("plugin.sig", SIG)
    assert (await rig.file("plugin.wasm", MODULE, LEGACY)).trust.proofs
    for name, signer in (("old", OTHER), ("official", SIGNER)):
        rig.put(f"trust/{name}.pub", signer.public.encode() + b"\n")
    folder = {"anyOf": [{"ed25519": {"from": {"file": "trust"}, "legacy": True}}]}
    assert (await rig.file("guard.tar.gz", PACKAGE, folder)).trust.proofs


@pytest.mark.parametrize("place", ["inside", "layer", "annotation"])
async def test_it_counts_in_a_registry(rig, registry, oci, place):
    """The package as a layer, or its module with the signature beside it."""
    layers, annotations = [oci.descriptor(PACKAGE, "application/vnd.oci.image.layer.v1.tar+gzip")], {}
    if place != "inside":
        layers = [oci.descriptor(MODULE)]
    if place == "layer":
        layers.append(oci.descriptor(SIG, MEDIA_TYPE))
    if place == "annotation":
        annotations[ANNOTATION] = SIG.decode()
    name = f"heliosdb/{place}:v1"
    await registry.push(name, oci.manifest(*layers, annotations=annotations), PACKAGE, MODULE, SIG)
    source = {"oci": {"reference": f"{registry.host}/{name}", "insecure": True}}
    assert (await rig.resolve(source, LEGACY)).trust.proofs
    with pytest.raises(SignatureError, match=r"over the module alone.*ed25519\.legacy"):
        await rig.resolve(source, SIGNER.asked())


async def test_it_is_refused_where_nobody_said_legacy(rig):
    """The sentence says what it is, and what to do."""
    with pytest.raises(SignatureError) as found:
        await rig.file("guard.tar.gz", PACKAGE, SIGNER.asked())
    assert str(found.value).startswith(
        "spec.verify: it is not signed by releases: the signature by releases is over the module alone, as HeliosDB's "
        "tool makes it, and says nothing of the manifest; sign it with Hookline, or set ed25519.legacy"
    )
    with pytest.raises(SignatureError, match="over the module alone"):
        await rig.file("guard.tar.gz", PACKAGE, {"ed25519": [SIGNER.public]})


async def test_its_manifest_may_be_anybodys(rig):
    """That is what ``legacy`` means: the tool's own ``verify`` does not notice either. Ours does."""
    tampered = heliosdb_packages.manifest(MODULE, SIG, name="other", version="9.0.0", hooks=["auth"])
    package = heliosdb_packages.gzip(
        heliosdb_packages.tar([("manifest.json", tampered), ("plugin.wasm", MODULE), ("plugin.sig", SIG)])
    )
    assert (await rig.file("a.tar.gz", package, {**LEGACY}, hooks=["pre_query"])).description.version == "9.0.0"
    ours = SIGNER.sign(MODULE, {"manifest.json": heliosdb_packages.manifest(MODULE)})
    both = [("manifest.json", tampered), ("plugin.wasm", MODULE), ("plugin.sig", ours)]
    with pytest.raises(SignatureError):
        await rig.file("b.tar.gz", heliosdb_packages.gzip(heliosdb_packages.tar(both)), SIGNER.asked(legacy=True))


async def test_its_manifest_gives_it_no_version_and_no_permission(rig):
    """Whoever may push has no key: an old module that was signed once is as old as it was, and gets nothing more."""
    said = json.loads(heliosdb_packages.manifest(MODULE, SIG, version="9.0.0"))
    said = json.dumps(said | {"permissions": ["kv.write"]}).encode()
    package = heliosdb_packages.gzip(
        heliosdb_packages.tar([("manifest.json", said), ("plugin.wasm", MODULE), ("plugin.sig", SIG)])
    )
    assert (await rig.file("a.tar.gz", package)).entry.artifact.version == "9.0.0"
    with pytest.raises(VerifyError, match="the artifact tells no version"):
        await rig.file("a.tar.gz", package, {**LEGACY, "minimumVersion": "2.0.0"})
    found = await rig.file("a.tar.gz", package, LEGACY, permissionsPolicy="FollowArtifact")
    assert (found.entry.artifact.version, found.entry.permissions) == (None, [])
    ours = [
        ("manifest.json", said),
        ("plugin.wasm", MODULE),
        ("plugin.sig", SIGNER.sign(MODULE, {"manifest.json": said})),
    ]
    package = heliosdb_packages.gzip(heliosdb_packages.tar(ours))
    verify = {**LEGACY, "minimumVersion": "2.0.0"}
    found = await rig.file("a.tar.gz", package, verify, permissionsPolicy="FollowArtifact")
    assert (found.entry.artifact.version, found.entry.permissions) == ("9.0.0", ["kv.write"])


async def test_ours_counts_where_legacy_is_allowed_too(rig):
    """Whoever moves from one to the other has packages of both kinds."""
    unsigned = heliosdb_packages.manifest(MODULE)
    ours = SIGNER.sign(MODULE, {"manifest.json": unsigned})
    entries = [("manifest.json", unsigned), ("plugin.wasm", MODULE), ("plugin.sig", ours)]
    package = heliosdb_packages.gzip(heliosdb_packages.tar(entries))
    assert (await rig.file("a.tar.gz", package, LEGACY)).trust.proofs
    assert (await rig.file("a.tar.gz", package, SIGNER.asked())).trust.proofs


@pytest.mark.parametrize("sig", [OTHER.sign_as_heliosdb(MODULE), SIGNER.sign_as_heliosdb(module("another")), b"AAAA"])
async def test_a_signature_of_something_else_is_refused(rig, sig):
    """By another key, over another module, or none at all: as that tool's own loader does."""
    with pytest.raises(SignatureError):
        await rig.file("guard.tar.gz", heliosdb_packages.pack(MODULE, sig), LEGACY)


async def test_an_unsigned_package_is_refused(rig):
    """Where a signature is asked for, there is no other way."""
    with pytest.raises(SignatureError, match="it has no signature"):
        await rig.file("guard.tar.gz", heliosdb_packages.pack(MODULE), LEGACY)
