"""Tests side by side: how many processes run them, and which is given which file.

``pytest -n auto``, as ``make test`` asks for, is one process where single files or a short folder were chosen. Many
tests wait for others much of their time, so there are twice as many processes as cores. All tests of a file run in one,
in their order.

Half of the processes begin with the folders whose tests need a control plane, the others with those that need none: so
there are half as many control planes, and what waits runs beside what computes. They meet where the files are short.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

_MOST: Final = 8
_TESTS: Final = Path(__file__).resolve().parent.parent / "tests"
_ENDS: Final = ("operator", "chart", "exhaustion", "cluster"), ("sidecar", "runtime", "examples")
"""Folders of ``tests``: with a control plane, and without one. What is in neither is short."""
_LONG: Final = (
    "test_calls.py",
    "test_what_arrives.py",
)
"""Files that take minutes: who begins with one at the end keeps all others waiting."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None but this process for what is short: failures read better there, and tests start sooner."""
    if all(_is_short(Path(str(chosen).partition("::")[0]).resolve()) for chosen in config.args):
        return 0
    return min(2 * len(os.sched_getaffinity(0)), _MOST)


def _is_short(chosen: Path) -> bool:
    """Whether it is a file, or a folder of tests that none of the long ones is in."""
    return chosen.is_file() or (_TESTS in chosen.parents and place(str(chosen.relative_to(_TESTS))) == 0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FromBothEnds:
    """Ours, whatever ``--dist`` says."""
    return FromBothEnds(config, log)


def place(file: str) -> float:
    """Where a file stands in the queue: from -1, with a control plane, to 1, without one; what is short is at 0."""
    parts = Path(file).parts
    for side, folders in zip((-1, 1), _ENDS, strict=True):
        for rank, folder in enumerate(folders):
            if folder in parts:
                return side * (1 if parts[-1] in _LONG else 0.9 - rank / 10)
    return 0


class FromBothEnds(LoadFileScheduling):  # type: ignore[misc]
    """One queue of files, and processes that take from its front, or from its back."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        number = int(node.gateway.id.removeprefix("gw"))
        chosen = (max if number % 2 else min)(self.workqueue, key=place)
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)
