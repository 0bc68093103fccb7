"""Public keys, of the kinds that cosign and HeliosDB sign with, and whether a signature is by one of them.

A key that proves nothing is refused: RSA below 2048 bits, an Ed25519 point of small order, a point that is not on its
curve. What cosign does is in https://github.com/sigstore/sigstore/tree/main/pkg/signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hookline_api.trust import MAX_KEY
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust import ed25519ph

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_RSA_LEAST: Final = 2048
_RSA_MOST: Final = 8192
"""Bits. Verifying takes time with the square of them."""
_EXPONENTS: Final = range(3, 2**32)
_ED25519_BYTES: Final = 32
_SMALL_ORDER: Final = frozenset({
    0, 1, 2**255 - 20,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
})  # fmt: skip
"""The y coordinates of the eight points whose order is 8 or less.
With such a key, one signature is good for every message (RFC 8032, 5.1.7, multiplies by 8)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are verified with."""

    id: str
    """``sha256:`` of its SubjectPublicKeyInfo."""
    key: Any = field(repr=False, compare=False)

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Whether a signature over a message is by this key."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only where a signature is asked for

        for verify in self._ways():
            try:
                verify(signature, message)
            except (InvalidSignature, ValueError):
                continue
            return True
        return False

    def _ways(self) -> list[Any]:
        """How signatures are made with a key of its kind."""
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415

        key = self.key
        if isinstance(key, ed25519.Ed25519PublicKey):
            # cosign signs the hash (Ed25519ph), others the message; neither is a signature of the other's kind.
            return [key.verify, lambda s, m: _verify_prehashed(key, s, m)]
        if isinstance(key, ec.EllipticCurvePublicKey):
            # cosign takes SHA-256 for every curve, its bundles (version 3) the hash of the curve's own size.
            kinds = dict.fromkeys((type(_hash_of(key.curve)), hashes.SHA256))
            return [lambda s, m, kind=kind: key.verify(s, m, ec.ECDSA(kind())) for kind in kinds]
        return [lambda s, m: key.verify(s, m, padding.PKCS1v15(), hashes.SHA256())]


def _verify_prehashed(key: Any, signature: bytes, message: bytes) -> None:
    if not ed25519ph.verifies(key.public_bytes_raw(), signature, message):
        raise ValueError


def _hash_of(curve: ec.EllipticCurve) -> Any:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    kinds: dict[str, Any] = {"secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}
    return kinds[curve.name]()


def read_pem(text: str, *, what: str) -> PublicKey:
    """A public key in PEM. Raises ConfigError, which says of ``what``."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if len(text) > MAX_KEY:
        raise ConfigError(f"{what} has more than {MAX_KEY} characters; give one public key in PEM")
    if "PRIVATE KEY" in text:
        raise ConfigError(f"{what} is a private key: take it out, make a new pair, and give the public one")
    if "-----BEGIN CERTIFICATE" in text:
        raise ConfigError(
            f"{what} is a certificate, whose issuer and time nobody would check here; give the public key alone: "
            "openssl x509 -pubkey -noout"
        )
    if text.count("-----BEGIN ") > 1:
        raise ConfigError(f"{what} holds several keys, and all but the first would be ignored; give each by itself")
    try:
        key: Any = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{what} is not a public key in PEM (-----BEGIN PUBLIC KEY-----), or one that proves nothing, such as a "
            "point that is not on its curve; give what `cosign public-key` prints"
        ) from None
    _check(key, what)
    return _public_key(key)


def read_raw(text: str, *, what: str) -> PublicKey:
    """An Ed25519 public key of 32 bytes in base64, as HeliosDB's ``*.pub`` files have it. Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    try:
        raw = base64.b64decode(text.strip().encode(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _ED25519_BYTES:
        raise ConfigError(f"{what} is not an Ed25519 public key: write its 32 bytes in base64")
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    _check(key, what)
    return _public_key(key)


def _check(key: Any, what: str) -> None:
    """Raise ConfigError for a key of another kind, and for one that proves nothing."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes_raw()
        if ed25519ph.point(raw) is None or int.from_bytes(raw, "little") & (2**255 - 1) in _SMALL_ORDER:
            raise ConfigError(
                f"{what} is no Ed25519 key: its point is of small order, not on the curve, or not written in the one "
                "way that it has; a signature by it would prove nothing"
            )
    elif isinstance(key, rsa.RSAPublicKey):
        if not _RSA_LEAST <= key.key_size <= _RSA_MOST:
            raise ConfigError(
                f"{what} is an RSA key of {key.key_size} bits, and {_RSA_LEAST} to {_RSA_MOST} are allowed"
            )
        numbers = key.public_numbers()
        if numbers.e not in _EXPONENTS or numbers.e % 2 == 0 or numbers.n % 2 == 0:
            raise ConfigError(f"{what} is an RSA key whose numbers prove nothing; make a new pair, with exponent 65537")
    elif not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in {
        "secp256r1",
        "secp384r1",
        "secp521r1",
    }:
        raise ConfigError(f"{what} is none of ECDSA on P-256, P-384 or P-521, RSA and Ed25519")


def _public_key(key: Any) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    info: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(f"sha256:{hashlib.sha256(info).hexdigest()}", key)
