"""What cosign signed without a key, and how a test has it judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hookline_api.trust import Attestation, KeylessIdentity
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.keys import read_pem
from hookline_artifacts.trust.requirement import Authority, Requirement, Statement
from hookline_artifacts.trust.verdict import judge, subject_of

FOLDER = Path(__file__).parents[1] / "artifacts" / "trust" / "keyless_material"
ABOUT = json.loads((FOLDER / "about.json").read_text())
ROOT = (FOLDER / "trusted_root.json").read_bytes()
KEY = Authority(kind="key", label="the key", keys=(read_pem((FOLDER / "cosign.pub").read_text(), what="cosign.pub"),))
"""With which the cases were signed whose names end in ``-key``."""


def material(name):
    """The evidence of one case."""
    return Evidence.read((FOLDER / f"{name}.json").read_bytes())


def identity(*, issuer=ABOUT["issuer"], label="them", **by):
    """A signer without a key; by default the one of the material."""
    by = by or {"subject": ABOUT["subject"]}
    told = KeylessIdentity.model_validate({"issuer": issuer, **by})
    return Authority(kind="keyless", label=label, identity=told)


def asked(*any_of, root=ROOT, **more):
    """A requirement."""
    return Requirement(any_of=any_of, trust_root=root, **more)


def attested(kind, *signers, root=ROOT, **more):
    """A requirement of an attestation alone."""
    dumped = [{"keyless": {"issuer": "x", "subject": "x"}}]
    statement = Attestation.model_validate({"predicateType": kind, "signers": dumped, **more})
    return Requirement(statements=(Statement(asked=statement, signers=signers or (identity(),)),), trust_root=root)


def judged(requirement, evidence, repository=ABOUT["repository"]):
    """The proofs."""
    return judge(
        requirement, evidence, subject_of(evidence, repository=repository, plugin="guard"), whose="spec.verify"
    )


def refusal(requirement, evidence, repository=ABOUT["repository"]):
    """The sentence with which it is refused."""
    try:
        proofs = judged(requirement, evidence, repository)
    except SignatureError as error:
        return str(error)
    raise AssertionError(f"it passed: {proofs}")


def evidence_of(digest, *signatures):
    """Evidence without documents."""
    return Evidence(digest=digest, signatures=signatures)


def together(*names):
    """The signatures of several cases, as if they stood beside one artifact; all are of the same."""
    found = [material(name) for name in names]
    assert len({each.digest for each in found}) == 1
    return replace(found[0], signatures=tuple(each for one in found for each in one.signatures))
