"""Signs what is in a registry as cosign does with a key: simple signing, under the tag ``sha256-<hex>.sig``.

https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local_registry import MANIFEST, LocalRegistry, digest

_SIMPLE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_CONFIG: Final = b"{}"


class SigningKey:
    """A new pair of keys, ECDSA on P-256 as ``cosign generate-key-pair`` makes it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def pem(self) -> str:
        """The public key."""
        return self._public(Encoding.PEM).decode()

    @property
    def id(self) -> str:
        """``sha256:`` of the public key, as statuses have it."""
        return "sha256:" + hashlib.sha256(self._public(Encoding.DER)).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """The signature over a message."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    def _public(self, encoding: Encoding) -> bytes:
        return self._key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def sign(registry: LocalRegistry, repository: str, artifact: str, *keys: SigningKey, signed_as: str = "") -> None:
    """Put one signature of each key beside an artifact, in place of those that were there.

    ``artifact`` is the manifest's digest. ``signed_as`` is the repository that the signatures name, by default its own.
    """
    claim = {
        "critical": {
            "identity": {"docker-reference": signed_as or f"{registry.host}/{repository}"},
            "image": {"docker-manifest-digest": artifact},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    payload = json.dumps(claim).encode()
    layers: list[dict[str, Any]] = [
        {
            "mediaType": _SIMPLE,
            "digest": digest(payload),
            "size": len(payload),
            "annotations": {_SIGNATURE: base64.b64encode(key.sign(payload)).decode()},
        }
        for key in keys
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(_CONFIG),
            "size": len(_CONFIG),
        },
        "layers": layers,
    }
    registry.put(repository, f"{artifact.replace(':', '-')}.sig", json.dumps(manifest).encode(), _CONFIG, payload)
