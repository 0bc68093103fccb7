"""What the rig measures with is itself proven: a box that holds, and honest calls that are missed if lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import yaml

from exhaustion import table
from exhaustion.box import ROOT, Box, chart_limit
from exhaustion.honest import Load, Stream
from waiting import until

MIB = 2**20
FIGURES = Path(__file__).with_name("figures.json")


def test_a_box_holds_what_is_in_it():
    """A program that wants more than the limit is seen, its children too; with a cgroup, it is killed."""
    greedy = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray({150 * MIB}); input()'])"
    with Box(64 * MIB) as box:
        process = subprocess.Popen([*box.command, sys.executable, "-c", greedy], stdin=subprocess.PIPE)
        box.watches(process.pid)
        until(lambda: box.kills, "a process over its limit", seconds=60)
        process.communicate()
        assert box.held > 32 * MIB
        assert box.peak <= box.limit or box.way.startswith("no cgroup")


def test_a_box_lets_live_what_fits():
    """Half of the limit harms nobody, and is counted."""
    with Box(128 * MIB) as box:
        program = f"x = bytearray({48 * MIB}); print('made', flush=True); input()"
        process = subprocess.Popen(
            [*box.command, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        box.watches(process.pid)
        process.stdout.readline()
        until(lambda: box.held > 48 * MIB, "what it holds", seconds=60)
        process.communicate()
        assert process.returncode == 0 or process.stdin.closed
        assert box.kills == 0


def test_the_limits_are_the_charts():
    """Both are read from helm/values.yaml, where users read them."""
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    assert values["resources"]["limits"]["memory"] == f"{chart_limit('operator') // MIB}Mi"
    assert values["sidecar"]["resources"]["limits"]["memory"] == f"{chart_limit('sidecar') // MIB}Mi"


async def test_honest_calls_are_counted_by_what_came_of_them():
    """One that fails is lost, one that waits is a gap, and the next are made meanwhile."""
    turn, go_on = 0, asyncio.Event()

    async def call():
        nonlocal turn
        turn += 1
        if turn == 2:
            raise ValueError("no answer")
        if turn == 3:
            await go_on.wait()
        if turn > 6:
            go_on.set()

    load = Load([Stream("calls", 200.0, call)])
    async with load.running():
        with load.window() as windows:
            await go_on.wait()
        await load.settle()
    window = windows["calls"]
    assert window.lost == ["ValueError: no answer"]
    assert len(window.seconds) >= 6
    assert window.gap_ms >= 3 * 1000 / 200


def test_the_table_in_the_documents_is_of_these_figures():
    """`make exhaust` writes both; whoever changes one by hand is told."""
    figures = json.loads(FIGURES.read_text())
    assert table.markdown(figures) in (ROOT / "docs" / "operate" / "security.md").read_text()
