"""What `pip install .` installs is complete without the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", target, ROOT], check=True)
    return target


def test_the_readmes_command_is_installed_and_explains_itself(installed: Path) -> None:
    """`hookline-sidecar --help` names each option of the README, from the installed files alone."""
    # -S and an explicit path: the checkout's own editable installation must not help.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from hookline_sidecar.cli import main; main()"
    path = ":".join([str(installed), *packages])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, path, "--help"], capture_output=True, text=True, check=True, cwd=installed
    )
    for option in ("--plugins", "--state", "--listen", "--socket", "--admin", "--workers"):
        assert option in done.stdout
    assert (installed / "bin" / "hookline-sidecar").exists()


def test_the_packages_are_typed_and_nothing_else_comes_along(installed: Path) -> None:
    """The packages of ARCHITECTURE.md, each with its marker for type checkers."""
    packages = {path.name for path in installed.iterdir() if (path / "__init__.py").exists()}
    assert packages == {"hookline_api", "hookline_runtime", "hookline_sidecar"}
    assert all((installed / name / "py.typed").exists() for name in packages)
