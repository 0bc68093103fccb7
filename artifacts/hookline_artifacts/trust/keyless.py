"""Signatures without a key: by an identity that an authority has certified, and that stand in a transparency log.

They are verified offline against a trust root: the certificate's chain and its entry in a log of certificates, the
signature, the entry of this very signature in the log, and a time at which the certificate was valid (``offline``). Of
what a signature brings along, nothing is believed for itself, and nobody is asked.

https://github.com/sigstore/architecture-docs/blob/main/client-spec.md
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.trust import cosign
from hookline_artifacts.trust.evidence import BLOB, Signing
from hookline_artifacts.trust.patterns import matches_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from hookline_api.trust import KeylessIdentity
    from hookline_artifacts.trust.evidence import Signature

CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
ENTRY: Final = "dev.sigstore.cosign/bundle"
STAMP: Final = "dev.sigstore.cosign/rfc3161timestamp"
_ANNOTATED: Final = frozenset({"simple", "dsse"})
_MAX_DOCUMENT: Final = 512 * 1024
"""Bytes of a bundle, and of each annotation."""
_MAX_KEPT: Final = 1024
_MAX_BYTES: Final = 16 << 20
"""Of all outcomes that are kept."""
_MAX_SENTENCE: Final = 200
_SLASHES_OF_A_HOST: Final = 2
"""In ``https://github.com``, behind which an ``@`` would make it a user's name at another host."""


class Signings:
    """The signatures without a key that were found of one artifact, each verified once, and none before it is needed.

    An artifact that is signed again each day has hundreds, of which mostly the first one counts.
    """

    def __init__(self, found: Iterable[Signature], root: bytes | None) -> None:
        self._left = filter(is_keyless, found)
        self._root = root
        self._known: list[tuple[Signature, Signing, cosign.Claim]] = []
        self._refused = ""

    def by(
        self, identity: KeylessIdentity, fits: Callable[[str, str], bool] = matches_path
    ) -> Iterator[tuple[Signature, Signing, cosign.Claim]]:
        """Those by an identity, and what they say. ``fits`` tells whether a path is of a pattern.

        Raises ConfigError.
        """
        at = 0
        while at < len(self._known) or self._verify_next():
            found = self._known[at]
            at += 1
            if is_by(found[1], identity, fits):
                yield found

    @property
    def why(self) -> str:
        """What there is instead of a signature by an identity; empty where there is none without a key at all."""
        while self._verify_next():
            pass
        if self._known:
            by = sorted({f"{each.subject:.120} ({each.issuer:.60})" for _, each, _ in self._known})
            return f"it is signed by {' and '.join(by[:2])}"
        return f"its keyless signature does not count: {self._refused}" if self._refused else ""

    def _verify_next(self) -> bool:
        """Verify until one more counts; whether one does."""
        for each in self._left:
            try:
                signing = verify(each, self._root)
                self._known.append((each, signing, _claim(signing)))
            except RefusedError as error:
                self._refused = self._refused or str(error)
            except cosign.NotAClaimError:
                self._refused = self._refused or "what is signed is neither a signature nor a statement"
            else:
                return True
        return False


def _claim(signing: Signing) -> cosign.Claim:
    """What was signed, from the very bytes that were verified. Raises NotAClaimError."""
    if signing.payload_type == BLOB:
        return cosign.Claim(digests=frozenset({f"sha256:{signing.payload.hex()}"}))
    if not signing.payload_type:
        return cosign.simple(signing.payload)
    if signing.payload_type != cosign.IN_TOTO:
        raise cosign.NotAClaimError
    return cosign.statement(signing.payload)


class RefusedError(Exception):
    """A signature without a key does not count; its text says why, and follows "the keyless signature does not count:".

    It quotes what strangers wrote.
    """


def is_keyless(signature: Signature) -> bool:
    """Whether a signature brings a certificate along. Nothing of it is verified."""
    if signature.form in {"simple", "dsse"}:
        return CERTIFICATE in signature.annotations
    if signature.form != "bundle" or len(signature.payload) > _MAX_DOCUMENT:
        return False
    try:
        material = parse_foreign(signature.payload).get("verificationMaterial")
    except (ValueError, AttributeError):
        return False
    return isinstance(material, dict) and ("certificate" in material or "x509CertificateChain" in material)


def verify(signature: Signature, root: bytes | None) -> Signing:
    """What a signature proves under a trust root (``trusted_root.json``; None for Sigstore's public authority).

    Takes milliseconds, and the first time the import of ``sigstore``: for a thread. Raises RefusedError, and
    ConfigError where ``sigstore`` is missing or the root is none.
    """
    parts = [signature.form.encode(), signature.payload, signature.signature, root or b""]
    parts += [signature.annotations.get(each, "").encode() for each in (CERTIFICATE, ENTRY, STAMP)]
    key = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in parts)).digest()
    outcome = _outcomes.get(key)
    if outcome is None:
        outcome = _outcome(signature, root)
        _outcomes.put(key, outcome)
    if isinstance(outcome, str):
        raise RefusedError(outcome)
    return outcome


def is_by(signing: Signing, identity: KeylessIdentity, fits: Callable[[str, str], bool] = matches_path) -> bool:
    """Whether an identity is meant."""
    if signing.issuer != identity.issuer:
        return False
    if identity.subject is not None:
        return signing.subject == identity.subject
    if identity.subject_prefix is not None:
        return _begins(signing.subject, identity.subject_prefix)
    return bool(signing.repository) and fits(identity.repository or "", signing.repository)


def check_root(root: bytes | None, where: str) -> str:
    """The SHA-256 of a trust root. Raises ConfigError, which says ``where``, for one by which nothing can be verified.

    Imports ``sigstore``, which takes 0.3 s: for a thread.
    """
    offline = _offline(where)
    try:
        found: str = offline.read_root(root).sha256
        return found
    except Exception as error:  # noqa: BLE001 - somebody's bytes in foreign code
        why = _sentence(error)
        raise ConfigError(f"{where}: there is no trust root (trusted_root.json) to verify by: {why}") from None


def _begins(subject: str, prefix: str) -> bool:
    """Whether a subject begins with a prefix, and this ends where a name does: not ``acme`` of ``acme-evil``.

    Behind ``@refs/`` there are only the names of that repository's tags and branches.
    """
    if not subject.startswith(prefix):
        return False
    rest = subject[len(prefix) :]
    if not rest or prefix[-1] in "/@" or "@refs/" in prefix:
        return True
    return rest[0] == "/" or (rest[0] == "@" and prefix.count("/") > _SLASHES_OF_A_HOST)


class _Outcomes:
    """What signatures proved, or why they did not. Time plays no part in it, so it stays true."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Signing | str] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Signing | str | None:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: bytes, outcome: Signing | str) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = outcome
                self._bytes += _size(outcome)
            while len(self._kept) > _MAX_KEPT or self._bytes > _MAX_BYTES:
                _, old = self._kept.popitem(last=False)
                self._bytes -= _size(old)


_outcomes: Final = _Outcomes()


def _size(outcome: Signing | str) -> int:
    return 1024 + (len(outcome) if isinstance(outcome, str) else len(outcome.payload))


def _outcome(signature: Signature, root: bytes | None) -> Signing | str:
    check_root(root, "trustRoot")
    offline = _offline("trustRoot")
    texts = [signature.annotations.get(each, "") for each in (CERTIFICATE, ENTRY, STAMP)]
    if len(signature.payload) > _MAX_DOCUMENT or any(len(each) > _MAX_DOCUMENT for each in texts):
        return "it is too large"
    try:
        return _proven(signature, texts, offline, offline.read_root(root))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's bytes in foreign code; a panic in Rust is no Exception
        return _sentence(error)


def _proven(signature: Signature, texts: list[str], offline: ModuleType, root: object) -> Signing:
    """What a signature proves. Raises anything."""
    signed = None
    if signature.form == "bundle":
        parts = offline.bundle(signature.payload)
    else:
        envelope = signature.payload if signature.form == "dsse" else None
        parts = offline.detached(*texts, envelope=envelope, signature=signature.signature)
        signed = signature.payload
    proven: Signing = offline.verify(parts, root, signed=signed)
    return proven


def _sentence(error: BaseException) -> str:
    """The first line: in those below, parsers quote what they read."""
    lines = str(error).strip().splitlines()
    return lines[0][:_MAX_SENTENCE] if lines else type(error).__name__


def _offline(what: str) -> ModuleType:
    try:
        from hookline_artifacts.trust import offline  # noqa: PLC0415 - only where a keyless signature is asked for
    except ImportError:
        raise ConfigError(
            f"{what}: keyless signatures need the package 'sigstore': pip install 'hookline[keyless]'"
        ) from None
    return offline
