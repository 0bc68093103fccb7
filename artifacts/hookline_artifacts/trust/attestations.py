"""What an attestation has to state: where something was built, and from what (SLSA provenance).

Only what the statement itself says counts, which its signature covers.

https://slsa.dev/spec/v1.0/provenance, https://slsa.dev/spec/v0.2/provenance
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hookline_api.trust import PROVENANCE
from hookline_artifacts.trust.cosign import SIGN_PREDICATE
from hookline_artifacts.trust.patterns import matches_path

if TYPE_CHECKING:
    from hookline_api.trust import Attestation
    from hookline_artifacts.trust.cosign import Claim

_OLD: Final = "https://slsa.dev/provenance/v0.2"
_GIT: Final = "git+"
_SHOWN: Final = 100


def why_not(asked: Attestation, claim: Claim) -> str | None:
    """Why a statement is not what is asked for; None where it is. Whose it is, and of which artifact, is not asked."""
    if claim.predicate_type != asked.predicate_type or claim.predicate_type == SIGN_PREDICATE:
        what = f"states {claim.predicate_type:.{_SHOWN}}" if claim.predicate_type else "is a bare signature"
        return f"what they have signed {what}, and attests no {asked.predicate_type:.{_SHOWN}}"
    if asked.builder is None and asked.source_repository is None:
        return None
    if PROVENANCE.fullmatch(claim.predicate_type) is None:
        return "builder and sourceRepository are only in SLSA provenance (https://slsa.dev/provenance/v1 or v0.2)"
    if asked.builder is not None:
        builder = _builder(claim)
        if not builder or not matches_path(asked.builder, builder):
            return f"it was built by {builder[:_SHOWN] or 'nobody who is named'}, and not by {asked.builder:.{_SHOWN}}"
    if asked.source_repository is not None:
        sources = _sources(claim)
        if not sources:
            return "its provenance names no source repository"
        for each in sources:
            if not matches_path(asked.source_repository, each):
                return f"its source is {each:.{_SHOWN}}, and not {asked.source_repository:.{_SHOWN}}"
    return None


def _builder(claim: Claim) -> str:
    names = ("builder", "id") if claim.predicate_type == _OLD else ("runDetails", "builder", "id")
    return _text(_at(claim.predicate, *names))


def _sources(claim: Claim) -> set[str]:
    """The repositories that it was built from; all of them where it does not tell which is the one."""
    if claim.predicate_type == _OLD:
        found = {_repository(_at(claim.predicate, "invocation", "configSource", "uri"))}
    else:
        definition = _at(claim.predicate, "buildDefinition")
        named = _text(_at(definition, "externalParameters", "workflow", "repository"))
        if named:
            return {_bare(named)}
        dependencies = _at(definition, "resolvedDependencies")
        found = {_repository(_at(each, "uri")) for each in (dependencies if isinstance(dependencies, list) else [])}
    return found - {""}


def _repository(uri: Any) -> str:
    """Of ``git+https://host/path@ref``; empty for anything else."""
    text = _text(uri)
    return _bare(text.removeprefix(_GIT).partition("@")[0]) if text.startswith(_GIT) else ""


def _bare(url: str) -> str:
    return url.removesuffix("/").removesuffix(".git")


def _text(node: Any) -> str:
    return node if isinstance(node, str) else ""


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node
