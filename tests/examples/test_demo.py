"""`make demo` shows what the README says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_demo_shows_the_main_job() -> None:
    """It ends with 0 only if every call of the load succeeded and all broken versions were kept out."""
    done = subprocess.run([sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 calls failed" in done.stdout
    assert "sql-guard is LastGood: its own case " in done.stdout
    assert "All of it held." in done.stdout
