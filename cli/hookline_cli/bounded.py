"""Files as commands read and write them: within bounds, complete or not at all, and without what reaches registries.

A folder may be a stranger's. A pipe in it has nobody who writes, and a device may be anything, so neither is waited
for; names of files that are not complete yet are such as nobody can have put a link at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

_OWN: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""What the caller of a program hands to it: ``check /dev/stdin``, ``check <(helm template .)``."""
_NOTHING: Final = "/dev/null"


def opened(path: Path) -> BufferedReader:
    """A file to read: a regular one, or what the command line hands over. Raises OSError, at once where it is none."""
    if str(path).startswith(_OWN) or str(path) == _NOTHING:
        return path.open("rb")
    _check(path.stat().st_mode)  # first: to open a device may do something
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise


def _check(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def read_file(path: Path, *, most: int, what: str, missing: str = "") -> bytes:
    """The bytes of a small file. Raises ConfigError, with ``missing`` behind where there is none."""
    try:
        with opened(path) as file:
            data = file.read(most + 1)
    except OSError as error:
        more = missing if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror}{more}") from None
    if len(data) > most:
        raise ConfigError(f"{what}: {path} has more than {most} bytes")
    return data


def is_special(path: Path) -> bool:
    """Whether a path is a device or a pipe, which no file may take the place of. Raises OSError."""
    if path.is_absolute() and path.parts[1:2] in (("dev",), ("proc",)):  # whatever stdout happens to be
        return path.exists() and not path.is_dir()
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file that becomes ``path`` at the end, and is gone where anything is raised. Raises OSError.

    What is no file, as ``/dev/stdout``, is written into, and stays what it is.
    """
    if is_special(path):
        yield path
        return
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(8).hex()}.part")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
