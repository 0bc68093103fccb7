"""What a guest of each language says when it gives up comes to whoever reads of its failure.

The guests of ``panics/`` are built by examples/build.py, and run by the real runtime.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.guest.engine import compile_to
from hookline_runtime.runtime import Runtime

ROOT = Path(__file__).parents[3]
PANICS = Path(__file__).parent / "panics"
WORDS = {
    "assemblyscript": "the rule is missing",
    "c": "the rule is missing",
    "go": "panic: runtime error: index out of range [3] with length 0",
    "rust": "the rule is missing",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All guests that can be built here; the builder says what it skipped."""
    out = tmp_path_factory.mktemp("panics")
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--plugins", PANICS, "--out", out], check=True)
    return out


@pytest.mark.parametrize("language", WORDS)
async def test_a_failures_sentence_has_what_the_guests_language_says(built, tmp_path, language) -> None:
    """By ``log``, or by what the language's own runtime writes to standard error."""
    module = built / f"panic-{language}.wasm"
    if not module.exists():
        message = f"the toolchain of panic-{language} is missing, see what examples/build.py says"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    wasm = module.read_bytes()
    sha256 = hashlib.sha256(wasm).hexdigest()
    artifact = BundleArtifact(
        digest=f"sha256:{sha256}", sha256=sha256, size=len(wasm), layout="file", reference=module.name
    )
    entry = BundlePlugin.model_validate(
        {"name": "guest", "artifact": artifact, "hooks": ["custom_hook"], "limits": {"timeout": "5s"}}
    )
    compiled = tmp_path / "module.cwasm"
    compile_to(wasm, compiled, fuel=False)
    runtime = Runtime()
    try:
        await runtime.load(Bundle.of([entry]), lambda _: compiled)
        assert (await runtime.call(Hook.CUSTOM, b"123"))["failure"] == "trap"
        failure = runtime.plugins["guest"].last_failure
    finally:
        await runtime.close()
    assert failure is not None
    assert WORDS[language] in failure.message
    assert failure.message.startswith("custom_hook ")
    assert failure.backtrace[-1] == "custom_hook"
