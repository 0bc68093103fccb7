"""cosign's signatures with a key: simple signing, and Sigstore's bundle.

Each function tells what a signature says, and of that only what the signature covers.

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

if TYPE_CHECKING:
    from hookline_artifacts.trust.evidence import Signature
    from hookline_artifacts.trust.keys import PublicKey

SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""What cosign 3 states where it just signs. No other statement is a signature: who may attest need not be who may
sign."""
SIMPLE_TYPE: Final = "cosign container image signature"
IN_TOTO: Final = "application/vnd.in-toto+json"
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
_MAX_SUBJECTS: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What somebody has signed."""

    digests: frozenset[str]
    """``sha256:…`` of what it is about."""
    repository: str = ""
    """The repository that it names; empty where it names none."""
    predicate_type: str = ""
    """Of a statement; empty for a bare signature."""
    predicate: Any = field(default=None, repr=False)


class NotAClaimError(Exception):
    """It is not a signature in the form that it is said to be."""


def claim_of(signature: Signature, key: PublicKey) -> Claim | None:
    """What this key has signed there; None where the signature is not by it. Raises NotAClaimError."""
    if signature.form == "simple":
        claim = simple(signature.payload)
        return claim if key.has_signed(signature.signature, signature.payload) else None
    message, signatures, claim = bundle(signature.payload)
    return claim if any(key.has_signed(each, message) for each in signatures) else None


def simple(payload: bytes) -> Claim:
    """What a payload of simple signing says. Raises NotAClaimError."""
    critical = _at(_json(payload), "critical")
    digest, name = _at(critical, "image", "docker-manifest-digest"), _at(critical, "identity", "docker-reference")
    if _at(critical, "type") != SIMPLE_TYPE or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise NotAClaimError
    return Claim(digests=frozenset({digest}), repository=name if isinstance(name, str) else "")


def bundle(document: bytes) -> tuple[bytes, list[bytes], Claim]:
    """Of a bundle with a DSSE envelope: the signed bytes, the signatures, and what they say. Raises NotAClaimError."""
    envelope = _at(_json(document), "dsseEnvelope")
    kind, payload = _at(envelope, "payloadType"), _decoded(_at(envelope, "payload"))
    if kind != IN_TOTO:
        raise NotAClaimError
    found = _at(envelope, "signatures")
    signatures = [_decoded(_at(each, "sig")) for each in (found if isinstance(found, list) else [])[:8]]
    return pae(kind, payload), signatures, statement(payload)


def statement(payload: bytes) -> Claim:
    """What an in-toto statement says. Raises NotAClaimError."""
    data = _json(payload)
    subjects, kind = _at(data, "subject"), _at(data, "predicateType")
    if _at(data, "_type") not in _STATEMENTS or not isinstance(subjects, list) or not isinstance(kind, str):
        raise NotAClaimError
    digests = (_at(each, "digest", "sha256") for each in subjects[:_MAX_SUBJECTS])
    return Claim(
        digests=frozenset(f"sha256:{each}" for each in digests if isinstance(each, str)),
        predicate_type=kind,
        predicate=_at(data, "predicate"),
    )


def pae(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature covers: "pre-authentication encoding"."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


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
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise NotAClaimError from None
