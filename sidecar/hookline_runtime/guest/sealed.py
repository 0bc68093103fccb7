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
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_TRAILER: Final = struct.Struct("<8s32s8s")
_MARK: Final = b"hookseal"
_CHUNK: Final = 1 << 20
_MAX: Final = 1 << 30
"""Bytes of a compiled module: those of 64 MiB have a quarter of that."""
# linux/fcntl.h; Python has these names on Linux alone
_ADD_SEALS: Final = 1033
_GET_SEALS: Final = 1034
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8
"""Of seals, size and bytes nothing can be changed any more."""


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

    def tag(self, name: str, told: bytes) -> str:
        """Stands for something that was found out under this name, in hexadecimal."""
        mac = self.begin(f"told:{name}")
        mac.update(told)
        return mac.hexdigest()

    def trailer(self, mac: hmac.HMAC) -> bytes:
        """What stands behind these bytes."""
        return _TRAILER.pack(self.id, mac.digest(), _MARK)


class Checked(NamedTuple):
    """What may be loaded."""

    source: Path | bytes
    """A path to what nobody can change, or where the system has no such thing, the bytes."""
    size: int
    """Bytes of it without the seal."""


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A compiled module in the cache that has to bear a seal."""

    path: Path
    seal: Seal = field(repr=False)
    shared: Path | None = None
    """Where another process holds a copy (``Copies``). It is checked all the same; where it is gone, the file is
    copied."""

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
    def checked(self) -> Iterator[Checked]:
        """Its bytes, which bear the seal. Raises OSError and NotSealedError."""
        with self.copy() or contextlib.nullcontext() as copy:
            if copy is not None:
                size = unsealed_size(copy)
                yield Checked(Path(f"/proc/self/fd/{copy.fileno()}"), size)
                return
        with _opened(self.path) as file:
            data = file.read(_MAX)
        self._check(data)
        yield Checked(data, len(data) - _TRAILER.size)

    def copy(self) -> BinaryIO | None:
        """A copy that nobody can change, and that bears the seal; None where the system has no such thing.

        Raises OSError and NotSealedError.
        """
        copy = _shared(self.shared)
        if copy is None:
            with _opened(self.path) as file:
                copy = _copy(file, self.path.name)
        if copy is None:
            return None
        try:
            with mmap.mmap(copy.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                self._check(mapped)
        except BaseException:
            copy.close()
            raise
        return copy

    def _check(self, data: bytes | mmap.mmap) -> None:
        size = len(data) - _TRAILER.size
        if size <= 0:
            raise NotSealedError("it bears no seal")
        mac = self.seal.begin(self.path.name)
        with memoryview(data) as view, view[:size] as body:
            mac.update(body)
        if not hmac.compare_digest(self.seal.trailer(mac), data[size:]):
            raise NotSealedError("it does not bear the seal of this sidecar")


@dataclass(frozen=True, slots=True)
class Inherited:
    """A copy of a compiled module that the process has from its parent, which has checked it."""

    descriptor: int
    size: int
    """Bytes of it without the seal."""

    @contextlib.contextmanager
    def checked(self) -> Iterator[Checked]:
        """Its bytes; nobody can change them any more."""
        yield Checked(Path(f"/proc/self/fd/{self.descriptor}"), self.size)


def unsealed_size(copy: BinaryIO) -> int:
    """Bytes of what ``SealedFile.copy`` gave, without the seal."""
    return os.fstat(copy.fileno()).st_size - _TRAILER.size


class Copies:
    """Copies that several processes of one user map, so that each page is in memory once; of one thread at a time."""

    def __init__(self) -> None:
        self._held: dict[str, BinaryIO] = {}
        self.size = 0
        """Bytes of memory."""

    def hold(self, files: Iterable[SealedFile]) -> dict[str, str]:
        """Make copies of these; where each is, by the file's name. What cannot be copied is left to who loads it."""
        found = {}
        for each in files:
            name = each.path.name
            with contextlib.suppress(OSError, NotSealedError):
                copy = self._held.get(name) or each.copy()
                if copy is not None:
                    if name not in self._held:
                        self.size += os.fstat(copy.fileno()).st_size
                    self._held[name] = copy
                    found[name] = f"/proc/{os.getpid()}/fd/{copy.fileno()}"
        return found

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Let go of those whose names are not wanted; whoever has mapped one keeps it."""
        for name in [each for each in self._held if not wanted(each)]:
            with self._held.pop(name) as copy:
                self.size -= os.fstat(copy.fileno()).st_size


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


def _shared(path: Path | None) -> BinaryIO | None:
    """What another process holds, where it can be had and nobody can change it."""
    if path is None:
        return None
    with contextlib.suppress(OSError):
        copy = path.open("rb")
        with contextlib.suppress(OSError):
            if fcntl.fcntl(copy.fileno(), _GET_SEALS) & _SEALS == _SEALS:
                return copy
        copy.close()  # another file has that number by now
    return None


def _copy(file: BinaryIO, name: str) -> BinaryIO | None:
    """A file's bytes in memory that nobody can change; None where the system has none."""
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):
        return None
    copy = os.fdopen(descriptor, "rb")
    try:
        size = min(os.fstat(file.fileno()).st_size, _MAX)
        done = 0
        while done < size and (sent := os.sendfile(descriptor, file.fileno(), done, size - done)):
            done += sent
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        if not done:
            raise NotSealedError("it is empty")  # noqa: TRY301 - nothing can be mapped of it
    except BaseException:
        copy.close()
        raise
    return copy
