"""The optional accelerator (``accelerator.c``): what costs most of a call, compiled.

It is there where ``build`` found a C compiler and Python's headers: ``scripts/environment.sh`` and the sidecar's image
run it. Everything works without it, and is slower; the Python code is its reference, and what it leaves uncommon
cases to. ``HOOKLINE_ACCELERATOR=off`` does without it.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_runtime.guest import layouts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FIELD: Final = struct.Struct(f"{layouts.MAX_NAME}sBBBB")
_NAME: Final = "hookline_accelerator"
_SOURCE: Final = Path(__file__).with_name("accelerator.c")
log = logging.getLogger("hookline.accelerator")
_FLAGS: Final = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")


def _digest() -> str:
    return hashlib.sha256(_SOURCE.read_bytes()).hexdigest()


def _load() -> tuple[Any, str | None]:
    if os.environ.get("HOOKLINE_ACCELERATOR") == "off":
        return None, "HOOKLINE_ACCELERATOR is off"
    try:
        found = importlib.import_module(_NAME)
        if getattr(found, "source", "") != _digest():
            return None, "it was built from another source"
    except (ImportError, OSError) as error:
        return None, f"it is not built: {error}"
    elsewhere = layouts.difference(getattr(found, "layout", ()))
    if elsewhere is not None:
        log.warning("the accelerator is not used: %s", elsewhere)
        return None, f"its memory is laid out otherwise: {elsewhere}"
    return found, None


_found, unused = _load()
"""``unused`` says why there is none; None where it is used."""

call: Final[Callable[[int, int, bytes, object, bool], bytes | int | None]] = _found and _found.call
"""See ``accelerator.c``; None without it, as the others."""
renew: Final[Callable[[int], bool]] = _found and _found.renew
scan: Final[Callable[[bytes, bytes], tuple[bytes, bytes] | None]] = _found and _found.scan
scan_from: Final[Callable[[bytes, bytes, int], tuple[tuple[bytes, bytes], int] | None]] = _found and _found.scan


def shape(fields: Sequence[tuple[str, int, int, int]], required: int) -> bytes:
    """What ``scan`` looks for in an object, as ``accelerator.c`` has it: each field's name, kinds, role and fact.

    The first of them are ``required``.

    Raises ValueError where a name is too long, or there are too many.
    """
    names = [name.encode("ascii") for name, *_ in fields]
    if len(fields) > layouts.MAX_FIELDS or any(len(name) > layouts.MAX_NAME for name in names):
        raise ValueError("too long a name, or too many")
    packed = [_FIELD.pack(name, len(name), *rest) for name, (_, *rest) in zip(names, fields, strict=True)]
    return b"".join(packed).ljust(layouts.MAX_FIELDS * _FIELD.size, b"\0") + bytes([len(fields), required])


def use(functions: Sequence[int], epoch: list[int], running: dict[int, Any]) -> None:
    """Tell it where the library's functions are (``capi.FOR_ACCELERATOR``), the engine's clock, and what runs."""
    if _found is not None:
        _found.use(struct.pack(f"={len(functions)}Q", *functions), epoch, running)


def build(folder: Path) -> str:
    """Compile it into a folder that Python imports from; what came of it, for people.

    Raises nothing: whatever is missing, the runtime does without.
    """
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        return f"no accelerator: {include}/Python.h is not there"
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / f"{_NAME}.abi3.so"
        source = f'-DSOURCE="{_digest()}"'
        command = [*compiler, *_FLAGS, source, f"-I{include}", str(_SOURCE), "-o", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)  # noqa: S603 - our words
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            return f"no accelerator: {said.strip().splitlines()[-1]:.200}"
        made.replace(folder / made.name)  # a process that has the old one keeps it
    return "the accelerator is built"


if __name__ == "__main__" and (unused is not None or "--if-missing" not in sys.argv):
    folder = [word for word in sys.argv[1:] if word != "--if-missing"]
    print(build(Path(*folder or [sysconfig.get_path("platlib")])))  # noqa: T201 - for people
