"""Public keys: those that prove something are read, and every other is refused with the reason."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust import ed25519ph
from hookline_artifacts.trust.keys import read_pem, read_raw

P = 2**255 - 19
CURVE_P256 = bytes.fromhex("06082a8648ce3d030107")


def tlv(tag, body):
    """One value of DER."""
    size = len(body)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets) + body


def integer(number):
    """A number of DER."""
    return tlv(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def pem(der, label="PUBLIC KEY"):
    """PEM of DER."""
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def key_info(algorithm, body):
    """A SubjectPublicKeyInfo."""
    return pem(tlv(0x30, tlv(0x30, algorithm) + tlv(3, b"\0" + body)))


def rsa_pem(modulus, exponent):
    """An RSA key of any numbers."""
    oid = bytes.fromhex("06092a864886f70d0101010500")
    return key_info(oid, tlv(0x30, integer(modulus) + integer(exponent)))


def ec_pem(point):
    """A P-256 key of any point."""
    return key_info(bytes.fromhex("06072a8648ce3d0201") + CURVE_P256, point)


def ed_pem(raw):
    """An Ed25519 key of any bytes."""
    return key_info(bytes.fromhex("06032b6570"), raw)


def public(key):
    """PEM of a private key's public one."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


RSA = rsa.generate_private_key(65537, 2048)
MODULUS = RSA.public_key().public_numbers().n
P256 = ec.generate_private_key(ec.SECP256R1())
SMALL_ORDER = {
    0, 1, P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
}  # fmt: skip

BAD = {
    "nothing": ("", "not a public key in PEM"),
    "junk": ("hello", "not a public key in PEM"),
    "half": (public(P256)[:80], "not a public key in PEM"),
    "no base64": ("-----BEGIN PUBLIC KEY-----\n????\n-----END PUBLIC KEY-----\n", "not a public key in PEM"),
    "not ASCII": ("-----BEGIN PUBLIC KEY-----\n\u00fc\n-----END PUBLIC KEY-----\n", "not a public key in PEM"),
    "a lone surrogate": ("\ud800", "not a public key in PEM"),
    "too long": (public(P256) * 30, "more than 4096 characters"),
    "two keys": (public(P256) * 2, "holds several keys"),
    "OpenSSH": (
        P256.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode(),
        "not a public key in PEM",
    ),
    "a private key": ("-----BEGIN PRIVATE KEY-----\nMII=\n", "is a private key: take it out, make a new pair"),
    "cosign's private key": ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nMII=\n", "is a private key"),
    "a certificate": ("-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----", "is a certificate.*openssl x509"),
    "RSA 512": (rsa_pem(MODULUS >> 1536 | 1, 65537), "RSA key of 512 bits"),
    "RSA 1024": (rsa_pem(MODULUS >> 1024 | 1, 65537), "RSA key of 1024 bits"),
    "RSA 16000": (rsa_pem(MODULUS << 13952 | 1, 65537), "RSA key of 16000 bits"),
    "RSA e=1": (rsa_pem(MODULUS, 1), "proves nothing"),
    "RSA e=2": (rsa_pem(MODULUS, 2), "proves nothing"),
    "RSA e=2^33+1": (rsa_pem(MODULUS, 2**33 + 1), "prove nothing"),
    "RSA, even": (rsa_pem(MODULUS - 1, 65537), "prove nothing"),
    "P-256 at infinity": (ec_pem(b"\0"), "not on its curve"),
    "P-256 at zero": (ec_pem(b"\4" + bytes(64)), "not on its curve"),
    "P-256 off the curve": (ec_pem(b"\4" + b"\1" * 64), "not on its curve"),
    "P-256, compressed, off the curve": (ec_pem(b"\2" + b"\xff" * 32), "not on its curve"),
    "secp256k1": (public(ec.generate_private_key(ec.SECP256K1())), "none of ECDSA"),
    "P-224": (public(ec.generate_private_key(ec.SECP224R1())), "none of ECDSA"),
    "X25519": (public(x25519.X25519PrivateKey.generate()), "none of ECDSA"),
    "DSA": (public(dsa.generate_private_key(1024)), "none of ECDSA"),
    "Ed25519, not canonical": (ed_pem((P + 3).to_bytes(32, "little")), "not written in the one way"),
    "Ed25519, off the curve": (ed_pem((2).to_bytes(32, "little")), "not on the curve"),
    **{
        f"Ed25519 of small order {y % 1000}{'+' if sign else ''}": (
            ed_pem((y | sign << 255).to_bytes(32, "little")),
            "of small order",
        )
        for y in sorted(SMALL_ORDER | {P, P + 1})
        for sign in (0, 1)
    },
}


@pytest.mark.parametrize("name", BAD)
def test_a_key_that_proves_nothing_is_refused(name):
    """With one sentence that names where it stands, and holds nothing of it."""
    text, message = BAD[name]
    with pytest.raises(ConfigError, match=message) as caught:
        read_pem(text, what="spec.verify.keys[0]")
    assert str(caught.value).startswith("spec.verify.keys[0] ")
    assert len(str(caught.value)) <= 400
    assert text.splitlines()[1:2] == [] or text.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize("text", ["", "AAAA", "?" * 44, "A" * 43 + "=", "/" * 42 + "8=", "\ud800"])
def test_a_raw_key_that_proves_nothing_is_refused(text):
    """HeliosDB's 32 bytes in base64, by the same rules."""
    with pytest.raises(ConfigError, match="Ed25519"):
        read_raw(text, what="the key")


def test_a_raw_key_and_its_pem_are_one_key():
    """The id is of the key, and not of how it is written."""
    key = ed25519.Ed25519PrivateKey.generate()
    raw = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    assert read_raw(f" {raw}\n", what="it").id == read_pem(public(key), what="it").id


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_counts_with_pkcs1_and_sha256(bits):
    """As cosign signs with it; PSS and other hashes are somebody else's signatures."""
    private = rsa.generate_private_key(65537, bits)
    key = read_pem(public(private), what="it")
    assert key.has_signed(private.sign(b"m", padding.PKCS1v15(), hashes.SHA256()), b"m")
    assert not key.has_signed(private.sign(b"m", padding.PKCS1v15(), hashes.SHA1()), b"m")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not key.has_signed(private.sign(b"m", pss, hashes.SHA256()), b"m")


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_a_curve_counts_with_its_own_hash_and_with_sha256(curve):
    """Version 2 of cosign takes SHA-256 for all, version 3 the curve's own."""
    private = ec.generate_private_key(curve())
    key = read_pem(public(private), what="it")
    own = {ec.SECP256R1: hashes.SHA256, ec.SECP384R1: hashes.SHA384, ec.SECP521R1: hashes.SHA512}[curve]
    for kind in (own, hashes.SHA256):
        assert key.has_signed(private.sign(b"m", ec.ECDSA(kind())), b"m")
    assert not key.has_signed(private.sign(b"m", ec.ECDSA(hashes.SHA1())), b"m")


@given(st.binary(max_size=200))
def test_any_bytes_are_no_signature(junk):
    """Of no kind of key, and without an exception."""
    for key in KINDS:
        assert not key.has_signed(junk, b"message")


KINDS = [read_pem(public(each), what="it") for each in (P256, RSA, ed25519.Ed25519PrivateKey.generate())]

# https://www.rfc-editor.org/rfc/rfc8032#section-7.3, "TEST abc"
PREHASHED_KEY = bytes.fromhex("ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf")
PREHASHED = bytes.fromhex(
    "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
    "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
)
ORDER = 2**252 + 27742317777372353535851937790883648493


def test_the_rfc_s_prehashed_signature_counts():
    """Also through the key, as cosign's do; the same bytes are no plain signature."""
    assert ed25519ph.verifies(PREHASHED_KEY, PREHASHED, b"abc")
    key = read_raw(base64.b64encode(PREHASHED_KEY).decode(), what="it")
    assert key.has_signed(PREHASHED, b"abc")
    assert not key.has_signed(PREHASHED, b"abd")
    with pytest.raises(InvalidSignature):
        key.key.verify(PREHASHED, b"abc")


@pytest.mark.parametrize("bit", [0, 7, 100, 255, 256, 300, 504])
def test_a_prehashed_signature_with_one_other_bit_does_not_count(bit):
    """In R and in S alike, nor with one in the key."""
    changed = (int.from_bytes(PREHASHED, "little") ^ 1 << bit).to_bytes(64, "little")
    assert not ed25519ph.verifies(PREHASHED_KEY, changed, b"abc")
    other = (int.from_bytes(PREHASHED_KEY, "little") ^ 1 << (bit % 256)).to_bytes(32, "little")
    assert not ed25519ph.verifies(other, PREHASHED, b"abc")


def test_a_prehashed_signature_is_written_in_one_way():
    """An S with the order added, and other lengths, are no signatures."""
    s = int.from_bytes(PREHASHED[32:], "little")
    assert not ed25519ph.verifies(PREHASHED_KEY, PREHASHED[:32] + (s + ORDER).to_bytes(32, "little"), b"abc")
    for changed in (PREHASHED[:-1], PREHASHED + b"\0", b"", PREHASHED[32:]):
        assert not ed25519ph.verifies(PREHASHED_KEY, changed, b"abc")


def test_every_key_of_the_library_is_a_point():
    """Reading a point agrees with the library on what it makes."""
    for _ in range(20):
        raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        x, y, z, t = ed25519ph.point(raw)
        assert (z, t, y) == (1, x * y % P, int.from_bytes(raw, "little") & (2**255 - 1))
        assert (y * y - x * x - 1 + 121665 * pow(121666, -1, P) * x * x * y * y) % P == 0
