"""A folder, a module or a project of a stranger's: it holds nobody up, and reaches nothing that is somebody's own."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hookline_cli import bounded
from hookline_cli.authoring import building, sources

ESCAPE = "\x1b[2J"
TOML = 'language = "c"\nbuild = ["true"]\nmodule = "built.wasm"\n'


@pytest.fixture
def stranger(guests, tmp_path):
    """A project of somebody's, whose parts are changed; its folder."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "hookline.toml").write_text(TOML)
    for name in ("built.wasm", "theirs.wasm"):
        (folder / name).write_bytes(guests.answering(pre_query={"action": "continue"}))
    return folder


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("hookline.toml", ["build", "theirs"]),
        ("plugin.json", ["build", "theirs"]),
        ("cases.json", ["build", "theirs"]),
        ("cases.json", ["test", "theirs"]),
        ("theirs.wasm", ["call", "theirs", "pre_query", "x"]),
        ("theirs.wasm", ["inspect", "theirs"]),
        ("wasmplugin.yaml", ["call", "theirs", "pre_query", "x"]),
        ("wasmplugin.yaml", ["check", "theirs"]),
        ("wasmplugin.yaml", ["policy", "check", "theirs"]),
        ("saved.tar", ["load", "theirs/saved.tar", "--to", "mirror"]),
        ("index.json", ["pull", "oci-layout:theirs:1"]),
        ("index.json", ["push", "theirs/theirs.wasm", "oci-layout:theirs:1"]),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(hookline, stranger, name, command, kind):
    """A pipe to which nobody writes, and a device that a link leads to."""
    (stranger / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(stranger / name)
    else:
        (stranger / name).symlink_to("/dev/zero")
    done = hookline(*command)
    assert done.code in {1, 2, 3}
    assert "regular file" in done.out + done.err or "has no hookline.toml" in done.err or "no file" in done.err, done


def test_what_the_caller_hands_over_is_read(tmp_path):
    """As a shell has it for ``<(…)``, and a file without a word in it."""
    reader, writer = os.pipe()
    os.write(writer, b"handed over")
    os.close(writer)
    assert bounded.read_file(Path(f"/dev/fd/{reader}"), most=100, what="it") == b"handed over"
    os.close(reader)
    assert bounded.read_file(Path("/dev/null"), most=100, what="it") == b""


def test_a_file_that_is_being_written_has_a_name_that_nobody_knows(tmp_path, monkeypatch):
    """A link at a name that can be guessed would lead the words elsewhere; where it fails, nothing is left."""
    (tmp_path / "own").write_text("mine")
    (tmp_path / f".made.{os.getpid()}").symlink_to(tmp_path / "own")
    building.write(tmp_path / "made", b"made")
    assert ((tmp_path / "own").read_text(), (tmp_path / "made").read_bytes()) == ("mine", b"made")
    (tmp_path / "linked").symlink_to(tmp_path / "own")
    building.write(tmp_path / "linked", b"made")
    assert (tmp_path / "own").read_text() == "mine"
    before = sorted(tmp_path.iterdir())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        building.write(tmp_path / "made", b"other")
    assert sorted(tmp_path.iterdir()) == before


def test_no_file_takes_the_place_of_a_device(tmp_path):
    """``--junit /dev/stdout`` of somebody who may write there."""
    os.mkfifo(tmp_path / "pipe")
    held = os.open(tmp_path / "pipe", os.O_RDWR)
    building.write(tmp_path / "pipe", b"words")
    assert os.read(held, 100) == b"words"
    os.close(held)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert bounded.is_special(Path("/dev/null"))
    assert bounded.is_special(Path("/proc/self/fd/0")) == Path("/proc/self/fd/0").exists()
    assert not bounded.is_special(tmp_path / "none")


@pytest.mark.parametrize(
    "text",
    [
        TOML.replace("built.wasm", "built\\u0000.wasm"),
        TOML.replace('"true"', '"true", "\\u0000"'),
        TOML + 'env = {A = "\\u0000"}\n',
        TOML + 'env = {"A=B" = "c"}\n',
        TOML + 'env = {"" = "c"}\n',
        TOML + f'"{ESCAPE.encode("unicode_escape").decode().replace("x1b", "u001b")}" = 1\n',
    ],
)
def test_what_no_system_takes_is_told_of_a_project(hookline, stranger, text):
    """A NUL, and a variable that is none; nothing is a fault of the command's."""
    (stranger / "hookline.toml").write_text(text)
    done = hookline("build", "theirs")
    assert done.code == 2
    assert done.sentence.isprintable()


def test_a_number_of_thousands_of_digits_is_told_in_our_words(hookline, stranger):
    """Nothing of Python's own settings."""
    (stranger / "plugin.json").write_text('{"a": ' + "9" * 5000 + "}")
    assert hookline("build", "theirs").sentence.endswith("a number has thousands of digits")


def test_a_build_s_words_command_no_terminal(hookline, stranger, monkeypatch):
    """While it is watched, too."""
    (stranger / "hookline.toml").write_text(TOML.replace('["true"]', '["sh", "-c", "printf \'\\\\033[2J\'; exit 1"]'))
    assert ESCAPE not in hookline("build", "theirs").out

    async def none(_):
        return
        yield

    monkeypatch.setattr("hookline_cli.authoring.watching.Sources.changes", none)
    done = hookline("test", "theirs", "--watch")
    assert ESCAPE not in done.out
    assert "not built" in done.out


def test_what_a_build_left_running_is_not_waited_for(hookline, stranger, tmp_path, monkeypatch):
    """It has the pipe that the build's words come from."""
    monkeypatch.setattr(building, "_END_S", 0.1)
    script = f"sleep 1000 & echo $! >{tmp_path / 'pid'}"
    (stranger / "hookline.toml").write_text(TOML.replace('["true"]', json.dumps(["sh", "-c", script])))
    try:
        assert hookline("build", "theirs").code == 0
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_source_that_is_newer_than_the_module_is_told(hookline, stranger, tmp_path):
    """What is called is what was built; cases and settings are read as they are."""
    then = 1_000_000_000
    for each in stranger.iterdir():
        os.utime(each, ns=(then, then))
    (stranger / "cases.json").write_text("[]")
    (stranger / "README.md").write_text("words")
    assert sources.newer(stranger, stranger / "theirs.wasm") is None
    assert hookline("call", "theirs", "pre_query", "x").err == ""
    (stranger / "a b.c").write_text("int a;")
    done = hookline("call", "theirs", "pre_query", "x")
    assert (done.code, done.err) == (
        0, "note: theirs/a b.c is newer than theirs/theirs.wasm: 'hookline build theirs' builds it again\n"
    )  # fmt: skip
    assert hookline("call", "theirs", "pre_query", "x", "--json").err == ""


def test_commands_that_are_named_can_be_copied(hookline, sdk, tmp_path):
    """With names that have spaces, letters with marks, or begin as an option does."""
    done = hookline("new", "--lang", "c", "mein Wächter")
    assert "hookline build 'mein Wächter'\n" in done.out
    assert "the plugin mein-wachter" in done.out
    assert "'hookline build 'mein Wächter''" in hookline("test", "mein Wächter").err
    assert "hookline build ./-rf\n" in hookline("new", "--lang", "c", "--name", "guard", "--", "-rf").out
