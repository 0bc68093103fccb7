"""The sockets on which a sidecar listens: bound once, by the parent, and inherited by whoever accepts.

A unix socket is nobody's until it is everything that was asked for: it is bound with no permission at all, given to
its group, and only then opened as far as its mode says. At no moment can it be reached by more people than after.
The sockets of the state folder are made in a folder of their own, and moved to where they are looked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hookline_api.commands import Address

_BACKLOG: Final = 4096
_NO_PERMISSION: Final = 0o777
"""As a umask."""

_NO_FOLDER: Final = "; its folder has to be there before: make it, or mount it"
_HINTS: Final = {
    errno.EADDRINUSE: "; another process listens there: stop it, or choose another one",
    errno.EADDRNOTAVAIL: "; this machine has no such address: 127.0.0.1 is the usual one",
    errno.EACCES: "; this user may not: it needs a folder that it may write to, or a port above 1023",
    errno.ENOENT: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
}


def listen_tcp(address: Address, flag: str) -> socket.socket:
    """A listening socket. Raises OSError with a sentence that begins with the ``flag``."""
    host, port = address
    tcp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this, on Linux
    _listen(tcp, address, f"{flag} {host}:{port}")
    return tcp


def listen_unix(path: Path, *, mode: int, group: int | None) -> socket.socket:
    """A listening socket of that name, mode and group (None for the process's own).

    A socket of that name on which nobody listens is replaced. Call this while the process has one thread: the umask
    belongs to all. Raises OSError with a sentence.
    """
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(path)
        umask = os.umask(_NO_PERMISSION)
        try:
            _listen(unix, str(path), f"--socket {path}")
        finally:
            os.umask(umask)
        _let_in(path, mode=mode, group=group)
    except BaseException:
        unix.close()
        raise
    return unix


def listen_private(path: Path) -> socket.socket:
    """A listening unix socket of this user alone, in the place of whatever socket has the name. Raises OSError.

    Without a umask, which all threads share; and the name is never gone in between.
    """
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as room:
            made = Path(room) / "socket"
            folder = os.open(room, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # By the descriptor: the whole name may be longer than a socket's may be.
                unix.bind(f"/proc/self/fd/{folder}/{made.name}")
            finally:
                os.close(folder)
            made.chmod(0o600)
            unix.listen(_BACKLOG)
            made.replace(path)
    except BaseException:
        unix.close()
        raise
    unix.settimeout(0)
    return unix


def unlink(path: Path | None, ours: os.stat_result | None) -> None:
    """Remove our socket's name, unless somebody else's socket has it by now."""
    if path is not None and ours is not None:
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), ours):
                path.unlink()


def _let_in(path: Path, *, mode: int, group: int | None) -> None:
    # By the node and not by its name: who may write the folder could put another file there in between.
    node = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        ours = os.fstat(node)
        if not stat.S_ISSOCK(ours.st_mode):
            raise OSError(errno.EEXIST, f"--socket {path}: something else was put in its place")
        try:
            if group is not None:
                _give(node, group)
            os.chmod(f"/proc/self/fd/{node}", mode)  # noqa: PTH101 - no path, a descriptor
        except OSError:
            unlink(path, ours)
            raise
    finally:
        os.close(node)


def _give(node: int, group: int) -> None:
    try:
        os.chown(f"/proc/self/fd/{node}", -1, group)
    except OSError as error:
        # EINVAL: a user namespace that does not know the number.
        raise OSError(
            error.errno,
            f"--socket-group {group}: {error.strerror}; only root or a member of the group can give the socket to it: "
            "make the sidecar's user a member (in a pod: supplementalGroups)",
        ) from None


def _listen(bound: socket.socket, address: object, flag: str) -> None:
    try:
        bound.bind(address)  # type: ignore[arg-type]
        bound.listen(_BACKLOG)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise OSError(error.errno, f"{flag}: {error.strerror or error}{hint}") from None


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; never a file, never a socket in use."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, f"--socket {path}: there is something else of that name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminSockets:
    """The listening sockets of ``--health`` and ``--admin``, as far as there are any."""

    health: socket.socket | None
    admin: socket.socket | None

    def close(self) -> None:
        """Listen no more."""
        for each in (self.health, self.admin):
            if each is not None:
                each.close()
