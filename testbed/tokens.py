"""Signed tokens (JWT, RFC 7519) of an issuer that publishes its keys (JWK sets, RFC 7517)."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_SIZE: Final = 32  # bytes of a number of P-256


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key for ES256, with the name by which tokens and sets know it."""

    name: str
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def published(self) -> dict[str, str]:
        """Its public half, as an item of a set."""
        numbers = self.private.public_key().public_numbers()
        point = {"x": _number(numbers.x), "y": _number(numbers.y)}
        return {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.name, **point}

    def token(self, claims: Mapping[str, Any], *, seconds: int = 3600) -> str:
        """A token with these claims, good from now on for so many seconds."""
        now = int(time.time())
        header = {"alg": "ES256", "typ": "JWT", "kid": self.name}
        signed = f"{_part(header)}.{_part({'iat': now, 'exp': now + seconds, **claims})}"
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_number(r, s)}"


def published(*keys: SigningKey) -> dict[str, Any]:
    """The set of these keys, as an issuer serves it."""
    return {"keys": [key.published for key in keys]}


def _number(*numbers: int) -> str:
    return _text(b"".join(number.to_bytes(_SIZE, "big") for number in numbers))


def _part(value: Mapping[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
