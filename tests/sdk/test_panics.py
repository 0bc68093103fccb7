"""What a panic in Go, C or Zig comes to in a real runtime: a failed call, and a line in the log that says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.trial import trial

ROOT = Path(__file__).parents[2]
GUESTS = Path(__file__).parent / "guests"
SAID = {
    "c": "panic: it is false that in->query.len < 10 at panics-c.c:6",
    "go": "panic: runtime error: index out of range [12] with length 10 at panics-go/main.go:11",
    "zig": "panic: index out of bounds: index 12, len 10",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guests that can be built here; the builder says what it skipped."""
    out = tmp_path_factory.mktemp("guests")
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--plugins", GUESTS, "--out", out], check=True)
    return out


@pytest.mark.parametrize("language", SAID)
async def test_a_panic_fails_the_call_and_says_what_and_where(language, built, tmp_path) -> None:
    """The next call is answered again, by a fresh instance. An input that is malformed fails in the same way."""
    path = built / f"panics-{language}.wasm"
    if not path.exists():
        message = f"the toolchain of {language} is missing, see what examples/build.py says"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    wasm = path.read_bytes()
    settings = {"isolation": {"mode": "Pooled"}, "limits": {"timeout": "30s"}}
    entry = BundlePlugin.model_validate({"name": path.stem, "hooks": [Hook.PRE_QUERY], **settings})
    async with trial.on_trial(entry, wasm, trial.compiled(wasm, tmp_path / "compiled")) as tried:
        failed = await tried.call(Hook.PRE_QUERY, b'{"query": "twelve bytes"}')
        assert failed.cause == "trap"
        assert [(line.level, line.text) for line in failed.log] == [("error", SAID[language])]
        answered = await tried.call(Hook.PRE_QUERY, b'{"query": "short"}')
        assert answered.cause is None
        assert answered.decision["value"] == "short"
