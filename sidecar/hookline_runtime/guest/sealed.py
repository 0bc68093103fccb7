"""Compiled modules that bear a seal: what is executed is what whoever has the key has compiled, byte for byte.

The cache is a folder, and others may be able to write there. So each file ends with an HMAC over its name, which
holds the module's sha256 and the engine, and over all bytes in front. To be loaded, a file is copied into memory that
nobody can write to any more (memfd, sealed), and that copy is checked and mapped: between the check and the load there
is nothing that could be swapped.

::

    code | its memory map | key's id (8) | HMAC-SHA256 (32) | "hookseal"

Links are not followed, and a file with a second name is not taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import mmap
import os
import stat
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRAILER: Final = struct.Struct("<8s32s8s")
_MARK: Final = b"hookseal"
_CHUNK: Final = 1 << 20
_MAX: Final = 1 << 30
"""Bytes of a compiled module: those of 64 MiB have a quarter of that."""
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class NotSealedError(ValueError):
    """A file was not made by whoever has the key, or not under this name."""


class Seal:
    """What compiled modules are sealed with; ``key`` is a secret of at most 64 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key=key, person=b"compiled", digest_size=32).digest()
        self.id = hmac.digest(self._key, b"id", "sha256")[:8]

    def begin(self, name: str) -> hmac.HMAC:
        """An HMAC, to be fed with a file's bytes."""
        return hmac.new(self._key, name.encode() + b"\0", "sha256")

    def trailer(self, mac: hmac.HMAC) -> bytes:
        """What stands behind these bytes."""
        return _TRAILER.pack(self.id, mac.digest(), _MARK)


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A compiled module in the cache that has to bear a seal."""

    path: Path
    seal: Seal = field(repr=False)

    @property
    def is_ours(self) -> bool:
        """Whether the file says that it bears this seal; a quick look, which proves nothing."""
        try:
            with _opened(self.path) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TRAILER.size))
                key, _, mark = _TRAILER.unpack(file.read(_TRAILER.size).ljust(_TRAILER.size, b"\0"))
        except (OSError, NotSealedError):
            return False
        return mark == _MARK and hmac.compare_digest(key, self.seal.id)

    @contextlib.contextmanager
    def checked(self) -> Iterator[Path | bytes]:
        """Its bytes, which bear the seal: as a path that nobody can change, or where there is none, themselves.

        Raises OSError and NotSealedError.
        """
        with _opened(self.path) as file:
            size = os.fstat(file.fileno()).st_size - _TRAILER.size
            if not 0 < size <= _MAX:
                raise NotSealedError("it bears no seal")
            copy = _copy(file, size, self.path.name)
            trailer = os.pread(file.fileno(), _TRAILER.size, size)
        if copy is None:
            data = self._read(size)
            self._check(data, trailer)
            yield data
            return
        with copy:
            with mmap.mmap(copy.fileno(), size, prot=mmap.PROT_READ) as mapped:
                self._check(mapped, trailer)
            yield Path(f"/proc/self/fd/{copy.fileno()}")

    def _read(self, size: int) -> bytes:
        with _opened(self.path) as file:
            return file.read(size)

    def _check(self, data: bytes | mmap.mmap, trailer: bytes) -> None:
        mac = self.seal.begin(self.path.name)
        mac.update(data)
        if not hmac.compare_digest(self.seal.trailer(mac), trailer):
            raise NotSealedError("it does not bear the seal of this sidecar")


def publish(source: BinaryIO, target: Path, seal: Seal | None) -> None:
    """Copy what was compiled to its name, complete or not at all, with a seal where there is one. Raises OSError."""
    mac = seal.begin(target.name) if seal is not None else None
    source.seek(0)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as out:
        try:
            while chunk := source.read(_CHUNK):
                out.write(chunk)
                if mac is not None:
                    mac.update(chunk)
            if seal is not None and mac is not None:
                out.write(seal.trailer(mac))
            out.flush()
            os.fsync(out.fileno())
            Path(out.name).replace(target)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise NotSealedError("it is a link, or no regular file")
        yield file


def _copy(file: BinaryIO, size: int, name: str) -> BinaryIO | None:
    """The first bytes of a file in memory that nobody can change; None where the system has none."""
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):
        return None
    copy = os.fdopen(descriptor, "rb")
    try:
        done = 0
        while done < size:
            sent = os.sendfile(descriptor, file.fileno(), done, min(size - done, _CHUNK * 64))
            if not sent:
                raise NotSealedError("it was cut while it was read")  # noqa: TRY301
            done += sent
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        copy.close()
        raise
    return copy
