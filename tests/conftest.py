"""What all tests share: real parts are required, not mocked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import hypothesis
import pytest

pytest_plugins = ["cluster.fixtures"]

# How long an example takes, or is made, says something of the machine and nothing of us.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

_missing = pytest.StashKey[dict[str, str]]()

Need = Callable[[str, str], str]


def pytest_configure(config: pytest.Config) -> None:
    """Keep a list of what is missing for the closing line."""
    config.stash[_missing] = {}


@pytest.fixture(scope="session")
def need(pytestconfig: pytest.Config) -> Need:
    """The path of a real program that a test needs: ``need("nginx", "nginx-light")``.

    Where it is missing the test fails in CI; elsewhere it is skipped and the closing line names what to install.
    """

    def path_of(program: str, package: str) -> str:
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if found:
            return found
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing (Debian: apt-get install {package})")
        pytestconfig.stash[_missing][program] = package
        pytest.skip(f"{program} is missing (Debian: apt-get install {package})")

    return path_of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which promises were not proven here, and what it takes."""
    missing = config.stash[_missing]
    if missing:
        programs = ", ".join(sorted(missing))
        packages = " ".join(sorted(set(missing.values())))
        terminalreporter.write_line(f"NOT PROVEN HERE, for lack of {programs}: apt-get install {packages}", yellow=True)
