"""What a sidecar's own policies forbid runs nowhere, whatever an operator sends."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hookline_api.bundle import EvidenceFile
from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.evidence import Evidence, Signature
from operator_reports import metric, states
from trust_policies import MATERIAL, SIGNER, STRANGER, policy


async def test_what_is_signed_runs_and_is_shown(sidecar, operator, policies, signed, reported):
    """Once the signatures were verified here, and not because the operator says so."""
    policies.write("policy.yaml", policy())
    version = operator.send(signed())
    sidecar.start()
    assert states(reported(running=version)) == {"p": "Running"}
    assert await sidecar.says() == "signed"
    shown = sidecar.get("/v1/plugins")[1]
    assert [(each["name"], each["file"], each["mode"]) for each in shown["trust"]["policies"]] == [
        ("only-signed", "policy.yaml", "Enforce")
    ]
    (plugin,) = shown["plugins"]
    assert [(each["policy"], each["signer"]) for each in plugin["verified"]] == [("only-signed", "us")]


@pytest.mark.parametrize(
    "lie",
    ["no evidence", "another's signature", "evidence of another module", "a forged digest", "garbage", "gone", "cut"],
)
async def test_a_module_that_is_not_signed_is_not_loaded(sidecar, operator, policies, signed, guests, told, lie):
    """Each lie of an operator ends closed, with a sentence, and nothing of it was compiled."""
    policies.write("policy.yaml", policy())
    entry = signed()
    artifact = entry.artifact
    evil = operator.entry("p", guests.saying("evil"), hooks=["custom_hook"])
    if lie == "no evidence":
        entry = evil
        words = "the operator sent no signatures for it"
    elif lie == "another's signature":
        entry = signed(evidence="signed.stranger")
        words = "is not signed by us"
    elif lie == "evidence of another module":
        entry = evil.model_copy(
            update={"artifact": evil.artifact.model_copy(
                update={"digest": artifact.digest, "evidence": artifact.evidence}
            )}
        )  # fmt: skip
        words = "cannot be fetched"  # the layer that the signed manifest names is asked for, and it is not the module
    elif lie == "a forged digest":
        entry = evil.model_copy(
            update={"artifact": evil.artifact.model_copy(update={"evidence": artifact.evidence})}
        )  # fmt: skip
        words = "and the plugin's artifact is"
    elif lie == "garbage":
        operator.blobs[artifact.evidence.sha256] = b"{" * artifact.evidence.size
        words = "not what was asked for"
    elif lie == "gone":
        del operator.blobs[artifact.evidence.sha256]
        words = "answered 404"
    else:
        operator.blobs[artifact.evidence.sha256] = operator.blobs[artifact.evidence.sha256][:-7] + b"x" * 7
        words = "not what was asked for"
    if lie == "evidence of another module":
        del operator.blobs[artifact.sha256]
    operator.send(entry)
    sidecar.start(wait=False)
    told("Closed", words)
    assert not list((sidecar.state / "compiled").glob("*.cwasm"))
    assert "Traceback" not in sidecar.log


async def test_a_module_beside_a_signed_one_is_not_it(sidecar, operator, policies, signed, guests, told):
    """Also where the operator serves what was signed: the module is held against it."""
    policies.write("policy.yaml", policy())
    artifact = signed().artifact
    evil = operator.entry("p", guests.saying("evil"))
    lying = evil.artifact.model_copy(update={"digest": artifact.digest, "evidence": artifact.evidence})
    operator.send(evil.model_copy(update={"artifact": lying}))
    sidecar.start(wait=False)
    told("Closed", "the signatures are of an artifact with the module")


async def test_a_packed_module_is_looked_for_in_what_was_signed(sidecar, operator, policies, signed, reported):
    """The layer is fetched once; what was found is good for a restart without an operator."""
    policies.write("policy.yaml", policy())
    version = operator.send(signed("packed"))
    sidecar.start()
    reported(running=version)
    assert await sidecar.says() == "packed"
    assert "runs: p" in sidecar.settled_log()
    sidecar.stop()
    operator.stop()
    sidecar.start()
    assert await sidecar.says() == "packed"


async def test_a_record_that_somebody_else_wrote_proves_nothing(sidecar, operator, policies, signed, eventually):
    """Who may write to the state folder cannot make a module another artifact's."""
    policies.write("policy.yaml", policy())
    operator.send(signed("packed"))
    sidecar.start()
    assert "runs: p" in sidecar.settled_log()
    sidecar.stop()
    (record,) = (sidecar.state / "trust").glob("*.derived")
    seal, data = record.read_bytes().split(b"\n", 1)
    record.write_bytes(seal + b"\n" + data.replace(b"2.0.0", b"9.0.0"))
    operator.stop()
    sidecar.start(wait=False)
    eventually(lambda: "fails closed" in str(sidecar.looks("/readyz")), "a refusal")
    assert (await sidecar.ask("custom_hook", 0))["action"] == "block"
    sidecar.logs("was not written by this sidecar")


async def test_settings_that_are_forbidden_do_not_run(sidecar, operator, policies, guests, told):
    """Static rules need no signature: they are judged of what came, before anything is fetched."""
    policies.write("policy.yaml", policy("no-keys", permissions=["config.read"], repositories=["r.test/acme/*"]))
    entry = operator.entry("p", guests.saying("one"), permissions=["kv.write"])
    artifact = entry.artifact.model_copy(update={"reference": "r.test/acme/p:1"})
    operator.send(entry.model_copy(update={"artifact": artifact}))
    sidecar.start(wait=False)
    message = told("Closed", "spec.permissions: kv.write may not be granted")
    assert "this sidecar's policy.yaml ('no-keys') forbids it" in message
    assert operator.asked == []
    assert metric(sidecar, 'hookline_trust_refused_total{mode="Enforce",policy="no-keys"}') == 1


async def test_audit_counts_and_lets_pass(sidecar, operator, policies, guests, reported):
    """Once for the same thing."""
    rules = {"mode": "Audit", "permissions": [], "signatures": policy()["spec"]["signatures"]}
    policies.write("policy.yaml", policy("soon", **rules))
    version = operator.send(operator.entry("p", guests.configured(), config={"custom_hook": "x"},
                                           permissions=["config.read"]))  # fmt: skip
    sidecar.start()
    assert states(reported(running=version)) == {"p": "Running"}
    assert await sidecar.says() == "x"
    assert metric(sidecar, 'hookline_trust_refused_total{mode="Audit",policy="soon"}') == 2
    assert sidecar.log.count("would not if the mode were Enforce") == 2


async def test_a_policy_that_comes_while_pods_run_takes_out_what_it_forbids(sidecar, operator, policies, signed, told):
    """And one that goes lets it run again, with nobody's help."""
    policies.write("other.yaml", policy("other", limits={"concurrency": 1024}))
    operator.send(signed())
    sidecar.start()
    await sidecar.wait_says("signed")
    policies.write("policy.yaml", policy("strict", repositories=["r.test/others/*"]))
    told("Closed", "is not among the repositories that are allowed")
    assert (await sidecar.ask("custom_hook", 0))["action"] == "block"
    policies.remove("policy.yaml")
    await sidecar.wait_says("signed")
    told("Running")


async def test_a_key_that_is_rotated_loads_nothing_anew(sidecar, operator, policies, signed, load, eventually):
    """The new signature comes, and then the old key goes: no call is lost, and no module is loaded again."""
    both = [{"name": name, "key": {"pem": pem}} for name, pem in (("us", SIGNER), ("them", STRANGER))]
    policies.write("policy.yaml", policy(signatures={"anyOf": both}))
    operator.send(signed(evidence="signed.stranger"))
    sidecar.start()
    await sidecar.wait_says("signed")
    async with load(sidecar) as made:
        await made.reaches(20)
        operator.send(signed())
        eventually(lambda: "us" in _signers(sidecar), "the new signature")
        policies.write("policy.yaml", policy())
        eventually(lambda: _shown(sidecar)["policies"][0]["refused"] == 0 and _signers(sidecar) == {"us"}, "it alone")
        await made.reaches(20)
    assert made.failures == []
    assert {each["value"] for each in made.answers} == {"signed"}
    assert sidecar.plugin("p")["probation"] is False


def _signers(sidecar):
    return {each["signer"] for each in sidecar.plugin("p")["verified"]}


def _shown(sidecar):
    return sidecar.get("/v1/plugins")[1]["trust"]


async def test_the_first_policy_may_be_broken_while_plugins_run(sidecar, operator, policies, signed, eventually):
    """What was let in before there was any goes on."""
    operator.send(signed())
    sidecar.start()
    await sidecar.wait_says("signed")
    policies.write("policy.yaml", "mode: Enforce\n")
    eventually(lambda: _shown(sidecar)["problems"], "a problem")
    assert await sidecar.says() == "signed"
    policies.write("policy.yaml", policy("strict", sources=["http"]))
    sidecar.wait_plugin("p", state="Closed")


async def test_a_broken_policy_lets_nothing_new_in(sidecar, operator, policies, signed, told, eventually):
    """What runs goes on; what is new waits until it is mended."""
    policies.write("policy.yaml", policy())
    operator.send(signed())
    sidecar.start()
    await sidecar.wait_says("signed")
    policies.write("policy.yaml", policy() | {"spec": {"mode": "enforce"}})
    eventually(lambda: _shown(sidecar)["problems"], "a problem")
    assert "spec.mode" in _shown(sidecar)["problems"][0]
    operator.send(signed("older"))
    told("LastGood", "a trust policy of this sidecar is broken, so nothing new is loaded")
    assert await sidecar.says() == "signed"
    policies.write("policy.yaml", policy())
    await sidecar.wait_says("older")


@pytest.mark.parametrize("what", ["secret", "key", "text", "empty", "kind", "folder"])
async def test_a_policy_that_cannot_be_used_at_the_start_is_closed(sidecar, operator, policies, signed, told, what):
    """Each with its reason."""
    place = {"key": {"from": {"secret": {"name": "keys", "key": "us.pub"}}}}
    if what == "secret":
        policies.write("policy.yaml", policy(signatures={"anyOf": [place]}))
        words = "'keys' is a Secret or a ConfigMap, which a policy in a file cannot name"
    elif what == "key":
        policies.write("policy.yaml", policy(signatures={"anyOf": [{"key": {"from": {"file": "gone.pub"}}}]}))
        words = "gone.pub cannot be read"
    elif what == "text":
        policies.write("policy.yaml", "apiVersion: [")
        words = "this cannot be read"
    elif what == "empty":
        policies.write("policy.yaml", "# nothing\n")
        words = "it holds no document"
    elif what == "kind":
        policies.write("policy.yaml", policy() | {"kind": "Policy"})
        words = "kind: PluginTrustPolicy"
    else:
        policies.path.rmdir()
        words = "cannot be read"
    operator.send(signed())
    sidecar.start(wait=False)
    told("Closed", words)


async def test_keys_may_stand_in_files_beside_the_policy(sidecar, operator, policies, signed, told):
    """And a key that is another one asks for another signature."""
    policies.write("policy.yaml", policy(signatures={"anyOf": [{"name": "us", "key": {"from": {"file": "us.pub"}}}]}))
    policies.write("us.pub", SIGNER)
    operator.send(signed(evidence="signed.stranger"))
    sidecar.start(wait=False)
    told("Closed", "is not signed by us")
    policies.write("us.pub", STRANGER)
    await sidecar.wait_says("signed")


async def test_the_last_good_bundle_is_judged_before_it_runs_again(sidecar, operator, policies, signed, eventually):
    """A restart with nobody there verifies what was kept, and closes what is forbidden by now."""
    policies.write("policy.yaml", policy())
    operator.send(signed())
    sidecar.start()
    await sidecar.wait_says("signed")
    assert "runs: p" in sidecar.settled_log()
    sidecar.stop()
    operator.stop()
    sidecar.start()
    assert await sidecar.says() == "signed"
    sidecar.stop()
    (kept,) = (sidecar.state / "trust").glob("*.evidence")
    kept.write_bytes((MATERIAL / "older.evidence").read_bytes())
    sidecar.start(wait=False)
    eventually(lambda: "fails closed" in str(sidecar.looks("/readyz")), "a refusal")
    assert (await sidecar.ask("custom_hook", 0))["action"] == "block"
    sidecar.logs("the file with its signatures is not in the state folder")
    operator.start()
    await sidecar.wait_says("signed")


async def test_a_version_is_told_by_what_was_signed(sidecar, operator, policies, signed, told):
    """What the operator says of it does not count."""
    rules = policy()["spec"] | {"minimumVersions": [{"plugins": ["*"], "version": "1.5.0"}]}
    policies.write("policy.yaml", policy(**rules))
    entry = signed("older")
    lying = entry.artifact.model_copy(update={"version": "3.0.0"})
    operator.send(entry.model_copy(update={"artifact": lying}))
    sidecar.start(wait=False)
    told("Closed", "the artifact is version 1.0.0, and 1.5.0 is the lowest that may run")
    operator.send(signed())
    await sidecar.wait_says("signed")


async def test_a_version_that_nobody_has_signed_does_not_count(sidecar, operator, policies, signed, told):
    """An operator could write any manifest around a module."""
    policies.write("policy.yaml", policy(minimumVersions=[{"plugins": ["p"], "version": "1.5.0"}]))
    operator.send(signed())
    sidecar.start(wait=False)
    told("Closed", "its version is not proven")


async def test_a_signature_for_another_repository_does_not_count(sidecar, operator, policies, signed, told):
    """Cosign's older form names the repository, and the reference names another."""
    policies.write("policy.yaml", policy())
    entry = signed(evidence="tagged", reference="r.test/acme/other:1")
    operator.send(entry)
    sidecar.start(wait=False)
    told("Closed", "is for the repository r.test/acme/tagged")
    operator.send(signed(evidence="tagged", reference="r.test/acme/tagged:1"))
    await sidecar.wait_says("signed")


async def test_a_folder_of_manifests_is_judged_too(new_sidecar, policies, guests, eventually):
    """What writes manifests need not be who owns the machine."""
    policies.write("policy.yaml", policy("no-files", sources=["oci"]))
    sidecar = new_sidecar(trust_policy=policies.path)
    sidecar.folder.plugin("p", guests.saying("one"))
    sidecar.start(wait=False)
    eventually(lambda: "sources may be oci" in str(sidecar.looks("/readyz")), "a refusal")
    policies.remove("policy.yaml")
    await sidecar.wait_says("one")
    policies.write("policy.yaml", policy("no-files", sources=["oci"]))
    sidecar.wait_plugin("p", state="Closed")
    assert (await sidecar.ask())["action"] == "block"
    assert metric(sidecar, 'hookline_trust_refused_total{mode="Enforce",policy="no-files"}') >= 1
    message = sidecar.plugin("p")["failure"]["message"]
    assert "no-files" in message
    assert "policy.yaml" in message
    sidecar.end()


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_signature_over_the_modules_own_bytes_counts_by_itself(
    sidecar, operator, policies, guests, told, legacy
):
    """Detached Ed25519, as a URL or a ConfigMap has it: no manifest leads to the module, and none is needed."""
    key = Ed25519PrivateKey.generate()
    raw = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    signer = {"name": "us", "ed25519": {"key": raw, "legacy": legacy}}
    policies.write("policy.yaml", policy(signatures={"anyOf": [signer]}))
    module = guests.saying("by hand")
    sha256 = hashlib.sha256(module).hexdigest()
    message = module if legacy else ed25519.message(sha256, None)
    evidence = Evidence(
        digest=f"sha256:{sha256}",
        signatures=(Signature(form="ed25519", payload=b"", signature=key.sign(message)),),
    ).write()
    name = hashlib.sha256(evidence).hexdigest()
    operator.blobs[name] = evidence

    def entry(of):
        made = operator.entry("p", of)
        told = {"digest": f"sha256:{sha256}", "evidence": EvidenceFile(sha256=name, size=len(evidence))}
        return made.model_copy(update={"artifact": made.artifact.model_copy(update=told)})

    operator.send(entry(guests.saying("evil")))
    sidecar.start(wait=False)
    told("Closed", "is not signed by us")
    operator.send(entry(module))
    await sidecar.wait_says("by hand")
