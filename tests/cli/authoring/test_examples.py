"""The examples of the author's commands, which their help shows: each runs as it stands there."""

from __future__ import annotations

import shlex

import click
import pytest

from hookline_cli import main

COMMANDS = ("new", "build", "annotate", "inspect", "call", "test", "bench", "completion")
_ELSEWHERE = ("registry.example.com", "--watch", "pod/", "--state")
"""What a test of its own runs with parts of its own: ``test_inspecting``, ``test_developing``, and of what runs in a
pod or a sidecar, ``test_running_modules``."""


def examples(name):
    """The lines of a command's examples."""
    context = click.Context(main.program())
    text = main.program().get_command(context, name).epilog.partition("examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in text.splitlines()]


ALL = [(name, line) for name in COMMANDS for line in examples(name) if not any(each in line for each in _ELSEWHERE)]


@pytest.fixture
def desk(hookline, sdk, guests, write, tmp_path, monkeypatch):
    """A folder with all that the examples name."""
    case = {"name": "DROP", "hook": "pre_query", "input": {"query": "x"}, "expect": {"action": "continue"}}
    wasm = guests.answering(pre_query={"action": "continue"})
    write("guard.wasm", wasm, plugin={"name": "guard"}, cases=[case])
    (tmp_path / "target").mkdir()
    write("target/guard.wasm", wasm)
    write("plugin.json", {"name": "guard"})
    write("cases.json", [case])
    write("input.json", {"query": "SELECT 1"})


@pytest.mark.parametrize(("name", "line"), ALL)
def test_an_example_runs(hookline, desk, tmp_path, monkeypatch, name, line):
    """With exit code 0."""
    words = shlex.split(line.partition(" > ")[0])
    assert words[:2] == ["hookline", name]
    needs_project = "./guard" in words or (name in {"build", "test"} and not {"guard.wasm", "./guard"} & {*words})
    if needs_project and name != "new":
        assert hookline("new", "--lang", "c", "./guard").code == 0
        assert name == "build" or hookline("build", "./guard").code == 0
    if name in {"build", "test"} and words[2:] == []:
        monkeypatch.chdir(tmp_path / "guard")
    if "rust" in words:
        words[words.index("rust")] = "c"  # the template that is there
    if name == "bench":
        words += ["--seconds", "0.01"]
    if "oci-layout:./mirror/guard:1.0.0" in words:
        assert hookline("load", "--help").code == 0
        words[2] = "guard.wasm"
    done = hookline(*words[1:])
    assert done.code == 0, (line, done.out, done.err)
