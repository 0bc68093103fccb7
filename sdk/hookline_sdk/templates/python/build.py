"""Makes the component: installs componentize-py beside the project, by its hashes, and runs it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements.txt"
TOOLS = ROOT / ".venv"
STAMP = TOOLS / "requirements.txt"


def run(*command: str | Path) -> None:
    """Run a tool, or end with its exit code."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Make it."""
    tools = TOOLS / "bin"
    wanted = REQUIREMENTS.read_text()
    if not STAMP.exists() or STAMP.read_text() != wanted:
        venv.create(TOOLS, with_pip=True, clear=True)
        run(tools / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
            "-r", REQUIREMENTS)  # fmt: skip
        STAMP.write_text(wanted)
    world = ("--quiet", "-d", "hookline-sdk/hookline.wit", "-w", "plugin")
    sources = ("my_plugin", "-p", ".", "-p", "hookline-sdk")
    run(tools / "componentize-py", *world, "componentize", *sources, "-o", "my-plugin.component.wasm")


if __name__ == "__main__":
    main()
