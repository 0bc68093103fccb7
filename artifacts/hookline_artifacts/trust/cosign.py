"""cosign's signatures with a key: simple signing, Sigstore's bundle, and a DSSE envelope by itself.

Of what a signature says, only that counts which it covers, and only once it is known which key has said it.

Formats: https://github.com/containers/image/blob/main/docs/containers-signature.5.md (simple signing),
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, https://github.com/in-toto/attestation (statements),
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.reference import DIGEST
from hookline_artifacts.trust import provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hookline_artifacts.trust.evidence import Signature
    from hookline_artifacts.trust.keys import PublicKey
    from hookline_artifacts.trust.provenance import Provenance

SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""What cosign 3 states where it just signs. No other statement is a signature: who may attest need not be who may
sign."""
SIMPLE_TYPE: Final = "cosign container image signature"
IN_TOTO: Final = "application/vnd.in-toto+json"
"""The payload type of envelopes around statements."""
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
_MAX_SUBJECTS: Final = 64
_MAX_SIGNATURES: Final = 8
"""Of one envelope. Several parties may sign the same statement."""
MAX_TRIED: Final = 2048
"""Pairs of a signature and a key of one requirement: 0.2 s with P-256, 4 s with Ed25519ph. An envelope may have
several signatures, and each counts."""
_MAX_HINT: Final = 128
_HASH_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What somebody has signed."""

    digests: frozenset[str]
    """``sha256:…`` of what it is about."""
    repository: str = ""
    """The repository that it names; empty where it names none."""
    predicate_type: str = ""
    """Of a statement; empty for a bare signature."""
    provenance: Provenance | None = None
    """The part of a predicate that requirements ask about; None unless it is provenance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A signature, read. Whose it is, nobody knows yet."""

    claim: Claim
    message: bytes = field(repr=False)
    """The bytes that are signed."""
    signatures: tuple[bytes, ...] = field(repr=False)
    hint: str = ""
    """Which key it is by, as it says itself: like ``PublicKey.id``, or anything. For people."""

    def by(self, key: PublicKey) -> bool:
        """Whether a key has signed it."""
        return any(key.has_signed(each, self.message) for each in self.signatures)


class NotAClaimError(Exception):
    """It is not a signature in the form that it is said to be."""


class Signatures:
    """The signatures that were found of one artifact: each is read once, and held once against each key.

    For one requirement, only so many pairs are tried. Those that say that they are about the artifact come first:
    whoever may write to a repository may put hundreds beside them.
    """

    def __init__(self, found: Iterable[Signature], digests: frozenset[str]) -> None:
        read: list[tuple[Signature, Signed]] = []
        self.malformed = 0
        for each in found:
            try:
                read.append((each, _read(each)))
            except NotAClaimError:
                self.malformed += 1
        self._read = sorted(read, key=lambda pair: not pair[1].claim.digests & digests)
        self._about = sum(bool(signed.claim.digests & digests) for _, signed in read)
        self._known: dict[tuple[int, str], bool] = {}
        self._tried = 0

    def begin(self) -> None:
        """Count anew: another requirement follows. What is known stays known."""
        self._tried = 0

    def __len__(self) -> int:
        return len(self._read)

    @property
    def exhausted(self) -> bool:
        """Whether there were more than can be tried."""
        return self._tried >= MAX_TRIED

    @property
    def hints(self) -> list[str]:
        """Which keys they are by, as those say that are about the artifact. Nothing of it is proven."""
        return sorted({signed.hint for _, signed in self._read[: self._about] if signed.hint})

    @property
    def about(self) -> int:
        """How many say that they are about the artifact."""
        return self._about

    def by(self, key: PublicKey) -> Iterator[tuple[Signature, Claim]]:
        """Those by a key, and what they say."""
        for index, (signature, signed) in enumerate(self._read):
            asked = (index, key.id)
            if asked not in self._known:
                if self.exhausted:
                    return
                self._tried += max(len(signed.signatures), 1)
                self._known[asked] = signed.by(key)
            if self._known[asked]:
                yield signature, signed.claim


def claim_of(signature: Signature, key: PublicKey) -> Claim | None:
    """What this key has signed there; None where the signature is not by it. Raises NotAClaimError."""
    signed = _read(signature)
    return signed.claim if signed.by(key) else None


def _read(signature: Signature) -> Signed:
    """A signature of any of cosign's forms. Raises NotAClaimError."""
    if signature.form == "simple":
        claim = simple(signature.payload)
        return Signed(claim=claim, message=signature.payload, signatures=(signature.signature,))
    if signature.form == "dsse":
        return _envelope(_json(signature.payload), "")
    if signature.form == "bundle":
        data = _json(signature.payload)
        return _envelope(_at(data, "dsseEnvelope"), _hint(_at(data, "verificationMaterial", "publicKey", "hint")))
    raise NotAClaimError


def simple(payload: bytes) -> Claim:
    """What a payload of simple signing says. Raises NotAClaimError."""
    critical = _at(_json(payload), "critical")
    digest, name = _at(critical, "image", "docker-manifest-digest"), _at(critical, "identity", "docker-reference")
    if _at(critical, "type") != SIMPLE_TYPE or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise NotAClaimError
    if name is not None and not isinstance(name, str):
        raise NotAClaimError  # it names something, and this is no reason to let it stand for every repository
    return Claim(digests=frozenset({digest}), repository=name or "")


def _envelope(envelope: Any, hint: str) -> Signed:
    """A DSSE envelope. What stands beside its payload is not signed and says nothing. Raises NotAClaimError."""
    kind, payload = _at(envelope, "payloadType"), _decoded(_at(envelope, "payload"))
    found = _at(envelope, "signatures")
    if kind != IN_TOTO or not isinstance(found, list):
        raise NotAClaimError
    signers = found[:_MAX_SIGNATURES]
    raw = (_raw(_at(each, "sig")) for each in signers)
    signatures = tuple(each for each in raw if each is not None)
    named = [hint, *(_hint(_at(each, "keyid")) for each in signers), ""]
    return Signed(
        claim=statement(payload),
        message=pae(kind, payload),
        signatures=signatures,
        hint=next((each for each in named if each), ""),
    )


def statement(payload: bytes) -> Claim:
    """What an in-toto statement says. Raises NotAClaimError."""
    data = _json(payload)
    form, subjects, kind = _at(data, "_type"), _at(data, "subject"), _at(data, "predicateType")
    if not isinstance(form, str) or form not in _STATEMENTS or not isinstance(subjects, list):
        raise NotAClaimError
    if not isinstance(kind, str) or not kind:
        raise NotAClaimError  # without a type it would pass for a bare signature
    digests = (_at(each, "digest", "sha256") for each in subjects[:_MAX_SUBJECTS])
    return Claim(
        digests=frozenset(f"sha256:{each}" for each in digests if isinstance(each, str)),
        predicate_type=kind,
        provenance=provenance.read(kind, _at(data, "predicate")),
    )


def pae(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature covers: "pre-authentication encoding"."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _hint(text: Any) -> str:
    """What names a key: in cosign's words its hash in base64, which is our ``PublicKey.id``, else whatever it is."""
    if not isinstance(text, str) or not text or len(text) > _MAX_HINT:
        return ""
    raw = _raw(text)
    return f"sha256:{raw.hex()}" if raw is not None and len(raw) == _HASH_BYTES else text


def _json(document: bytes) -> Any:
    try:
        return parse_foreign(document)
    except ValueError:
        raise NotAClaimError from None


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _decoded(text: Any) -> bytes:
    raw = _raw(text)
    if raw is None:
        raise NotAClaimError
    return raw


def _raw(text: Any) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None
