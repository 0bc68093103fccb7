"""The certificates of one cluster: an authority, made for it, and what that authority signs."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A cluster of ours lives for hours. The hour before is for clocks that jump back.
_BEFORE, _AFTER = dt.timedelta(hours=1), dt.timedelta(days=30)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs for one cluster; its key and everything signed is in one folder, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hookline-cluster")])
        builder = _builder(name, name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
        self._name, self._public = name, self._key.public_key()
        self.own = self._write("ca", builder.sign(self._key, hashes.SHA256()), self._key)

    def sign(self, file: str, name: str, *, groups: Sequence[str] = (), addresses: Sequence[str] = ()) -> Pair:
        """A pair in ``file.crt`` and ``file.key``: Kubernetes reads the user from ``name``, its groups from the O's.

        ``addresses`` are the DNS names and IP addresses under which a server with it is reached.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
            + [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        builder = _builder(subject, self._name, key.public_key())
        # Python >= 3.13 refuses a chain without the two key identifiers; Go does not look.
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public)
        builder = builder.add_extension(authority, critical=False)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if addresses:
            alternatives = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
            builder = builder.add_extension(alternatives, critical=False)
        return self._write(file, builder.sign(self._key, hashes.SHA256()), key)

    def signing_key(self, file: str) -> Pair:
        """A private key and its public half (in ``certificate``), for service account tokens."""
        key = ec.generate_private_key(ec.SECP256R1())
        pair = Pair(self._folder / f"{file}.pub", self._folder / f"{file}.key")
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        pair.certificate.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
        _write_key(pair.key, key)
        return pair

    def _write(self, file: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(pair.key, key)
        return pair


def write_kubeconfig(
    path: Path, *, server: str, authority: str, pair: Pair | None = None, token: str | None = None
) -> Path:
    """A kubeconfig with everything inside, so that it can be copied elsewhere. ``authority`` is base64 of PEM."""
    user: dict[str, str] = {}
    if pair:
        user["client-certificate-data"] = encoded(pair.certificate)
        user["client-key-data"] = encoded(pair.key)
    if token:
        user["token"] = token
    context = {"cluster": "hookline", "user": "hookline"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "hookline", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "hookline", "user": user}],
        "contexts": [{"name": "hookline", "context": context}],
        "current-context": "hookline",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def encoded(path: Path) -> str:
    """A file as base64, the way kubeconfigs and webhook configurations hold PEM."""
    return base64.b64encode(path.read_bytes()).decode()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _AFTER)
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
