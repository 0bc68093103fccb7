"""The operator's own certificate authority, and the serving certificate that it signs.

Everything is in one Secret, which all replicas share: whoever sees that something is due writes it, and whoever meets
a conflict reads what the other wrote. ``renew`` is the whole policy, and pure: from what the Secret holds to what it
should hold. The keeper carries that to where it is needed: the server's SSL context, a ConfigMap for people and
sidecars, and the ``caBundle`` of the webhook configurations.

An authority lives ten years. At two thirds of that a successor is made and published beside it, and signs only a year
later: whoever took the authorities from us within that year knows both, and no client has to be restarted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import random
import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

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

from hookline_operator.kube import KubeError, path
from hookline_operator.sight import Sight, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Json = dict[str, Any]

AUTHORITY_LIFE: Final = timedelta(days=3650)
SERVING_LIFE: Final = timedelta(days=90)
OVERLAP: Final = timedelta(days=365)
"""How long a new authority is published before it signs."""
BACKDATED: Final = timedelta(hours=1)
"""Certificates are valid since a while before they are made: clocks of a cluster differ."""

_MAX_RETIRED: Final = 4
_MAX_ENTRY: Final = 65_536
_ATTEMPTS: Final = 10
_PERIOD_S: Final = 24.0
_CONFLICTS: Final = frozenset({404, 409, 422})
"""Somebody else was quicker: it has gone, it is there already or has changed, or a patch's ``test`` failed."""

log = logging.getLogger("hookline.certificates")


class Api(Protocol):
    """What the keeper needs of the Kubernetes API; ``hookline_operator.kube.Kube`` is one. Both raise KubeError."""

    async def get(self, where: str, /) -> Json | None:
        """An object; None where there is none."""

    async def request(
        self, method: str, where: str, /, *, body: Any = None, content_type: str = "application/json"
    ) -> Json:
        """POST, PUT or PATCH; what the object is then. A PUT with an old resourceVersion is a 409."""


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
    """What replicas, who reach each other by address, verify in place of a host: it resolves to nothing."""
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


class CertificateKeeper:
    """Keeps the certificate, the server's context and everybody's trust in it as they should be.

    ``context`` is for the HTTPS server; it stays the same object, and shows the newest certificate to each new
    connection. All replicas run a keeper.
    """

    def __init__(
        self,
        api: Api,
        *,
        service: str,
        namespace: str,
        secret: str = "hookline-operator-tls",  # noqa: S107 - the name of an object
        config_map: str = "hookline-ca",
        webhooks: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        overlap: timedelta = OVERLAP,
        sight: Sight | None = None,
    ) -> None:
        """``webhooks`` names both webhook configurations; empty: there are none."""
        self._api = api
        self.sight = sight or Sight("certificates")
        self._service, self._namespace = service, namespace
        self._secret, self._config_map, self._webhooks = secret, config_map, webhooks
        self._now, self._overlap = now, overlap
        self._material: Material | None = None
        self._synced = False
        self._missing: set[str] = set()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])

    @property
    def bundle(self) -> str:
        """The authorities, PEM, for the pods that are injected. Raises RuntimeError before the first ``sync``."""
        if self._material is None:
            raise RuntimeError("there is no certificate yet")
        return self._material.bundle

    @property
    def has_material(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self._material is not None

    def client_context(self) -> ssl.SSLContext:
        """For requests to other replicas, with ``server_hostname=peer_name(…)``. Raises RuntimeError as ``bundle``."""
        return ssl.create_default_context(cadata=self.bundle)

    def not_ready(self) -> list[str]:
        """Why webhooks cannot be served yet, in sentences. Once ready, an API server that is gone changes nothing."""
        if self._material is None:
            return ["there is no serving certificate yet"]
        if not self._synced:
            return ["the certificate authority is not published yet"]
        if self._now() >= self._material.serving.certificate.not_valid_after_utc:
            return ["the serving certificate has expired, and no new one could be stored"]
        return []

    async def run(self) -> NoReturn:
        """``sync`` forever, twice a minute, with a growing pause while the API server refuses or is away."""
        pause = 1.0
        while True:
            try:
                await self.sync()
                self.sight.heard()
                pause = _PERIOD_S
            except KubeError as error:
                self.sight.failed(reason_of(error), f"certificates cannot be checked: {error}")
                pause = min(pause * 2, _PERIOD_S)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def sync(self) -> None:
        """Look at everything once, and put right what is wrong. Raises KubeError."""
        material = await self._settled()
        if self._material is None or self._material.serving.certificate != material.serving.certificate:
            _load(self.context, material.serving)
            if lacks := _lacks(material.authority.certificate):
                log.warning(
                    "the certificate authority in the Secret %s/%s lacks %s: clients on Python 3.13 and newer refuse "
                    "it. Delete the Secret, and a new one is made; restart the sidecars that know the old one alone",
                    *(self._namespace, self._secret, lacks),
                )
        self._material = material
        await self._publish(material.bundle)
        if self._webhooks:
            for plural in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
                await self._introduce(path("admissionregistration.k8s.io/v1", plural, None, self._webhooks), material)
        self._synced = True

    async def _settled(self) -> Material:
        """What all replicas agree on: the first who writes wins, and whoever lost reads it."""
        names = names_of(self._service, self._namespace)
        for _ in range(_ATTEMPTS):
            found = await self._api.get(path("v1", "secrets", self._namespace, self._secret))
            entries = _decoded(found)
            material, notes = renew(entries, names=names, now=self._now(), overlap=self._overlap)
            wanted = material.entries()
            if found is not None and entries == wanted:
                return material
            data = {name: base64.b64encode(text.encode()).decode() for name, text in wanted.items()}
            if await self._written("secrets", self._secret, found, {"type": "kubernetes.io/tls"}, {"data": data}):
                for note in notes:
                    log.info("%s (Secret %s/%s)", note, self._namespace, self._secret)
                return material
        raise KubeError(409, f"the Secret {self._namespace}/{self._secret} changes faster than it can be written")

    async def _publish(self, bundle: str) -> None:
        for _ in range(_ATTEMPTS):
            found = await self._api.get(path("v1", "configmaps", self._namespace, self._config_map))
            data = (found or {}).get("data") or {}
            wanted = {"data": {**data, "ca.crt": bundle}}
            if data.get("ca.crt") == bundle or await self._written("configmaps", self._config_map, found, {}, wanted):
                return
        raise KubeError(
            409, f"the ConfigMap {self._namespace}/{self._config_map} changes faster than it can be written"
        )

    async def _written(self, plural: str, name: str, found: Json | None, initial: Json, wanted: Json) -> bool:
        """Whether nobody was quicker."""
        try:
            if found is None:
                metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "hookline-operator"}}
                body = {"metadata": metadata, **initial, **wanted}
                await self._api.request("POST", path("v1", plural, self._namespace), body=body)
            else:
                await self._api.request("PUT", path("v1", plural, self._namespace, name), body={**found, **wanted})
        except KubeError as error:
            # A namespace that is missing is a 404 as well: only what was there can have gone.
            if error.status == 409 or (error.status == 404 and found is not None):  # noqa: PLR2004
                return False
            raise
        return True

    async def _introduce(self, where: str, material: Material) -> None:
        """Make the API server trust this server: the ``caBundle`` of each entry that calls our Service."""
        bundle = base64.b64encode(material.bundle.encode()).decode()
        for _ in range(_ATTEMPTS):
            found = await self._api.get(where)
            if found is None:
                if where not in self._missing:
                    log.warning("there is no %s: pods are not injected, or resources not checked", where)
                self._missing.add(where)
                return
            self._missing.discard(where)
            wrong = [
                index
                for index, entry in enumerate(found.get("webhooks") or [])
                if self._is_ours(entry) and entry["clientConfig"].get("caBundle") != bundle
            ]
            if not wrong:
                return
            version = found["metadata"]["resourceVersion"]  # an index means something in this version only
            operations = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
            operations += [
                {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle} for index in wrong
            ]
            try:
                await self._api.request("PATCH", where, body=operations, content_type="application/json-patch+json")
            except KubeError as error:
                if error.status not in _CONFLICTS:
                    raise
        raise KubeError(409, f"{where} changes faster than it can be written")

    def _is_ours(self, entry: Json) -> bool:
        service = (entry.get("clientConfig") or {}).get("service") or {}
        return service.get("name") == self._service and service.get("namespace") == self._namespace


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    # OpenSSL takes keys from files only. This one is in memory, of this process alone, and gone with its descriptor.
    descriptor = os.memfd_create("hookline-tls", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "w", closefd=False, encoding="ascii") as file:
            file.write(pair.certificate_pem + pair.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _decoded(secret: Json | None) -> dict[str, str]:
    """The Secret's entries as text; what is none is as good as missing."""
    entries = {}
    for name, value in ((secret or {}).get("data") or {}).items():
        try:
            text = base64.b64decode(value, validate=True).decode("ascii")
        except (binascii.Error, ValueError, TypeError):
            text = ""
        entries[name] = text if len(text) <= _MAX_ENTRY else ""
    return entries


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


def _lacks(authority: x509.Certificate) -> str:
    """What RFC 5280 wants of an authority and this one has not; empty for those that are made here."""
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
