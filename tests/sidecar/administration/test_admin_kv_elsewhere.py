"""Keys that all pods share are not in the pod: whoever asks for them there is told where they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from admin_kv import PERMISSIONS, Admin
from waiting import PATIENCE_S


@pytest.fixture(scope="module")
def sharing(new_sidecar, guests):
    """A sidecar with a plugin whose keys are on a server, which is away, and one whose keys are here."""
    sidecar = new_sidecar(workers=1)
    shared = {"scope": "Cluster", "valkey": {"url": "redis://127.0.0.1:1"}}
    sidecar.folder.plugin("shared", guests.stored(), permissions=PERMISSIONS, kv=shared)
    sidecar.folder.plugin("own", guests.counter(), permissions=PERMISSIONS, hooks=["custom_hook"], priority=-1)
    return sidecar.start()


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/k"), ("PUT", "/k"), ("DELETE", "/k")])
def test_a_plugin_whose_keys_are_on_a_server_is_not_shown_as_empty(sharing, method, path):
    """Neither read nor written here, where nobody would read it; and it is said how to ask there."""
    status, sentence = Admin(sharing).problem(method, f"/admin/kv/shared{path}", b"v" if method == "PUT" else None)
    assert status == 409
    assert "are not in this pod but on the server of its spec.kv.valkey" in sentence
    assert sentence.endswith("HKEYS 'hookline:{/shared}:entries'")


def test_a_list_of_plugins_tells_them_apart(sharing):
    """The others are as they were."""
    found = {each["plugin"]: each for each in Admin(sharing)("GET", "/admin/kv")[2]["plugins"]}
    assert found["shared"]["scope"] == "Cluster"
    assert "scope" not in found["own"]
    assert Admin(sharing)("PUT", "/admin/kv/own/k", b"v")[0] == 200


def test_the_command_says_it_too(sharing):
    """In its table, and as the reason of a failure."""

    def kv(verb, *arguments):
        command = [sys.executable, "-m", "hookline_sidecar", "kv", verb, "--state", str(sharing.state), *arguments]
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S, text=True)
        return done.returncode, done.stdout, done.stderr

    code, table, _ = kv("list")
    assert code == 0
    assert ["shared", "on", "a", "server", "-"] in [line.split() for line in table.splitlines()]
    code, shown, why = kv("get", "shared", "k")
    assert (code, shown) == (1, "")
    assert "are not in this pod but on the server" in why
