"""Private keys: made, kept in a file behind a password, read, and signed with.

Those of ECDSA are kept as cosign keeps its own, so that either tool signs with the other's: PKCS#8 in a secretbox of
NaCl, whose key scrypt makes of the password. Those of Ed25519 are PKCS#8 in PEM. Both are read, whoever wrote them.

Formats: https://github.com/secure-systems-lab/go-securesystemslib/tree/main/encrypted and RFC 5958 (PKCS#8).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.trust.keys import PublicKey, read_pem

MAX_FILE: Final = 64 * 1024
"""Bytes of a file with a private key."""
KeyType = Literal["ecdsa", "ed25519"]
_SEALED: Final = re.compile(
    r"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*"
    r"-----END ENCRYPTED \1 PRIVATE KEY-----"
)
_COSTS: Final = (32_768, 65_536)
"""What cosign has had for scrypt's N. Others are refused: a file would decide how much memory is taken."""
_BLOCKS: Final = 8
_SECRETBOX: Final = "nacl/secretbox"
_SALT: Final = 32
_LINE: Final = 64


class PasswordNeededError(ConfigError):
    """The key is behind a password, and none was given, or a wrong one."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key to sign with."""

    public: PublicKey
    key: Any = field(repr=False, compare=False)

    @property
    def is_ed25519(self) -> bool:
        """Whether it signs as HeliosDB's tool does."""
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - only where it is asked for

        return isinstance(self.key, ed25519.Ed25519PrivateKey)

    @property
    def raw_public(self) -> str:
        """The public key of Ed25519 as ``*.pub`` files have it: 32 bytes in base64."""
        return base64.b64encode(self.public.key.public_bytes_raw()).decode()

    @property
    def pem_public(self) -> str:
        """The public key in PEM."""
        return _public_pem(self.key)

    def sign(self, message: bytes) -> bytes:
        """A signature over a message, with SHA-256, as cosign makes it."""
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415

        made: bytes
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            made = self.key.sign(message)
        elif isinstance(self.key, ec.EllipticCurvePrivateKey):
            made = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        else:
            made = self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return made


def generate(kind: KeyType) -> PrivateKey:
    """A new key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415

    key: Any = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    return _private_key(key, what="the new key")


def write(key: PrivateKey, password: bytes) -> bytes:
    """What to keep in a file. Of Ed25519, without a password, the key itself."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if not key.is_ed25519:
        return _seal(key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), password)
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    made: bytes = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return made


def needs_password(data: bytes) -> bool:
    """Whether a file's key is behind a password."""
    return b"ENCRYPTED" in data


def read(data: bytes, password: bytes | None, *, what: str) -> PrivateKey:
    """The key of a file, cosign's or PKCS#8 in PEM. Raises ConfigError, and PasswordNeededError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key  # noqa: PLC0415

    if len(data) > MAX_FILE:
        raise ConfigError(f"{what} has more than {MAX_FILE} bytes; give one private key in PEM")
    if needs_password(data) and password is None:
        raise PasswordNeededError(f"{what} is behind a password: set HOOKLINE_PASSWORD or COSIGN_PASSWORD")
    if b"PUBLIC KEY" in data:
        raise ConfigError(f"{what} is a public key; signing takes the private one")
    sealed = _SEALED.search(data.decode(errors="replace"))
    try:
        if sealed is not None:
            return _private_key(load_der_private_key(_open(sealed[2], password or b"", what), None), what=what)
        return _private_key(load_pem_private_key(data, password if needs_password(data) else None), what=what)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if needs_password(data):
            raise PasswordNeededError(f"{what} does not open with that password, or is damaged") from None
        raise ConfigError(f"{what} is not a private key in PEM, as 'hookline keygen' and cosign make them") from None


def _private_key(key: Any, *, what: str) -> PrivateKey:
    return PrivateKey(read_pem(_public_pem(key), what=what), key)


def _public_pem(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found.decode()


def _seal(plain: bytes, password: bytes) -> bytes:
    from nacl.secret import SecretBox  # noqa: PLC0415 - 25 ms, and only where a key is written or read

    salt, cost = os.urandom(_SALT), _COSTS[-1]
    box = SecretBox(_scrypt(password, salt, cost)).encrypt(plain)
    sealed = orjson.dumps({
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": _BLOCKS, "p": 1}, "salt": _text(salt)},
        "cipher": {"name": _SECRETBOX, "nonce": _text(box.nonce)},
        "ciphertext": _text(box.ciphertext),
    })  # fmt: skip
    text = _text(sealed)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    begin, end = (f"-----{word} ENCRYPTED SIGSTORE PRIVATE KEY-----" for word in ("BEGIN", "END"))
    return "\n".join([begin, *lines, end, ""]).encode()


def _open(text: str, password: bytes, what: str) -> bytes:
    from nacl.exceptions import CryptoError  # noqa: PLC0415
    from nacl.secret import SecretBox  # noqa: PLC0415

    try:
        data = parse_foreign(base64.b64decode("".join(text.split()), validate=True))
        kdf, cipher = data["kdf"], data["cipher"]
        cost = kdf["params"]["N"]
        names = (kdf["name"], kdf["params"]["r"], kdf["params"]["p"], cipher["name"])
        if names != ("scrypt", _BLOCKS, 1, _SECRETBOX) or cost not in _COSTS:
            raise ConfigError(f"{what} is sealed in a way that cosign does not use; make a new key")
        salt, nonce, box = (base64.b64decode(each) for each in (kdf["salt"], cipher["nonce"], data["ciphertext"]))
        return bytes(SecretBox(_scrypt(password, salt, cost)).decrypt(box, nonce))
    except CryptoError:
        raise PasswordNeededError(f"{what} does not open with that password") from None
    except (KeyError, TypeError, binascii.Error):
        raise ConfigError(f"{what} is damaged; make a new key") from None


def _scrypt(password: bytes, salt: bytes, cost: int) -> bytes:
    # OpenSSL wants to be told of the memory: 128 bytes for each block and round, and a little.
    return hashlib.scrypt(password, salt=salt, n=cost, r=_BLOCKS, p=1, maxmem=256 * _BLOCKS * cost, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
