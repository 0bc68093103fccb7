"""What an attestation has to state: where something was built, and from what (SLSA provenance).

Only what the statement itself says counts, which its signature covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_artifacts.trust.cosign import SIGN_PREDICATE
from hookline_artifacts.trust.patterns import matches_path
from hookline_artifacts.trust.provenance import MAX_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.trust import Attestation
    from hookline_artifacts.trust.cosign import Claim
    from hookline_artifacts.trust.provenance import Provenance

_SHOWN: Final = 100


def why_not(asked: Attestation, claim: Claim, fits: Callable[[str, str], bool] = matches_path) -> str | None:
    """Why a statement is not what is asked for; None where it is. Whose it is, and of which artifact, is not asked.

    ``fits`` tells whether a path is of a pattern.
    """
    if claim.predicate_type != asked.predicate_type or claim.predicate_type == SIGN_PREDICATE:
        what = f"states {claim.predicate_type:.{_SHOWN}}" if claim.predicate_type else "is a bare signature"
        return f"what they have signed {what}, and attests no {asked.predicate_type:.{_SHOWN}}"
    if asked.builder is None and asked.source_repository is None:
        return None
    found = claim.provenance
    if found is None:
        return "builder and sourceRepository are only in SLSA provenance (https://slsa.dev/provenance/v1 or v0.2)"
    if asked.builder is not None and not (found.builder and fits(asked.builder, found.builder)):
        builder = found.builder[:_SHOWN] or "nobody who is named"
        return f"it was built by {builder}, and not by {asked.builder:.{_SHOWN}}"
    return _why_not_from(asked.source_repository, found, fits) if asked.source_repository is not None else None


def _why_not_from(pattern: str, found: Provenance, fits: Callable[[str, str], bool]) -> str | None:
    for each in sorted(found.sources):
        if not fits(pattern, each):
            return f"its source is {each:.{_SHOWN}}, and not {pattern:.{_SHOWN}}"
    if found.has_more:
        return f"its provenance names more than {MAX_SOURCES} source repositories, or one that is too long"
    return None if found.sources else "its provenance names no source repository"
