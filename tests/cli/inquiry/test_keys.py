"""``hookline kv``: keys of a sidecar, by its socket, by its port with a token, and through ``kubectl exec``."""

from __future__ import annotations

import pytest


@pytest.fixture
def kv(hookline, sidecar):
    """Runs ``kv`` by the socket."""
    return lambda verb, *arguments: hookline("kv", verb, "--state", sidecar.state, *arguments)


def test_a_key_is_stored_read_listed_and_deleted(kv):
    """By its path, whatever is in it."""
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
    assert (done.code, done.sentence) == (3, "hookline: plugin 'good' has no key 'none'")
    assert kv("set", "nobody", "a", "b").code == 3
    assert kv("set", "nobody", "a", "b", "--prepare").code == 0


def test_in_a_pod_it_is_the_sidecars_own_command(in_a_pod):
    """A name that looks like an option is a name there, too, and a value goes by stdin."""
    done = in_a_pod("kv", "set", "--pod", "web", "--only-new", "good", "--", "--json", "hello")
    assert done.out == "good --json: stored, 5 bytes\n", done
    assert in_a_pod("kv", "set", "--pod", "web", "--only-new", "good", "--", "--json", "again").code == 1
    assert in_a_pod("kv", "get", "--pod", "pod/web", "good", "--", "--json").out == "hello"
    assert "--json" in in_a_pod("kv", "list", "--pod", "web", "good").out
    done = in_a_pod("kv", "get", "--pod", "web", "good", "none")
    assert (done.code, done.err) == (3, "kubectl hookline: pod 'web': plugin 'good' has no key 'none'\n")


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
