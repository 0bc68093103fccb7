"""A sidecar's admin surface: by the socket in its state folder, or by its port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli.bounded import read_file
from hookline_cli.frame import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOCKET: Final = "admin.sock"
_TIMEOUT_S: Final = 30.0
_MAX_ANSWER: Final = 64 * 2**20
_MAX_TOKEN: Final = 4096
_REFUSED: Final = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)


def default_state() -> Path:
    """A sidecar's state folder where nothing says another one, as the sidecar has it."""
    given = os.environ.get("HOOKLINE_STATE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "hookline"
    try:
        return Path.home() / ".local" / "state" / "hookline"
    except RuntimeError:
        return Path("/var/lib/hookline")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admin:
    """How a sidecar is asked."""

    where: str
    """For sentences."""
    unix: Path | None = None
    host: str = "localhost"
    port: int | None = None
    tls: bool = False
    token: str | None = None

    @classmethod
    def of(cls, text: str, *, token: Path | None) -> Admin:
        """From ``--admin``. Raises ConfigError."""
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:").removeprefix("//"))
            return cls(where=str(path), unix=path)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in {"http", "https"} or not host or parts.path.strip("/"):
            raise ConfigError(f"--admin {text!r:.200} is neither http://HOST:PORT nor unix:PATH")
        secret = None
        if token is not None:
            secret = read_file(token, most=_MAX_TOKEN, what="--admin-token").decode(errors="replace").strip()
        return cls(where=text, host=host, port=port, tls=parts.scheme == "https", token=secret)

    @classmethod
    def of_state(cls, state: Path) -> Admin:
        """From a state folder."""
        return cls(where=str(state / _SOCKET), unix=state / _SOCKET)

    def json(self, path: str, *, method: str = "GET", **more: Any) -> dict[str, Any]:
        """An answer that is an object. Raises what ``ask`` does."""
        try:
            found = json.loads(self.ask(path, method=method, **more))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FetchError(f"what answers at {self.where} is no sidecar of Hookline's", transient=False)
        return found

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The body of a good answer. Raises FetchError and RefusedError."""
        connection = (
            http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT_S)
            if self.tls
            else http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_S)
        )
        sent = {**(headers or {}), "Connection": "close"}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        try:
            if self.unix is not None:
                connection.sock = _connected(self.unix)
            with contextlib.closing(connection):
                connection.request(method, path, body=body, headers=sent)
                answer = connection.getresponse()
                status, data = answer.status, answer.read(_MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(self._why(error), transient=False) from None
        if len(data) > _MAX_ANSWER:
            raise FetchError(
                f"the sidecar at {self.where} answered with more than {_MAX_ANSWER} bytes", transient=False
            )
        if status == HTTPStatus.OK:
            return data
        raise self._refusal(status, data)

    def _refusal(self, status: int, data: bytes) -> Exception:
        try:
            sentence = readable(str(json.loads(data)["detail"]))
        except (ValueError, KeyError, TypeError):
            sentence = f"the sidecar at {self.where} answered {status}"
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            sentence += "; give --admin-token, or ask by its socket (--state)"
        return RefusedError(sentence) if status in _REFUSED else FetchError(sentence, transient=False)

    def _why(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            how = "--state (or HOOKLINE_STATE) the folder that it was started with" if self.unix else "--admin its port"
            return f"no sidecar answers at {self.where}: is one running, and is {how}?"
        if isinstance(error, PermissionError):
            return f"this user may not open {self.where}: run this as the sidecar's own user, or as root"
        if isinstance(error, TimeoutError):
            return f"the sidecar at {self.where} did not answer within {_TIMEOUT_S:g} s"
        return f"the sidecar at {self.where} cannot be asked: {' '.join(str(error).split()):.200}"


def _connected(path: Path) -> socket.socket:
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unix.settimeout(_TIMEOUT_S)
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By the descriptor, where there is such a thing: the whole name may be longer than a socket's may be.
            short = Path(f"/proc/self/fd/{folder}")
            unix.connect(str(short / path.name if short.exists() else path))
        finally:
            os.close(folder)
    except BaseException:
        unix.close()
        raise
    return unix
