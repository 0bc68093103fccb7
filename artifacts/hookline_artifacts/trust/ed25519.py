"""Detached Ed25519 signatures: over a module and its manifest, and HeliosDB's, over a module alone.

What Hookline signs is this text in ASCII, with a line feed behind each line, the last too::

    hookline.dev/signature/v1
    module sha256:HEX
    manifest sha256:HEX

HEX stands for 64 digits of lower-case hexadecimal: of the module's bytes, and of the *manifest list*. Where there is no
manifest, the third line is ``manifest none``.

The manifest list names all that is read of an artifact beside its module. It is text in UTF-8 too, one line for each
part, ``sha256:HEX NAME`` and a line feed:

1. the files packed beside the module, whose NAMEs are ``plugin.yaml``, ``plugin.toml`` and ``manifest.json``, in this
   order; HEX is of the file's bytes;
2. the annotations of the manifest in a registry, of those that describe a plugin
   (``hookline_artifacts.module.describe``), in the order of their keys; NAME is ``annotation:KEY``, and HEX is of the
   value in UTF-8.

An artifact with none of them has no manifest. So what is signed does not depend on where the signature is kept, and it
can be made with ``sha256sum`` and ``openssl pkeyutl -sign -rawin``.

HeliosDB's tool signs the module's bytes and nothing else (``SignatureVerifier`` in
https://github.com/HeliosDatabase/HeliosDB-Proxy/blob/main/src/plugins/loader.rs). Both are kept as the base64 of the
64 bytes that RFC 8032 has; white space in it is passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.module.describe import PACKED_MANIFESTS
from hookline_artifacts.package.layouts import SIGNATURE_LAYER
from hookline_artifacts.package.search import MAX_SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.trust.keys import PublicKey

MEDIA_TYPE: Final = SIGNATURE_LAYER
"""Of a layer that is such a signature."""
ANNOTATION: Final = "hookline.signature"
"""The annotation of a manifest in a registry that holds one. It is no part of the manifest list."""
_VERSION: Final = "hookline.dev/signature/v1"
_BYTES: Final = 64


def manifest_list(parts: Mapping[str, str]) -> bytes | None:
    """The manifest list of an artifact's ``described_by``: hexadecimal SHA-256 by name. None where it has no part."""
    packed = [name for name in PACKED_MANIFESTS if name in parts]
    others = sorted(name for name in parts if name not in PACKED_MANIFESTS)
    return "".join(f"sha256:{parts[name]} {name}\n" for name in [*packed, *others]).encode() or None


def message(module_sha256: str, manifest: bytes | None) -> bytes:
    """What is signed: of a module by its SHA-256 in hexadecimal, and of a manifest list."""
    has = "none" if manifest is None else f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    return f"{_VERSION}\nmodule sha256:{module_sha256.lower()}\nmanifest {has}\n".encode()


def verify(key: PublicKey, signature: bytes, *, module_sha256: str, manifest: bytes | None) -> bool:
    """Whether these 64 bytes are a signature by this key over a module and its manifest list."""
    return _is_by(key, signature, message(module_sha256, manifest))


def verify_legacy(key: PublicKey, signature: bytes, *, module: bytes) -> bool:
    """Whether they are HeliosDB's, over the module's bytes. Takes a millisecond for each MiB: for a thread."""
    return _is_by(key, signature, module)


def sign(private_key: Any, *, module_sha256: str, manifest: bytes | None) -> bytes:
    """A signature as it is kept, by an ``Ed25519PrivateKey`` of the library cryptography."""
    return encode(private_key.sign(message(module_sha256, manifest)))


def encode(signature: bytes) -> bytes:
    """The text in which a signature is kept, without a line feed behind it: HeliosDB's tools read the same."""
    return base64.b64encode(signature)


def decode(text: bytes) -> bytes:
    """The 64 bytes of a signature; none where it is not one."""
    if len(text) > MAX_SIGNATURE:
        return b""
    try:
        found = base64.b64decode(b"".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        return b""
    return found if len(found) == _BYTES else b""


def _is_by(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    """By Ed25519 over the bytes themselves, whatever else the key may be used for."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only where a signature is asked for

    try:
        key.key.verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True
