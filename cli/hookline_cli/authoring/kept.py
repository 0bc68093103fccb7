"""Compiled modules, kept in the user's own cache folder: a second call of the same module compiles nothing.

They are compiled in a child process, as a sidecar does it: a module may be a stranger's, and made to compile for hours,
which no Ctrl-C would end here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from hookline_artifacts.errors import ConfigError, FetchError
from hookline_runtime.guest.compiler import Compiler, Job

_MOST: Final = 64
"""Files that are kept; the ones that were used last."""
_AS_ANY: Final = (0,)
"""Niceness of a child that compiles: somebody waits for it."""


def folder() -> Path:
    """Where they are kept, made where it is not there. Raises ConfigError and FetchError.

    DANGER: what is in it is executed. Nobody else may be able to write there: it is the caller's own, with mode 0700.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    # https://specifications.freedesktop.org/basedir-spec/: a relative path is none
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    found = root / "hookline" / "modules"
    try:
        found.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = found.lstat()
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FetchError(
            f"the cache folder {found} cannot be made: {why}; set XDG_CACHE_HOME", transient=False
        ) from None
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise ConfigError(
            f"{found} has to be a folder of your own that nobody else can write to, because what is in it is "
            "executed: remove it, or set XDG_CACHE_HOME"
        )
    return found


async def module(wasm: bytes, *, fuel: bool = False) -> Path:
    """The compiled form of a module. Raises VerifyError, ConfigError and FetchError."""
    where = folder()
    sha256 = hashlib.sha256(wasm).hexdigest()
    compiler = Compiler(where, niceness=_AS_ANY)
    path = compiler.path(sha256, fuel=fuel)
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=where, prefix=".") as file:
                await asyncio.to_thread(file.write, wasm)
                file.flush()
                await compiler.prepare(Job(wasm=Path(file.name), sha256=sha256, fuel=fuel))
        os.utime(path)
        _tidy(where, path)
    except OSError as error:
        raise FetchError(f"{where}: the compiled module cannot be kept: {error.strerror}", transient=False) from None
    return path


def _tidy(where: Path, used: Path) -> None:
    """Remove those that were not used for longest. Another process may do so at the same time."""
    found = list(where.glob("*.cwasm"))
    if len(found) <= _MOST:
        return
    with contextlib.suppress(OSError):
        found.sort(key=lambda each: each.stat().st_mtime)
        for each in found[:-_MOST]:
            if each != used:
                each.unlink()
