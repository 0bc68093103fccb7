"""``hookline completion``: a shell completes commands, options, hooks and permissions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def completed(words, current, cwd):
    """What the program offers a bash for the last word."""
    variables = {"_HOOKLINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(current)}
    code = "from hookline_cli.main import main; import sys; main(); "
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=os.environ | variables)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "current", "expected"),
    [
        ("hookline be", 1, ["bench"]),
        ("hookline policy ", 2, ["check"]),
        ("hookline call a.wasm pre", 3, ["pre_query"]),
        ("hookline call a.wasm pre_query --perm", 4, ["--permission"]),
        ("hookline call a.wasm pre_query x --permission kv", 6, ["kv.read", "kv.write"]),
        ("hookline completion z", 2, ["zsh"]),
    ],
)
def test_words_are_completed(tmp_path, words, current, expected):
    """Of commands that are imported late, too."""
    assert completed(words, current, tmp_path) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(hookline, shell):
    """Which asks the program, by the name that click looks for."""
    done = hookline("completion", shell)
    assert done.code == 0
    assert "_HOOKLINE_COMPLETE" in done.out
    assert f"{shell}_complete" in done.out


def test_another_shell_is_told(hookline):
    """With those that there are."""
    done = hookline("completion", "csh")
    assert done.code == 2
    assert "'bash', 'zsh', 'fish'" in done.err
