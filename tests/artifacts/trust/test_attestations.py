"""An attestation counts for what it states, by whom it has to be, and never for a signature."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

import keyless_cases as cases
from hookline_api.trust import Attestation
from hookline_artifacts.trust import provenance
from hookline_artifacts.trust.attestations import why_not
from hookline_artifacts.trust.cosign import SIGN_PREDICATE, Claim
from hookline_artifacts.trust.requirement import Requirement
from own_sigstore import ISSUER, SUBJECT, OwnSigstore

V1, V02 = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
SPDX, CYCLONEDX = "https://spdx.dev/Document", "https://cyclonedx.org/bom"
KINDS = {"slsaprovenance1": V1, "slsaprovenance": V02, "spdxjson": SPDX, "cyclonedx": CYCLONEDX}
SOURCE = cases.ABOUT["source"]
KEYLESS = ["3-log-1", "3-log-2", "2"]
DIGEST = "sha256:" + "1" * 64
GIT = "git+https://github.com/acme/x@refs/heads/main"


def _made(*forms, kinds=tuple(KINDS)):
    for kind in kinds:
        for form in forms:
            if (cases.FOLDER / f"{kind}-{form}.json").exists():
                yield pytest.param(f"{kind}-{form}", KINDS[kind], id=f"{kind}-{form}")


@pytest.mark.parametrize(("name", "kind"), list(_made(*KEYLESS)))
def test_what_an_identity_attested_counts(name, kind):
    """Provenance of both versions and both kinds of SBOM, in each form that cosign leaves."""
    (proof,) = cases.judged(cases.attested(kind), cases.material(name))
    assert (proof.predicate_type, proof.identity) == (kind, cases.ABOUT["subject"])
    assert cases.refusal(cases.attested(kind, cases.KEY), cases.material(name))


@pytest.mark.parametrize(("name", "kind"), list(_made("3-key", "2-key")))
def test_what_a_key_attested_counts(name, kind):
    """As a bundle, and as the envelope that cosign 2 leaves under ``….att``."""
    (proof,) = cases.judged(cases.attested(kind, cases.identity(), cases.KEY), cases.material(name))
    assert (proof.predicate_type, proof.key) == (kind, cases.KEY.keys[0].id)
    assert cases.refusal(cases.attested(kind), cases.material(name))


@pytest.mark.parametrize(("name", "kind"), list(_made(*KEYLESS, "3-key", "2-key")))
def test_an_attestation_is_no_signature_and_none_of_another_kind(name, kind):
    """Who may attest need not be who may sign."""
    evidence = cases.material(name)
    assert "no signature" in cases.refusal(cases.asked(cases.identity(), cases.KEY), evidence)
    for other in {*KINDS.values()} - {kind}:
        assert "is not attested by" in cases.refusal(cases.attested(other, cases.identity(), cases.KEY), evidence)


@pytest.mark.parametrize("name", ["signed-3-log-1", "signed-2", "signed-3-key"])
@pytest.mark.parametrize("kind", [V1, SIGN_PREDICATE])
def test_a_signature_is_no_attestation(name, kind):
    """Neither where somebody asks for the very type that cosign states when it signs."""
    assert cases.refusal(cases.attested(kind, cases.identity(), cases.KEY), cases.material(name))


@pytest.mark.parametrize("kind", ["slsaprovenance1", "slsaprovenance"])
@pytest.mark.parametrize("form", ["3-log-2", "2", "3-key", "2-key"])
def test_provenance_says_who_built_it_and_from_what(kind, form):
    """Both are patterns as of repositories."""
    evidence, signers = cases.material(f"{kind}-{form}"), (cases.identity(), cases.KEY)
    builder = "https://github.com/slsa-framework/generator/.github/workflows/*@refs/tags/v*"
    for more in (
        {"builder": cases.ABOUT["builder"]},
        {"builder": builder, "sourceRepository": "https://github.com/acme/*"},
        {"sourceRepository": SOURCE},
    ):
        assert cases.judged(cases.attested(KINDS[kind], *signers, **more), evidence)
    for more, why in (
        ({"builder": f"{builder}x"}, f"built by {cases.ABOUT['builder']}"),
        ({"builder": "https://github.com/slsa-framework/*"}, "built by"),
        ({"sourceRepository": "https://github.com/acme"}, f"its source is {SOURCE}"),
        ({"sourceRepository": "https://github.com/acme/other", "builder": builder}, "its source is"),
    ):
        assert why in cases.refusal(cases.attested(KINDS[kind], *signers, **more), evidence)


def test_a_builder_is_in_provenance_alone():
    """To ask an SBOM for it is a question without an answer."""
    requirement = cases.attested(SPDX, builder="https://github.com/**")
    assert "only in SLSA provenance" in cases.refusal(requirement, cases.material("spdxjson-3-log-1"))


def test_signatures_and_attestations_are_asked_for_together():
    """What was proven of each goes along as evidence; each alone is too little."""
    statements = cases.attested(V1).statements + cases.attested(SPDX, cases.KEY).statements
    requirement = Requirement(any_of=(cases.identity(),), statements=statements, trust_root=cases.ROOT)
    names = ("signed-2", "slsaprovenance1-2", "spdxjson-3-key", "cyclonedx-2")
    evidence = cases.together(*names)
    proofs = cases.judged(requirement, evidence)
    assert [each.predicate_type for each in proofs] == ["", V1, SPDX]
    used = evidence.only(each.signature for each in proofs)
    assert len(used.signatures) == 3
    assert cases.judged(requirement, used)
    for left in names[:3]:
        assert cases.refusal(requirement, cases.together(*(each for each in names if each != left)))


@pytest.mark.parametrize("form", ["3-log-1", "2", "3-key", "2-key"])
def test_an_altered_predicate_states_nothing(form):
    """Nor an altered payload type, nor a second payload under the same name."""
    evidence = cases.material(f"slsaprovenance1-{form}")
    (signature,) = evidence.signatures
    document = json.loads(signature.payload)
    envelope = document.get("dsseEnvelope", document)
    payload = base64.b64decode(envelope["payload"])
    evil = payload.replace(b"acme/plugins", b"evil/plugins")
    assert evil != payload
    requirement = cases.attested(V1, cases.identity(), cases.KEY)
    for change in (
        {"payload": base64.b64encode(evil).decode()},
        {"payloadType": "application/vnd.in-toto.provenance+json"},
        {"payloadType": "application/vnd.in-toto+json "},
        {"payload": base64.b64encode(payload + b" ").decode()},
    ):
        envelope_before = dict(envelope)
        envelope.update(change)
        made = replace(signature, payload=json.dumps(document).encode())
        assert cases.refusal(requirement, replace(evidence, signatures=(made,)))
        envelope.update(envelope_before)
    # Two parsers may see two payloads; what counts is the one that was verified.
    text = json.dumps(document)
    twice = text.replace('"payload":', f'"payload": "{base64.b64encode(evil).decode()}", "payload":', 1)
    swapped = text.replace('"payloadType":', f'"payload": "{base64.b64encode(evil).decode()}", "payloadType":', 1)
    wanted = cases.attested(V1, cases.identity(), cases.KEY, sourceRepository="https://github.com/evil/*")
    for each in (twice, swapped):
        made = replace(signature, payload=each.encode())
        assert cases.refusal(wanted, replace(evidence, signatures=(made,)))


def test_an_attestation_of_another_artifact_does_not_count():
    """Also where the right identity made it, and its predicate names this one."""
    own = OwnSigstore()
    predicate = {"subject": [{"digest": {"sha256": DIGEST.removeprefix("sha256:")}}]}
    signature = own.bundle("sha256:" + "2" * 64, kind=V1, predicate=predicate)
    requirement = cases.attested(V1, cases.identity(issuer=ISSUER, subject=SUBJECT), root=own.root())
    assert "another digest" in cases.refusal(requirement, cases.evidence_of(DIGEST, signature))


def _claim(kind, predicate):
    return Claim(digests=frozenset({DIGEST}), predicate_type=kind, provenance=provenance.read(kind, predicate))


def _asked(kind, **more):
    signers = [{"keyless": {"issuer": "x", "subject": "x"}}]
    return Attestation.model_validate({"predicateType": kind, "signers": signers, **more})


def _v1(**definition):
    return {"buildDefinition": definition, "runDetails": {"builder": {"id": "https://builder.example"}}}


def _uris(*uris):
    return {"resolvedDependencies": [{"uri": each} for each in uris]}


@pytest.mark.parametrize(
    ("predicate", "found"),
    [
        (_v1(externalParameters={"workflow": {"repository": "https://github.com/acme/x"}}), True),
        (_v1(externalParameters={"workflow": {"repository": "https://github.com/acme/x.git"}}), True),
        (_v1(externalParameters={"workflow": {"repository": "https://evil.example"}}, **_uris(GIT)), False),
        (_v1(**_uris("git+https://github.com/acme/x@refs/heads/main")), True),
        (_v1(**_uris("git+https://github.com/acme/x")), True),
        (_v1(**_uris("pkg:npm/left-pad", "git+https://github.com/acme/x@r")), True),
        (_v1(**_uris("git+https://github.com/acme/x@r", "git+https://github.com/evil/y@r")), False),
        (_v1(**_uris("git+https://acme@github.com/acme/x@r")), False),
        (_v1(**_uris("https://github.com/acme/x")), False),
        (_v1(**_uris()), False),
        (_v1(resolvedDependencies={"uri": "git+https://github.com/acme/x"}), False),
        (_v1(resolvedDependencies=[None, 3, GIT, {"uri": [GIT]}]), False),
        (_v1(externalParameters=[]), False),
        ({"invocation": {"configSource": {"uri": "git+https://github.com/acme/x@r"}}}, False),
        (None, False),
        ("https://github.com/acme/x", False),
    ],
)  # fmt: skip
def test_a_source_is_where_the_format_has_it(predicate, found):
    """Where it does not tell which of several repositories it was built from, all have to be meant."""
    why = why_not(_asked(V1, sourceRepository="https://github.com/acme/*"), _claim(V1, predicate))
    assert (why is None) is found


@pytest.mark.parametrize(
    "predicate",
    [None, [], {}, {"runDetails": {"builder": {"id": 3}}}, {"builder": {"id": "https://builder.example"}}],
)
def test_a_builder_that_is_not_named_is_none(predicate):
    """Nor one that stands where the other version has it."""
    why = why_not(_asked(V1, builder="**"), _claim(V1, predicate))
    assert "nobody who is named" in why
    assert why_not(_asked(V02, builder="https://builder.example"), _claim(V02, _v1())) is not None
