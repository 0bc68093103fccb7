"""What all tests share: real parts are required, not mocked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

pytest_plugins = ["cluster.fixtures", "fast_tests", "side_by_side"]

# How long an example takes, or is made, says something of the machine and nothing of us.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# As few say little of how large they are.
hypothesis.settings.register_profile(
    "brief", deadline=None, suppress_health_check=list(hypothesis.HealthCheck), max_examples=20
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


# Set where a run is about a cluster of somebody else's, or about one way alone of two: what it leaves out, others do.
_PARTS_ALONE = ("HOOKLINE_E2E_KUBECONFIG", "HOOKLINE_CALLS", "HOOKLINE_ACCELERATOR")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a test that is skipped has failed: whatever the reason, a promise was not proven."""
    report = yield
    if os.environ.get("CI") and report.skipped and not any(os.environ.get(name) for name in _PARTS_ALONE):
        report.outcome = "failed"
        reason = call.excinfo.value if call.excinfo else "an unknown reason"
        report.longrepr = f"{item.nodeid} was skipped, and under CI nothing may be: {reason}"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands its part of the list to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["missing"] = session.config.stash[_missing]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take it; one that died has handed over nothing."""
    node.config.stash[_missing] |= getattr(node, "workeroutput", {}).get("missing", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which promises were not proven here, and what it takes."""
    missing = config.stash[_missing]
    if missing:
        programs = ", ".join(sorted(missing))
        packages = " ".join(sorted(set(missing.values())))
        terminalreporter.write_line(f"NOT PROVEN HERE, for lack of {programs}: apt-get install {packages}", yellow=True)
