"""Evidence: what was signed of an artifact, and the signatures, as one file that travels with the module.

It says nothing by itself: ``verdict`` holds it against what is asked for, wherever the module is run. Written as JSON,
with bytes in base64, and read with every bound that a stranger's document has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import orjson

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.reference import DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EVIDENCE: Final = 512 * 1024
"""Bytes of it as JSON. A keyless signature has 8 KiB, and the provenance of a large build 100."""
MAX_SIGNATURES: Final = 64
MAX_DOCUMENTS: Final = 8
"""Manifests between what was signed and the module."""
_VERSION: Final = 1

Form = Literal["simple", "bundle", "dsse", "ed25519"]
"""simple: cosign's simple signing. bundle: Sigstore's bundle, with a DSSE envelope or a signature over the bytes.
dsse: an envelope by itself, as cosign 2 attests. ed25519: HeliosDB's detached signature."""
_FORMS: Final = frozenset(get_args(Form))


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """One signature that was found, with everything that it is verified by."""

    form: Form
    payload: bytes = field(repr=False)
    """simple: what was signed. bundle and dsse: the bundle's or the envelope's JSON. ed25519: the manifest beside the
    module; empty for none."""
    signature: bytes = field(default=b"", repr=False)
    """Raw bytes; empty for a bundle and an envelope, which have their own."""
    annotations: dict[str, str] = field(default_factory=dict, repr=False)
    """simple and dsse: those of its layer, with a certificate and a log entry where it is keyless."""


BLOB: Final = "blob"
"""``Signing.payload_type`` of a signature over a file that is not there: the payload is its SHA-256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signing:
    """A signature without a key that was verified: who has signed what, and when."""

    issuer: str
    subject: str
    """The one name of the certificate."""
    repository: str
    """Its source repository; empty where it names none."""
    log_index: int
    time: str
    """RFC 3339, UTC: the earliest that was proven."""
    payload_type: str
    """Of the envelope; empty for simple signing, or ``BLOB``."""
    payload: bytes = field(repr=False)
    """What is signed, as it was read where it was verified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """An artifact's signatures, and the manifests that lead from what was signed to the module."""

    digest: str
    """What was resolved: of the first manifest, or of the file."""
    documents: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Manifests by their digests, beginning with the one of ``digest``."""
    signatures: tuple[Signature, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out where they were collected, for people. It does not travel."""

    def only(self, used: Iterable[Signature]) -> Evidence:
        """The same with these signatures alone."""
        kept = list(used)
        return Evidence(
            digest=self.digest,
            documents=self.documents,
            signatures=tuple(each for each in self.signatures if each in kept),
        )

    def write(self) -> bytes:
        """As JSON."""
        return orjson.dumps(
            {
                "version": _VERSION,
                "digest": self.digest,
                "documents": [_text(document) for document in self.documents.values()],
                "signatures": [
                    {
                        "form": each.form,
                        "payload": _text(each.payload),
                        "signature": _text(each.signature),
                        "annotations": each.annotations,
                    }
                    for each in self.signatures
                ],
            }
        )

    @classmethod
    def read(cls, document: bytes) -> Evidence:
        """From JSON. Raises VerifyError."""
        try:
            if len(document) > MAX_EVIDENCE:
                raise ValueError(f"it has more than {MAX_EVIDENCE} bytes")  # noqa: TRY301 - all are told alike
            data = parse_foreign(document)
            if data["version"] != _VERSION or not DIGEST.fullmatch(data["digest"]):
                raise ValueError("it is of another version of Hookline")  # noqa: TRY301
            documents = [_bytes(each) for each in data["documents"][:MAX_DOCUMENTS]]
            return cls(
                digest=data["digest"],
                documents={f"sha256:{hashlib.sha256(each).hexdigest()}": each for each in documents},
                signatures=tuple(_signature(each) for each in data["signatures"][:MAX_SIGNATURES]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            why = str(error) if isinstance(error, ValueError) else "it is not what it should be"
            raise VerifyError(f"the file with the artifact's signatures cannot be used: {why:.120}") from None


def _signature(data: Any) -> Signature:
    if data["form"] not in _FORMS:
        raise ValueError("it has a signature of an unknown form")
    return Signature(
        form=data["form"],
        payload=_bytes(data["payload"]),
        signature=_bytes(data["signature"]),
        annotations={str(key): str(value) for key, value in data["annotations"].items()},
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
