"""What a trial has found, as it is kept with a revision and shown in a status. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.status import SignatureStatus
from hookline_artifacts.errors import IncreasedError, PolicyError, SelfTestError, SignatureError
from hookline_operator.status.conditions import cut
from hookline_operator.status.reasons import PERMISSIONS_INCREASED, POLICY_FORBIDS, SELF_TEST_FAILED, SIGNATURE_FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_artifacts.errors import LoadError
    from hookline_artifacts.trust.policy import Policy
    from hookline_artifacts.trust.trial import Trust

_MAX_SIGNATURES: Final = 8
_MAX_SIGNER: Final = 512
_MAX_ASKED_BY: Final = 300
_MAX_WHY: Final = 300


def reason_of(error: LoadError) -> str:
    """The reason of the conditions, where it says more than the cause; empty where it does not."""
    reasons: dict[type[LoadError], str] = {
        SignatureError: SIGNATURE_FAILED,
        PolicyError: POLICY_FORBIDS,
        SelfTestError: SELF_TEST_FAILED,
        IncreasedError: PERMISSIONS_INCREASED,
    }
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), "")


def signatures(trust: Trust) -> list[SignatureStatus]:
    """What was verified: each signature once, with everybody who asked for it."""
    asked: dict[tuple[str, str | None, int | None, str | None], list[str]] = {}
    for whose, proof in trust.proofs:
        signer = proof.signer if proof.identity in {"", proof.signer} else f"{proof.signer} ({proof.identity})"
        what = f"{proof.predicate_type} by {signer}" if proof.predicate_type else signer
        asked.setdefault((what, proof.key, proof.log_index, proof.time), []).append(whose)
    return [
        SignatureStatus(
            signer=signer[:_MAX_SIGNER],
            key=key,
            asked_by=cut(", ".join(whose), _MAX_ASKED_BY),
            log_index=log_index,
            time=time,
        )
        for (signer, key, log_index, time), whose in list(asked.items())[:_MAX_SIGNATURES]
    ]


def unmet(policies: Sequence[Policy], trust: Trust) -> dict[str, str]:
    """By fingerprint, why it does not meet what policies in Audit ask for."""
    found = {}
    for each in policies:
        requirement = each.requirement
        if requirement is None or requirement.fingerprint in trust.met:
            continue
        why = (why for name, why in trust.audits if name == each.name and why.startswith(each.label))
        found[requirement.fingerprint] = next(why, "it is not signed as it asks")[:_MAX_WHY]
    return found
