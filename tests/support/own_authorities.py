"""A certificate authority of one test session, for registries with TLS; and those that lack something."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Authority:
    """A certificate authority of one test session, and what it has signed."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    without: frozenset[str] = frozenset()

    @property
    def pem(self):
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, folder, *names):
        """Paths of a certificate and a key for 127.0.0.1, and for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, names)]
        )
        extensions = [(alternatives, False), (_subject(key), False)]
        if "authorityKeyIdentifier" not in self.without:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            extensions.append((identifier, False))
        certificate = _certificate("127.0.0.1", key, extensions, issuer=self.certificate.subject, signer=self.key)
        (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "tls.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return folder / "tls.crt", folder / "tls.key"


def new_authority(*, without=()):
    """An authority; ``without`` names what RFC 5280 asks for and many that were made by hand lack."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    extensions = [(x509.BasicConstraints(ca=True, path_length=0), "critical" not in without)]
    if "keyUsage" not in without:
        extensions.append((_SIGNS_CERTIFICATES, True))
    if "subjectKeyIdentifier" not in without:
        extensions.append((_subject(key), False))
    certificate = _certificate("test authority", key, extensions, issuer=name, signer=key)
    return Authority(key, certificate, without=frozenset(without))


_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _subject(key):
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _certificate(name, key, extensions, *, issuer, signer):
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, hashes.SHA256())
