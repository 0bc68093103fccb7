"""Where a Valkey or Redis server is, and who we are to it: ``ValkeyServer`` with the values of its Secrets."""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes, urlsplit

from hookline_artifacts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_api.outbound import ClientTls, SecretKeyRef, ValkeyServer

_TLS: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
_PORT: Final = 6379
_MOST_URL: Final = 2048
_MOST_DATABASE: Final = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a connection needs. Nothing of it may be shown but ``shown``."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    greeting: tuple[tuple[bytes, ...], ...]
    """The commands that come first, each of which has to be answered well: AUTH and SELECT."""
    shown: str
    """The server in a sentence: not where its URL is a Secret's."""


def target_of(server: ValkeyServer, credentials: Mapping[str, str], where: str) -> Target:
    """Read the settings; it takes some milliseconds, for the certificates. Raises ConfigError.

    ``where`` is the settings' path in the spec. A user and a password of their own Secrets go before those of the URL.
    """

    def value(ref: SecretKeyRef | None, field: str) -> str | None:
        if ref is None:
            return None
        if ref.id not in credentials:
            raise ConfigError(f"{where}.{field} names the key '{ref.key}' of Secret '{ref.name}', which is not there")
        return credentials[ref.id].rstrip("\r\n")  # as an editor leaves it in a file that a Secret is made from

    source = "url" if server.url is not None else "urlFrom"
    url = server.url if server.url is not None else value(server.url_from, source) or ""
    wrong = ConfigError(f"{where}.{source} is not of the form redis://HOST:PORT/DATABASE, or rediss:// for TLS")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        database = int(parts.path[1:] or "0") if parts.path[1:].isascii() else -1
    except ValueError:
        raise wrong from None  # its words quote the URL
    in_url = unquote_to_bytes(parts.username or ""), unquote_to_bytes(parts.password or "")
    if (
        len(url) > _MOST_URL or parts.scheme not in _TLS or not host or port == 0
        or not 0 <= database <= _MOST_DATABASE or parts.query or parts.fragment
        or not (parts.path[1:].isdigit() or parts.path in {"", "/"})
    ):  # fmt: skip
        raise wrong
    user, password = value(server.username_from, "usernameFrom"), value(server.password_from, "passwordFrom")
    as_bytes = (
        in_url[0] if user is None else user.encode(),
        in_url[1] if password is None else password.encode(),
    )
    if as_bytes[0] and not as_bytes[1]:
        raise ConfigError(f"{where} has a user and no password")
    greeting = [(b"AUTH", *filter(None, as_bytes))] if as_bytes[1] else []
    if database:
        greeting.append((b"SELECT", b"%d" % database))
    context = _context(server.tls, value, where) if _TLS[parts.scheme] else None
    port = _PORT if port is None else port
    shown = f"the server of {where}.urlFrom" if server.url is None else f"the server at {host}:{port}"
    return Target(host=host, port=port, tls=context, greeting=tuple(greeting), shown=shown)


def _context(tls: ClientTls, value: Callable[[SecretKeyRef | None, str], str | None], where: str) -> ssl.SSLContext:
    """Certificates and names are always checked."""
    authority = value(tls.ca_from, "tls.caFrom")
    try:
        # DANGER: the library takes an empty text for the system's authorities.
        context = ssl.create_default_context(cadata=authority if authority != "" else "-")
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{where}.tls.caFrom holds no certificates in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = value(tls.certificate_from, "tls.certificateFrom"), value(tls.key_from, "tls.keyFrom")
    if certificate is not None and key is not None:
        try:
            _load(context, f"{certificate}\n{key}\n".encode())
        except (ssl.SSLError, ValueError, OSError):
            message = (
                f"{where}.tls.certificateFrom and keyFrom are no certificate in PEM with its key, or it has a password"
            )
            raise ConfigError(message) from None
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Our own certificate. The library takes it from a file alone, and so it is one that has no name."""
    file = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with contextlib.closing(os.fdopen(os.dup(file), "wb")) as written:
            written.write(pem)
        # DANGER: without a password, the library asks for one at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file}", password=lambda: "")
    finally:
        os.close(file)
