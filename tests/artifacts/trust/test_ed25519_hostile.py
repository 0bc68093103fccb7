"""Detached signatures from strangers: nothing that is not signed passes, and nothing that is sent costs much."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile

import orjson
import pytest
from aiohttp import web

from hookline_artifacts.errors import ConfigError, FetchError, SignatureError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.store import ArtifactStore
from hookline_artifacts.trust import direct, ed25519
from hookline_artifacts.trust.collect import MAX_DETACHED
from hookline_artifacts.trust.ed25519 import ANNOTATION, MEDIA_TYPE
from hookline_artifacts.trust.evidence import Evidence, Signature
from hookline_artifacts.trust.keys import read_raw
from hookline_artifacts.trust.requirement import Authority, Requirement
from hookline_artifacts.trust.verdict import judge, subject_of
from signed_plugins import Rig, Signer, module

MODULE, ANOTHER = module("hostile"), module("another")
SIGNER, OTHER = Signer(1), Signer(2)
MANIFEST = {"manifest.json": b'{"name": "guard", "version": "1.0.0"}'}
THEIRS = {"manifest.json": b'{"name": "guard", "version": "2.0.0"}'}
GOOD = SIGNER.sign(MODULE, MANIFEST)
RAW = base64.b64decode(GOOD)


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


async def refused(rig, data, verify=None, match="it is not signed by releases"):
    """A packed plugin that may not run."""
    with pytest.raises(SignatureError, match=match):
        await rig.file("p.tar.gz", data, verify or SIGNER.asked())


async def test_what_is_signed_is_what_is_there(rig, oci):
    """Another key, another module, another manifest: each is refused; and so is a manifest added or taken away."""
    good = {**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": GOOD}
    assert (await rig.file("p.tar.gz", oci.tar(good), SIGNER.asked())).trust.proofs
    await refused(rig, oci.tar({**good, "plugin.sig": OTHER.sign(MODULE, MANIFEST)}))
    await refused(rig, oci.tar({**good, "plugin.sig": SIGNER.sign(ANOTHER, MANIFEST)}))
    await refused(rig, oci.tar({**good, "plugin.wasm": ANOTHER}))
    await refused(rig, oci.tar({**good, **THEIRS}))
    await refused(rig, oci.tar({**good, "manifest.json": MANIFEST["manifest.json"] + b" "}))
    await refused(rig, oci.tar({**good, "plugin.yaml": b"permissions: [http_fetch]"}))
    await refused(rig, oci.tar({"plugin.wasm": MODULE, "plugin.sig": GOOD}))
    await refused(rig, oci.tar({**good, "plugin.sig": SIGNER.sign(MODULE)}))


async def test_a_manifest_of_another_signed_package_is_no_manifest_of_this(rig, oci):
    """Both are signed by the right key, each with its own."""
    mine = {**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": GOOD}
    other = {**THEIRS, "plugin.wasm": ANOTHER, "plugin.sig": SIGNER.sign(ANOTHER, THEIRS)}
    for package in (mine, other):
        assert (await rig.file("p.tar.gz", oci.tar(package), SIGNER.asked())).trust.proofs
    await refused(rig, oci.tar({**mine, **THEIRS}))
    await refused(rig, oci.tar({**mine, **THEIRS, "plugin.sig": other["plugin.sig"]}))
    await refused(rig, oci.tar({**other, "plugin.wasm": MODULE}))


async def test_a_manifest_that_is_not_read_is_not_covered(rig, oci):
    """One that is too long is passed over, so nothing of it can be believed; one in another folder is another's."""
    files = {"manifest.json": b" " * (1 << 17), "x/plugin.yaml": b"name: x", "plugin.wasm": MODULE}
    found = await rig.file("p.tar.gz", oci.tar({**files, "plugin.sig": SIGNER.sign(MODULE)}), SIGNER.asked())
    assert found.trust.proofs
    assert found.description.name is None


@pytest.mark.parametrize(
    "text",
    [
        b"", base64.b64encode(RAW[:63]), base64.b64encode(RAW + b"\0"), b"-----BEGIN SIGNATURE-----", RAW,
        base64.b64encode(RAW) + b"AAAA", b"\xff" * 88, b"\0" * 1000,
    ],
    ids=["empty", "63", "65", "armor", "raw", "more", "bytes", "zeros"],
)  # fmt: skip
async def test_what_is_no_signature_is_told_so(rig, oci, text):
    """And proves nothing."""
    packed = oci.tar({**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": text})
    await refused(rig, packed, match="not 64 bytes in base64")


async def test_lines_in_a_signature_are_none_of_it(rig, oci):
    """``base64`` breaks lines, and editors end them."""
    for text in (GOOD + b"\n", GOOD[:76] + b"\r\n" + GOOD[76:] + b"\r\n"):
        packed = oci.tar({**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": text})
        assert (await rig.file("p.tar.gz", packed, SIGNER.asked())).trust.proofs


async def test_a_signature_of_100_megabytes_is_not_read(rig, oci):
    """Neither in an archive nor beside a file; each is told."""
    huge = bytes(100 << 20)
    await refused(rig, oci.tar({**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": huge}), match="not 64 bytes in base64")
    rig.put("beside.wasm", MODULE)
    with (rig.folder / "beside.wasm.sig").open("wb") as file:
        file.truncate(len(huge))
    with pytest.raises(FetchError, match="too large, and only 1024 are allowed"):
        await rig.resolve({"file": {"path": "beside.wasm"}}, SIGNER.asked())


async def test_a_layer_that_says_it_is_huge_is_not_fetched(rig, server, oci):
    """Its size stands in the manifest."""
    layer = {"mediaType": MEDIA_TYPE, "digest": oci.sha256(b"nobody has it"), "size": 100 << 20}
    server.put("p:v1", oci.manifest(oci.descriptor(MODULE), layer), MODULE)
    source = {"oci": {"reference": f"{server.host}/p:v1", "insecure": True}}
    with pytest.raises(SignatureError, match=r"it has no signature \(1 more not readable\)"):
        await rig.resolve(source, SIGNER.asked())
    assert not [path for path in server.paths() if path.endswith(layer["digest"])]


async def test_a_layer_whose_bytes_are_not_its_digests_is_refused(rig, server, oci):
    """The registry or a proxy serves another signature than the manifest names."""
    good, swapped = SIGNER.sign(MODULE), OTHER.sign(MODULE)
    server.put("p:v1", oci.manifest(oci.descriptor(MODULE), oci.descriptor(good, MEDIA_TYPE)), MODULE, good)
    server._content[f"/v2/p/blobs/{oci.sha256(good)}"] = swapped
    source = {"oci": {"reference": f"{server.host}/p:v1", "insecure": True}}
    with pytest.raises(SignatureError, match=r"it has no signature \(1 more not readable\)"):
        await rig.resolve(source, OTHER.asked())


async def test_any_of_several_signatures_counts_and_not_too_many_are_looked_at(rig, server, oci):
    """Who rotates keys signs twice. A thousand layers of signatures are not all fetched."""
    two = [SIGNER.sign(MODULE), OTHER.sign(MODULE)]
    layers = [oci.descriptor(each, MEDIA_TYPE) for each in two]
    server.put("two:v1", oci.manifest(oci.descriptor(MODULE), *layers), MODULE, *two)
    for signer in (SIGNER, OTHER):
        source = {"oci": {"reference": f"{server.host}/two:v1", "insecure": True}}
        ((_, proof),) = (await rig.resolve(source, signer.asked())).trust.proofs
        assert proof.key == read_raw(signer.public, what="a key").id
    many = [SIGNER.sign(ANOTHER)[:-4] + b"%04d" % number for number in range(900)]
    layers = [oci.descriptor(each, MEDIA_TYPE) for each in many]
    server.put("many:v1", oci.manifest(oci.descriptor(MODULE), *layers), MODULE, *many)
    server.requests.clear()
    with pytest.raises(SignatureError):
        await rig.resolve({"oci": {"reference": f"{server.host}/many:v1", "insecure": True}}, SIGNER.asked())
    digests = {each["digest"] for each in layers}
    assert len([path for path in server.paths() if path.rpartition("/")[2] in digests]) == MAX_DETACHED


def tar_of(*entries):
    """An archive of (name, bytes), or (name, target) for a link; a name may come twice."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(data, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def test_an_archive_with_two_signatures_passes_by_the_good_one_alone(rig):
    """In either order; two bad ones prove as little as one, and a hundred are not all kept."""
    bad = OTHER.sign(MODULE, MANIFEST)
    rest = [*MANIFEST.items(), ("plugin.wasm", MODULE)]
    for pair in ((GOOD, bad), (bad, GOOD)):
        packed = tar_of(*rest, *(("plugin.sig", each) for each in pair))
        assert (await rig.file("p.tar.gz", packed, SIGNER.asked())).trust.proofs
    await refused(rig, tar_of(*rest, ("plugin.sig", bad), ("plugin.sig", bad)))
    await refused(rig, tar_of(*rest, *[("plugin.sig", bad)] * 100))


async def test_a_manifest_that_is_there_twice_is_signed_as_it_is_read(rig):
    """The last one is what the description is read from; the first cannot lend it its signature."""
    theirs = THEIRS["manifest.json"]
    rest = [("plugin.wasm", MODULE), ("plugin.sig", GOOD)]
    await refused(rig, tar_of(*MANIFEST.items(), ("manifest.json", theirs), *rest))
    found = await rig.file("p.tar.gz", tar_of(("manifest.json", theirs), *MANIFEST.items(), *rest), SIGNER.asked())
    assert found.description.version == "1.0.0"


@pytest.mark.parametrize("target", ["good.sig", "/etc/passwd", "../plugin.sig", "plugin.sig"])
async def test_a_link_in_an_archive_is_no_signature(rig, target):
    """It is never followed, in the archive or out of it."""
    rig.put("plugin.sig", GOOD)
    rest = [*MANIFEST.items(), ("plugin.wasm", MODULE), ("good.sig", GOOD)]
    await refused(rig, tar_of(*rest, ("plugin.sig", target)), match="it has no signature")


async def test_what_is_beside_a_file_is_a_file(rig, tmp_path):
    """A link is followed, as Kubernetes mounts everything; what it leads to has to be a file."""
    (tmp_path / "elsewhere.sig").write_bytes(SIGNER.sign(MODULE))
    rig.put("p.wasm", MODULE)
    link = rig.folder / "p.wasm.sig"
    link.symlink_to(tmp_path / "elsewhere.sig")
    source = {"file": {"path": "p.wasm"}}
    assert (await rig.resolve(source, SIGNER.asked())).trust.proofs
    for make in (
        link.mkdir,
        lambda: os.mkfifo(link),
        lambda: link.symlink_to("/dev/zero"),
        lambda: link.symlink_to("x"),
    ):
        link.unlink() if not link.is_dir() else link.rmdir()
        make()
        with pytest.raises(FetchError, match=r"p\.wasm\.sig"):
            await rig.resolve(source, SIGNER.asked())


@pytest.mark.parametrize("what", ["redirect", "oversize", "error", "page"])
async def test_a_signature_at_a_url_is_bounded_and_goes_nowhere_else(tmp_path, server, what):
    """Neither by a redirect to a metadata address, nor by its length; and it is told."""

    async def answer(_request):
        if what == "redirect":
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})
        if what == "error":
            return web.Response(status=500)
        return web.Response(body=b"<html>" + bytes(4096 if what == "page" else 8 << 20), content_type="text/html")

    fetcher = Fetcher(
        ArtifactStore(tmp_path / "s"),
        limits=FetchLimits(attempts=2, backoff=0.001),
        addresses=AddressPolicy(),
        docker_config=tmp_path / "none",
    )
    server._content = {"/p.wasm": MODULE}
    server.on("/p.wasm.sig", answer)
    source = {"http": {"url": f"http://{server.host}/p.wasm", "sha256": hashlib.sha256(MODULE).hexdigest()}}
    why = {"redirect": r"169\.254\.169\.254", "error": "500"}.get(what, "too large, and only 1024 are allowed")
    try:
        with pytest.raises(FetchError, match=why) as found:
            await Rig(tmp_path, fetcher).resolve(source, SIGNER.asked())
    finally:
        await fetcher.close()
    assert found.value.transient == (what == "error")


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_no_signature_at_a_url_is_no_signature(rig, server, status):
    """Object stores answer 403 where nothing is. One inside the archive counts all the same."""

    async def answer(_request):
        return web.Response(status=status)

    server.on("/p.wasm.sig", answer)
    server._content = {"/p.wasm": MODULE}
    source = {"http": {"url": f"http://{server.host}/p.wasm", "sha256": hashlib.sha256(MODULE).hexdigest()}}
    with pytest.raises(SignatureError, match="it has no signature"):
        await rig.resolve(source, SIGNER.asked())


async def test_an_oversize_signature_in_a_config_map_is_refused(rig):
    """1 MiB of it would be kept with each plugin."""
    data = {"guard.wasm": MODULE, "guard.wasm.sig": bytes(1 << 20)}
    with pytest.raises(FetchError, match="too large, and only 1024 bytes are allowed"):
        await rig.resolve(
            {"configMap": {"name": "plugins", "key": "guard.wasm"}}, SIGNER.asked(), config_maps={"plugins": data}
        )


async def test_a_key_of_small_order_verifies_nothing(rig):
    """With it, one signature would be good for every module."""
    zero = base64.b64encode((1).to_bytes(32, "little")).decode()
    for verify in ({"ed25519": [zero]}, {"anyOf": [{"ed25519": {"key": zero}}]}):
        with pytest.raises(ConfigError, match=r"spec\.verify\.anyOf\[0\]\.ed25519\.key .*small order"):
            await rig.file("p.wasm", MODULE, verify)


async def test_a_key_counts_for_its_repositories_and_plugins_alone(rig):
    """A source that is no registry is in no repository."""
    rig.put("p.sig", SIGNER.sign(MODULE))
    signer = SIGNER.asked()["anyOf"][0]
    for limit, why in (
        ({"plugins": ["other-*"]}, "may not sign for a plugin named 'guard'"),
        ({"repositories": ["**"]}, "may not sign for a source without a repository"),
    ):
        with pytest.raises(SignatureError, match=why):
            await rig.file("p.wasm", MODULE, {"anyOf": [{**signer, **limit}]})
    assert (await rig.file("p.wasm", MODULE, {"anyOf": [{**signer, "plugins": ["gu*"]}]})).trust.proofs


async def test_a_module_that_is_swapped_before_it_is_read_is_not_verified(rig, store):
    """HeliosDB's form is verified over bytes that are hashed once more: those that the store's name promises."""
    rig.put("p.sig", SIGNER.sign_as_heliosdb(MODULE))
    found = await rig.file("p.wasm", MODULE, SIGNER.asked(legacy=True))
    artifact = found.artifact
    evidence = Evidence.read(found.trust.evidence)
    keys = (read_raw(SIGNER.public, what="a key"),)
    requirement = Requirement(any_of=(Authority(kind="ed25519", label="releases", keys=keys, legacy=True),))
    artifact.path.write_bytes(ANOTHER)
    subject = subject_of(evidence, repository="", plugin="guard", module=artifact.sha256, read=artifact.path.read_bytes)
    with pytest.raises(SignatureError, match="the module's file is not what it was"):
        judge(requirement, evidence, subject, whose="spec.verify")
    assert store.module(artifact.sha256) is None, "and the store hands it out no more"


def test_not_more_is_hashed_than_a_bound(monkeypatch):
    """64 keys and 64 signatures over a module of 64 MiB would take minutes. Here all is a thousandth of that."""
    assert direct._MAX_HASHED == 1 << 30
    monkeypatch.setattr(direct, "_MAX_HASHED", 1 << 20)
    reads = []

    def read():
        reads.append(1)
        return big

    big = MODULE + bytes(64 << 10)
    sha256 = hashlib.sha256(big).hexdigest()
    keys = tuple(read_raw(Signer(number).public, what="a key") for number in range(10, 20))
    requirement = Requirement(any_of=(Authority(kind="ed25519", label="releases", keys=keys, legacy=True),))
    wrong = ed25519.decode(OTHER.sign_as_heliosdb(ANOTHER))
    evidence = Evidence(
        digest=f"sha256:{sha256}", signatures=(Signature(form="ed25519", payload=b"", signature=wrong),) * 64
    )
    subject = subject_of(evidence, repository="", plugin="guard", module=sha256, read=read)
    with pytest.raises(SignatureError, match="more keys and signatures than can be tried"):
        judge(requirement, evidence, subject, whose="spec.verify")
    assert reads == [1]


def test_not_more_pairs_are_tried_than_a_bound(monkeypatch):
    """However many signers a resource names: 160 of them with 64 keys each would take a minute."""
    monkeypatch.setattr(direct, "MAX_PAIRS", 100)
    tried = []

    def verify(*args, **more):
        del args, more
        tried.append(1)
        return False

    monkeypatch.setattr(ed25519, "verify", verify)
    keys = tuple(read_raw(Signer(number).public, what="a key") for number in range(10, 20))
    signer = Authority(kind="ed25519", label="releases", keys=keys)
    sha256 = hashlib.sha256(MODULE).hexdigest()
    wrong = Signature(form="ed25519", payload=b"", signature=bytes(64))
    evidence = Evidence(digest=f"sha256:{sha256}", signatures=(wrong,) * 5)
    subject = subject_of(evidence, repository="", plugin="guard", module=sha256, read=lambda: MODULE)
    with pytest.raises(SignatureError, match="by another key"):
        judge(Requirement(any_of=(signer,)), evidence, subject, whose="spec.verify")
    assert len(tried) == 50
    with pytest.raises(SignatureError, match="100 pairs are tried"):
        judge(Requirement(any_of=(signer,) * 16), evidence, subject, whose="spec.verify")
    assert len(tried) == 150


async def test_a_record_that_was_kept_before_signatures_were_is_fetched_again(rig, registry, oci, store):
    """It does not say what is packed beside the module, and that is not the same as nothing."""
    packed = oci.tar({**MANIFEST, "plugin.wasm": MODULE, "plugin.sig": GOOD})
    layer = oci.descriptor(packed, "application/vnd.oci.image.layer.v1.tar+gzip")
    await registry.push("hostile/old:v1", oci.manifest(layer), packed)
    source = {"oci": {"reference": f"{registry.host}/hostile/old:v1", "insecure": True}}
    await rig.resolve(source)
    for path in store._index.iterdir():
        record = orjson.loads(path.read_bytes())
        del record["described_by"], record["signatures"]
        path.write_bytes(orjson.dumps(record))
    assert (await rig.resolve(source, SIGNER.asked())).trust.proofs


async def test_an_annotation_that_is_no_text_is_no_signature(rig, server, oci):
    """Whatever JSON has."""
    for number, odd in enumerate((1, [GOOD.decode()], {"a": GOOD.decode()}, None)):
        server.put(f"odd:{number}", oci.manifest(MODULE, annotations={ANNOTATION: odd}), MODULE)
        with pytest.raises(SignatureError, match="it has no signature"):
            await rig.resolve({"oci": {"reference": f"{server.host}/odd:{number}", "insecure": True}}, SIGNER.asked())
