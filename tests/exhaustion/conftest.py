"""Programs in boxes of the chart's size; see testbed/exhaustion."""

from __future__ import annotations

import contextlib

import pytest

from exhaustion import programs
from exhaustion.measure import measure
from waiting import PATIENCE_S

SECONDS = 3.0
"""Of each attack: the long form is `make exhaust`."""
SHARE = 0.9
"""Of the limit, that what no kernel can take back may come to: the rest is for files that are read, and for luck."""


@pytest.fixture
def sidecar_program(tmp_path):
    """A sidecar of its own for each attack."""
    with programs.sidecar(tmp_path) as program:
        yield program


@pytest.fixture(scope="module")
def operator_program(control_plane, tmp_path_factory):
    """One operator for all attacks; a new one where the last attack has ended it."""
    with contextlib.ExitStack() as stack:
        running = []

        def get():
            if not running or not all(map(programs.alive, running[-1].pids)):
                running.append(
                    stack.enter_context(programs.operator(tmp_path_factory.mktemp("operator"), control_plane))
                )
            return running[-1]

        yield get


@pytest.fixture
def withstands():
    """Runs an attack, and asserts what has to hold of any program under any attack."""

    async def run(program, attack):
        result = await measure(program, attack, seconds=SECONDS, quiet_s=0.5, deploy_more_s=PATIENCE_S)
        told = f"{result.to_json()}\n{program.log[-3000:]}"
        assert sum(result.did.values()) > 0, told  # else nothing was proven
        assert min(result.calls.values()) > 0, told
        assert result.died == 0, told
        assert not any(result.lost.values()), told
        assert result.held_mib < SHARE * result.limit_mib, told
        assert result.deploy_s is None or result.deploy_s >= 0, told
        return result

    return run
