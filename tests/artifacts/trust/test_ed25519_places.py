"""Where a detached Ed25519 signature is found: each place, in each layout, from a real registry and without one."""

from __future__ import annotations

import hashlib
import json

import pytest

from hookline_artifacts.errors import SignatureError
from hookline_artifacts.trust.ed25519 import ANNOTATION, MEDIA_TYPE
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.keys import read_raw
from hookline_artifacts.trust.requirement import Authority, Requirement
from hookline_artifacts.trust.verdict import judge, subject_of
from signed_plugins import Rig, Signer, module

OCI = "org.opencontainers.image."
TAR = "application/vnd.oci.image.layer.v1.tar"
MODULE = module("places")
DOCUMENTS = {"manifest.json": b'{"name": "guard", "version": "1.2.3"}', "plugin.yaml": b"author: someone\n"}
ANNOTATIONS = {OCI + "version": "2.0.0", OCI + "created": "2026-01-01T00:00:00Z"}
SIGNER, OTHER = Signer(1), Signer(2)

LAYOUTS = {
    "wasm-oci": ("application/vnd.wasm.config.v0+json", "application/wasm", None),
    "wasm-layer": ("application/vnd.oci.empty.v1+json", "application/wasm", None),
    "artifact-type": ("application/vnd.oci.empty.v1+json", "application/wasm", None),
    "krustlet": ("application/vnd.oci.empty.v1+json", "application/vnd.wasm.content.layer.v1+wasm", None),
    "module-wasm": ("application/vnd.oci.empty.v1+json", "application/vnd.module.wasm.content.layer.v1+wasm", None),
    "titled": ("application/vnd.oci.empty.v1+json", TAR, "plugin.wasm"),
    "raw": ("application/vnd.oci.empty.v1+json", "application/octet-stream", None),
    "image": ("application/vnd.oci.image.config.v1+json", TAR + "+gzip", None),
    "packed": ("application/vnd.oci.empty.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip", "plugin.tar.gz"),
}
PACKED = {"image", "packed"}


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


def pushed(oci, layout, place, signature, *, documents):
    """The manifest and the blobs of the module in a layout, with its signature in a place."""
    config, media_type, title = LAYOUTS[layout]
    main = MODULE
    if layout in PACKED:
        main = oci.tar({**documents, "plugin.wasm": MODULE, **({"plugin.sig": signature} if place == "inside" else {})})
    titles = {} if title is None else {"annotations": {OCI + "title": title}}
    layers, blobs, annotations = [oci.descriptor(main, media_type, **titles)], [main], dict(ANNOTATIONS)
    if place in {"layer", "oras"}:
        how = {"annotations": {OCI + "title": "plugin.wasm.sig"}} if place == "oras" else {}
        layers.append(oci.descriptor(signature, TAR if place == "oras" else MEDIA_TYPE, **how))
        blobs.append(signature)
    if place == "annotation":
        annotations[ANNOTATION] = signature.decode()
    more = {"artifactType": "application/vnd.acme.plugin"} if layout == "artifact-type" else {}
    return oci.manifest(*layers, config_type=config, annotations=annotations, **more), blobs


PLACES = [
    (layout, place)
    for layout in LAYOUTS
    for place in ("layer", "oras", "annotation", *(["inside"] if layout in PACKED else []))
]


@pytest.mark.parametrize(("layout", "place"), PLACES, ids=[f"{layout}-{place}" for layout, place in PLACES])
async def test_it_counts_in_each_layout_and_place(rig, registry, oci, layout, place):
    """By the right key and with the manifest as it is; and by no other."""
    documents = DOCUMENTS if layout in PACKED else {}
    signature = SIGNER.sign(MODULE, documents, ANNOTATIONS)
    manifest, blobs = pushed(oci, layout, place, signature, documents=documents)
    name = f"places/{layout}-{place}:v1"
    await registry.push(name, manifest, *blobs)
    source = {"oci": {"reference": f"{registry.host}/{name}", "insecure": True}}
    found = await rig.resolve(source, SIGNER.asked())
    alone = "raw" if place == "annotation" else layout  # of one layer the title says nothing
    named = {"packed": "heliosdb-tar", "image": "heliosdb-tar", "titled": alone}
    assert found.entry.artifact.layout == named.get(layout, layout)
    ((whose, proof),) = found.trust.proofs
    assert (whose, proof.signer, proof.covers_module) == ("spec.verify", "releases", True)
    with pytest.raises(SignatureError, match=r"spec\.verify: it is not signed by releases"):
        await rig.resolve(source, OTHER.asked())


async def test_an_annotation_that_describes_is_covered_in_a_registry(rig, registry, oci):
    """A signed module may not be given another version, name or hook by whoever can push."""
    signature = SIGNER.sign(MODULE, {}, ANNOTATIONS)
    for number, more in enumerate(({OCI + "version": "9.9.9"}, {OCI + "title": "x"}, {"hookline.plugin": "{}"})):
        annotations = {**ANNOTATIONS, ANNOTATION: signature.decode(), **more}
        name = f"places/changed-{number}:v1"
        await registry.push(name, oci.manifest(MODULE, annotations=annotations), MODULE)
        with pytest.raises(SignatureError):
            await rig.resolve({"oci": {"reference": f"{registry.host}/{name}", "insecure": True}}, SIGNER.asked())


async def test_it_counts_in_a_registry_of_several_platforms(rig, registry, oci):
    """An index leads to the manifest that names the module, whose annotations are the ones that describe it."""
    signature = SIGNER.sign(MODULE, {}, ANNOTATIONS)
    inner = oci.manifest(MODULE, annotations={**ANNOTATIONS, ANNOTATION: signature.decode()})
    await registry.push(f"places/index@{oci.sha256(inner)}", inner, MODULE)
    index = oci.index((inner, {"platform": {"os": "wasi", "architecture": "wasm"}}))
    await registry.push("places/index:v1", index)
    source = {"oci": {"reference": f"{registry.host}/places/index:v1", "insecure": True}}
    assert (await rig.resolve(source, SIGNER.asked())).trust.proofs


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        ([{"plugin.wasm": MODULE}, {"plugin.sig": SIGNER.sign(MODULE)}], True),
        ([{"plugin.wasm": MODULE, "plugin.sig": SIGNER.sign(MODULE)}, {"README": b"x"}], True),
        ([{"plugin.wasm": MODULE, "plugin.sig": OTHER.sign(MODULE)}, {"plugin.sig": SIGNER.sign(MODULE)}], True),
        ([{"plugin.wasm": MODULE, "plugin.sig": SIGNER.sign(MODULE)}, {"plugin.sig": OTHER.sign(MODULE)}], False),
        ([{"plugin.wasm": MODULE, "plugin.sig": SIGNER.sign(MODULE)}, {".wh.plugin.sig": b""}], False),
        ([{"plugin.wasm": MODULE, "plugin.sig": SIGNER.sign(MODULE)}, {"plugin.yaml": b"name: x"}], False),
        ([{"plugin.sig": SIGNER.sign(MODULE)}, {"plugin.wasm": MODULE}], False),
    ],
    ids=["later", "same", "replaced", "replaced-by-another", "removed", "described-later", "below-the-module"],
)
async def test_in_an_image_the_layers_lie_over_each_other(rig, server, oci, layers, counts):
    """What a later one replaced or removed is not there. Below the module's own layer nothing is looked for."""
    blobs = [oci.tar(each) for each in layers]
    manifest = oci.manifest(
        *(oci.descriptor(each, TAR + "+gzip") for each in blobs), config_type="application/vnd.oci.image.config.v1+json"
    )
    server.put("image:v1", manifest, *blobs)
    source = {"oci": {"reference": f"{server.host}/image:v1", "insecure": True}}
    if counts:
        assert (await rig.resolve(source, SIGNER.asked())).trust.proofs
        return
    with pytest.raises(SignatureError):
        await rig.resolve(source, SIGNER.asked())


async def test_it_counts_as_a_referrer(rig, registry, oci):
    """Pushed afterwards, so that the artifact's digest stays what it was: as ``oras attach`` does."""
    artifact = oci.manifest(MODULE, annotations=ANNOTATIONS)
    await registry.push("places/referrer:v1", artifact, MODULE)
    source = {"oci": {"reference": f"{registry.host}/places/referrer:v1", "insecure": True}}
    with pytest.raises(SignatureError, match="it has no signature"):
        await rig.resolve(source, SIGNER.asked())
    signature = SIGNER.sign(MODULE, {}, ANNOTATIONS)
    subject = oci.descriptor(artifact, json.loads(artifact)["mediaType"])
    attached = oci.manifest(oci.descriptor(signature, MEDIA_TYPE), artifactType=MEDIA_TYPE, subject=subject)
    await registry.push(f"places/referrer@{oci.sha256(attached)}", attached, signature)
    await registry.push(f"places/referrer:{oci.sha256(artifact).replace(':', '-')}", oci.index(attached))
    assert (await rig.resolve(source, SIGNER.asked())).trust.proofs
    with pytest.raises(SignatureError):
        await rig.resolve(source, OTHER.asked())


@pytest.mark.parametrize("name", ["plugin.sig", "plugin.wasm.sig"])
async def test_it_counts_beside_a_file(rig, name):
    """As HeliosDB names it, and as ``cosign`` and ``sha256sum`` users name theirs."""
    rig.put(name, SIGNER.sign(MODULE))
    assert (await rig.file("plugin.wasm", MODULE, SIGNER.asked())).trust.proofs
    with pytest.raises(SignatureError):
        await rig.file("plugin.wasm", MODULE, OTHER.asked())
    with pytest.raises(SignatureError, match="it has no signature"):
        await rig.file("other.wasm", MODULE, SIGNER.asked())


@pytest.mark.parametrize("name", ["plugin.sig", "guard.sig", "guard.wasm.sig"])
async def test_it_counts_inside_an_archive(rig, oci, name):
    """In the folder of the module, whatever the module is called; in another folder it is another's."""
    signature = SIGNER.sign(MODULE, DOCUMENTS)
    files = {**DOCUMENTS, "guard.wasm": MODULE}
    assert (await rig.file("a.tar.gz", oci.tar({**files, name: signature}), SIGNER.asked())).trust.proofs
    with pytest.raises(SignatureError, match="it has no signature"):
        await rig.file("b.tar.gz", oci.tar({**files, f"other/{name}": signature}), SIGNER.asked())


async def test_it_counts_beside_an_archive(rig, oci):
    """Then the archive may be left as its maker packed it; the signature covers what is packed all the same."""
    rig.put("a.tar.gz.sig", SIGNER.sign(MODULE, DOCUMENTS))
    assert (await rig.file("a.tar.gz", oci.tar({**DOCUMENTS, "plugin.wasm": MODULE}), SIGNER.asked())).trust.proofs
    with pytest.raises(SignatureError):
        await rig.file("a.tar.gz", oci.tar({"plugin.wasm": MODULE}), SIGNER.asked())


async def test_it_counts_at_a_url(rig, server):
    """At the module's own, with ``.sig`` to its path; its query stays as it is."""
    sha256 = hashlib.sha256(MODULE).hexdigest()
    server._content = {"/p/guard.wasm": MODULE, "/p/guard.wasm.sig": SIGNER.sign(MODULE)}
    source = {"http": {"url": f"http://{server.host}/p/guard.wasm?token=a%2Fb", "sha256": sha256}}
    assert (await rig.resolve(source, SIGNER.asked())).trust.proofs
    assert [str(each.rel_url) for each in server.requests] == [
        "/p/guard.wasm?token=a%2Fb", "/p/guard.wasm.sig?token=a%2Fb",
    ]  # fmt: skip
    with pytest.raises(SignatureError):
        await rig.resolve(source, OTHER.asked())


async def test_it_counts_in_a_config_map(rig):
    """Under the module's key with ``.sig``."""
    data = {"guard.wasm": MODULE, "guard.wasm.sig": SIGNER.sign(MODULE)}
    source = {"configMap": {"name": "plugins", "key": "guard.wasm"}}
    assert (await rig.resolve(source, SIGNER.asked(), config_maps={"plugins": data})).trust.proofs
    for wrong in ({"guard.wasm": MODULE}, {**data, "guard.wasm.sig": OTHER.sign(MODULE)}):
        with pytest.raises(SignatureError):
            await rig.resolve(source, SIGNER.asked(), config_maps={"plugins": wrong})


async def test_it_counts_in_an_oci_layout(rig, oci):
    """The registry that is a folder."""
    annotations = {ANNOTATION: SIGNER.sign(MODULE).decode()}
    manifest = oci.manifest(MODULE, annotations=annotations)
    for blob in (MODULE, manifest):
        rig.put(f"layout/blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
    entry = oci.descriptor(manifest, json.loads(manifest)["mediaType"])
    rig.put("layout/index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    assert (await rig.resolve({"oci": {"reference": "oci-layout:layout"}}, SIGNER.asked())).trust.proofs


@pytest.mark.parametrize("legacy", [False, True], ids=["ours", "legacy"])
async def test_whoever_has_the_evidence_and_the_module_verifies_again(rig, oci, legacy):
    """A sidecar has both and nobody to ask: ours needs the module's sha256 alone, HeliosDB's its bytes."""
    signature = SIGNER.sign_as_heliosdb(MODULE) if legacy else SIGNER.sign(MODULE, DOCUMENTS)
    packed = oci.tar({**DOCUMENTS, "plugin.wasm": MODULE, "plugin.sig": signature})
    found = await rig.file("a.tar.gz", packed, SIGNER.asked(legacy=legacy))
    evidence = Evidence.read(found.trust.evidence)
    assert evidence.digest == oci.sha256(packed)
    authority = Authority(
        kind="ed25519", label="releases", keys=(read_raw(SIGNER.public, what="a key"),), legacy=legacy
    )
    requirement = Requirement(any_of=(authority,))
    sha256 = hashlib.sha256(MODULE).hexdigest()

    def again(sha256, read):
        subject = subject_of(evidence, repository="", plugin="guard", module=sha256, read=read)
        return judge(requirement, evidence, subject, whose="the sidecar")

    assert again(sha256, lambda: MODULE)
    with pytest.raises(SignatureError):
        again(hashlib.sha256(b"other").hexdigest(), lambda: b"other")
    if legacy:
        for read, why in (
            (None, "not what it was"),
            (lambda: b"swapped", "not what it was"),
            (_gone, "cannot be read"),
        ):
            with pytest.raises(SignatureError, match=why):
                again(sha256, read)
    else:
        assert again(sha256, None)


def _gone():
    raise FileNotFoundError(2, "No such file")
