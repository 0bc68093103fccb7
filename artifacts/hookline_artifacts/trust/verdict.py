"""The verdict: whether evidence proves what is required. Pure, so that whoever runs a module can ask again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import SignatureError
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.trust import blobs, cosign, ed25519
from hookline_artifacts.trust.patterns import matches, matches_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hookline_artifacts.trust.evidence import Evidence, Signature
    from hookline_artifacts.trust.keys import PublicKey
    from hookline_artifacts.trust.requirement import Authority, Requirement

_MAX_HASHED: Final = 1 << 30
"""Bytes of a module that are hashed for signatures over them: 16 times those of the largest, in a second."""


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
        self._bytes_left = _MAX_HASHED
        self._module: bytes | None = None

    def proof(self, authority: Authority) -> Proof | None:
        """A signature of the artifact by a signer; None where there is none that counts."""
        if not self._counts(authority):
            return None
        for signature in self._evidence.signatures:
            proof = None
            if authority.kind == "key":
                proof = self._by_key(authority, signature)
            elif authority.kind == "ed25519" and signature.form == "ed25519":
                proof = self._by_ed25519(authority, signature)
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
        blob = blobs.message_signature(signature.payload) if signature.form == "bundle" else None
        if blob is not None:
            return self._by_blob(authority, signature, blob)
        for key in authority.keys:
            try:
                claim = cosign.claim_of(signature, key)
            except cosign.NotAClaimError:
                return None
            if claim is not None and self._is_meant(authority, claim):
                return Proof(signer=authority.label, key=key.id, signature=signature)
        return None

    def _by_ed25519(self, authority: Authority, signature: Signature) -> Proof | None:
        if not signature.signature:
            self._why = self._why or "what is there as its signature is not 64 bytes in base64"
            return None
        module, manifest = self._subject.module, signature.payload or None
        for key in authority.keys:
            if ed25519.verify(key, signature.signature, module_sha256=module, manifest=manifest):
                return Proof(signer=authority.label, key=key.id, signature=signature)
        for key in authority.keys:
            if self._is_legacy(key, signature.signature):
                if authority.legacy:
                    return Proof(signer=authority.label, key=key.id, signature=signature)
                self._why = (
                    f"the signature by {authority.label} is over the module alone, as HeliosDB's tool makes it, and "
                    "says nothing of the manifest; sign it with Hookline, or set ed25519.legacy"
                )
                return None
        return None

    def _by_blob(self, authority: Authority, signature: Signature, blob: bytes) -> Proof | None:
        """By a signature over the file that was fetched."""
        subject = self._subject
        is_module = f"sha256:{subject.module}" in subject.digests
        for key in authority.keys:
            if blobs.is_signed(key, blob, subject.digests, self._bytes if is_module else bytes):
                return Proof(signer=authority.label, key=key.id, signature=signature)
            if blobs.needs_file(key) and not is_module:
                self._why = (
                    f"what {authority.label} signs with a key of this kind can be verified of a bare module only"
                )
        self._why = self._why or f"the signature is of another file, or not by {authority.label}"
        return None

    def _is_legacy(self, key: PublicKey, signature: bytes) -> bool:
        """Whether a signature is one over the module's bytes by this key."""
        module = self._bytes()
        return bool(module) and ed25519.verify_legacy(key, signature, module=module)

    def _bytes(self) -> bytes:
        """The module's bytes, for one more key and signature; none where they cannot be had or were tried enough."""
        if self._module is None:
            self._module = self._read()
        self._bytes_left -= len(self._module)
        if self._bytes_left >= 0:
            return self._module
        self._why = "there are more keys and signatures than can be tried on a module of its size"
        return b""

    def _read(self) -> bytes:
        """The module's bytes; none where they are not what they were."""
        try:
            found = self._subject.read() if self._subject.read is not None else b""
        except OSError as error:
            self._why = f"the module's file cannot be read: {error.strerror}"
            return b""
        if hashlib.sha256(found).hexdigest() == self._subject.module:
            return found
        self._why = "the module's file is not what it was"
        return b""

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
