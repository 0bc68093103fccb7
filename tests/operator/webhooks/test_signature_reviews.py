"""Whoever asks for signatures learns at once what is wrong with the keys and the rules, and what is risky."""

from __future__ import annotations

import pytest

from admission_reviews import ask, review
from hookline_artifacts.judging.plugins import judge
from hookline_operator.webhooks.admission import VALIDATE_PATH
from public_keys import SMALL_ORDER, dsa_key, ed, off_the_curve, p256, pem, private_pem, raw, short_rsa

ONE, TWO = p256(), p256()
GOOD, OTHER = pem(ONE), pem(TWO)
RAW = raw(ed())
SLSA = "https://slsa.dev/provenance/v1"
ISSUER = "https://token.actions.githubusercontent.com"
KEYLESS = {"issuer": ISSUER, "repository": "https://github.com/acme/plugins"}
ROOT = {"configMap": {"name": "root"}}


def plugin(verify, **spec):
    """A WasmPlugin of one repository that asks for signatures."""
    source = {"oci": {"reference": "registry.example/team/plugin:1"}}
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "demo", "namespace": "shop"},
        "spec": {"source": source, "verify": verify, **spec},
    }  # fmt: skip


def key(text, **more):
    """A signer with a key."""
    return {"key": {"pem": text}, **more}


def attested(**attestation):
    """A demand for a statement."""
    return {"attestations": [{"predicateType": SLSA, "signers": [key(GOOD)], **attestation}]}


@pytest.mark.parametrize(
    "verify",
    [
        {"keys": [GOOD]},
        {"ed25519": [RAW]},
        {"keys": [GOOD, OTHER], "minimum": 2},
        {"keyless": [KEYLESS], "trustRoot": ROOT},
        {"anyOf": [key(GOOD, repositories=["registry.example/*/plugin"], plugins=["de*"])]},
        {"anyOf": [key(GOOD, repositories=["registry.example/**"])]},
        {"anyOf": [key(GOOD, repositories=["**/plugin"])]},
        {"allOf": [{"key": {"from": {"secret": {"name": "keys"}}}}]},
        {"anyOf": [{"key": {"from": {"configMap": {"name": "keys", "key": "a.pub"}}}}], "minimum": 1},
        attested(builder="https://github.com/acme/**", sourceRepository="https://github.com/acme/*"),
        {"minimumVersion": "1.2"},
    ],
)
async def test_what_can_be_met_is_allowed_without_a_word(client, verify):
    """In the short form and in the long one."""
    answer = await ask(client, VALIDATE_PATH, review(plugin(verify), kind="WasmPlugin"))
    assert answer == {"allowed": True, "uid": "705ab4f5"}


@pytest.mark.parametrize(
    ("verify", "says"),
    [
        ({"keys": ["k"]}, "spec.verify.keys[0]: is not a public key in PEM (-----BEGIN PUBLIC KEY-----)"),
        ({"keys": [GOOD, GOOD[:100]]}, "spec.verify.keys[1]: is not a public key in PEM"),
        ({"keys": [private_pem(ONE)]}, "spec.verify.keys[0]: is a private key: take it out, make a new pair"),
        ({"keys": [pem(short_rsa())]}, "spec.verify.keys[0]: is an RSA key of 1024 bits, and 2048 to 8192"),
        ({"keys": [pem(dsa_key())]}, "spec.verify.keys[0]: is none of ECDSA on P-256, P-384 or P-521, RSA"),
        ({"keys": [off_the_curve()]}, "spec.verify.keys[0]: is not a public key in PEM"),
        ({"ed25519": [SMALL_ORDER]}, "spec.verify.ed25519[0]: is no Ed25519 key: its point is of small order"),
        ({"anyOf": [{"ed25519": {"key": SMALL_ORDER}}]}, "spec.verify.anyOf[0].ed25519.key: is no Ed25519 key"),
        ({"allOf": [key("k")]}, "spec.verify.allOf[0].key.pem: is not a public key in PEM"),
        (attested(signers=[key("k")]), "spec.verify.attestations[0].signers[0].key.pem: is not a public key"),
        ({"anyOf": [{"key": {"from": {"file": "keys"}}}]},
         "spec.verify.anyOf[0].key.from.file: is for manifest folders only; a cluster has no files"),
        ({"anyOf": [{"ed25519": {"from": {"file": "keys"}}}]}, "spec.verify.anyOf[0].ed25519.from.file: is for"),
        ({"keyless": [KEYLESS], "trustRoot": {"file": "r"}}, "spec.verify.trustRoot.file: is for manifest folders"),
        (attested(predicateType="slsaprovenance1"),
         f"spec.verify.attestations[0].predicateType: slsaprovenance1 is cosign's short name for it: write {SLSA}"),
        (attested(predicateType="https://sigstore.dev/cosign/sign/v1"),
         "spec.verify.attestations[0].predicateType: https://sigstore.dev/cosign/sign/v1 is of plain signatures"),
        (attested(predicateType="provenance"),
         'spec.verify.attestations[0].predicateType: "provenance" is no URI, such as'),
        (attested(predicateType="https://spdx.dev/Document", builder="x"),
         "spec.verify.attestations[0].builder: only SLSA provenance tells it"),
        (attested(predicateType="https://spdx.dev/Document", sourceRepository="x"),
         "spec.verify.attestations[0].sourceRepository: only SLSA provenance tells it"),
        ({"anyOf": [key(GOOD, repositories=["registry.example/other"])]},
         "spec.verify: none of the signers may sign for plugin 'demo' of registry.example/team/plugin"),
        ({"anyOf": [key(GOOD, plugins=["other-*"])]}, "spec.verify: none of the signers may sign for plugin 'demo'"),
        ({"allOf": [key(GOOD, plugins=["x"])]},
         "spec.verify.allOf[0]: may not sign for plugin 'demo' of registry.example/team/plugin, and allOf needs it"),
        (attested(signers=[key(GOOD, plugins=["x"])]), "spec.verify.attestations[0].signers: none of them may sign"),
        ({"keys": [GOOD], "minimum": 2}, "spec.verify: minimum is 2, and anyOf has only 1"),
        ({"keys": [GOOD, GOOD], "minimum": 2}, "spec.verify.minimum: is 2, and 1 different signers at the most"),
        ({"anyOf": [key(GOOD), key(OTHER, plugins=["x"])], "minimum": 2}, "spec.verify.minimum: is 2, and 1 different"),
        ({"keyless": [KEYLESS, KEYLESS], "minimum": 2, "trustRoot": ROOT}, "spec.verify.minimum: is 2, and 1 "),
        ({"anyOf": [key(GOOD, repositories=["registry.example"])]},
         'spec.verify.anyOf[0].repositories[0]: "registry.example" fits nothing: it names no repository'),
        ({"anyOf": [key(GOOD, repositories=["https://registry.example/p", "**"])]},
         'spec.verify.anyOf[0].repositories[0]: "https://registry.example/p" fits nothing: a repository has no scheme'),
        ({"anyOf": [key(GOOD, repositories=["registry.example:5000/p:1", "**"])]}, "spec.verify.anyOf[0].repos"),
        ({"anyOf": [key(GOOD, repositories=["registry.example/P", "**"])]}, "spec.verify.anyOf[0].repositories[0]: "),
        ({"anyOf": [key(GOOD, repositories=["index.docker.io/a/b", "**"])]}, "spec.verify.anyOf[0].repositories[0]: "),
        ({"anyOf": [key(GOOD, repositories=["library/nginx", "**"])]}, "spec.verify.anyOf[0].repositories[0]: "),
        ({"anyOf": [key(GOOD, repositories=["registry.example//p", "**"])]}, "spec.verify.anyOf[0].repositories[0]: "),
    ],
)  # fmt: skip
async def test_what_can_never_be_met_is_refused_with_the_fields_path(client, verify, says):
    """Before anything waits for a signature that nobody can make."""
    answer = await ask(client, VALIDATE_PATH, review(plugin(verify), kind="WasmPlugin"))
    assert answer["allowed"] is False
    assert answer["status"]["message"].startswith(says)


async def test_a_private_key_is_refused_and_not_quoted(client):
    """It is in the request already; the answer does not carry it further."""
    text = private_pem(ONE)
    answer = await ask(client, VALIDATE_PATH, review(plugin({"keys": [text]}), kind="WasmPlugin"))
    assert text.splitlines()[1] not in str(answer)


@pytest.mark.parametrize(
    ("verify", "says"),
    [
        ({}, "spec.verify: asks for no signature: every artifact passes"),
        ({"keyless": [KEYLESS]}, "spec.verify.trustRoot: is not given, so keyless signatures are verified against Sig"),
        ({"keys": [GOOD], "trustRoot": ROOT}, "spec.verify.trustRoot: is for keyless signers, and there is none"),
        ({"anyOf": [{"ed25519": {"key": RAW, "legacy": True}}]}, "spec.verify.anyOf[0].ed25519.legacy: such a sig"),
        ({"keyless": [{"issuer": ISSUER, "subjectPrefix": "https://github.com/acme"}], "trustRoot": ROOT},
         'spec.verify.keyless[0].subjectPrefix: "https://github.com/acme" also fits names that only begin alike'),
        ({"anyOf": [{"keyless": {"issuer": "accounts", "subject": "a@b.c"}}], "trustRoot": ROOT},
         'spec.verify.anyOf[0].keyless.issuer: "accounts" is no URL'),
        ({"keyless": [{"issuer": ISSUER, "repository": "acme/plugins"}], "trustRoot": ROOT},
         "spec.verify.keyless[0].repository: certificates name repositories by their URLs"),
        ({"keys": [GOOD, GOOD]}, "spec.verify.keys[1]: is the same signer as spec.verify.keys[0]: both together"),
        ({"anyOf": [key(GOOD), key(OTHER, plugins=["x"])]}, "spec.verify.anyOf[1]: counts for nothing, since it may"),
        ({"anyOf": [key(GOOD, signedAs=["**"])]}, "spec.verify.anyOf[0].signedAs[0]: a signature for any repository"),
    ],
)  # fmt: skip
async def test_what_is_legal_and_risky_is_allowed_with_a_warning(client, verify, says):
    """One sentence each."""
    answer = await ask(client, VALIDATE_PATH, review(plugin(verify), kind="WasmPlugin"))
    assert answer["allowed"] is True
    (warning,) = answer["warnings"]
    assert warning.startswith(says)


async def test_a_source_that_is_no_registry_is_of_no_repository(client):
    """Whoever may sign for some alone may not sign for it; the others may, beside it."""
    source = {"configMap": {"name": "m"}}
    signer = key(GOOD, repositories=["**"])
    answer = await ask(client, VALIDATE_PATH, review(plugin({"anyOf": [signer]}, source=source), kind="WasmPlugin"))
    says = "spec.verify: none of the signers may sign for plugin 'demo' of a source without a repository"
    assert answer["status"]["message"] == says
    answer = await ask(client, VALIDATE_PATH, review(plugin({"keys": [GOOD]}, source=source), kind="WasmPlugin"))
    assert answer == {"allowed": True, "uid": "705ab4f5"}


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        ("mirror.example/team/plugin:1", "a mirror is a repository, without a tag or a digest: write mirror.example/"),
        ("mirror.example/p@sha256:" + "a" * 64, "a mirror is a repository, without a tag or a digest"),
        ("oci-layout:/x", "a mirror is in a registry: write registry/repository"),
        ("https://mirror.example/p", "'https://mirror.example/p' is not an artifact reference"),
        ("mirror.example/P", "'mirror.example/P' is not an artifact reference"),
    ],
)
async def test_a_mirror_is_a_repository(client, mirror, says):
    """Its tags and digests are the origin's."""
    oci = {"reference": "registry.example/p:1", "mirrors": ["mirror.example:5000/p", mirror]}
    answer = await ask(client, VALIDATE_PATH, review(plugin({}, source={"oci": oci}), kind="WasmPlugin"))
    assert answer["status"]["message"].startswith(f"spec.source.oci.mirrors[1]: {says}")


async def test_whoever_follows_the_artifact_is_warned(client):
    """Its permissions are somebody else's choice."""
    found = plugin({"keys": [GOOD]}, permissionsPolicy="FollowArtifact")
    answer = await ask(client, VALIDATE_PATH, review(found, kind="WasmPlugin"))
    assert answer["warnings"][0].startswith("spec.permissionsPolicy: with FollowArtifact, a new version has every")


def test_all_that_is_wrong_is_said_where_other_fields_are_wrong_too():
    """A document that is no plugin may have wrong keys."""
    problems, _, found = judge(plugin({"keys": ["k"]}, mode="Off"))
    assert found is None
    assert [text.partition(":")[0] for text in problems] == ["spec.mode", "spec.verify.keys[0]"]


def test_patterns_that_would_cost_too_much_are_not_tried():
    """Of the largest document that there can be, with stars that fit nearly, nothing is claimed."""
    dear = "*/" + "*a" * 200 + "b"
    signer = key(GOOD, repositories=[dear] * 32, plugins=["*a" * 126] * 32)
    verify = {
        "anyOf": [signer] * 16, "allOf": [signer] * 16,
        "attestations": [{"predicateType": SLSA, "signers": [signer] * 16}] * 8,
    }  # fmt: skip
    source = {"oci": {"reference": "registry.example/" + "a" * 250}}
    problems, warnings, found = judge(plugin(verify, source=source))
    assert found is not None
    assert all(isinstance(each, str) for each in (*problems, *warnings))
