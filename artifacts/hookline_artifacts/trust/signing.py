"""Signatures as cosign makes them with a key: simple signing, and Sigstore's bundle, with the manifests that hold them.

``cosign`` reads what is written here, and has the sources of the formats.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.package.layouts import read_manifest
from hookline_artifacts.trust.cosign import IN_TOTO, SIGN_PREDICATE, SIMPLE_TYPE, pae
from hookline_artifacts.trust.evidence import MAX_SIGNATURES

if TYPE_CHECKING:
    from hookline_artifacts.trust.private_keys import PrivateKey

BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_EMPTY: Final = "application/vnd.oci.empty.v1+json"
_LONG_AGO: Final = "0001-01-01T00:00:00Z"


def simple_payload(digest: str, repository: str) -> bytes:
    """What simple signing signs of an artifact. ``repository`` is ``registry/repository``; empty for any."""
    name = f"index.{repository}" if repository.startswith("docker.io/") else repository
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": SIMPLE_TYPE,
    }
    return _json({"critical": critical, "optional": None})


def simple_manifest(before: bytes | None, payload: bytes, key: PrivateKey) -> tuple[bytes, bytes]:
    """The manifest for the tag ``….sig`` with one signature more than ``before``, and its config.

    Raises VerifyError.
    """
    layers: list[Any] = []
    if before is not None:
        if read_manifest(before).entries is not None:
            raise VerifyError("the tag of the signatures is an index; see to who put it there")
        layers = parse_foreign(before)["layers"]
    if len(layers) >= MAX_SIGNATURES:
        raise VerifyError(f"the artifact has {len(layers)} signatures, and {MAX_SIGNATURES} are read; remove old ones")
    layer = {**_blob(payload, SIMPLE_SIGNING), "annotations": {SIGNATURE: _text(key.sign(payload))}}
    layers = [*layers, layer]
    config = _json({
        "architecture": "", "created": _LONG_AGO, "os": "", "config": {}, "history": [{"created": _LONG_AGO}],
        "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]},
    })  # fmt: skip
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": _blob(config, _CONFIG), "layers": layers}
    return _json(manifest), config


def bundle(digest: str, key: PrivateKey) -> bytes:
    """A bundle in which a key states that it signs an artifact."""
    payload = _json({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": {}}],
        "predicateType": SIGN_PREDICATE,
        "predicate": {},
    })  # fmt: skip
    envelope = {
        "payload": _text(payload),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": _text(key.sign(pae(IN_TOTO, payload)))}],
    }
    return _json({"mediaType": BUNDLE, "verificationMaterial": _material(key), "dsseEnvelope": envelope})


def file_bundle(data: bytes, key: PrivateKey) -> bytes:
    """A bundle with a signature over a file, as ``cosign sign-blob --bundle`` writes it."""
    signed = {
        "messageDigest": {"algorithm": "SHA2_256", "digest": _text(hashlib.sha256(data).digest())},
        "signature": _text(key.sign(data)),
    }
    return _json({"mediaType": BUNDLE, "verificationMaterial": _material(key), "messageSignature": signed})


def _material(key: PrivateKey) -> dict[str, Any]:
    """By which key, as a hint: nobody believes it."""
    return {"publicKey": {"hint": _text(bytes.fromhex(key.public.id.removeprefix("sha256:")))}}


def bundle_referrer(document: bytes, subject: dict[str, Any]) -> bytes:
    """The manifest that refers to an artifact with a bundle."""
    about = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": SIGN_PREDICATE}
    return referrer(document, BUNDLE, subject, about)


def referrer(layer: bytes, media_type: str, subject: dict[str, Any], annotations: dict[str, str]) -> bytes:
    """A manifest of one layer that refers to ``subject``, which is as an index lists it. Its config is ``{}``."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _json({
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": media_type,
        "config": _blob(b"{}", _EMPTY),
        "layers": [_blob(layer, media_type)],
        "subject": {name: subject[name] for name in ("mediaType", "digest", "size")},
        "annotations": {**annotations, "org.opencontainers.image.created": now},
    })  # fmt: skip


def _blob(data: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
