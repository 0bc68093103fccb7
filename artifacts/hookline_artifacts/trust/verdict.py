"""The verdict: whether evidence proves what is required. Pure, so that whoever runs a module can ask again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hookline_artifacts.errors import SignatureError
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.trust import cosign
from hookline_artifacts.trust.attestations import why_not
from hookline_artifacts.trust.direct import Direct, Found
from hookline_artifacts.trust.keyless import Signings
from hookline_artifacts.trust.patterns import Comparison, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hookline_api.trust import Attestation
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
    module: str = ""
    """The SHA-256 of the module's bytes, in hexadecimal."""
    read: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)
    """Reads these bytes, for a signature that covers nothing else. May raise OSError; what comes is hashed again."""


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
    predicate_type: str = ""
    """Of an attestation; empty for a signature."""
    module_alone: bool = False
    """Whether nothing is signed of what stands around the module, as HeliosDB's tool signs."""
    signature: Signature

    @property
    def covers_module(self) -> bool:
        """Whether the module's own bytes are signed, and not only what leads to them."""
        return self.signature.form == "ed25519"


def subject_of(
    evidence: Evidence, *, repository: str, plugin: str, module: str = "", read: Callable[[], bytes] | None = None
) -> Subject:
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
    return Subject(
        repository=repository,
        plugin=plugin,
        digests=frozenset(chain or [evidence.digest]),
        module=module,
        read=read,
    )


class Reading:
    """The signatures of one evidence, read, and what is known of them: for every requirement that it is held against.

    There may be megabytes of them, and twenty policies. For one thread at a time.
    """

    def __init__(self, evidence: Evidence, subject: Subject) -> None:
        """``subject`` is of that evidence; of what it is, only the digests matter here."""
        self.found = Found(evidence.signatures)
        self.claims = cosign.Signatures(self.found.claims, subject.digests)
        self._all = evidence.signatures
        self._signings: dict[bytes | None, Signings] = {}

    def signings(self, root: bytes | None) -> Signings:
        """Those without a key, as a trust root has them."""
        return self._signings.setdefault(root, Signings(self._all, root))


def judge(
    requirement: Requirement, evidence: Evidence, subject: Subject, *, whose: str, reading: Reading | None = None
) -> tuple[Proof, ...]:
    """The signatures by which evidence meets a requirement. Raises SignatureError, which names ``whose`` it is.

    ``reading`` is of that evidence, where it is held against others, too.
    """
    court = _Court(requirement, evidence, subject, reading or Reading(evidence, subject))
    proofs: list[Proof] = []
    for authority in requirement.all_of:
        proof = court.proof(authority)
        if proof is None:
            raise court.error(whose, f"it is not signed by {authority.label:.32}, who is in allOf")
        proofs.append(proof)
    if requirement.any_of:
        found = [proof for each in requirement.any_of if (proof := court.proof(each)) is not None]
        different = {proof.key or proof.identity: proof for proof in found}
        if len(different) < requirement.minimum:
            wanted = " or ".join(f"{each.label:.32}" for each in requirement.any_of[:2])
            more = len(requirement.any_of) - 2
            what = f"it is not signed by {wanted}{f' or {more} others' if more > 0 else ''}"
            if found:
                what = f"it is signed by {len(different)} of those in anyOf, and {requirement.minimum} are needed"
            raise court.error(whose, what)
        proofs += different.values()
    for statement in requirement.statements:
        court.forget()
        attested = next((proof for each in statement.signers if (proof := court.proof(each, statement.asked))), None)
        if attested is None:
            by = " or ".join(f"{each.label:.48}" for each in statement.signers[:2])
            raise court.error(whose, f"{statement.asked.predicate_type:.80} is not attested by {by}")
        proofs.append(attested)
    return tuple(proofs)


class _Court:
    """One evidence, held against the signers of one requirement."""

    def __init__(self, requirement: Requirement, evidence: Evidence, subject: Subject, reading: Reading) -> None:
        self._requirement = requirement
        self._evidence = evidence
        self._subject = subject
        self._direct = Direct(reading.found, digests=subject.digests, module=subject.module, read=subject.read)
        self._signatures = reading.claims
        self._signatures.begin()
        self._signings = reading.signings(requirement.trust_root)
        self._compared = Comparison()
        self._why = (0, "", "")
        """Of the signature that came nearest: how near, what was wrong with it, and what to do."""

    def proof(self, authority: Authority, asked: Attestation | None = None) -> Proof | None:
        """A signature of the artifact by a signer, or an attestation; None where there is none that counts."""
        if not self._counts(authority):
            return None
        if authority.kind == "key":
            return self._by_key(authority, asked) or self._by_bytes(authority, asked)
        if authority.kind == "ed25519":
            return self._by_bytes(authority, asked)
        return self._by_identity(authority, asked) if authority.identity is not None else None

    def forget(self) -> None:
        """Begin with another question: what was wrong with the answers to the last one is no reason any more."""
        self._why = (0, "", "")

    def error(self, whose: str, what: str) -> SignatureError:
        """Why evidence does not do."""
        _, has, todo = max(self._why, (1, *self._nothing()), key=lambda each: each[0])
        if self._compared.exhausted:
            has, todo = "its signatures and the patterns are more than are compared", "remove old ones"
        return SignatureError(f"{whose:.60}: {what}: {has}; {todo}")

    def _nothing(self) -> tuple[str, str]:
        """What there is instead of a signature by the right key, and what to do."""
        signatures = self._signatures
        todo = f"sign {self._evidence.digest}, and push that beside it"
        others = len(signatures) - signatures.about
        if signatures.about:
            keys = ", ".join(f"{each:.19}" for each in signatures.hints[:2])
            has = f"{_of(signatures.about)} by other keys{f' ({keys})' if keys else ''}"
        elif others:
            has = f"{_of(others)} of another digest"
        else:
            has = f"{_of(signatures.malformed)} malformed" if signatures.malformed else "it has no signature"
        notes = [f"of them and the keys {cosign.MAX_TRIED} pairs are tried"] if signatures.exhausted else []
        return " ".join([has, *(f"({each})" for each in notes or self._evidence.notes)]), todo

    def _wrong(self, near: int, why: str, todo: str) -> bool:
        self._why = max(self._why, (near, why, todo), key=lambda each: each[0])
        return False

    def _counts(self, authority: Authority) -> bool:
        subject, label = self._subject, f"{authority.label:.32}"
        if authority.repositories and not self._compared.fits_any(authority.repositories, subject.repository):
            place = f"{subject.repository:.80}" or "a source without a repository"
            return self._wrong(5, f"{label} may not sign for {place}", "see to repositories of that signer")
        if authority.plugins and not any(matches(each, subject.plugin) for each in authority.plugins):
            plugin = f"a plugin named '{subject.plugin:.80}'"
            return self._wrong(5, f"{label} may not sign for {plugin}", "see to plugins of that signer")
        return True

    def _by_key(self, authority: Authority, asked: Attestation | None) -> Proof | None:
        kind = asked.predicate_type if asked is not None else ""
        for key in authority.keys:
            for signature, claim in self._signatures.by(key):
                if self._is_meant(authority, claim, asked):
                    return Proof(signer=authority.label, key=key.id, predicate_type=kind, signature=signature)
        return None

    def _by_bytes(self, authority: Authority, asked: Attestation | None) -> Proof | None:
        """By a signature over the bytes that were fetched, or over the module: such a one attests nothing."""
        if asked is not None:
            return None
        verify = self._direct.detached if authority.kind == "ed25519" else self._direct.blob
        found = verify(authority)
        if found is not None:
            signature, key = found
            alone = authority.legacy and not self._direct.covers_manifest(signature, key)
            return Proof(signer=authority.label, key=key.id, module_alone=alone, signature=signature)
        self._wrong(*self._direct.why)
        return None

    def _by_identity(self, authority: Authority, asked: Attestation | None) -> Proof | None:
        assert authority.identity is not None  # noqa: S101 - whoever calls has looked
        for signature, signing, claim in self._signings.by(authority.identity, self._compared.fits):
            if self._is_meant(authority, claim, asked):
                return Proof(
                    signer=authority.label,
                    identity=signing.subject,
                    log_index=signing.log_index,
                    time=signing.time,
                    predicate_type=asked.predicate_type if asked is not None else "",
                    signature=signature,
                )
        if self._signings.why:
            self._wrong(2, self._signings.why, f"have {authority.label:.80} sign {self._evidence.digest}")
        return None

    def _is_meant(self, authority: Authority, claim: cosign.Claim, asked: Attestation | None) -> bool:
        """Whether what was signed is this artifact, under this name."""
        digest = self._evidence.digest
        if not claim.digests & self._subject.digests:
            return self._wrong(2, "what they have signed is another digest", f"have them sign {digest}")
        if asked is not None:
            why_it_is_not = why_not(asked, claim, self._compared.fits)
            return why_it_is_not is None or self._wrong(3, why_it_is_not, f"have them attest {digest}")
        if claim.predicate_type not in {"", cosign.SIGN_PREDICATE}:
            why = f"they have only attested {claim.predicate_type:.60}, and that is no signature"
            return self._wrong(3, why, f"have them sign {digest}")
        known = {"", *_names(self._subject.repository)}
        if claim.repository not in known and not self._compared.fits_any(authority.signed_as, claim.repository):
            why = f"what they have signed is for the repository {claim.repository:.80}"
            return self._wrong(4, why, "have them sign it under this name, or name that repository in signedAs")
        return True


def _of(number: int) -> str:
    return "its signature is" if number == 1 else f"its {number} signatures are"


def _names(repository: str) -> Iterator[str]:
    """How cosign may write a repository: Docker Hub's has two hosts."""
    yield repository
    if repository.startswith("docker.io/"):
        yield f"index.{repository}"
