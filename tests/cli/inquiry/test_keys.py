"""``hookline kv``: keys of a sidecar, by its socket, by its port with a token, and through ``kubectl exec``."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["socket", "pod"])
def kv(request, hookline, sidecar, in_a_pod):
    """Runs ``kv`` one way or the other."""

    def run(*arguments):
        if request.param == "pod":
            return in_a_pod("kv", *arguments[:1], "--pod", "web", *arguments[1:])
        return hookline("kv", *arguments[:1], "--state", sidecar.state, *arguments[1:])

    run.way = request.param
    return run


def test_a_key_is_stored_read_listed_and_deleted(kv):
    """The same whichever way it goes."""
    assert kv("set", "good", "a/b c", "hello").out == "good a/b c: stored, 5 bytes\n"
    assert kv("get", "good", "a/b c").out == "hello"
    assert kv("set", "good", "a/b c", "again", "--only-new").code == 1
    assert kv("set", "good", "a/b c", "other").out == "good a/b c: replaced, 5 bytes\n"
    assert kv("list", "good", "--prefix", "a/").out.splitlines()[1].split() == ["a/b", "c", "5", "-"]
    assert kv("get", "good", "a/b c", "--json").json["value"] == "other"
    assert "good" in kv("list").out
    assert kv("delete", "good", "a/b c").out == "good a/b c: deleted\n"
    assert kv("delete", "good", "a/b c").out == "good a/b c: did not exist\n"


def test_what_is_not_there_is_told(kv):
    """With exit code 3, and one sentence."""
    done = kv("get", "good", "none")
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert "plugin 'good' has no key 'none'" in done.err
    nobody = f"nobody-{kv.way}"
    assert kv("set", nobody, "a", "b").code == 3
    assert kv("set", nobody, "a", "b", "--prepare").code == 0


def test_a_name_that_looks_like_an_option_is_a_name(kv):
    """It is never one of the sidecar's own options."""
    assert kv("set", "good", "--", "--json", "x").code == 0
    assert kv("get", "good", "--", "--json").out == "x"
    assert kv("delete", "good", "--", "--json").code == 0


def test_the_port_takes_a_token(hookline, new_sidecar, guests, tmp_path):
    """Without it, one sentence says what to do."""
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    sidecar = new_sidecar(workers=1, admin_token=tmp_path / "token")
    sidecar.folder.plugin("p", guests.saying("x"))
    sidecar.start()
    where = ["--admin", f"http://127.0.0.1:{sidecar.admin_port}"]
    done = hookline("kv", "set", *where, "p", "k", "v")
    assert done.code == 3
    assert "give --admin-token" in done.sentence
    assert hookline("kv", "set", *where, "--admin-token", tmp_path / "token", "p", "k", "v").code == 0
    assert hookline("kv", "get", *where, "--admin-token", tmp_path / "token", "p", "k").out == "v"
