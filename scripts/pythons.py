"""Runs a short part of the tests on every other Python >= 3.11 that this machine has; a line for each.

It looks into PATH, the usual folders of systems, and those of pyenv, uv and asdf. Each runs ``make test-short`` in an
environment of its own, and all of them run, whatever fails. Standard library alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
_NAME = re.compile(r"python3(\.\d+)?")
_ASK = """
import platform, sys, sysconfig
print(sys.base_prefix, *sys.version_info[:2], platform.python_version(), platform.python_implementation(), sep="\\n")
print(sys.version_info.releaselevel, bool(sysconfig.get_config_var("Py_GIL_DISABLED")), sep="\\n")
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """One that is installed here. Equal ``prefix`` and ``version`` are the same one under another name."""

    program: Path
    prefix: str
    version: str
    minor: tuple[int, int]
    unfit: str
    """Why nothing of ours is meant to run on it; empty where it is."""


def ask(program: Path) -> Interpreter | None:
    """What it says of itself; None where it does not run."""
    try:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, check=True, timeout=60)
        prefix, major, minor, version, implementation, level, free = done.stdout.splitlines()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    unfit = ""
    if implementation != "CPython":
        unfit = f"it is {implementation}"
    elif level != "final":
        unfit = "it is not released yet"
    elif free == "True":
        unfit = "it has no global lock, and dependencies have no wheels for it"
    minors = (int(major), int(minor))
    return Interpreter(program=program, prefix=prefix, version=version, minor=minors, unfit=unfit)


def candidates() -> Iterator[Path]:
    """Every program that may be one."""
    home = Path(os.environ.get("HOME") or "/")  # a container's user often has none, and no entry in passwd
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    folders += [Path("/usr/local/bin"), Path("/usr/bin"), Path("/opt/homebrew/bin")]
    managers = (
        Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local" / "share" / "uv" / "python"),
        Path(os.environ.get("ASDF_DATA_DIR") or home / ".asdf") / "installs" / "python",
    )
    for manager in managers:
        folders += sorted(manager.glob("*/bin"))
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def others() -> list[Interpreter]:
    """Each once, oldest first, without the one that runs this."""
    known = {(sys.base_prefix, sys.version.split()[0])}
    found = []
    for program in dict.fromkeys(path for path in candidates() if os.access(path, os.X_OK)):
        interpreter = ask(program)
        if interpreter is None or interpreter.minor < OLDEST or (interpreter.prefix, interpreter.version) in known:
            continue
        known.add((interpreter.prefix, interpreter.version))
        found.append(interpreter)
    return sorted(found, key=lambda each: each.minor)


def main() -> int:
    """0 where all passed."""
    arguments = " ".join(sys.argv[1:])
    lines, status = [], 0
    for interpreter in others():
        name = f"Python {interpreter.version} ({interpreter.program})"
        if interpreter.unfit:
            lines.append(f"left out  {name}: {interpreter.unfit}")
            continue
        print(f"\n{name}:", flush=True)
        started = time.monotonic()
        command = ["make", "--no-print-directory", "test-short", f"PYTHON={interpreter.program}", f"ARGS={arguments}"]
        # Make tells what it starts of its own variables, and PYTHON is another one here.
        environment = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES"}}
        failed = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        status |= bool(failed)
        lines.append(f"{'FAILED' if failed else 'passed':<9} {name} in {time.monotonic() - started:.0f} s")
    print("\n".join(["", *lines] if lines else ["there is no other Python >= 3.11 here"]), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
