"""A connection to PostgreSQL: how it is protected, and what libpq is given of a plugin's Secrets.

libpq takes certificates and keys as files. They are files in memory, without a name in any folder, and end with the
plugin or the process. What the environment or a home folder would add (``~/.pgpass``, ``~/.postgresql``) is not
taken.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hookline_api.outbound import PostgresSource, SecretKeyRef

CONNECT_S: Final = 5.0
"""For a connection, with all of the addresses that its host has."""
_NOWHERE: Final = "/proc/self/fd/none"
_MODES: Final = {"VerifyFull": "verify-full", "Require": "require", "Disable": "disable"}
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


class Conninfo:
    """Where a source is, who asks, and as what."""

    def __init__(self, source: PostgresSource, credentials: Mapping[str, str], *, application: str) -> None:
        self._source = source
        self._credentials = credentials
        self._application = application
        self._arguments: dict[str, Any] | None = None
        self._files = contextlib.ExitStack()

    def missing(self) -> str | None:
        """The Secret's key that has no value here."""
        tls = self._source.tls
        named = (self._source.password_from, tls.ca_from, tls.certificate_from, tls.key_from)
        return next((each.id for each in named if each is not None and each.id not in self._credentials), None)

    def arguments(self) -> dict[str, Any]:
        """What ``psycopg.AsyncConnection.connect`` is given. Raises OSError where there cannot be another file.

        A cancel request is a connection too, so the files live until ``close``.
        """
        if self._arguments is None:
            self._arguments = self._made()
        return self._arguments

    def close(self) -> None:
        """Give the files back."""
        self._files.close()
        self._arguments = {}

    def _made(self) -> dict[str, Any]:
        source = self._source
        given: dict[str, Any] = {
            "host": source.host, "port": source.port, "dbname": source.database, "user": source.user,
            "application_name": self._application, "client_encoding": "UTF8", "gssencmode": "disable",
            "connect_timeout": int(CONNECT_S), "autocommit": True, "passfile": _NOWHERE,
            "sslmode": _MODES[source.tls.mode], "options": _options(source), "tcp_user_timeout": 10_000,
            "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
        }  # fmt: skip
        if source.tls.mode != "VerifyFull":
            # Whoever answers could be anybody: it is never told the password itself.
            given["require_auth"] = "!password,!gss,!sspi"
        if (password := self._value(source.password_from)) is not None:
            given["password"] = password.rstrip("\r\n")  # as an editor leaves it in a file that a Secret is made from
        return given | self._certificates()

    def _certificates(self) -> dict[str, str]:
        tls = self._source.tls
        if tls.mode == "Disable":
            return {}
        authority, certificate, key = map(self._value, (tls.ca_from, tls.certificate_from, tls.key_from))
        given = {"sslcrl": _NOWHERE, "sslcertmode": "disable"}
        if authority is not None:
            given["sslrootcert"] = self._file_of(authority)
        else:
            given["sslrootcert"] = _system_authorities() if tls.mode == "VerifyFull" else _NOWHERE
        if certificate is not None and key is not None:
            given |= {"sslcert": self._file_of(certificate), "sslkey": self._file_of(key), "sslcertmode": "allow"}
        return given

    def _file_of(self, text: str) -> str:
        return self._files.enter_context(_file_of(text))

    def _value(self, reference: SecretKeyRef | None) -> str | None:
        return None if reference is None else self._credentials.get(reference.id)


def _options(source: PostgresSource) -> str:
    settings = {
        "statement_timeout": source.statement_timeout,
        "default_transaction_read_only": "on" if source.access == "ReadOnly" else "off",
        # The formats that postgres_values reads.
        "datestyle": "ISO", "intervalstyle": "iso_8601", "timezone": "UTC", "bytea_output": "hex",
        "extra_float_digits": 1,
    }  # fmt: skip
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


@contextlib.contextmanager
def _file_of(text: str) -> Iterator[str]:
    """A file in memory that only this process can open, by its path."""
    file = os.memfd_create("hookline", os.MFD_CLOEXEC)
    try:
        os.fchmod(file, 0o600)  # libpq refuses a key that others may read
        with os.fdopen(os.dup(file), "wb") as writing:
            writing.write(text.encode())
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


def _system_authorities() -> str:
    """The system's authorities, in one file. The libpq of psycopg's wheels does not know where they are."""
    paths = ssl.get_default_verify_paths()
    candidates = (os.environ.get(paths.openssl_cafile_env), paths.cafile, *_BUNDLES)
    return next((each for each in candidates if each and Path(each).is_file()), "system")
