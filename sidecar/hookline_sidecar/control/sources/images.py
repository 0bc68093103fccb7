"""Modules that the node has brought already: images that are mounted into the sidecar as volumes, read-only.

Kubernetes mounts an OCI image as a volume (KEP-4639), and the node pulls and keeps it as it does those of containers.
So a module that the operator's bundle names may be here, in any file of the right size. Where it is and what it is
called says nothing: it is taken by its sha256, and by nothing else. Links are not followed, and the walk is bounded.

https://kubernetes.io/docs/concepts/storage/volumes/#image
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_ENTRIES: Final = 10_000
"""Files and folders that are looked at: an image of modules has some, one of a whole system has this many."""
_MAX_DEPTH: Final = 8
_MAX_HASHED: Final = 16
"""Files of the right size that are read for one module."""
_CHUNK: Final = 1 << 18


def take(folder: Path, *, sha256: str, size: int, into: BinaryIO) -> bool:
    """Copy the module of this sha256 and of these bytes into a file; whether there is one. Blocks."""
    read = 0
    for descriptor in _files(folder, size):
        with os.fdopen(descriptor, "rb") as file:
            into.seek(0)
            into.truncate()
            left, digest = size, hashlib.sha256()
            try:
                while left and (chunk := file.read(min(_CHUNK, left))):
                    into.write(chunk)
                    digest.update(chunk)
                    left -= len(chunk)
            except OSError:  # of the image's file system, or of the store's: whoever fetches it otherwise tells
                continue
            if digest.hexdigest() == sha256:
                return True
        read += 1
        if read == _MAX_HASHED:
            break
    into.seek(0)
    into.truncate()
    return False


def _files(folder: Path, size: int) -> Iterator[int]:
    """Regular files of this size, each open; whoever takes one closes it."""
    if not folder.is_dir():
        return
    seen = 0
    for path, folders, names, here in os.fwalk(folder, follow_symlinks=False):
        if path.count(os.sep) - str(folder).rstrip(os.sep).count(os.sep) >= _MAX_DEPTH:
            folders.clear()
        folders.sort()
        seen += len(folders) + len(names)
        if seen > _MAX_ENTRIES:
            return
        for name in sorted(names):
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            except OSError:  # a link, or not ours to read
                continue
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_size == size:
                yield descriptor
            else:
                os.close(descriptor)
