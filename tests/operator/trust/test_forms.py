"""Every form of signature, as the operator asks for it: whoever else has signed keeps the plugin from running."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import signed_artifacts as signed
from hookline_artifacts.trust.ed25519 import MEDIA_TYPE
from local_registry import digest, manifest_of
from own_sigstore import ISSUER, SUBJECT, OwnSigstore
from signed_plugins import Signer

SBOM = "https://spdx.dev/Document"
KEY, SIGNER, OWN = signed.Key(), Signer(1), OwnSigstore()
OTHERS = signed.Key(), Signer(2), OwnSigstore()
ROOT = {"configMap": {"name": "sigstore"}}


def wanted(form):
    """The ``signatures`` of a policy."""
    them = {"keyless": {"issuer": ISSUER, "subject": SUBJECT}}
    us = signed.signer(KEY.pem)
    return {
        "simple": {"anyOf": [us]},
        "bundle": {"anyOf": [us]},
        "keyless": {"anyOf": [them], "trustRoot": ROOT},
        "attestation": {"attestations": [{"predicateType": SBOM, "signers": [us]}]},
        "ed25519": SIGNER.asked(),
        "legacy": SIGNER.asked(legacy=True),
    }[form]


def push(registry, repository, form, wasm, signers):
    """A module with one signature in a form; the source for it."""
    key, signer, own = signers
    artifact = registry.put(repository, digest(manifest_of(wasm)), manifest_of(wasm), b"{}", wasm)
    tag = artifact.replace(":", "-")
    if form == "simple":
        pair = key.simple(artifact)
        registry.put(repository, f"{tag}.sig", signed.sig_manifest(pair), b"{}", pair[0])
    else:
        kind = {"kind": MEDIA_TYPE} if form in {"ed25519", "legacy"} else {}
        blob = {
            "bundle": lambda: key.bundle(artifact),
            "attestation": lambda: key.bundle(artifact, predicate_type=SBOM),
            "keyless": lambda: own.bundle(artifact).payload,
            "ed25519": lambda: signer.sign(wasm),
            "legacy": lambda: signer.sign_as_heliosdb(wasm),
        }[form]()
        referrer = signed.referrer(artifact, blob, **kind)
        registry.put(repository, digest(referrer), referrer, b"{}", blob)
        listing = signed.listing(referrer)
        registry._ask("PUT", f"/v2/{repository}/manifests/{tag}", listing, signed.INDEX)
    return {"oci": {"reference": f"{registry.host}/{repository}@{artifact}", "insecure": True}}


@pytest.mark.parametrize("form", ["simple", "bundle", "keyless", "attestation", "ed25519", "legacy"])
async def test_it_is_asked_for_and_told(
    operator, tenant, module, connect, eventually, policies, registry, control_plane, told, form
):
    """What somebody else has signed is refused; what the right one has signed runs, and its evidence is named."""
    root = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sigstore", "namespace": operator.home}}
    control_plane.apply(root | {"data": {"trusted_root.json": OWN.root().decode()}})
    name = policies.apply("signed", signatures=wanted(form))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    repository = f"{tenant.name}/guard"
    tenant.plugin("guard", push(registry, repository, form, module("v1"), OTHERS))
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    assert f"PluginTrustPolicy '{name}'" in told("Verified")[2]
    assert sidecar.runs() == {}
    tenant.plugin("guard", push(registry, repository, form, module("v2"), (KEY, SIGNER, OWN)))
    await sidecar.until(sidecar.runs)
    assert sidecar.bundle_of("guard").artifact.evidence is not None
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    (shown,) = tenant.get("guard")["status"]["artifact"]["signatures"]
    assert shown["askedBy"] == f"PluginTrustPolicy '{name}'"


class _Files(SimpleHTTPRequestHandler):
    """Answers, and writes no log."""

    def log_message(self, *_):
        """Nothing."""


@contextlib.contextmanager
def served(folder):
    """A folder at a URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: _Files(*given, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("source", ["http", "configMap"])
async def test_a_source_that_is_no_registry_has_its_signature_beside_it(
    operator, tenant, module, connect, eventually, policies, tmp_path, source
):
    """A stranger's is refused, as anywhere."""
    policies.apply("signed", signatures=SIGNER.asked())
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")

    def keep(url, name, wasm, signer):
        data = {f"{name}.wasm": wasm, f"{name}.wasm.sig": signer.sign(wasm)}
        if source == "http":
            for each, content in data.items():
                (tmp_path / each).write_bytes(content)
            return {"http": {"url": f"{url}/{name}.wasm", "sha256": hashlib.sha256(wasm).hexdigest()}}
        binary = {each: base64.b64encode(content).decode() for each, content in data.items()}
        tenant.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": binary})
        return {"configMap": {"name": name, "key": f"{name}.wasm"}}

    with served(tmp_path) as url:
        tenant.plugin("guard", keep(url, "one", module("v1"), Signer(2)))
        await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
        assert sidecar.runs() == {}
        tenant.plugin("guard", keep(url, "two", module("v2"), SIGNER))
        await sidecar.until(sidecar.runs)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
