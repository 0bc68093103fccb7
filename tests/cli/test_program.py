"""The program: what it lists, what it imports for that, and how it ends whatever happens."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest

from hookline_cli import frame, main


def commands():
    """Every command by its whole name."""
    found = {}

    def walk(group, prefix):
        context = click.Context(group)
        for name in group.list_commands(context):
            each = group.get_command(context, name)
            if isinstance(each, click.Group):
                walk(each, f"{prefix}{name} ")
            else:
                found[f"{prefix}{name}"] = each

    walk(main.program(), "")
    return found


COMMANDS = commands()


def test_help_imports_no_command_and_nothing_large():
    """So it is there at once: what a command needs is imported when it is called."""
    code = (
        "import sys; sys.argv = ['hookline', '--help']\n"
        "from hookline_cli.main import main\n"
        "main()\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert loaded.isdisjoint({"aiohttp", "pydantic", "cryptography", "nacl", "yaml", "kubernetes"})
    assert not [name for name in loaded if name.startswith(("hookline_api", "hookline_artifacts"))]
    assert not [name for name in loaded if name.startswith("hookline_cli.commands.")]
    for name in main.COMMANDS:
        assert name.partition(" ")[0] in done.stdout


def test_the_list_says_what_the_commands_say():
    """It is written by hand, so that none is imported for it."""
    assert {name: entry.text for name, entry in main.COMMANDS.items()} == {
        name: each.help.splitlines()[0] for name, each in COMMANDS.items()
    }


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_explains_itself(hookline, name):
    """With examples of its own, the table of exit codes, and JSON."""
    done = hookline(*name.split(), "--help")
    assert done.code == 0
    assert f"hookline {name}" in done.out.partition("examples:")[2]
    for code, what in frame.EXITS.items():
        assert f"{code:<3}  {what}" in done.out
    assert "--json" in done.out
    assert all(each.help for each in COMMANDS[name].params if isinstance(each, click.Option))


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["verify", "--nothing"], ["keygen", "--type", "dsa"], ["policy", "nothing"], ["sign"]]
)
def test_a_wrong_command_line_is_told(hookline, arguments):
    """With exit code 2."""
    done = hookline(*arguments)
    assert done.code == 2
    assert "Error: " in done.err


def test_an_error_is_json_where_that_is_asked_for(hookline):
    """On stdout, with its exit code; nothing is on stderr."""
    done = hookline("verify", "none.wasm", "--key", "none.pub", "--json")
    assert done.json == {"error": "there is no file 'none.wasm'", "exit": 3}
    assert done.err == ""


def test_so_is_a_wrong_command_line(hookline, monkeypatch):
    """And a fault of its own, and what was interrupted has nothing to say."""
    assert hookline("verify", "--nix", "--json").json == {"error": "No such option '--nix'.", "exit": 2}
    assert hookline("nix", "--json").json["exit"] == 2

    def fails(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("hookline_artifacts.trust.private_keys.generate", fails)
    done = hookline("keygen", "--json")
    assert (done.json["exit"], done.err) == (frame.FAULT, "")


def run(script):
    """How ``hookline`` ends in a shell, which prints that at last; its stderr."""
    script = script.replace("hookline", f"{shlex.quote(sys.executable)} -m hookline_cli")
    done = subprocess.run(
        ["sh", "-c", f"{script}; echo $? >&2"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.stderr


FULL = "hookline: stdout cannot be written: No space left on device\n3\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("hookline check none.yaml --json >/dev/full", FULL),
        ("hookline new --list >/dev/full", FULL),
        ("hookline --help >/dev/full", FULL),
        ("hookline new --list >&-", "0\n"),
        ("hookline call no.wasm pre_query - <&- >&-", "hookline: the module: there is no file no.wasm\n3\n"),
    ],
)
def test_where_nothing_can_be_written_it_says_so(script, said):
    """A full disk, a closed stream, and a reader that is gone: no fault of its own, and no traceback."""
    assert run(script) == said


def test_a_reader_that_is_gone_is_no_fault():
    """As of ``hookline inspect … | head -1``: nobody is told."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hookline_cli", "new", "--list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (frame.UNAVAILABLE, b"")


def test_a_fault_of_its_own_is_no_traceback(hookline, monkeypatch):
    """One line, and how to see more."""

    def fails(*_):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("hookline_artifacts.trust.private_keys.generate", fails)
    done = hookline("keygen")
    assert done.code == frame.FAULT
    assert "ZeroDivisionError: by zero" in done.sentence
    assert "HOOKLINE_TRACEBACK=1" in done.sentence


def test_an_interruption_is_no_traceback(hookline, monkeypatch):
    """As of any program, 130."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hookline_artifacts.trust.private_keys.generate", interrupted)
    done = hookline("keygen")
    assert done.code == frame.INTERRUPTED
    assert done.err.strip() == "hookline: interrupted"


def test_what_is_not_printable_is_escaped(hookline):
    """A name of a stranger's forges no line and commands no terminal."""
    done = hookline("verify", "a\x1b[31m\nb.wasm", "--key", "none.pub")
    assert done.code == 3
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 1


def test_it_can_be_run_as_a_module():
    """Where the script is not on the path."""
    command = [sys.executable, "-m", "hookline_cli", "verify", "none.wasm", "--key", "none.pub"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "hookline: there is no file 'none.wasm'\n")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes_are_for_people(size, text):
    """In binary units."""
    assert frame.sized(size) == text


def test_progress_is_shown_on_a_terminal_after_a_second(capsys, monkeypatch):
    """And taken away at the end; a pipe sees none of it."""
    now = 100.0
    monkeypatch.setattr(frame.time, "monotonic", lambda: now)
    for terminal in (True, False):
        monkeypatch.setattr(frame.sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        progress = frame.Progress("loading", 4096)
        progress.more(1024)
        early = capsys.readouterr().err
        now += 2
        progress.more(1024)
        late = capsys.readouterr().err
        progress.end()
        assert early == ""
        assert late.endswith("loading: 2.0 KiB of 4.0 KiB") == terminal
        assert bool(capsys.readouterr().err) == terminal
