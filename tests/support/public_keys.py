"""Public keys, good and bad, as people write them into documents."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def pem(key):
    """A key's public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key):
    """The half that nobody should give away."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def raw(key):
    """An Ed25519 key's public half, as HeliosDB writes it."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def p256():
    """A pair as cosign makes it."""
    return ec.generate_private_key(ec.SECP256R1())


def ed():
    """A pair as HeliosDB makes it."""
    return ed25519.Ed25519PrivateKey.generate()


def short_rsa():
    """One that proves nothing any more."""
    return rsa.generate_private_key(65537, 1024)


def dsa_key():
    """Of a kind that nobody takes."""
    return dsa.generate_private_key(2048)


def off_the_curve():
    """PEM of a P-256 key whose point is the point at infinity."""
    head = "3059301306072a8648ce3d020106082a8648ce3d030107034200"
    text = base64.b64encode(bytes.fromhex(head) + b"\x04" + bytes(64)).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"


SMALL_ORDER = base64.b64encode(bytes([1]) + bytes(31)).decode()
"""An Ed25519 point with which one signature is good for every message."""
