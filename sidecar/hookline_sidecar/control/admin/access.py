"""Who may use the admin paths that show or change what plugins work with.

On the socket in the state folder it is whoever may open it: its mode is 0600. On a TCP port, which all that runs on
the machine may reach at least, it is whoever sends the token of ``--admin-token``; without that, nobody.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_sidecar.replies import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

_MAX_TOKEN: Final = 4096
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, unix(7): process, user, group
_WARN_EVERY_S: Final = 10.0

log = logging.getLogger("hookline.admin")


def _connection(request: web.Request) -> socket.socket | None:
    return None if request.transport is None else request.transport.get_extra_info("socket")


def is_by_socket(request: web.Request) -> bool:
    """Whether it came by the socket in the state folder."""
    connection = _connection(request)
    return connection is not None and connection.family == socket.AF_UNIX


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, in words for the log."""

    name: str


class Access:
    """Tells who asks, and refuses strangers."""

    def __init__(self, token: Path | None) -> None:
        self._token = token
        self._warned = float("-inf")
        self.refused: Counter[str] = Counter()
        """Requests of strangers, by why they are: ``off``, ``token``, ``unreadable``."""

    async def admit(self, request: web.Request) -> Caller:
        """Let in who may come, and say who it is.

        Raises Problem: 401 or 403 for a stranger, 503 where the token's file cannot be used.
        """
        connection = _connection(request)
        if connection is None:
            raise Problem(403, "nobody is there any more")
        if connection.family == socket.AF_UNIX:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process, user, _ = _CREDENTIALS.unpack(raw)
            return Caller(f"user {user}, process {process}")
        address = request.remote or "an unknown address"
        if self._token is None:
            self._refuse("off", address)
            raise Problem(
                403,
                "this path is not answered on a TCP port without a token: start the sidecar with --admin-token FILE, "
                "or run 'hookline-sidecar get PATH' or 'hookline-sidecar kv' beside it, which ask the socket "
                "admin.sock in its --state",
            )
        expected = await asyncio.to_thread(self._read)
        scheme, _, given = request.headers.get("Authorization", "").strip().partition(" ")
        # Bytes: what is not ASCII is compared as it came.
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
        if scheme.lower() != "bearer" or not same:
            self._refuse("token", address)
            raise Problem(
                401,
                "this path needs the header 'Authorization: Bearer TOKEN', with the token that is in the file of "
                "--admin-token",
                headers=(("WWW-Authenticate", 'Bearer realm="hookline"'),),
            )
        return Caller(f"the token's bearer at {address}")

    async def try_admit(self, request: web.Request) -> bool:
        """Whether it brought the token, where strangers are answered too. A wrong one counts as in ``admit``."""
        if self._token is None or "Authorization" not in request.headers:
            return False
        try:
            await self.admit(request)
        except Problem:
            return False
        return True

    def _read(self) -> bytes:
        """The token as it is now: a Secret that is mounted changes under a running sidecar."""
        assert self._token is not None  # noqa: S101 - whoever reads has looked
        try:
            with self._token.open("rb") as file:
                token = file.read(_MAX_TOKEN + 1).strip()
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
        else:
            if 0 < len(token) <= _MAX_TOKEN:
                return token
            why = "is empty" if not token else f"has more than {_MAX_TOKEN} bytes"
        self._refuse("unreadable", "anybody", f"{self._token} {why}")
        raise Problem(503, f"the file of --admin-token {why}; until that is mended, nobody is let in here")

    def _refuse(self, reason: str, who: str, why: str = "") -> None:
        """Count a stranger, and say so in the log now and then."""
        self.refused[reason] += 1
        if time.monotonic() - self._warned >= _WARN_EVERY_S:
            self._warned = time.monotonic()
            told = why or {"off": "there is no --admin-token", "token": "it did not send the token"}[reason]
            log.warning("an admin path is refused to %s: %s (%d in all)", who, told, self.refused.total())
