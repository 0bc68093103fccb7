"""The operator's own certificate authority and its serving certificate: what they are, and when they are renewed.

``renew`` is the whole policy, and pure: from what the Secret holds to what it should hold.

An authority lives for ten years. After two thirds of that a successor is made and published beside it. The successor
signs only a year later. Whoever fetched the authorities within that year knows both, so no client has to be restarted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

AUTHORITY_LIFE: Final = timedelta(days=3650)
SERVING_LIFE: Final = timedelta(days=90)
OVERLAP: Final = timedelta(days=365)
"""How long a new authority is published before it signs."""
BACKDATED: Final = timedelta(hours=1)
"""Certificates are valid since a while before they are made: clocks of a cluster differ."""

_MAX_RETIRED: Final = 4
_MAX_TEXT: Final = 16_384
"""Characters of a pod's annotation that are read. Our own has some 600 for each authority."""
_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,8192})-----END CERTIFICATE-----")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> str:
        """The certificate alone."""
        return _pem(self.certificate)

    @property
    def key_pem(self) -> str:
        """The key, PKCS #8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Everything in the Secret."""

    authority: KeyPair
    """Signs."""
    serving: KeyPair
    """What the server shows."""
    successor: KeyPair | None = None
    """Is published, and does not sign yet."""
    retired: tuple[x509.Certificate, ...] = ()
    """Signed once; published until they end."""

    @property
    def bundle(self) -> str:
        """All authorities that a client has to know, PEM; the one that signs comes first."""
        pairs = [self.authority, *([self.successor] if self.successor else [])]
        return "".join(_pem(each) for each in (*(pair.certificate for pair in pairs), *self.retired))

    def entries(self) -> dict[str, str]:
        """As the Secret holds it."""
        entries = {
            "ca.crt": self.bundle,
            "ca.key": self.authority.key_pem,
            "tls.crt": self.serving.certificate_pem,
            "tls.key": self.serving.key_pem,
        }
        if self.successor is not None:
            entries |= {"next-ca.crt": self.successor.certificate_pem, "next-ca.key": self.successor.key_pem}
        return entries


def names_of(service: str, namespace: str) -> tuple[str, ...]:
    """The DNS names that the serving certificate is for."""
    name = f"{service}.{namespace}"
    return (service, name, f"{name}.svc", f"{name}.svc.cluster.local", peer_name(service, namespace))


def peer_name(service: str, namespace: str) -> str:
    """The name that replicas verify, which reach each other by address. It resolves to nothing."""
    return f"peer.{service}.{namespace}.svc"


def new_authority(*, now: datetime, life: timedelta = AUTHORITY_LIFE) -> KeyPair:
    """A certificate authority of its own, ECDSA P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Each has a name of its own: clients find the right one of two by it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hookline-operator-ca-{secrets.token_hex(4)}")])
    public = key.public_key()
    certificate = (
        _begun(subject, issuer=subject, key=key, now=now, end=now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate=certificate, key=key)


def issue(authority: KeyPair, names: Sequence[str], *, now: datetime, life: timedelta = SERVING_LIFE) -> KeyPair:
    """A serving certificate for ``names``, which does not outlive its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    end = min(now + life, authority.certificate.not_valid_after_utc)
    certificate = (
        _begun(subject, issuer=authority.certificate.subject, key=key, now=now, end=end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(certificate=certificate, key=key)


def due(certificate: x509.Certificate, *, now: datetime) -> bool:
    """Whether two thirds of its life are over."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= begin + (end - begin) * 2 / 3


@lru_cache(maxsize=256)
def fingerprints(pem: str) -> frozenset[str]:
    """The fingerprints of all certificates in a text, which may be anybody's.

    The certificates are not parsed: the same text is in every pod, and is read for each of them.
    """
    found = set()
    for body in _BLOCK.findall(pem[:_MAX_TEXT]):
        try:
            found.add(hashlib.sha256(base64.b64decode("".join(body.split()), validate=True)).hexdigest())
        except (binascii.Error, ValueError):
            continue
    return frozenset(found)


def renew(
    entries: Mapping[str, str], *, names: Sequence[str], now: datetime, overlap: timedelta = OVERLAP
) -> tuple[Material, list[str]]:
    """What the Secret should hold, given what it holds, and a sentence for each thing that was made anew.

    ``entries`` are the Secret's, as text; empty where there is no Secret. Whatever cannot be used is replaced. With
    nothing to do, the material's ``entries()`` are those that came in.
    """
    notes: list[str] = []
    known = _certificates(entries.get("ca.crt", ""))
    authority = _usable(known[:1], entries, "ca", now, notes)
    successor = None
    if entries.keys() & {"next-ca.crt", "next-ca.key"}:
        successor = _usable(_certificates(entries.get("next-ca.crt", "")), entries, "next-ca", now, notes)

    if successor is not None and (authority is None or _may_sign(successor, authority, now, overlap)):
        authority, successor = successor, None
        notes.append("the certificate authority was replaced by its successor")
    if authority is None:
        authority = new_authority(now=now)
        notes.append("a new certificate authority was made")
    if successor is None and due(authority.certificate, now=now):
        successor = new_authority(now=now)
        notes.append(f"a successor of the certificate authority was made; it signs in {overlap.days} days")

    serving, why = _read(_certificates(entries.get("tls.crt", ""))[:1], entries.get("tls.key", ""))
    if serving is not None:
        why = _unfit(serving.certificate, authority, names, now)
    if serving is None or why:
        serving = issue(authority, names, now=now)
        notes.append(f"a new serving certificate was made: the old one {why}")

    in_use = {authority.certificate, *([successor.certificate] if successor else [])}
    retired = [each for each in dict.fromkeys(known) if each not in in_use and now < each.not_valid_after_utc]
    material = Material(
        authority=authority, serving=serving, successor=successor, retired=tuple(retired[:_MAX_RETIRED])
    )
    return material, notes


def _certificates(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def _read(certificates: Sequence[x509.Certificate], key_pem: str) -> tuple[KeyPair | None, str]:
    """A key pair, or why there is none."""
    if not certificates:
        return None, "was missing or cannot be read"
    try:
        key = load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError):
        return None, "has no key that can be read"
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None, "has a key of another kind"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificates[0].public_key().public_bytes(*form):
        return None, "has a key that does not belong to it"
    return KeyPair(certificate=certificates[0], key=key), ""


def _usable(
    certificates: Sequence[x509.Certificate], entries: Mapping[str, str], name: str, now: datetime, notes: list[str]
) -> KeyPair | None:
    """An authority that can sign now."""
    pair, why = _read(certificates, entries.get(f"{name}.key", ""))
    if pair is not None and now >= pair.certificate.not_valid_after_utc:
        pair, why = None, "has expired"
    if pair is not None and not _is_authority(pair.certificate):
        pair, why = None, "may not sign certificates"
    if pair is None and entries:
        notes.append(f"the certificate authority in {name}.crt {why}")
    return pair


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def lacks_of(authority: x509.Certificate) -> str:
    """What RFC 5280 requires of an authority and this one lacks; empty for those that are made here."""
    extensions = authority.extensions
    found = {type(each.value): each for each in extensions}
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.KeyUsage)
    lacks = {
        "basicConstraints (critical)": constraints is None or not constraints.critical,
        "keyUsage (keyCertSign)": usage is None or not usage.value.key_cert_sign,
        "subjectKeyIdentifier": x509.SubjectKeyIdentifier not in found,
    }
    return ", ".join(name for name, absent in lacks.items() if absent)


def _may_sign(successor: KeyPair, authority: KeyPair, now: datetime, overlap: timedelta) -> bool:
    published = successor.certificate.not_valid_before_utc + BACKDATED
    return now >= min(published + overlap, authority.certificate.not_valid_after_utc - SERVING_LIFE)


def _unfit(certificate: x509.Certificate, authority: KeyPair, names: Sequence[str], now: datetime) -> str:
    """Why a serving certificate has to be replaced; empty where it need not."""
    if due(certificate, now=now):
        return "is at two thirds of its life"
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return "is not of the authority that signs now"
    return "" if {*names} <= {*alternatives.get_values_for_type(x509.DNSName)} else "is for other names"


def _begun(
    subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
