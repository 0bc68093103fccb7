"""Signatures over a plugin's own bytes, and not over a manifest in a registry: detached ones, and those of files.

A detached Ed25519 signature covers the module (``ed25519``). What ``cosign sign-blob --bundle`` writes covers the file
that was fetched: with ECDSA on P-256 and with RSA its SHA-256 is enough to verify it, and what a key on P-384 or P-521
or an Ed25519 key has signed is verified over the file, which is here only where it is the module itself.

Format of a bundle: https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto,
``message_signature``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.trust import ed25519

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hookline_artifacts.trust.evidence import Signature
    from hookline_artifacts.trust.keys import PublicKey
    from hookline_artifacts.trust.requirement import Authority

_MAX_HASHED: Final = 1 << 30
"""Bytes of a module that are hashed for signatures over them: 16 times those of the largest, in a second."""
_FIELD: Final = b'"messageSignature"'
MAX_DIRECT: Final = 64
"""Signatures that are looked at, of each kind."""


MAX_PAIRS: Final = 4096
"""Of a signature and a key that are tried for one requirement: a third of a second. Whoever wrote the resource may have
written both."""
_OF_A_FILE: Final = 8
"""Pairs that one over a file counts for: it is held against each digest and the file, and kinds of keys are slower."""


class Why(NamedTuple):
    """Why none counts: how near the one came that came nearest, what was wrong with it, and what to do."""

    near: int
    what: str
    todo: str


class Found:
    """Of what was found of one artifact, the signatures over bytes, each read once; ``claims`` are the others."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self.claims: list[Signature] = []
        self.detached: list[Signature] = []
        self.blobs: list[tuple[Signature, bytes]] = []
        """Bundles, with the signature in each."""
        for each in signatures:
            raw = message_signature(each.payload) if each.form == "bundle" else None
            if each.form == "ed25519":
                self.detached.append(each)
            elif raw is not None:
                self.blobs.append((each, raw))
            else:
                self.claims.append(each)
        del self.detached[MAX_DIRECT:], self.blobs[MAX_DIRECT:]


def message_signature(document: bytes) -> bytes | None:
    """The signature in a bundle, where it is one over a file; None where it is anything else."""
    if _FIELD not in document:
        return None  # without reading it: there may be megabytes of others
    try:
        data = parse_foreign(document)
        return base64.b64decode(data["messageSignature"]["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


class Direct:
    """The signatures of one module that are over bytes, for one requirement.

    ``digests`` are those of the file that was fetched, ``module`` is the SHA-256 of the module's bytes in hexadecimal,
    and ``read`` reads these: it may raise OSError, and what comes is hashed again.
    """

    def __init__(
        self,
        found: Found,
        *,
        digests: frozenset[str],
        module: str,
        read: Callable[[], bytes] | None,
    ) -> None:
        self.why = Why(0, "", "")
        self._found = found
        self._digests = digests
        self._module = module
        self._read = read
        self._bytes: bytes | None = None
        self._left = _MAX_HASHED
        self._pairs = MAX_PAIRS

    def detached(self, authority: Authority) -> tuple[Signature, PublicKey] | None:
        """One by an Ed25519 signer, with the key; None where none counts."""
        for signature in self._found.detached:
            if not signature.signature:
                self._wrong(2, "what is there as its signature is not 64 bytes in base64", "sign it again")
                continue
            key = self._signer(authority, signature)
            if key is not None:
                return signature, key
        return None

    def covers_manifest(self, signature: Signature, key: PublicKey) -> bool:
        """Whether a detached signature by a key is over the manifest beside the module, too."""
        manifest = signature.payload or None
        return ed25519.verify(key, signature.signature, module_sha256=self._module, manifest=manifest)

    def _signer(self, authority: Authority, signature: Signature) -> PublicKey | None:
        for key in authority.keys:
            if not self._may_try():
                return None
            if self.covers_manifest(signature, key):
                return key
        for key in authority.keys:
            module = self._file()
            if module and ed25519.verify_legacy(key, signature.signature, module=module):
                if authority.legacy:
                    return key
                what = "is over the module alone, as HeliosDB's tool makes it, and says nothing of the manifest"
                todo = "sign it with Hookline, or set ed25519.legacy"
                self._wrong(5, f"the signature by {authority.label:.48} {what}", todo)
                return None
        self._wrong(3, "its signature is by another key, or of another module or manifest", "have them sign it")
        return None

    def blob(self, authority: Authority) -> tuple[Signature, PublicKey] | None:
        """One over the file that was fetched, with the key; None where none counts."""
        for signature, raw in self._found.blobs:
            for key in authority.keys:
                if not self._may_try(_OF_A_FILE):
                    return None
                if self._is_of_file(key, raw):
                    return signature, key
            self._wrong(3, f"its signature is of another file, or not by {authority.label:.48}", "have them sign it")
        return None

    def _is_of_file(self, key: PublicKey, raw: bytes) -> bool:
        if any(_is_of(key.key, raw, bytes.fromhex(each.removeprefix("sha256:"))) for each in self._digests):
            return True
        if not _needs_file(key.key):
            return False
        if f"sha256:{self._module}" not in self._digests:
            what = "what a key of its kind has signed can be verified of a bare module only"
            self._wrong(4, what, "sign with ECDSA on P-256 or RSA, or do not pack the module")
            return False
        file = self._file()
        return bool(file) and key.has_signed(raw, file)

    def _may_try(self, pairs: int = 1) -> bool:
        """Whether one more signature may be held against a key, which counts for so many."""
        self._pairs -= pairs
        if self._pairs < 0:
            self._wrong(4, f"of its signatures and the keys {MAX_PAIRS} pairs are tried", "remove old ones")
        return self._pairs >= 0

    def _file(self) -> bytes:
        """The module's bytes, for one more key and signature; none where they cannot be had or were tried enough."""
        if self._bytes is None:
            self._bytes = self._checked()
        self._left -= len(self._bytes)
        if self._left >= 0:
            return self._bytes
        what = "there are more keys and signatures than can be tried on a module of its size"
        self._wrong(4, what, "remove old ones")
        return b""

    def _checked(self) -> bytes:
        """The module's bytes; none where they are not what they were."""
        try:
            found = self._read() if self._read is not None else b""
        except OSError as error:
            self._wrong(4, f"the module's file cannot be read: {error.strerror}", "it is fetched again")
            return b""
        if hashlib.sha256(found).hexdigest() == self._module:
            return found
        self._wrong(4, "the module's file is not what it was", "it is fetched again")
        return b""

    def _wrong(self, near: int, what: str, todo: str) -> None:
        self.why = max(self.why, Why(near, what, todo), key=lambda each: each.near)


def _needs_file(key: Any) -> bool:
    """Whether a file's SHA-256 is not enough for this key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - only where a signature is asked for

    by_digest = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    return not by_digest and not isinstance(key, rsa.RSAPublicKey)


def _is_of(key: Any, signature: bytes, sha256: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils  # noqa: PLC0415

    kind = utils.Prehashed(hashes.SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, sha256, ec.ECDSA(kind))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, sha256, padding.PKCS1v15(), kind)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True
