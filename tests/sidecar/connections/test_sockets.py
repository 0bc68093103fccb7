"""The unix socket: whom it lets in, and that it never lets in more on its way there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hookline_sidecar import sockets
from waiting import PATIENCE_S

NOBODY = 65534
GROUP = 61234
"""A group that this machine has no name for."""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder():
    """A folder that everybody may enter, as no temporary folder of the tests is."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def as_nobody(function, *, groups=()):
    """What ``function`` returns, a small number, in a process of the user ``nobody`` and these groups."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def connects(path):
    """A function that says whether one may connect: 0, or the number of the error."""

    def attempt():
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(path))

    return attempt


@only_root
async def test_a_group_lets_in_its_members_and_nobody_else(new_sidecar, guests, folder):
    """As nginx's workers, which are not root: by the group, with the mode as it is by default."""
    path = folder / "hooks.sock"
    sidecar = new_sidecar(socket=path, socket_group=GROUP)
    sidecar.socket = path
    sidecar.folder.plugin("p", guests.saying("in"))
    sidecar.start()
    try:
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, GROUP)
        assert as_nobody(connects(path), groups=[GROUP]) == 0
        assert as_nobody(connects(path)) == 13  # EACCES
        assert (await sidecar.ask(unix=True))["value"] == "in"
    finally:
        sidecar.end()


@only_root
def test_a_mode_for_everybody_lets_in_everybody(folder):
    """And one for the owner alone does not."""
    for mode, expected in ((0o666, 0), (0o606, 0), (0o660, 13), (0o600, 13)):
        path = folder / f"{mode:o}.sock"
        with sockets.listen_unix(path, mode=mode, group=None):
            assert as_nobody(connects(path)) == expected, oct(mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_it_is_closed_to_all_until_it_is_as_asked(folder, monkeypatch, umask):
    """Between bind and the end nobody gets in, whatever the umask; and that stays as it was."""
    path, seen = folder / "hooks.sock", []

    def watched(name):
        real = getattr(os, name)

        def look(*arguments):
            seen.append((name, stat.S_IMODE(path.stat().st_mode)))
            real(*arguments)

        monkeypatch.setattr(os, name, look)

    watched("chown")
    watched("chmod")
    before = os.umask(umask)
    try:
        with sockets.listen_unix(path, mode=0o666, group=os.getegid()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert seen == [("chown", 0), ("chmod", 0)]


def test_what_was_put_in_its_place_is_not_touched(folder, monkeypatch):
    """Who may write the folder gets no file of another opened."""
    path, precious = folder / "hooks.sock", folder / "precious"
    precious.write_text("")
    precious.chmod(0o600)
    real = os.open

    def swapped(where, *arguments, **options):
        if where == path:
            path.unlink()
            path.symlink_to(precious)
        return real(where, *arguments, **options)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(OSError, match="something else was put in its place"):
        sockets.listen_unix(path, mode=0o666, group=None)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


@only_root
def test_a_group_that_the_user_is_not_in_is_refused(folder):
    """The sentence says what to do, and no socket is left behind; a member can give it."""
    folder.chmod(0o777)
    path, said = folder / "hooks.sock", folder / "said"

    def attempt():
        try:
            sockets.listen_unix(path, mode=0o660, group=GROUP).close()
        except OSError as error:
            said.write_text(error.strerror)
            return 1
        return 0

    assert as_nobody(attempt) == 1
    assert f"--socket-group {GROUP}: " in said.read_text()
    assert "supplementalGroups" in said.read_text()
    assert not path.exists()
    assert as_nobody(attempt, groups=[GROUP]) == 0
    assert path.stat().st_gid == GROUP


def test_a_group_without_a_socket_is_refused(tmp_path):
    """It would act on nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "hookline_sidecar", "--plugins", tmp_path, "--socket-group", "0"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--socket-group is for --socket" in done.stderr
