"""A Sigstore of a test's own: an authority, a log of certificates and a log of signatures, which may do anything wrong.

What real tools make is in ``tests/artifacts/trust/keyless_material``; this is for what no honest service makes.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hookline_artifacts.trust.evidence import Signature

ISSUER = "https://token.actions.githubusercontent.com"
SOURCE = "https://github.com/acme/plugins"
SUBJECT = f"{SOURCE}/.github/workflows/release.yml@refs/tags/v1"
SIGN = "https://sigstore.dev/cosign/sign/v1"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SCTS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO = "1.3.6.1.4.1.57264.1."
_SHA256 = ec.ECDSA(hashes.SHA256())


def at(day, minute=0):
    """A moment of 2025."""
    return dt.datetime(2025, 1, day, 12, minute, tzinfo=dt.UTC)


def _b64(data):
    return base64.b64encode(data).decode()


def _canonical(data):
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_id(key):
    return hashlib.sha256(_spki(key)).digest()


def _text(value):
    raw = value.encode()
    size = bytes([len(raw)]) if len(raw) < 128 else bytes([0x81, len(raw)])
    return b"\x0c" + size + raw


class OwnSigstore:
    """The services, with keys of their own."""

    def __init__(self):
        self.ca, self.ct, self.log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "own")])
        builder = self._builder(self.name, self.ca, at(1), at(28))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
        self.certificate = builder.sign(self.ca, hashes.SHA256())

    def root(self, **changes):
        """``trusted_root.json``."""
        valid = {"start": "2024-01-01T00:00:00Z"}

        def log(key):
            public = {"rawBytes": _b64(_spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            ids = {"logId": {"keyId": _b64(_key_id(key))}, "hashAlgorithm": "SHA2_256"}
            return {"baseUrl": "https://log.example", "publicKey": public, **ids}

        der = _b64(self.certificate.public_bytes(Encoding.DER))
        authority = {
            "subject": {"organization": "own", "commonName": "own"},
            "uri": "https://ca.example",
            "certChain": {"certificates": [{"rawBytes": der}]},
            "validFor": valid,
        }
        data = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log)],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self.ct)],
            "timestampAuthorities": [],
        }
        return json.dumps(data | changes).encode()

    def _builder(self, subject, key, start, end):
        builder = x509.CertificateBuilder(issuer_name=self.name, subject_name=subject, public_key=key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key())
        builder = builder.add_extension(own, critical=False)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return builder.add_extension(identifier, critical=False)

    def certify(self, *, names=None, subject=SUBJECT, issuer=ISSUER, source=SOURCE, valid=None, ct=None, more=()):
        """A certificate and its key. ``ct`` is another log of certificates' key; False for no entry in one."""
        key = ec.generate_private_key(ec.SECP256R1())
        start, end = valid or (at(10), at(10, 10))
        builder = self._builder(x509.Name([]), key, start, end)
        names = names or [x509.UniformResourceIdentifier(subject)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        told = {"8": _text(issuer), "12": _text(source)} if source else {"8": _text(issuer)}
        for number, value in [*told.items(), *more]:
            oid = x509.ObjectIdentifier(_FULCIO + number)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        if ct is not False:
            tbs = builder.sign(self.ca, hashes.SHA256()).tbs_certificate_bytes
            entry = x509.UnrecognizedExtension(_SCTS, self._sct(ct or self.ct, tbs, start))
            builder = builder.add_extension(entry, critical=False)
        return builder.sign(self.ca, hashes.SHA256()), key

    def _sct(self, key, tbs, moment):
        when = int(moment.timestamp() * 1000).to_bytes(8, "big")
        entry = _key_id(self.ca) + len(tbs).to_bytes(3, "big") + tbs
        signature = key.sign(b"\0\0" + when + b"\0\1" + entry + b"\0\0", _SHA256)
        sct = b"\0" + _key_id(key) + when + b"\0\0" + b"\4\3" + len(signature).to_bytes(2, "big") + signature
        made = (len(sct) + 2).to_bytes(2, "big") + len(sct).to_bytes(2, "big") + sct
        return b"\x04" + bytes([0x81, len(made)] if len(made) > 127 else [len(made)]) + made

    def entry(self, body, *, log=None, when=None, index=7):
        """A log entry, as a bundle has it. ``log`` is the key that signs, where it is not the log's."""
        key = log or self.log
        moment = int((when or at(10, 5)).timestamp())
        payload = {"body": _b64(body), "integratedTime": moment, "logID": _key_id(self.log).hex(), "logIndex": index}
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"log.example - 1\n1\n{_b64(root)}\n"
        line = _b64(_key_id(self.log)[:4] + key.sign(note.encode(), _SHA256))
        kind = json.loads(body)
        return {
            "logIndex": str(index),
            "logId": {"keyId": _b64(_key_id(self.log))},
            "kindVersion": {"kind": kind["kind"], "version": kind["apiVersion"]},
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": _b64(key.sign(_canonical(payload), _SHA256))},
            "inclusionProof": {
                "logIndex": "0",
                "treeSize": "1",
                "rootHash": _b64(root),
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example {line}\n"},
            },
            "canonicalizedBody": _b64(body),
        }

    def bundle(self, digest, *, kind=SIGN, predicate=None, certified=None, entry=None, change=None, **options):
        """A bundle with a statement about a digest. ``change`` may alter it when it is done."""
        certificate, key = certified or self.certify()
        envelope, body = _envelope(digest, kind, predicate or {}, certificate, key)
        material = {
            "certificate": {"rawBytes": _b64(certificate.public_bytes(Encoding.DER))},
            "tlogEntries": [entry or self.entry(_canonical(body), **options)],
        }
        made = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
        if change is not None:
            change(made)
        return Signature(form="bundle", payload=json.dumps(made).encode())

    def attached(self, digest, *, kind, predicate=None):
        """What cosign 2 attests: the envelope, and the annotations of its layer."""
        certificate, key = self.certify()
        envelope, body = _envelope(digest, kind, predicate or {}, certificate, key)
        return json.dumps(envelope).encode(), self._annotations(certificate, body)

    def simple(self, digest, name):
        """What cosign 2 signs: the payload, the signature, and the annotations of its layer."""
        certificate, key = self.certify()
        critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}}
        critical["type"] = "cosign container image signature"
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        signature = key.sign(payload, _SHA256)
        public = {"content": _b64(certificate.public_bytes(Encoding.PEM))}
        hashed = {"hash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}}
        spec = {"data": hashed, "signature": {"content": _b64(signature), "publicKey": public}}
        body = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec}
        return payload, signature, self._annotations(certificate, body)

    def _annotations(self, certificate, body):
        entry = self.entry(_canonical(body))
        record = {"body": entry["canonicalizedBody"], "integratedTime": int(entry["integratedTime"])}
        record |= {"logIndex": int(entry["logIndex"]), "logID": _key_id(self.log).hex()}
        promise = entry["inclusionPromise"]["signedEntryTimestamp"]
        return {
            "dev.sigstore.cosign/certificate": certificate.public_bytes(Encoding.PEM).decode(),
            "dev.sigstore.cosign/chain": self.certificate.public_bytes(Encoding.PEM).decode(),
            "dev.sigstore.cosign/bundle": json.dumps({"SignedEntryTimestamp": promise, "Payload": record}),
        }


def _envelope(digest, kind, predicate, certificate, key):
    """An envelope around a statement, and its entry in the log."""
    subject = [{"digest": {"sha256": digest.removeprefix("sha256:")}}]
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": kind}
    payload = json.dumps(statement | {"predicate": predicate}).encode()
    media = "application/vnd.in-toto+json"
    signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(media), media.encode(), len(payload), payload), _SHA256)
    envelope = {"payload": _b64(payload), "payloadType": media, "signatures": [{"sig": _b64(signature)}]}
    pem = _b64(certificate.public_bytes(Encoding.PEM))
    body = {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": _b64(signature), "verifier": pem}],
        },
    }
    return envelope, body


def _usage(**wanted):
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**(dict.fromkeys(names, False) | wanted))
