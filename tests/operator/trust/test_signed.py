"""Signatures that a policy or the resource itself asks for: who runs, who does not, and what the status says of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from hookline_artifacts.trust.evidence import Evidence
from local_registry import MANIFEST, digest
from signing import sign

from .conftest import wants


async def test_an_unsigned_plugin_is_offered_to_nobody_and_a_signed_one_rolls_out(
    operator, tenant, module, connect, eventually, policies, keys, push, told, table, events
):
    """The reason is in ``kubectl get wp``; a signature that comes later is of another version here, and runs."""
    name = policies.apply("signed", signatures=wants(keys[0]))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    status, reason, message = told("Verified")
    assert (status, reason) == ("False", "SignatureFailed")
    failed = tenant.get("guard")["status"]["failedDigest"]
    assert failed.startswith("sha256:")
    assert f"PluginTrustPolicy '{name}'" in message
    assert "has no signature" in message
    assert "SignatureFailed" in table()
    assert name in table()
    assert tenant.revisions() == []
    await sidecar.until(lambda: sidecar.placeholders)
    assert sidecar.runs() == {}
    tenant.plugin("guard", push("v2", module("v2"), keys[0]))
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert "signed by key 0" in told("Verified")[2]
    status = tenant.get("guard")["status"]
    artifact = status["artifact"]
    assert "failedDigest" not in status
    assert artifact["digest"] != failed
    assert artifact["signer"] == "key 0"
    assert artifact["signatures"] == [{"signer": "key 0", "key": keys[0].id, "askedBy": f"PluginTrustPolicy '{name}'"}]
    await eventually(lambda: any("key 0" in text for reason, text in events() if reason == "Verified"), "an Event")


async def test_a_signature_by_a_stranger_is_none(operator, tenant, module, eventually, policies, keys, push, told):
    """The message says that there is one, and that it is not by whom it should be."""
    policies.apply("signed", signatures=wants(keys[0]))
    tenant.plugin("guard", push("v1", module("v1"), keys[2]))
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    assert "its signature is by other keys" in told("Verified")[2]


async def test_an_update_without_a_signature_waits_and_what_is_verified_goes_on(
    operator, tenant, module, connect, eventually, keys, push, told
):
    """The resource itself asks for it, with a key in a Secret of its namespace."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"a.pub": keys[0].pem}}
    tenant.apply(secret)
    verify = {"anyOf": [{"name": "acme", "key": {"from": {"secret": {"name": "keys"}}}}]}
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1"), keys[0]), verify=verify)
    await sidecar.until(sidecar.runs)
    before, placeholders = sidecar.runs(), list(sidecar.placeholders)
    tenant.plugin("guard", push("v2", module("v2"), keys[1]), verify=verify)
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    assert "spec.verify" in told()[2]
    assert sidecar.runs() == before
    tenant.apply(secret | {"stringData": {"a.pub": keys[0].pem, "b.pub": keys[1].pem}})
    await sidecar.until(lambda: sidecar.runs() and sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert sidecar.placeholders == placeholders


async def test_the_evidence_is_handed_to_pods_that_run_the_plugin_and_to_no_other(
    operator, tenant, new_tenant, module, connect, eventually, policies, keys, push
):
    """By its sha256, which the bundle names; it proves the very artifact that runs."""
    policies.apply("signed", signatures=wants(keys[0]))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1"), keys[0]))
    await sidecar.until(sidecar.runs)
    artifact = sidecar.bundle_of("guard").artifact
    status, body = await sidecar.blob(artifact.evidence.sha256)
    assert status == 200
    assert hashlib.sha256(body).hexdigest() == artifact.evidence.sha256
    assert len(body) == artifact.evidence.size
    evidence = Evidence.read(body)
    assert evidence.digest == artifact.digest
    assert len(evidence.signatures) == 1
    other = new_tenant()
    other.pod("b")
    stranger = await connect(operator, other, "b")
    assert (await stranger.blob(artifact.evidence.sha256))[0] == 404


async def test_a_key_is_rotated_without_a_moment_without_the_plugin(
    operator, tenant, module, connect, eventually, policies, keys, push, told
):
    """Both keys, then the artifact signed with the new one as well, then the old key is taken out."""
    old, new, _ = keys
    policies.apply("signed", signatures=wants(old))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    wasm = module("v1")
    source = push("v1", wasm, old)
    tenant.plugin("guard", source)
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    before, placeholders = sidecar.runs(), list(sidecar.placeholders)
    policies.apply("signed", signatures=wants(old, new))
    push("v1", wasm, old, new)
    policies.apply("signed", signatures=wants(new))
    await eventually(
        lambda: [each["key"] for each in tenant.get("guard")["status"]["artifact"].get("signatures", [])] == [new.id],
        "verified with the new key",
    )
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    await sidecar.until(lambda: sidecar.runs() == before)
    assert sidecar.placeholders == placeholders


async def test_a_key_of_a_policy_that_is_in_a_secret_is_noticed_when_it_changes(
    operator, tenant, module, connect, eventually, policies, keys, push, told, control_plane
):
    """In the operator's own namespace; where it is missing the policy is closed, and says so."""
    name = policies.apply(
        "signed",
        signatures={"anyOf": [{"name": "acme", "key": {"from": {"secret": {"name": "trusted", "key": "acme.pub"}}}}]},
    )
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1"), keys[1]))
    await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "closed")
    assert "there is no Secret 'trusted'" in told()[2]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trusted", "namespace": operator.home}}
    control_plane.apply(secret | {"stringData": {"acme.pub": keys[0].pem}})
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "the key")
    assert name in told("Verified")[2]
    control_plane.apply(secret | {"stringData": {"acme.pub": keys[1].pem}})
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_a_signature_counts_for_the_repository_that_it_names(
    operator, tenant, module, eventually, policies, keys, push, registry, told
):
    """One that was copied from elsewhere does not, though its bytes are right."""
    policies.apply("signed", signatures=wants(keys[0]))
    source = push("v1", module("v1"))
    artifact = registry.push(f"{tenant.name}/guard:v1", module("v1"))
    sign(registry, f"{tenant.name}/guard", artifact, keys[0], signed_as="elsewhere.example/guard")
    tenant.plugin("guard", source)
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    assert "elsewhere.example/guard" in told("Verified")[2]


async def test_the_layer_that_a_module_was_packed_in_is_handed_out_beside_the_evidence(
    operator, tenant, module, connect, eventually, policies, keys, registry
):
    """A sidecar can find the module in what was signed by itself; the registry is asked for the layer once more."""
    policies.apply("signed", signatures=wants(keys[0]))
    packed, repository = packed_module(module("v1")), f"{tenant.name}/guard"
    sha256 = hashlib.sha256(packed).hexdigest()
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": len(packed)}
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [layer | {"digest": f"sha256:{sha256}"}],
    }  # fmt: skip
    sign(registry, repository, registry.put(repository, "v1", json.dumps(manifest).encode(), b"{}", packed), keys[0])
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", {"oci": {"reference": f"{registry.host}/{repository}:v1", "insecure": True}})
    await sidecar.until(sidecar.runs)
    assert sidecar.bundle_of("guard").artifact.sha256 != sha256
    assert await sidecar.blob(sha256) == (200, packed)
    assert (await sidecar.blob(digest(b"{}").removeprefix("sha256:")))[0] == 404


def packed_module(wasm):
    """A tar.gz with the module in it, as an image's layer has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("plugin.wasm")
        entry.size = len(wasm)
        archive.addfile(entry, io.BytesIO(wasm))
    return buffer.getvalue()
