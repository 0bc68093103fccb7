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


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("sidecar", ("--plugins", "--operator", "--state", "--listen", "--socket", "--admin", "--workers")),
        ("operator", ("--namespace", "--listen", "--service", "--cache", "--sidecar-image", "--kubeconfig")),
    ],
)
def test_the_readmes_commands_are_installed_and_explain_themselves(
    installed: Path, program: str, options: tuple[str, ...]
) -> None:
    """`--help` names each option of the README, from the installed files alone."""
    # -S and an explicit path: the checkout's own editable installation must not help.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from hookline_{program}.cli import main; main()"
    path = ":".join([str(installed), *packages])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, path, "--help"], capture_output=True, text=True, check=True, cwd=installed
    )
    for option in options:
        assert option in done.stdout
    assert (installed / "bin" / f"hookline-{program}").exists()


def test_the_packages_are_typed_and_nothing_else_comes_along(installed: Path) -> None:
    """The packages of ARCHITECTURE.md, each with its marker for type checkers."""
    packages = {path.name for path in installed.iterdir() if (path / "__init__.py").exists()}
    assert packages == {
        "hookline_api", "hookline_artifacts", "hookline_cli", "hookline_client", "hookline_operator",
        "hookline_runtime", "hookline_sdk", "hookline_serving", "hookline_sidecar",
    }  # fmt: skip
    assert all((installed / name / "py.typed").exists() for name in packages)
    assert (installed / "bin" / "hookline").exists()
