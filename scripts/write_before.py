"""Writes tests/operator/before.tar.xz: both programs as they were at a release, for the tests of version skew.

``python scripts/write_before.py REVISION`` after each release. The tests run what is in there against what is here: a
clone need not have its history, and nothing is skipped where it does not.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "tests" / "operator" / "before.tar.xz"
FOLDERS: Final = (
    "crds/hookline_api",
    "artifacts/hookline_artifacts",
    "serving/hookline_serving",
    "operator/hookline_operator",
    "sidecar/hookline_runtime",
    "sidecar/hookline_sidecar",
)
"""The programs without tests and charts."""


def write(revision: str) -> None:
    """Of ``revision``, whose full name is in the archive's file REVISION."""
    full = _git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
    found = io.BytesIO(_git("archive", "--format=tar", full, *FOLDERS))
    made = io.BytesIO()
    with tarfile.open(fileobj=found) as source, tarfile.open(fileobj=made, mode="w") as target:
        about = f"{full}\n".encode()
        entry = tarfile.TarInfo("REVISION")
        entry.size = len(about)
        target.addfile(entry, io.BytesIO(about))
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    TARGET.write_bytes(lzma.compress(made.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def _git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="revision of the release, such as v0.1.0")
    write(parser.parse_args().revision)
