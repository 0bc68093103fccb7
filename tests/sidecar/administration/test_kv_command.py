"""``hookline-sidecar kv``: a person beside the sidecar reads and writes keys, as with ``kubectl exec``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hookline_runtime.host.kv import KvStore
from waiting import PATIENCE_S

PERMISSIONS = ["kv.read", "kv.write"]
NOBODY = 65534
MANY = 1020

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def clean():
    """This environment without what the program would read of it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}


@pytest.fixture(scope="module")
def running(new_sidecar, guests):
    """A sidecar with the plugin ``p``, which answers its key ``k``."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    return sidecar.start()


@pytest.fixture
def kv(running):
    """Runs the command; its code, stdout and stderr."""

    def run(*arguments, stdin=b"", state=running.state, environment=None):
        where = [] if state is None else ["--state", str(state)]
        done = subprocess.run(
            [sys.executable, "-m", "hookline_sidecar", "kv", *arguments[:1], *where, *arguments[1:]],
            input=stdin, capture_output=True, check=False, env=clean() | (environment or {}), timeout=PATIENCE_S,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr.decode()

    return run


async def test_what_it_puts_is_what_the_plugin_reads(kv, running):
    """From the command line, and from stdin; until it is deleted."""
    assert kv("put", "p", "k", '"one"') == (0, b"p k: stored, 5 bytes\n", "")
    assert await running.says() == "one"
    assert kv("put", "p", "k", "-", stdin=b'"two"') == (0, b"p k: replaced, 5 bytes\n", "")
    assert await running.says() == "two"
    assert kv("get", "p", "k") == (0, b'"two"', "")
    assert kv("delete", "p", "k") == (0, b"p k: deleted\n", "")
    assert kv("delete", "p", "k") == (0, b"p k: did not exist\n", "")
    code, out, error = kv("get", "p", "k")
    assert (code, out) == (3, b"")
    assert error == "hookline-sidecar kv: plugin 'p' has no key 'k'\n"


def test_values_are_bytes_and_keys_are_any_text(kv):
    """Nothing is added to a value and nothing taken from it; a key may look like an option, or like a path."""
    value = bytes(range(256))
    for key in ("a/../b", "é😀", "a b?c#d%e", "-n", "\udcff"):
        assert kv("put", "p", "--", key, "-", stdin=value)[0] == 0, key
        assert kv("get", "p", "--", key) == (0, value, "")
        assert kv("delete", "p", "--", key)[0] == 0
    assert kv("put", "p", "empty", "")[0] == 0
    assert kv("get", "p", "empty") == (0, b"", "")
    assert kv("put", "p", "--", "negative", "-5")[0] == 0
    assert kv("get", "p", "negative")[1] == b"-5"
    assert kv("put", "p", "large", "-", stdin=b"x" * 65536)[0] == 0
    code, _, error = kv("put", "p", "large", "-", stdin=b"x" * 65537)
    assert (code, error) == (1, "hookline-sidecar kv: a value has at most 65536 bytes; nothing is stored\n")
    for key in ("empty", "negative", "large"):
        kv("delete", "p", key)


def test_a_list_is_for_people_and_for_programs(kv):
    """Names, sizes and times; keys that would break a line are shown as a request has them."""
    for key in ("b", "a/1", "line\nbreak"):
        kv("put", "p", key, "123")
    code, out, _ = kv("list", "p")
    assert (code, out.decode().splitlines()[0].split()) == (0, ["KEY", "BYTES", "ENDS", "IN"])
    rows = [line.split() for line in out.decode().splitlines()[1:]]
    assert rows == [["a/1", "3", "-"], ["b", "3", "-"], ["line%0Abreak", "3", "-"]]
    assert [each["key"] for each in json.loads(kv("list", "p", "--json")[1])["entries"]] == ["a/1", "b", "line\nbreak"]
    assert kv("list", "p", "--prefix", "a/")[1].decode().splitlines()[1:] == ["a/1  3      -"]
    assert json.loads(kv("get", "p", "b", "--json")[1])["value"] == "123"
    assert json.loads(kv("delete", "p", "b", "--json")[1]) == {"ok": True, "existed": True}
    listed = [line.split() for line in kv("list")[1].decode().splitlines()]
    assert listed == [["PLUGIN", "KEYS", "BYTES"], ["p", "2", str(len("a/1line\nbreak") + 6)]]
    assert json.loads(kv("list", "--json")[1])["plugins"][0]["loaded"] is True


def test_a_list_has_all_pages(kv, running):
    """However many keys there are."""
    for number in range(3):
        kv("put", "p", f"{'x' * 60_000}{number}", "")
    store = KvStore(running.state / "kv")  # a thousand programs would take long
    for number in range(MANY - 3):
        store.put("p", b"%d" % number, b"")
    store.close()
    entries = json.loads(kv("list", "p", "--json")[1])["entries"]
    assert len({each["key"] for each in entries}) == len(entries) >= MANY


def test_a_change_may_be_for_new_keys_only(kv):
    """And an administrator's mistake in a plugin's name is told with those that there are."""
    assert kv("put", "p", "new", "1", "--only-new")[0] == 0
    code, _, error = kv("put", "p", "new", "2", "--only-new")
    assert (code, "nothing is changed: the key 'new' is" in error) == (4, True)
    assert kv("get", "p", "new")[1] == b"1"
    for arguments in (("get", "q", "k"), ("put", "q", "k", "v"), ("delete", "q", "k"), ("list", "q")):
        code, _, error = kv(*arguments)
        assert (code, "there is no plugin 'q', but p" in error) == (3, True)
    assert kv("put", "q", "k", "v", "--prepare")[0] == 0
    assert kv("delete", "q", "k")[0] == 0


def test_the_state_folder_is_found_as_the_sidecar_finds_it(kv, running):
    """In the image, HOOKLINE_STATE says it to both."""
    assert kv("list", state=None, environment={"HOOKLINE_STATE": str(running.state)})[0] == 0
    home = {"XDG_STATE_HOME": str(running.root)}
    (running.root / "hookline").symlink_to(running.state)
    assert kv("list", state=None, environment=home)[0] == 0
    long = Path(tempfile.mkdtemp()) / ("x" * 120)
    try:
        long.symlink_to(running.state)
        assert kv("list", state=long)[0] == 0  # longer than a socket's name may be
    finally:
        shutil.rmtree(long.parent)


@pytest.mark.parametrize("make", ["nothing", "a folder", "a file"])
def test_where_no_sidecar_is_a_sentence_says_where_it_looked(kv, tmp_path, make):
    """And what to look at."""
    if make != "nothing":
        (tmp_path / "state").mkdir() if make == "a folder" else (tmp_path / "state").touch()
    code, out, error = kv("list", state=tmp_path / "state")
    assert (code, out) == (5, b"")
    assert f"no sidecar answers at {tmp_path}/state/admin.sock: is one running, and is --state" in error


@only_root
def test_another_user_is_told_whose_command_it_is(running):
    """Not a trace of Python."""
    with tempfile.TemporaryDirectory() as name:
        link = Path(name)
        link.chmod(0o755)
        (link / "state").mkdir(mode=0o755)
        os.link(running.state / "admin.sock", link / "state" / "admin.sock")
        script = (  # imported first: the interpreter may be where that user may not look
            "import os, sys\nfrom hookline_sidecar import kv_command\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "sys.exit(kv_command.run(sys.argv[1:], {}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, "list", "--state", str(link / "state")],
            capture_output=True, text=True, check=False, env=clean(), timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 5
        assert "this user may not open" in done.stderr
        assert "run this as the sidecar's own user, or as root" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("gett",), ("get",), ("get", "p"), ("put", "p", "k"), ("get", "p", "k", "more"), ("get", "p", "k", "--what")],
)
def test_a_wrong_command_line_is_a_usage_error(kv, arguments):
    """With code 2, and the usage."""
    code, out, error = kv(*arguments, state=None)
    assert (code, out) == (2, b"")
    assert error.startswith("usage: hookline-sidecar kv")


@pytest.mark.parametrize("arguments", [("get", "", "k"), ("get", "p", ""), ("put", "p", "", "v"), ("delete", "p", "")])
def test_an_empty_name_is_one_too(kv, arguments):
    """A variable that is not set must not list or delete something else."""
    code, _, error = kv(*arguments)
    assert (code, "must not be empty" in error) == (2, True)


def test_its_help_teaches(kv):
    """Examples, where it looks, and each exit code; the program's own help leads to it."""
    code, out, _ = kv("--help", state=None, environment={"HOOKLINE_STATE": "/some/100%"})
    text = out.decode()
    assert code == 0
    for word in ("kubectl exec", "list", "get", "put", "delete", "exit codes:", "spec.kv.initial"):
        assert word in text
    assert "/some/100%" in kv("put", "--help", state=None, environment={"HOOKLINE_STATE": "/some/100%"})[1].decode()
    done = subprocess.run([sys.executable, "-m", "hookline_sidecar", "--help"], capture_output=True, check=True)
    assert b"hookline-sidecar kv --help" in done.stdout
    assert b"--admin-token FILE" in done.stdout


def test_a_reader_that_goes_away_is_no_error(running):
    """As ``| head`` does."""
    command = [sys.executable, "-m", "hookline_sidecar", "kv", "list", "--state", str(running.state), "p"]
    listing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean())
    listing.stdout.close()
    with listing.stderr:
        assert (listing.stderr.read(), listing.wait(PATIENCE_S)) == (b"", 0)
