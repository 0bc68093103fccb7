"""Plugins from files, URLs and ConfigMaps, with cosign's signatures of them: as real cosign made them (``make.sh``)."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from hookline_artifacts.errors import FetchError, SignatureError
from hookline_artifacts.trust.direct import message_signature
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.keys import read_pem
from hookline_artifacts.trust.requirement import Authority, Requirement
from hookline_artifacts.trust.verdict import judge, subject_of
from hookline_sidecar.control.sources.folder import FolderSource
from hookline_sidecar.control.sources.manifests import glance, scan
from hookline_sidecar.control.sources.policies import PolicyFiles
from hookline_sidecar.control.sources.trust import Trust
from signed_plugins import Rig, Signer, module
from waiting import PATIENCE_S

FILES = Path(__file__).parent / "signed_files"
PACKED = (FILES / "packed.tar.gz").read_bytes()
with tarfile.open(fileobj=io.BytesIO(PACKED)) as _archive:
    MODULE = _archive.extractfile("plugin.wasm").read()
KEYS = ("prime256v1", "rsa", "secp384r1", "secp521r1", "ed25519")
BY_DIGEST = KEYS[:2]
"""Keys whose signatures are verified by the SHA-256 of a file."""


def pem(key):
    """A public key."""
    return (FILES / f"{key}.pub").read_text()


def bundle(key, file="plugin.wasm"):
    """What cosign wrote of a file."""
    return (FILES / f"{key}-{file}.sigstore.json").read_bytes()


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


@pytest.mark.parametrize("key", KEYS)
async def test_a_module_counts_beside_its_file(rig, key):
    """With every kind of key, and by no other one."""
    rig.put("guard.wasm.sigstore.json", bundle(key))
    found = await rig.file("guard.wasm", MODULE, {"keys": [pem(key)]})
    ((whose, proof),) = found.trust.proofs
    assert (whose, proof.key) == ("spec.verify", read_pem(pem(key), what="a key").id)
    other = KEYS[KEYS.index(key) - 1]
    with pytest.raises(SignatureError, match="its signature is of another file, or not by"):
        await rig.file("guard.wasm", MODULE, {"keys": [pem(other)]})
    with pytest.raises(SignatureError):
        await rig.file("guard.wasm", module("another"), {"keys": [pem(key)]})


@pytest.mark.parametrize("key", KEYS)
async def test_a_package_counts_by_the_keys_that_sign_its_digest(rig, key):
    """The whole archive is signed, the manifest in it too. What other keys sign is said, and refused."""
    rig.put("guard.tar.gz.sigstore.json", bundle(key, "packed.tar.gz"))
    if key in BY_DIGEST:
        assert (await rig.file("guard.tar.gz", PACKED, {"keys": [pem(key)]})).trust.proofs
        return
    with pytest.raises(SignatureError, match="can be verified of a bare module only"):
        await rig.file("guard.tar.gz", PACKED, {"keys": [pem(key)]})


@pytest.mark.parametrize("key", BY_DIGEST)
async def test_a_signature_of_the_module_is_none_of_its_package(rig, key):
    """Nor the other way round: what was signed is one file."""
    rig.put("a.tar.gz.sigstore.json", bundle(key))
    rig.put("b.wasm.sigstore.json", bundle(key, "packed.tar.gz"))
    for name, data in (("a.tar.gz", PACKED), ("b.wasm", MODULE)):
        with pytest.raises(SignatureError, match="its signature is of another file"):
            await rig.file(name, data, {"keys": [pem(key)]})


async def test_it_counts_at_a_url_and_in_a_config_map(rig, server):
    """With ``.sigstore.json`` to the path, or to the key; and nothing else is asked for."""
    verify = {"keys": [pem("prime256v1")]}
    server._content = {"/guard.wasm": MODULE, "/guard.wasm.sigstore.json": bundle("prime256v1")}
    http = {"http": {"url": f"http://{server.host}/guard.wasm", "sha256": hashlib.sha256(MODULE).hexdigest()}}
    assert (await rig.resolve(http, verify)).trust.proofs
    assert server.paths() == ["/guard.wasm", "/guard.wasm.sigstore.json"]
    data = {"plugin.wasm": MODULE, "plugin.wasm.sigstore.json": bundle("prime256v1")}
    source = {"configMap": {"name": "plugins"}}
    assert (await rig.resolve(source, verify, config_maps={"plugins": data})).trust.proofs
    server._content = {"/guard.wasm": MODULE}
    for each, maps in ((http, {}), (source, {"plugins": {"plugin.wasm": MODULE}})):
        with pytest.raises(SignatureError, match="it has no signature"):
            await rig.resolve(each, verify, config_maps=maps)


async def test_nothing_is_asked_for_that_nobody_wants(rig, server):
    """No signature without ``verify``, no bundle for an Ed25519 signer, both for both."""
    server._content = {"/p.wasm": MODULE, "/p.wasm.sig": Signer().sign(MODULE)}
    server._content["/p.wasm.sigstore.json"] = bundle("rsa")
    source = {"http": {"url": f"http://{server.host}/p.wasm", "sha256": hashlib.sha256(MODULE).hexdigest()}}
    both = {"allOf": [*Signer().asked()["anyOf"], {"key": {"pem": pem("rsa")}}]}
    cases = {
        (): None,
        (".sig",): Signer().asked(),
        (".sigstore.json",): {"keys": [pem("rsa")]},
        (".sig", ".sigstore.json"): both,
    }
    for endings, verify in cases.items():
        server.requests.clear()
        found = await rig.resolve(source, verify)
        assert len(found.trust.proofs) == len(endings)
        assert [path for path in server.paths() if path != "/p.wasm"] == [f"/p.wasm{each}" for each in endings]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(messageSignature=None),
        lambda data: data["messageSignature"].update(signature="AAAA"),
        lambda data: data["messageSignature"].update(signature=7),
        lambda data: data.pop("messageSignature"),
        lambda data: data.update(messageSignature=[]),
    ],
    ids=["null", "other", "number", "none", "list"],
)
async def test_a_bundle_that_is_tampered_with_is_refused(rig, change):
    """Whatever stands in its place."""
    data = json.loads(bundle("rsa"))
    change(data)
    rig.put("p.wasm.sigstore.json", json.dumps(data).encode())
    with pytest.raises(SignatureError):
        await rig.file("p.wasm", MODULE, {"keys": [pem("rsa")]})


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 60_000, b"\xff", b"null", b"{}"], ids=lambda text: text[:4].hex())
async def test_what_is_no_bundle_proves_nothing(rig, text):
    """Read with the bounds of any stranger's JSON."""
    assert message_signature(text) is None
    rig.put("p.wasm.sigstore.json", text)
    with pytest.raises(SignatureError):
        await rig.file("p.wasm", MODULE, {"keys": [pem("rsa")]})


async def test_a_bundle_that_is_too_large_is_not_read(rig):
    """It is told with the file's name."""
    rig.put("p.wasm.sigstore.json", b" " * (256 * 1024 + 1))
    with pytest.raises(FetchError, match=r"p\.wasm\.sigstore\.json is too large, and only 262144 are allowed"):
        await rig.file("p.wasm", MODULE, {"keys": [pem("rsa")]})


async def test_what_the_bundle_says_of_the_digest_is_not_believed(rig):
    """Only what the signature is over: the field beside it is anybody's."""
    data = json.loads(bundle("rsa"))
    other = module("another")
    data["messageSignature"]["messageDigest"]["digest"] = hashlib.sha256(other).hexdigest()
    rig.put("p.wasm.sigstore.json", json.dumps(data).encode())
    assert (await rig.file("p.wasm", MODULE, {"keys": [pem("rsa")]})).trust.proofs
    with pytest.raises(SignatureError):
        await rig.file("p.wasm", other, {"keys": [pem("rsa")]})


@pytest.mark.parametrize("key", KEYS)
async def test_whoever_has_the_evidence_and_the_module_verifies_again(rig, key):
    """Of a bare module a sidecar has all that it takes."""
    rig.put("p.wasm.sigstore.json", bundle(key))
    found = await rig.file("p.wasm", MODULE, {"keys": [pem(key)]})
    evidence = Evidence.read(found.trust.evidence)
    requirement = Requirement(
        any_of=(Authority(kind="key", label="releases", keys=(read_pem(pem(key), what="a key"),)),)
    )
    sha256 = hashlib.sha256(MODULE).hexdigest()
    subject = subject_of(evidence, repository="", plugin="guard", module=sha256, read=lambda: MODULE)
    assert judge(requirement, evidence, subject, whose="the sidecar")
    if key not in BY_DIGEST:
        subject = subject_of(evidence, repository="", plugin="guard", module=sha256, read=lambda: MODULE + b"\0")
        with pytest.raises(SignatureError):
            judge(requirement, evidence, subject, whose="the sidecar")


async def test_a_signature_that_comes_later_is_found(rig):
    """A folder's plugin is looked at again when a file with its signature appears, changes or goes."""
    rig.put("guard.wasm", MODULE)
    rig.put(
        "guard.yaml",
        b"""
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: guard}
spec: {source: {file: {path: guard.wasm}}}
""",
    )
    seen = set()
    for name in ("guard.sig", "guard.wasm.sig", "guard.wasm.sigstore.json"):
        for data in (None, b"a", b"bb"):
            rig.put(name, data)
            found = scan(rig.folder)
            assert (found.problems, [*found.manifests]) == ((), ["guard"]), "a bundle is no manifest"
            seen.add((found.key("guard", rig.folder), str(glance(rig.folder, found))))
    assert len(seen) == 7


async def test_a_plugin_of_a_folder_runs_once_it_is_signed(tmp_path, store, fetcher):
    """The folder's source says that it is refused; once the signature lies beside it, it is looked at again."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "guard.wasm").write_bytes(MODULE)
    verify = json.dumps({"keys": [pem("prime256v1")]})
    (folder / "guard.yaml").write_text(
        "{apiVersion: hookline.dev/v1alpha1, kind: WasmPlugin, metadata: {name: guard}, "
        f"spec: {{source: {{file: {{path: guard.wasm}}}}, verify: {verify}}}}}"
    )
    trust = Trust(PolicyFiles((), namespace=None), folder=tmp_path / "trust", key=bytes(32), store=store)
    source = FolderSource(folder, fetcher, running=lambda: None, key=bytes(32), trust=trust)

    async def wanted(before=""):
        while source.wants is None or source.wants.plugins["guard"].key == before:
            await source.changed.wait()
            source.changed.clear()
        return source.wants.plugins["guard"]

    run = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            first = await wanted()
            with pytest.raises(SignatureError, match="it has no signature"):
                await first.resolve(previous=None, ask_again=False)
            (folder / "guard.wasm.sigstore.json").write_bytes(bundle("prime256v1"))
            second = await wanted(first.key)
            assert (await second.resolve(previous=None, ask_again=False)).trust.proofs
            assert source.problems == ()
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await source.close()
