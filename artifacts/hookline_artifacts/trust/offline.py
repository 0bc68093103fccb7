"""Sigstore's verifier, set up to ask nobody. Imports ``sigstore``: for ``keyless`` alone, when it is needed.

What it verifies: the signing certificate's chain to the trust root at each proven time; its entry in a log of
certificates; the signature; the inclusion proof and its signed checkpoint, or the log's promise; and that the entry is
of this signature. Proven times are those of time stamps, and the log's where a promise covers it.

cosign 2 keeps its parts in annotations, and of the log's entry only the promise. ``sigstore`` reads bundles with a
proof alone, so what cosign 2 keeps is put into a bundle's shape. This takes names that are not public: the versions of
``sigstore`` are bounded in pyproject.toml, and the tests verify what cosign made.

https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md (what a certificate says),
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md (annotations).
"""

from __future__ import annotations

import base64
import functools
import hashlib
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore._internal.trust import CertificateAuthority, KeyringPurpose
from sigstore.errors import VerificationError
from sigstore.hashes import Hashed
from sigstore.models import Bundle, TransparencyLogEntry, TrustedRoot
from sigstore.verify.verifier import Verifier
from sigstore_models.bundle.v1 import Bundle as Parts
from sigstore_models.common.v1 import HashAlgorithm
from sigstore_models.trustroot.v1 import TrustedRoot as RootParts

from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.trust.evidence import BLOB, Signing

if TYPE_CHECKING:
    from sigstore._internal.timestamp import TimestampVerificationResult
    from sigstore._internal.trust import CTKeyring, RekorKeyring
    from sigstore_models.common.v1 import TimeRange

_PUBLIC: Final = ("https%3A%2F%2Ftuf-repo-cdn.sigstore.dev", "trusted_root.json")
_DETACHED: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_MAX_CERTIFICATE: Final = 16 * 1024
"""Bytes of a certificate; Fulcio's have 1,200."""
_MAX_CERTIFICATES: Final = 8
"""In the chain that an old bundle brings along. Only the first counts: the others are the trust root's."""
_KINDS: Final = frozenset({"dsse", "hashedrekord"})
_MAX_PARTS: Final = 32
"""Authorities and logs of a trust root, of each kind. Sigstore's own has 4."""
_MAX_STAMPERS: Final = 8
"""Time stamp authorities: each stamp is held against each of them, in half a millisecond."""
_MAX_STAMPS: Final = 4
_MAX_HASHES: Final = 64
"""Of an inclusion proof: a log of 2^64 entries."""
_MAX_CHECKPOINT: Final = 16 * 1024
_MAX_EXTENSIONS: Final = 64
_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_OLD_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
"""The same, not as a string in DER but as bare bytes."""
_SOURCE_REPOSITORY: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.12")
_USER_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_UTF8: Final = 0x0C
_SHORT: Final = 0x80


class Root(TrustedRoot):
    """A trust root whose keys are read once."""

    def __init__(self, inner: RootParts, sha256: str) -> None:
        super().__init__(inner)
        self.sha256 = sha256
        self.get_fulcio_certs()  # there has to be one
        self._authorities = [
            (CertificateAuthority(each).certificates(allow_expired=True), each.valid_for)
            for each in inner.certificate_authorities
        ]
        self._log_times = {each.log_id.key_id: each.public_key.valid_for for each in inner.tlogs}
        self._certificate_log_times = {each.log_id.key_id: each.public_key.valid_for for each in inner.ctlogs}
        self._logs = super().rekor_keyring(KeyringPurpose.VERIFY)
        self._certificate_logs = super().ct_keyring(KeyringPurpose.VERIFY)
        self._stampers = super().get_timestamp_authorities()

    def certificates_at(self, moment: datetime) -> list[x509.Certificate]:
        """Those of the authorities that were to be trusted then."""
        return [each for found, when in self._authorities if _is_in(moment, when) for each in found]

    def check_logs(self, entry: bytes, certificate: x509.Certificate, times: list[datetime]) -> None:
        """Raise VerificationError where a log was not to be trusted when it took a signature or its certificate."""
        when = self._log_times.get(entry)
        _check(when is not None and all(_is_in(each, when) for each in times), "its log was not to be trusted then")
        scts = certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value
        for each in scts:
            when = self._certificate_log_times.get(each.log_id)
            moment = each.timestamp.replace(tzinfo=UTC)
            _check(when is not None and _is_in(moment, when), "its log of certificates was not to be trusted then")

    def rekor_keyring(self, purpose: KeyringPurpose) -> RekorKeyring:  # noqa: ARG002 - nothing is signed
        """The keys of logs, also of those that are closed."""
        return self._logs

    def ct_keyring(self, purpose: KeyringPurpose) -> CTKeyring:  # noqa: ARG002
        """The keys of logs of certificates."""
        return self._certificate_logs

    def get_timestamp_authorities(self) -> list[CertificateAuthority]:
        """Who stamps."""
        return self._stampers


@functools.lru_cache(maxsize=8)
def read_root(document: bytes | None) -> Root:
    """A trust root; None for that of Sigstore's public authority, as ``sigstore`` brings it. Raises Exception."""
    if document is None:
        folder, name = _PUBLIC
        document = resources.files("sigstore._store").joinpath(folder, name).read_bytes()
    _check_size(parse_foreign(document))
    return Root(RootParts.from_json(document), hashlib.sha256(document).hexdigest())


def _check_size(root: dict[str, Any]) -> None:
    """Raise VerificationError for a root with more in it than is verified in a moment."""
    names = ("certificateAuthorities", "timestampAuthorities", "tlogs", "ctlogs")
    lists = [root.get(name) or [] for name in names]
    _check(all(len(each) <= _MAX_PARTS for each in lists), f"it names more than {_MAX_PARTS} authorities of one kind")
    _check(len(lists[1]) <= _MAX_STAMPERS, f"it names more than {_MAX_STAMPERS} time stamp authorities")
    for each in [*lists[0], *lists[1]]:
        _check(len(each["certChain"]["certificates"]) <= _MAX_CERTIFICATES, "a chain of certificates is too long")


class _Verifier(Verifier):
    """For one signature. Keeps what times were proven, and has no client for the log."""

    def __init__(self, root: Root) -> None:
        self._fulcio_certificate_chain = []
        self._trusted_root = self._root = root
        self.times: list[datetime] = []

    def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        found = super()._establish_time(bundle)
        self.times = [each.time for each in found]
        return found

    def _verify_chain_at_time(
        self, certificate: x509.Certificate, timestamp_result: TimestampVerificationResult
    ) -> list[x509.Certificate]:
        self._fulcio_certificate_chain = self._root.certificates_at(timestamp_result.time)
        _check(bool(self._fulcio_certificate_chain), "no authority of the trust root was to be trusted then")
        return super()._verify_chain_at_time(certificate, timestamp_result)


class _Accepted:
    """A policy that takes every identity: whose it has to be is asked afterwards."""

    def verify(self, cert: x509.Certificate) -> None:
        """Only certificates of a size that certificates have."""
        if len(cert.extensions) > _MAX_EXTENSIONS:
            raise VerificationError("its certificate has too many extensions")


class _Promised(TransparencyLogEntry):
    """An entry of which there is the log's promise, and no proof: the one that it has stands for none."""

    def _validate(self) -> None:
        if self._inner.inclusion_promise is None or not self._inner.integrated_time:
            raise VerificationError("there is no promise of the log that the signature is in it")

    def _verify(self, keyring: RekorKeyring) -> None:
        self._verify_set(keyring)


class _Detached(Bundle):
    """What cosign 2 keeps in annotations."""

    def _verify(self) -> None:
        material = self._inner.verification_material
        assert material.certificate is not None  # noqa: S101 - ``detached`` has made it
        self._signing_certificate = x509.load_der_x509_certificate(material.certificate.raw_bytes)
        self._log_entry = _Promised(material.tlog_entries[0])


def bundle(document: bytes) -> Bundle:
    """A bundle. Raises Exception."""
    data = parse_foreign(document)
    material = data["verificationMaterial"]
    certificates = material.get("x509CertificateChain", {}).get("certificates", [])
    certificates = [*certificates, material["certificate"]] if "certificate" in material else certificates
    _check(len(certificates) <= _MAX_CERTIFICATES, f"it has {len(certificates)} certificates")
    _check(all(len(each["rawBytes"]) <= _MAX_CERTIFICATE for each in certificates), "a certificate is too large")
    entries = material.get("tlogEntries", [])
    _check(len(entries) == 1, f"it has {len(entries)} log entries, and not one")
    _check_kind(entries[0]["kindVersion"]["kind"])
    proof = entries[0].get("inclusionProof")
    _check(bool(proof), "its log entry has no inclusion proof; sign it with a version of cosign that keeps it")
    _check(len(proof.get("hashes", [])) <= _MAX_HASHES, "its inclusion proof is too long")
    _check(len(proof["checkpoint"]["envelope"]) <= _MAX_CHECKPOINT, "its checkpoint is too long")
    stamps = (material.get("timestampVerificationData") or {}).get("rfc3161Timestamps", [])
    _check(len(stamps) <= _MAX_STAMPS, f"it has {len(stamps)} time stamps")
    return Bundle.from_json(document)


def detached(certificate: str, entry: str, stamp: str, *, envelope: bytes | None, signature: bytes) -> Bundle:
    """What cosign 2 keeps in annotations, over a payload or around an envelope. Raises Exception."""
    _check(len(certificate) <= _MAX_CERTIFICATE, "its certificate is too large")
    _check(bool(entry), "there is no entry of a transparency log; sign it without --tlog-upload=false")
    told = parse_foreign(entry.encode())
    record = told["Payload"]
    body = parse_foreign(base64.b64decode(record["body"], validate=True))
    _check_kind(body["kind"])
    der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER)
    material: dict[str, Any] = {
        "certificate": {"rawBytes": _text(der)},
        "tlogEntries": [
            {
                "logIndex": str(record["logIndex"]),
                "logId": {"keyId": _text(bytes.fromhex(record["logID"]))},
                "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
                "integratedTime": str(record["integratedTime"]),
                "inclusionPromise": {"signedEntryTimestamp": told["SignedEntryTimestamp"]},
                "inclusionProof": {"logIndex": "0", "treeSize": "1", "rootHash": "", "hashes": []},
                "canonicalizedBody": record["body"],
            }
        ],
    }
    if stamp:
        stamped = parse_foreign(stamp.encode())["SignedRFC3161Timestamp"]
        material["timestampVerificationData"] = {"rfc3161Timestamps": [{"signedTimestamp": stamped}]}
    made: dict[str, Any] = {"mediaType": _DETACHED, "verificationMaterial": material}
    if envelope is None:
        made["messageSignature"] = {"signature": _text(signature)}
    else:
        made["dsseEnvelope"] = parse_foreign(envelope)
    return _Detached(Parts.from_dict(made))


def verify(bundle: Bundle, root: Root, *, signed: bytes | None = None) -> Signing:
    """What a bundle proves. Raises Exception.

    ``signed`` are the bytes that a signature without an envelope is over; without them the bundle tells their hash.
    """
    verifier = _Verifier(root)
    message = bundle._inner.message_signature  # noqa: SLF001
    _check(message is None or bundle._inner.dsse_envelope is None, "it has two signatures")  # noqa: SLF001
    if message is None:
        kind, payload = verifier.verify_dsse(bundle, _Accepted())
    elif signed is not None:
        kind, payload = "", signed
        verifier.verify_artifact(payload, bundle, _Accepted())
    else:
        digest = message.message_digest
        _check(digest is not None and digest.algorithm == HashAlgorithm.SHA2_256, "it tells no SHA-256 of the file")
        assert digest is not None  # noqa: S101 - checked
        kind, payload = BLOB, digest.digest
        _check(len(payload) == hashlib.sha256().digest_size, "it tells no SHA-256 of the file")
        verifier.verify_artifact(Hashed(algorithm=HashAlgorithm.SHA2_256, digest=payload), bundle, _Accepted())
    certificate, entry = bundle.signing_certificate, bundle.log_entry._inner  # noqa: SLF001
    root.check_logs(entry.log_id.key_id, certificate, verifier.times)
    proof = entry.inclusion_proof
    if proof is not None and proof.checkpoint is not None:  # sigstore compares the hash of the tree, and not its size
        size = proof.checkpoint.envelope.splitlines()[1]
        _check(size == str(proof.tree_size), "its inclusion proof is of a tree of another size than its checkpoint")
    # Without a promise, which covers the index of the whole log, the proof's own is what was verified.
    index = entry.log_index if entry.inclusion_promise is not None or proof is None else proof.log_index
    return Signing(
        issuer=_issuer(certificate),
        subject=_subject(certificate),
        repository=_extension(certificate, _SOURCE_REPOSITORY),
        log_index=int(index),
        time=min(verifier.times).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        payload_type=kind,
        payload=payload,
    )


def _check_kind(kind: object) -> None:
    """Raise VerificationError for an entry of a kind by which it cannot be told offline what was signed."""
    _check(
        kind in _KINDS, f"its log entry is of the kind '{kind!s:.20}'; sign it again with a version of cosign from 2024"
    )


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise VerificationError(otherwise)


def _is_in(moment: datetime, when: TimeRange) -> bool:
    return when.start <= moment and (when.end is None or moment <= when.end)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _subject(certificate: x509.Certificate) -> str:
    """The one name of a certificate. Raises VerificationError.

    What looks like an address on the web has to be one: Fulcio certifies URLs as such, and an authority that lets
    people choose a mail address or a host's name has not certified a workflow by it.
    """
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    _check(len(names) == 1, f"its certificate has {len(names)} names, and not one")
    (name,) = names
    if isinstance(name, x509.UniformResourceIdentifier):
        return name.value
    text = ""
    if isinstance(name, x509.RFC822Name):
        text = name.value
    elif isinstance(name, x509.OtherName) and name.type_id == _USER_NAME:
        text = _utf8(name.value)
    _check(bool(text), "its certificate's name is no URL, mail address or user name")
    _check("://" not in text, "its certificate has a URL where a mail address or a user name belongs")
    return text


def _issuer(certificate: x509.Certificate) -> str:
    """Who vouches for the name. Raises VerificationError."""
    found = _extension(certificate, _ISSUER)
    if not found:
        try:
            old = certificate.extensions.get_extension_for_oid(_OLD_ISSUER).value
        except x509.ExtensionNotFound:
            raise VerificationError("its certificate names no issuer of the identity") from None
        assert isinstance(old, x509.UnrecognizedExtension)  # noqa: S101 - nobody else reads it
        found = old.value.decode()
    return found


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """The text of an extension; empty where there is none. Raises VerificationError."""
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return ""
    assert isinstance(value, x509.UnrecognizedExtension)  # noqa: S101 - nobody else reads it
    return _utf8(value.value)


def _utf8(der: bytes) -> str:
    """A UTF8String (ITU-T X.690, 8.23). Raises VerificationError."""
    size, start = (der[1], 2) if len(der) > 1 else (0, 0)
    if size > _SHORT:
        start += size - _SHORT
        size = int.from_bytes(der[2:start], "big")
    _check(len(der) > 1 and der[0] == _UTF8 and len(der) == start + size, "its certificate has a text that is none")
    return der[start:].decode()
