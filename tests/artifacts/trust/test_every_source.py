"""Sources that are no registry, and manifest folders, with every form of signature: docs/trust.md has the table."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

import pytest
import yaml

import signed_artifacts as signed
from hookline_artifacts.errors import SignatureError
from hookline_sidecar.control.sources.folder import FolderSource
from hookline_sidecar.control.sources.policies import PolicyFiles
from hookline_sidecar.control.sources.trust import Trust
from own_sigstore import ISSUER, SUBJECT, OwnSigstore
from registries import sha256
from signed_plugins import Rig, Signer, module
from waiting import PATIENCE_S

SBOM = "https://spdx.dev/Document"
MODULE = module("every source")
DOCUMENTS = {"manifest.json": b'{"name": "guard", "version": "1.2.3"}'}
SOURCES = ("file", "packed file", "URL", "packed URL", "ConfigMap", "packed ConfigMap")
FORMS = ("bundle", "keyless", "attestation", "ed25519", "legacy")
KEY, OTHER = signed.Key(), signed.Key()
SIGNER, STRANGER = Signer(1), Signer(2)
OWN = OwnSigstore()


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder that holds the root of the authority."""
    made = Rig(tmp_path / "plugins", fetcher)
    made.put("trusted_root.json", OWN.root())
    return made


def signature(form, data, documents):
    """A signature of a file, and how the name ends of the one that it is kept in."""
    if form == "ed25519":
        return ".sig", SIGNER.sign(MODULE, documents)
    if form == "legacy":
        return ".sig", SIGNER.sign_as_heliosdb(MODULE)
    if form == "keyless":
        return ".sigstore.json", OWN.bundle(sha256(data)).payload
    if form == "attestation":
        return ".sigstore.json", KEY.bundle(sha256(data), predicate_type=SBOM)
    message = {"signature": base64.b64encode(KEY.sign(data)).decode()}
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    return ".sigstore.json", json.dumps({"mediaType": media, "messageSignature": message}).encode()


def asked(form, *, right=True):
    """``spec.verify`` for whoever has signed in a form, or for somebody else."""
    key = {"key": {"pem": (KEY if right else OTHER).pem}}
    if form == "keyless":
        identity = {"issuer": ISSUER, "subject": SUBJECT if right else f"{SUBJECT}-other"}
        return {"anyOf": [{"keyless": identity}], "trustRoot": {"file": "trusted_root.json"}}
    if form == "attestation":
        return {"attestations": [{"predicateType": SBOM, "signers": [key]}]}
    if form in {"ed25519", "legacy"}:
        return (SIGNER if right else STRANGER).asked(legacy=form == "legacy")
    return {"anyOf": [{"name": "us", **key}]}


def put(rig, server, source, data, ending, beside):
    """A module and its signature where a source has them; the source, and the ConfigMaps of the namespace."""
    name = "guard.tar.gz" if "packed" in source else "guard.wasm"
    if "URL" in source:
        server._content = {f"/{name}": data, f"/{name}{ending}": beside}
        return {"http": {"url": f"http://{server.host}/{name}", "sha256": hashlib.sha256(data).hexdigest()}}, {}
    if "ConfigMap" in source:
        return {"configMap": {"name": "plugins", "key": name}}, {"plugins": {name: data, f"{name}{ending}": beside}}
    rig.put(name, data)
    rig.put(f"{name}{ending}", beside)
    return {"file": {"path": name}}, {}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", SOURCES)
async def test_a_signature_counts(rig, server, oci, source, form):
    """By whom it is; whoever else is asked for has not signed."""
    packed = "packed" in source
    documents = DOCUMENTS if packed else {}
    data = oci.tar({**documents, "plugin.wasm": MODULE}) if packed else MODULE
    given, maps = put(rig, server, source, data, *signature(form, data, documents))
    with pytest.raises(SignatureError, match=r"^spec\.verify: "):
        await rig.resolve(given, asked(form, right=False), config_maps=maps)
    found = await rig.resolve(given, asked(form), config_maps=maps)
    ((whose, proof),) = found.trust.proofs
    assert (whose, proof.predicate_type) == ("spec.verify", SBOM if form == "attestation" else "")


@pytest.mark.parametrize("ending", [".sig", ".sigstore.json"])
@pytest.mark.parametrize("source", SOURCES)
async def test_simple_signing_is_of_registries_alone(rig, server, oci, source, ending):
    """It has no place beside a file, and is none wherever somebody puts it."""
    data = oci.tar({"plugin.wasm": MODULE}) if "packed" in source else MODULE
    payload, raw = KEY.simple(sha256(data))
    beside = base64.b64encode(raw) if ending == ".sig" else payload
    given, maps = put(rig, server, source, data, ending, beside)
    with pytest.raises(SignatureError, match=r"spec\.verify: it is not signed by us"):
        await rig.resolve(given, asked("simple"), config_maps=maps)


@pytest.mark.parametrize("form", ["simple", *FORMS])
async def test_a_plugin_of_a_manifest_folder_runs_once_it_is_signed(tmp_path, store, fetcher, form):
    """The folder's source says that it is refused; with its signature beside it, it is looked at again."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "trusted_root.json").write_bytes(OWN.root())
    ending, beside, source = _in_folder(folder, form)
    spec = {"source": source, "verify": asked(form)}
    if form == "simple":
        spec["verify"]["anyOf"][0]["signedAs"] = [signed.NAME]
    document = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"}}
    (folder / "guard.yaml").write_text(yaml.safe_dump({**document, "spec": spec}))
    trust = Trust(PolicyFiles((), namespace=None), folder=tmp_path / "trust", key=bytes(32), store=store)
    found = FolderSource(folder, fetcher, running=lambda: None, key=bytes(32), trust=trust)

    async def wanted(before=""):
        while found.wants is None or found.wants.plugins["guard"].key == before:
            await found.changed.wait()
            found.changed.clear()
        return found.wants.plugins["guard"]

    run = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            first = await wanted()
            with pytest.raises(SignatureError):
                await first.resolve(previous=None, ask_again=False)
            if form == "simple":
                signed.write_case("simple-p256", folder / "signed")
                spec["source"]["oci"]["reference"] = "oci-layout:signed:v1"
                spec["verify"]["anyOf"][0]["key"]["pem"] = signed.KEYS["p256"]
                spec["hooks"] = ["authorize"]
                (folder / "guard.yaml").write_text(yaml.safe_dump({**document, "spec": spec}))
            else:
                (folder / f"guard.wasm{ending}").write_bytes(beside)
            second = await wanted(first.key)
            assert len((await second.resolve(previous=None, ask_again=False)).trust.proofs) == 1
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await found.close()


def _in_folder(folder, form):
    """The module without a signature; how its name ends, the signature, and the source."""
    if form == "simple":
        signed.write_case("unsigned", folder / "unsigned")
        return "", b"", {"oci": {"reference": "oci-layout:unsigned:v1"}}
    (folder / "guard.wasm").write_bytes(MODULE)
    return *signature(form, MODULE, {}), {"file": {"path": "guard.wasm"}}
