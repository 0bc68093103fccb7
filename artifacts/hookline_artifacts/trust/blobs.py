"""Sigstore's bundle with a signature over a file: what ``cosign sign-blob --bundle`` writes.

With ECDSA on P-256 and with RSA the file's SHA-256 is enough to verify one; what a key on P-384 or P-521 or an Ed25519
key has signed is verified over the file itself.

Format: https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto, ``message_signature``.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from hookline_artifacts.limits import parse_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hookline_artifacts.trust.keys import PublicKey


def message_signature(document: bytes) -> bytes | None:
    """The signature in a bundle, where it is one over a file; None where it is anything else."""
    try:
        data = parse_foreign(document)
        return base64.b64decode(data["messageSignature"]["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


def is_signed(key: PublicKey, signature: bytes, digests: Iterable[str], read: Callable[[], bytes]) -> bool:
    """Whether a key has signed a file with one of these digests (``sha256:…``).

    ``read`` gives the file; no bytes where there is none. It is asked only for a key that needs it.
    """
    if any(_is_of(key.key, signature, bytes.fromhex(each.removeprefix("sha256:"))) for each in digests):
        return True
    file = read() if needs_file(key) else b""
    return bool(file) and key.has_signed(signature, file)


def needs_file(key: PublicKey) -> bool:
    """Whether the file's SHA-256 is not enough for this key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - only where a signature is asked for

    by_digest = isinstance(key.key, ec.EllipticCurvePublicKey) and key.key.curve.name == "secp256r1"
    return not by_digest and not isinstance(key.key, rsa.RSAPublicKey)


def _is_of(key: Any, signature: bytes, sha256: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: PLC0415

    kind = utils.Prehashed(hashes.SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, sha256, ec.ECDSA(kind))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, sha256, padding.PKCS1v15(), kind)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True
