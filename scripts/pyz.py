"""Builds the command line as one file, ``hookline.pyz``: ``make cli``.

It holds ``hookline[cli,keyless]`` with the packages of the environment that builds it, which are those of the locks, so
nothing is fetched. Some of them have compiled parts, and Python imports none out of a zip file: so the file is for one
version of CPython on one kind of machine, and unpacks itself once, into the user's cache, by the digest of what it
holds. The same environment gives the same file.

Why not shiv or pex: both install from an index or from wheels, and the environment has neither; what is left of them is
the unpacking, which is forty lines (``_MAIN``).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "build" / "hookline.pyz"
PACKAGES: Final = (
    "crds/hookline_api", "artifacts/hookline_artifacts", "sidecar/hookline_runtime", "cli/hookline_cli",
    "sdk/hookline_sdk",
)  # fmt: skip
"""Of ours: what the command line imports."""
EXTRAS: Final = ("cli", "keyless")
_SITE: Final = "site/"
_LEFT_OUT: Final = ("__pycache__", "node_modules", "target", ".pytest_cache")
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The first one that a zip file can tell."""

_MAIN: Final = '''\
"""Unpacks what the file holds, once, and runs it."""
import json, os, sys, tempfile, zipfile

_CHUNK = 1 << 20


def _folder(built):
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hookline", "pyz", built["digest"])


def _unpack(file, folder):
    """All of it beside its place, then in one step there: of several processes one wins."""
    parent = os.path.dirname(folder)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    aside = tempfile.mkdtemp(dir=parent)
    file.extractall(aside, [name for name in file.namelist() if name.startswith("site/")])
    try:
        os.rename(aside, folder)
    except OSError:
        import shutil

        shutil.rmtree(aside, ignore_errors=True)
        if not os.path.isdir(folder):
            raise


def main():
    with zipfile.ZipFile(sys.path[0]) as file:
        built = json.loads(file.read("built.json"))
        here = "%d.%d" % sys.version_info[:2], sys.platform, os.uname().machine
        if list(here) != built["for"] or sys.implementation.name != "cpython":
            sys.exit(
                "hookline: this file is for CPython %s on %s %s, and this is %s %s on %s %s: use the file for that, or "
                "pip install 'hookline[cli]'" % (*built["for"], sys.implementation.name, *here)
            )
        folder = _folder(built)
        try:
            if not os.path.isdir(folder):
                _unpack(file, folder)
            if os.stat(folder).st_uid not in (os.getuid(), 0):
                sys.exit("hookline: %s is somebody else's; remove it, or set XDG_CACHE_HOME" % folder)
        except OSError as error:
            sys.exit("hookline: it cannot be unpacked into %s: %s; set XDG_CACHE_HOME" % (folder, error.strerror))
    sys.path[0] = os.path.join(folder, "site")
    # What it starts for untrusted input is a process of its own, which has to find the same packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))
    from hookline_cli import main as program

    called = os.path.basename(sys.argv[0])
    program.kubectl() if called.startswith("kubectl-hookline") else program.main()


main()
'''


class PyzError(Exception):
    """Why there is no file, and what to do about it."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help=f"the file to write (default: {OUT})")
    options = parser.parse_args()
    try:
        build(options.out)
    except PyzError as error:
        sys.exit(f"pyz: {error}")
    print(f"{options.out.stat().st_size:>12,}  {options.out}")


def build(out: Path) -> None:
    """Write the file. Raises PyzError."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    files = dict(_own(project["version"]))
    for name in sorted(_needed(project)):
        files.update(_of(name))
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    built = {
        "digest": digest.hexdigest()[:32],
        "version": project["version"],
        "for": [f"{sys.version_info[0]}.{sys.version_info[1]}", sys.platform, os.uname().machine],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    with aside.open("wb") as raw:
        raw.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            _put(made, "__main__.py", _MAIN.encode())
            _put(made, "built.json", json.dumps(built).encode())
            for name in sorted(files):
                _put(made, f"{_SITE}{name}", files[name])
    aside.chmod(0o755)
    aside.replace(out)


def name_of(version: str) -> str:
    """What a release calls it."""
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"hookline-{version}-cp{sys.version_info[0]}{sys.version_info[1]}-{platform}.pyz"


def _put(made: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    made.writestr(entry, data)


def _own(version: str) -> Iterator[tuple[str, bytes]]:
    """Our packages, and what tells their version."""
    for each in PACKAGES:
        root = ROOT / each
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root.parent)
            if path.is_file() and not any(part in _LEFT_OUT for part in inside.parts) and path.suffix != ".wasm":
                yield inside.as_posix(), path.read_bytes()
    told = f"Metadata-Version: 2.1\nName: hookline\nVersion: {version}\n"
    yield f"hookline-{version}.dist-info/METADATA", told.encode()


def _needed(project: Mapping[str, object]) -> set[str]:
    """The distributions that the extras need, as this environment has them."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    dependencies = project["dependencies"]
    assert isinstance(dependencies, list)
    texts = [*dependencies, *(text for extra in EXTRAS for text in optional[extra])]
    while texts:
        requirement = Requirement(texts.pop())
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "hookline":
                texts += optional.get(extra, [])
                continue
            found.add(name)
            texts += _requires(name, extra)
    return found


def _requires(name: str, extra: str) -> list[str]:
    try:
        given = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise PyzError(f"{name} is not in this environment: make setup") from None
    environment: dict[str, str] = {**{key: str(value) for key, value in default_environment().items()}, "extra": extra}
    chosen = []
    for text in given:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            chosen.append(str(requirement))
    return chosen


def _of(name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a distribution, without its programs."""
    found = importlib.metadata.distribution(name)
    for each in found.files or ():
        path = Path(str(found.locate_file(each)))
        if ".." in each.parts or any(part in _LEFT_OUT for part in each.parts) or not path.is_file():
            continue
        if each.name not in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}:
            yield each.as_posix(), path.read_bytes()


if __name__ == "__main__":
    main()
