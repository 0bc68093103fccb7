"""By which certificate authorities the operator is known beside those of ``--operator-ca``: as it said itself.

It says so over a connection whose certificate was verified, so whoever is believed could have asked for as much
before. What was said is kept for the next start, and replaced by what is said next. It counts for the operator that
said it, and only as long as the file is as it was then: who writes another authority there has taken back the old one,
and what it vouched for.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from hookline_api.base import Resource
from hookline_api.distribution import MAX_AUTHORITIES
from hookline_sidecar.state import write

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_api.distribution import AuthorityMessage

_MOST: Final = 8
"""Authorities that are taken. The operator has one, a successor, and those that it had before."""
_MAX_FILE: Final = 2 * MAX_AUTHORITIES
"""Bytes of the file; JSON writes each line's end as two."""

log = logging.getLogger("hookline.operator")


class _Kept(Resource):
    """The file."""

    operator: str
    beside: str
    """A digest of what ``--operator-ca`` held."""
    version: str
    bundle: str


class Authorities:
    """What one operator said, in one file."""

    def __init__(self, path: Path, operator: str) -> None:
        self._path = path
        self._operator = operator
        self._kept = self._read()

    def beside(self, pem: str) -> str:
        """What counts beside these authorities, PEM; empty where nothing does."""
        kept = self._of(pem)
        if kept is None:
            return ""
        try:
            return usable(kept.bundle)
        except ValueError:  # their time is over
            return ""

    def version(self, pem: str) -> str | None:
        """The operator's word for it."""
        kept = self._of(pem)
        return kept.version if kept is not None else None

    def take(self, message: AuthorityMessage, *, beside: str) -> bool:
        """Keep what it says, for these authorities of the file; whether it is news.

        Raises ValueError for what is none, and OSError where it cannot be kept: it counts until the next start then.
        """
        usable(message.bundle)
        made = _Kept(operator=self._operator, beside=_digest(beside), version=message.version, bundle=message.bundle)
        if made == self._kept:
            return False
        self._kept = made
        write(self._path, made.model_dump_json().encode())
        return True

    def _of(self, pem: str) -> _Kept | None:
        kept = self._kept
        return kept if kept is not None and kept.beside == _digest(pem) else None

    def _read(self) -> _Kept | None:
        try:
            with self._path.open("rb") as file:
                kept = _Kept.model_validate_json(file.read(_MAX_FILE))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            log.warning("%s cannot be read, and is not used: --operator-ca says whom to trust", self._path)
            return None
        return kept if kept.operator == self._operator else None


def usable(bundle: str) -> str:
    """The certificate authorities in a text whose time is not over, PEM. Raises ValueError where there are none."""
    if not bundle.isascii() or len(bundle) > MAX_AUTHORITIES or bundle.count("-----BEGIN") > _MOST:
        raise ValueError(f"is not PEM of at most {_MOST} certificate authorities and {MAX_AUTHORITIES} bytes")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=bundle or " ")
    except (ssl.SSLError, ValueError):
        raise ValueError("is not PEM of certificate authorities") from None
    # OpenSSL tells of those alone that may sign others.
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs()]
    forms = context.get_ca_certs(binary_form=True)
    now = time.time()
    found = [ssl.DER_cert_to_PEM_cert(form) for form, end in zip(forms, ends, strict=True) if now < end]
    if not found:
        raise ValueError("holds no certificate authority that is valid now")
    return "".join(found)


def _digest(pem: str) -> str:
    return hashlib.sha256(pem.encode()).hexdigest()
