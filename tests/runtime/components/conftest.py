"""Plugins in JavaScript and Python, built by their own toolchains; builds and compiled forms are kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hookline_runtime.trial.trial import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
GUESTS = Path(__file__).parent / "guests"
BUILT = ROOT / "build" / "components"
COMPILED = ROOT / ".cache" / "components"


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of those that can be built here; the builder says what it skipped."""
    build = (sys.executable, ROOT / "examples" / "build.py", "--plugins", GUESTS, "--out", BUILT)
    subprocess.run([str(word) for word in build], check=True)
    return BUILT


@pytest.fixture
def probe(built, workshop) -> Callable[[str], bytes]:
    """A component by its name, with its compiled form where the workshop looks for it."""

    def take(name: str) -> bytes:
        path = built / f"{name}.wasm"
        if not path.exists():
            message = f"the toolchain of {name} is missing, see what examples/build.py says"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        wasm = path.read_bytes()
        target = workshop.compiler.path(hashlib.sha256(wasm).hexdigest(), fuel=False)
        if not target.exists():
            shutil.copyfile(compiled(wasm, COMPILED), target)
        return wasm

    return take
