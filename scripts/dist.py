"""Builds what a release consists of, into ``build/dist``: ``make dist``.

Packages (a wheel and a source archive), the chart, both images; then for each image what it is made of (``sbom.py``),
for all of it what it was built from (``provenance.py``), and the checksums. It builds a commit, so the tree has to be
clean: the same commit gives the same wheel, source archive and chart, byte by byte.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import images
import provenance
import sbom
from cluster.binaries import binary
from cluster.errors import ClusterError

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "build" / "dist"
PARTS: Final = ("packages", "chart", "images")
IMAGES: Final = ("operator", "sidecar")
_LOCKS: Final = tuple(f"requirements/{name}.txt" for name in ("build", *IMAGES))


class DistError(Exception):
    """Why there is no release, and what to do about it."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--prefix", default="hookline-", help="what the images' names begin with (default: hookline-)")
    parser.add_argument("--version", help="version that the commit must have, such as that of its tag")
    parser.add_argument("--push", action="store_true", help="build nothing: push the images of the last build")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    try:
        prefix = options.prefix.lower()  # as registries want names
        if options.push:
            push(OUT, prefix=prefix, version=version_of(ROOT))
            return
        _check(options.version)
        shutil.rmtree(OUT, ignore_errors=True)
        build(OUT, parts=options.parts or PARTS, prefix=prefix)
    except (DistError, ClusterError, images.ImagesError, sbom.SbomError) as error:
        sys.exit(f"dist: {error}")


def build(out: Path, *, parts: Sequence[str] = PARTS, prefix: str = "hookline-") -> None:
    """Build these parts of the checkout's commit into ``out``, and describe them.

    Raises:
        DistError, ImagesError, ClusterError, SbomError: As far as it came is left where it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    version, epoch = version_of(ROOT), int(_git("log", "-1", "--format=%ct"))
    if "packages" in parts:
        packages(ROOT, out, epoch=epoch)
    if "chart" in parts:
        chart(ROOT / "helm", out, epoch=epoch)
    if "images" in parts:
        images.build(IMAGES, prefix=prefix, tag=version, out=out)
        for name in IMAGES:
            (out / f"hookline-{name}.tar").rename(archive(out, name, version))
        bills(out, version=version, epoch=epoch)
    described(out, version=version, parts=parts)
    for file in sorted(out.iterdir()):
        print(f"{file.stat().st_size:>12,}  {file}")


def archive(out: Path, name: str, version: str) -> Path:
    """Where an image's archive is."""
    return out / f"hookline-{name}-{version}.tar"


def packages(source: Path, out: Path, *, epoch: int) -> None:
    """The wheel and the source archive. Their files have the time ``epoch``, whatever the checkout's have."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out.resolve())]
    _run(command, where=source, SOURCE_DATE_EPOCH=str(epoch))


def chart(source: Path, out: Path, *, epoch: int) -> None:
    """The chart as ``helm package`` makes it, its files in order and of the time ``epoch``."""
    before = {*out.glob("*.tgz")}
    _run([str(binary("helm")), "package", str(source), "--destination", str(out)], where=source)
    for made in {*out.glob("*.tgz")} - before:
        made.write_bytes(_settled(made, epoch))


def _settled(path: Path, epoch: int) -> bytes:
    raw = io.BytesIO()
    with (
        tarfile.open(path) as old,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=epoch) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for file in sorted(old, key=lambda each: each.name):
            member = tarfile.TarInfo(file.name)
            member.size, member.mtime, member.mode = file.size, epoch, 0o644
            new.addfile(member, old.extractfile(file))
    return raw.getvalue()


def bills(out: Path, *, version: str, epoch: int) -> None:
    """For each image of ``out``, what it is made of."""
    for name in IMAGES:
        lock = ROOT / "requirements" / f"{name}.txt"
        said = sbom.describe(name=name, version=version, lock=lock, image=archive(out, name, version), made=epoch)
        (out / f"hookline-{name}-{version}.cdx.json").write_text(said)


def described(out: Path, *, version: str, parts: Sequence[str]) -> None:
    """What all files of ``out`` were built from, and their checksums, as ``sha256sum --check`` reads them."""
    statement = provenance.state(
        sorted(out.iterdir()), version=version, parts=parts, commit=_git("rev-parse", "HEAD"),
        inputs={name: ROOT / name for name in _LOCKS}, environment=os.environ,
    )  # fmt: skip
    (out / f"hookline-{version}.provenance.json").write_text(statement)
    sums = [f"{sbom.sha256_of(file)}  {file.name}\n" for file in sorted(out.iterdir())]
    (out / "SHA256SUMS").write_text("".join(sums))


def push(out: Path, *, prefix: str, version: str) -> None:
    """Push the images of ``out`` to the registry that their names begin with, with the logins that Docker keeps.

    Raises:
        DistError: No registry is named, or an image was not built, or the registry refused it.
    """
    if "/" not in prefix:
        raise DistError("say which registry: make push PREFIX=registry.example.com/hookline-")
    for name in IMAGES:
        file = archive(out, name, version)
        if not file.is_file():
            raise DistError(f"{file} is not there; `make dist` builds it")
        _run([str(binary("crane")), "push", str(file), f"{prefix}{name}:{version}"], where=out)


def version_of(root: Path) -> str:
    """The version that pyproject.toml states."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def _check(version: str | None) -> None:
    if version and version != version_of(ROOT):
        raise DistError(f"the checkout has version {version_of(ROOT)}, not {version}; `make release` sets it")
    if changed := _git("status", "--porcelain"):
        raise DistError(f"the tree has changes that are in no commit; commit or stash them first:\n{changed}")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DistError(f"a release is built of a commit, and git said: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(command: Sequence[str], *, where: Path, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=where, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DistError(f"this failed with {done.returncode}: {' '.join(command)}\n{done.stdout.strip()}")


if __name__ == "__main__":
    main()
