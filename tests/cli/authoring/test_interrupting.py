"""Ctrl-C, a signal, and a terminal that goes away: whatever a command began is taken away again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_cli import frame
from waiting import PATIENCE_S, until

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PYTHON = ("env", "--default-signal=INT,TERM,HUP", sys.executable)
"""Signals as a terminal has them: whoever runs these tests may ignore one, as nohup does."""


@pytest.fixture
def begun(tmp_path):
    """Begins a command in a project whose tool starts another one and waits.

    The process, the tools as pids with their starts, and the folder for temporary files.
    """
    folder, scratch = tmp_path / "guard", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    tool = json.dumps(["sh", "-c", "sleep 1000 & echo $! $$ >.pids.part; mv .pids.part .pids; wait"])
    (folder / "hookline.toml").write_text(f'language = "c"\nbuild = {tool}\ntest = {tool}\nmodule = "a.wasm"\n')
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with contextlib.ExitStack() as stack:

        def begin(*arguments):
            command = [*PYTHON, "-m", "hookline_cli", *arguments]
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            until((folder / ".pids").exists, "the tool")
            tools = [(int(each), started(each)) for each in (folder / ".pids").read_text().split()]
            assert all(start for _, start in tools)
            stack.callback(end, tools)
            return process, tools, scratch

        yield begin


def started(pid):
    """When a process began, which tells it from a later one of its number; None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def end(tools):
    """End those that are still there."""
    for pid, start in tools:
        if started(pid) == start is not None:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("arguments", [["build"], ["test", "--native"], ["test", "--watch"], ["dev"]])
def test_a_tool_ends_with_the_command(begun, arguments, number):
    """With all that the tool started, and no temporary file is left; only the command is told, as by ``kill``."""
    process, tools, scratch = begun(*arguments)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == frame.INTERRUPTED, said
    assert "Traceback" not in said
    until(lambda: not any(started(pid) == start for pid, start in tools), "the end of the tools")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_cases_under_way_leave_nothing(write, guests, tmp_path, number):
    """A guest that never ends is in a store of its own, in a temporary folder."""
    case = {"name": "slow", "hook": "pre_query", "input": {"query": "x"}, "failure": "timeout", "repeat": 10_000}
    name = write("loop.wasm", guests.module({"pre_query": "(loop $l (br $l)) (i64.const 0)"}), cases=[case])
    (tmp_path / "scratch").mkdir()
    process = subprocess.Popen(
        [*PYTHON, "-m", "hookline_cli", "test", name], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        until(lambda: list((tmp_path / "scratch").glob("hookline-trial-*")), "a trial")
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said.strip()) == (frame.INTERRUPTED, "hookline: interrupted")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_does_not_notice_is_ended():
    """Work without a pause, as on a document that is large, hears of no cancelling."""
    script = (
        "import sys\nfrom hookline_cli import frame, main\nfrom hookline_cli.judging import files\n"
        "frame._NOTICES_S = 0.1\n"
        "def read(_):\n    print('begun', flush=True)\n    while True: pass\n"
        "files.read = read\nsys.argv = ['hookline', 'check', 'a.yaml']\nmain.main()\n"
    )
    process = subprocess.Popen([*PYTHON, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said.strip()) == (frame.INTERRUPTED, "hookline: interrupted")
