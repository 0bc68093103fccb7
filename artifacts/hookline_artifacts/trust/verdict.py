"""The verdict: whether evidence proves what is required. Pure, so that whoever runs a module can ask again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hookline_artifacts.errors import SignatureError
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.trust import cosign
from hookline_artifacts.trust.patterns import matches, matches_any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hookline_artifacts.trust.evidence import Evidence, Signature
    from hookline_artifacts.trust.requirement import Authority, Requirement


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is to be signed, and for whom."""

    repository: str
    """``registry/repository`` as the resource names it; empty for a source that is none."""
    plugin: str
    digests: frozenset[str]
    """``sha256:…`` of each manifest from what was resolved to the one that names the module, or of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """One signature that counts."""

    signer: str
    """As ``Authority.label``."""
    key: str | None = None
    """``PublicKey.id``; None for a keyless one."""
    identity: str = ""
    """The identity that signed, where it is keyless."""
    log_index: int | None = None
    time: str | None = None
    """RFC 3339."""
    signature: Signature


def subject_of(evidence: Evidence, *, repository: str, plugin: str) -> Subject:
    """What evidence is about: the manifests that lead, each by the digest that the one before names, to a module.

    Raises VerifyError where they do not.
    """
    chain: list[str] = []
    current = evidence.digest
    while current in evidence.documents and len(chain) < len(evidence.documents):
        chain.append(current)
        manifest = read_manifest(evidence.documents[current])
        if manifest.entries is None:
            break
        current = choose(manifest.entries).digest
    return Subject(repository=repository, plugin=plugin, digests=frozenset(chain or [evidence.digest]))


def judge(requirement: Requirement, evidence: Evidence, subject: Subject, *, whose: str) -> tuple[Proof, ...]:
    """The signatures by which evidence meets a requirement. Raises SignatureError, which names ``whose`` it is."""
    court = _Court(requirement, evidence, subject)
    proofs: list[Proof] = []
    for authority in requirement.all_of:
        proof = court.proof(authority)
        if proof is None:
            raise court.error(whose, f"it is not signed by {authority.label}, who is in allOf")
        proofs.append(proof)
    if requirement.any_of:
        found = [proof for each in requirement.any_of if (proof := court.proof(each)) is not None]
        different = {proof.key or proof.identity: proof for proof in found}
        if len(different) < requirement.minimum:
            wanted = " or ".join(each.label for each in requirement.any_of[:4])
            what = f"it is not signed by {wanted}"
            if found:
                what = f"it is signed by {len(different)} of those in anyOf, and {requirement.minimum} are needed"
            raise court.error(whose, what)
        proofs += different.values()
    return tuple(proofs)


class _Court:
    """One evidence, held against the signers of one requirement."""

    def __init__(self, requirement: Requirement, evidence: Evidence, subject: Subject) -> None:
        self._requirement = requirement
        self._evidence = evidence
        self._subject = subject
        self._why = ""
        """What was wrong with the signature that came nearest."""

    def proof(self, authority: Authority) -> Proof | None:
        """A signature of the artifact by a signer; None where there is none that counts."""
        if not self._counts(authority):
            return None
        for signature in self._evidence.signatures:
            proof = self._by_key(authority, signature) if authority.kind == "key" else None
            if proof is not None:
                return proof
        return None

    def error(self, whose: str, what: str) -> SignatureError:
        """Why evidence does not do."""
        number = len(self._evidence.signatures)
        has = "it has no signature" if not number else self._why or f"none of its {number} signatures is by them"
        return SignatureError(f"{whose}: {what}: {has}; sign {self._evidence.digest} with one of these keys")

    def _counts(self, authority: Authority) -> bool:
        subject = self._subject
        if authority.repositories and not matches_any(authority.repositories, subject.repository):
            self._why = f"{authority.label} may not sign for {subject.repository or 'a source without a repository'}"
            return False
        if authority.plugins and not any(matches(each, subject.plugin) for each in authority.plugins):
            self._why = f"{authority.label} may not sign for a plugin named '{subject.plugin}'"
            return False
        return True

    def _by_key(self, authority: Authority, signature: Signature) -> Proof | None:
        for key in authority.keys:
            try:
                claim = cosign.claim_of(signature, key)
            except cosign.NotAClaimError:
                return None
            if claim is not None and self._is_meant(authority, claim):
                return Proof(signer=authority.label, key=key.id, signature=signature)
        return None

    def _is_meant(self, authority: Authority, claim: cosign.Claim) -> bool:
        """Whether what was signed is this artifact, under this name."""
        if claim.predicate_type not in {"", cosign.SIGN_PREDICATE}:
            return False
        if not claim.digests & self._subject.digests:
            self._why = "the signature is of another digest"
            return False
        known = {"", *_names(self._subject.repository)}
        if claim.repository not in known and not matches_any(authority.signed_as, claim.repository):
            self._why = f"the signature is for the repository {claim.repository}, and not for this one"
            return False
        return True


def _names(repository: str) -> Iterator[str]:
    """How cosign may write a repository: Docker Hub's has two hosts."""
    yield repository
    if repository.startswith("docker.io/"):
        yield f"index.{repository}"
