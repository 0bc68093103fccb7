"""The state folder: what a sidecar needs to start with everything else gone.

::

    STATE/lock             held while a sidecar runs; two on one folder would undo each other's work
    STATE/bundle.json      the last good bundle, with the values of Secrets: mode 0600
    STATE/authorities.json by whom the operator is known, as it said itself: mode 0600
    STATE/artifacts/       modules (``hookline_artifacts.store``)
    STATE/compiled/        their compiled forms (``hookline_runtime.guest.compiler``)
    STATE/kv/              the plugins' key-value store (``hookline_runtime.host.kv``)
    STATE/cache/           the plugins' caches (``hookline_runtime.host.cache_store``); emptied at each start
    STATE/places           locks: calls under way where workers share a limit (``hookline_runtime.plugin.permits``)
    STATE/own.key          what the sidecar authenticates its own files with, each kind apart: mode 0600
    STATE/trust/           signatures of modules, and what they were found to prove (``control.sources.trust``)
    STATE/seal.key         what revisions are sealed with, where a folder is the source: mode 0600
    STATE/numbers.json     which rows of the statistics belong to which plugin
    STATE/probation.json   which versions prove themselves and which have failed, with those before: mode 0600
    STATE/control.sock     where workers meet the supervisor
    STATE/admin.sock       the admin paths, for whoever may open it: mode 0600 (``control.admin.server``)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import stat
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError

from hookline_api import bundle as bundle_json
from hookline_api import sentences
from hookline_api.bundle import Bundle
from hookline_sidecar.settings import ADMIN_SOCKET

_MAX_BUNDLE: Final = 512 * 2**20
_SEAL_KEY: Final = 32
"""Bytes: as many as SHA-256 has."""
_MAX_SOCKET_PATH: Final = 107  # linux/un.h

log = logging.getLogger("hookline.state")


class StateInUseError(Exception):
    """Another sidecar has this state folder."""


class StateFolder:
    """Paths, the lock and the last good bundle."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.compiled = root / "compiled"
        self.trust = root / "trust"
        self.kv = root / "kv"
        self.cache = root / "cache"
        self.permits = root / "places"
        self.control = root / "control.sock"
        self.admin = root / ADMIN_SOCKET
        self.authorities = root / "authorities.json"
        self._bundle = root / "bundle.json"
        self._numbers = root / "numbers.json"
        self._probation = root / "probation.json"
        self._seal_key = root / "seal.key"
        self._own_key = root / "own.key"
        self._own: bytes | None = None
        self._lock: int | None = None

    def take(self) -> None:
        """Make the folder and hold it until the process ends. Raises StateInUseError, or OSError."""
        if len(os.fsencode(self.control)) > _MAX_SOCKET_PATH:
            raise OSError(
                errno.ENAMETOOLONG,
                f"{self.control} is longer than the {_MAX_SOCKET_PATH} bytes of a socket's name; shorten --state",
            )
        # A folder that is there keeps its mode: it may be a volume's, or /tmp. What is secret in it has its own.
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OSError(
                error.errno,
                f"--state {self.root}: {error.strerror}; it has to be a folder that the sidecar's user may make and "
                "write to (in a pod: a volume)",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise StateInUseError(
                f"the state folder {self.root} is in use by process {holder}; give each sidecar its own --state"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock

    def size(self) -> int:
        """Bytes of what is in the folder beside the plugins' store and caches."""
        total = 0
        for folder, _, files in os.walk(self.root):
            if Path(folder) not in {self.kv, self.cache}:
                for name in files:
                    with contextlib.suppress(OSError):  # it has just gone
                        total += (Path(folder) / name).lstat().st_blocks * 512
        return total

    def store_size(self) -> int:
        """Bytes of the plugins' store."""
        with contextlib.suppress(OSError):
            return (self.kv / "data.mdb").stat().st_blocks * 512
        return 0

    def cache_size(self) -> int:
        """Bytes of the plugins' caches."""
        total = 0
        for name in ("data.mdb", "used"):
            with contextlib.suppress(OSError):
                total += (self.cache / name).stat().st_blocks * 512
        return total

    def load_bundle(self) -> Bundle | None:
        """The last good bundle; None where there is none, or none that can be read."""
        try:
            with self._bundle.open("rb") as file:
                return Bundle.model_validate(bundle_json.read(file.read(_MAX_BUNDLE).decode(), orjson.loads))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            why = sentences.without_values(error)
        except (OSError, ValueError) as error:
            why = f"{error!s:.200}"
        log.warning("the last good bundle in %s cannot be read, and is not used: %s", self._bundle, why)
        return None

    def save_bundle(self, bundle: Bundle) -> None:
        """Keep a bundle as the last good one; complete, or not at all."""
        write(self._bundle, bundle_json.write(bundle).encode())

    def load_probation(self) -> bytes | None:
        """What ``probation`` keeps; None where there is nothing. Raises OSError."""
        try:
            with self._probation.open("rb") as file:
                return file.read(_MAX_BUNDLE)
        except FileNotFoundError:
            return None

    def save_probation(self, kept: bytes) -> None:
        """Keep it; complete, or not at all. Raises OSError."""
        write(self._probation, kept)

    def make_seal_key(self) -> bytes:
        """Load the key that revisions are sealed with, or make it; where it cannot be kept, for this run alone."""
        try:
            with self._seal_key.open("rb") as file:
                found = file.read(_SEAL_KEY + 1)
            if len(found) == _SEAL_KEY:
                return found
        except OSError:
            pass
        key = os.urandom(_SEAL_KEY)
        try:
            write(self._seal_key, key)
        except OSError as error:
            log.warning("%s cannot be written (%s): revisions get other names at the next start", self._seal_key, error)
        return key

    @property
    def own_key(self) -> bytes:
        """The key that this sidecar authenticates files with; made where there is none that only its user can read.

        It is read once, before any process is forked, so that all have the same whatever becomes of the file.
        """
        if self._own is None:
            self._own = _private(self._own_key, _SEAL_KEY)
        if self._own is None:
            self._own = os.urandom(_SEAL_KEY)
            try:
                self._own_key.unlink(missing_ok=True)  # whatever it is: a link is not followed
                write(self._own_key, self._own)
            except OSError as error:
                log.warning("%s cannot be written (%s): modules are compiled anew at the next start",
                            self._own_key, error)  # fmt: skip
        return self._own

    def load_numbers(self) -> dict[str, int]:
        """Each plugin's rows of the statistics, as the last supervisor had them: workers still count there."""
        try:
            found = json.loads(self._numbers.read_bytes())
            return {str(name): int(number) for name, number in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def save_numbers(self, numbers: dict[str, int]) -> None:
        """Keep them for the next supervisor."""
        write(self._numbers, json.dumps(numbers).encode())


def _private(path: Path, size: int) -> bytes | None:
    """The bytes of a regular file that is this user's alone, and has one name; None for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            return None
        # kubelet gives files of a volume to the group that the pod asks for (fsGroup): that is the process's own.
        others = 0o007 if found.st_gid == os.getegid() else 0o077
        if stat.S_IMODE(found.st_mode) & others:
            log.warning("%s can be read by others, and another key is made", path)
            return None
        data = file.read(size + 1)
    return data if len(data) == size else None


def write(path: Path, data: bytes) -> None:
    """Write a file of mode 0600; complete, or not at all."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
