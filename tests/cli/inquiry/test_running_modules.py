"""``hookline inspect`` of what runs: the module's own bytes, and what was granted of what it asks for."""

from __future__ import annotations

import hashlib

import pytest


@pytest.fixture(params=["socket", "port", "pod"])
def inspected(request, hookline, sidecar, in_a_pod):
    """Inspects a plugin, or all, each way that there is."""

    def run(plugin=None, *more):
        if request.param == "pod":
            return in_a_pod("inspect", "pod/web", *([plugin] if plugin else []), *more)
        if request.param == "socket":
            return hookline("inspect", plugin, "--state", sidecar.state, *more)
        return hookline("inspect", plugin, "--admin", f"http://127.0.0.1:{sidecar.admin_port}", *more)

    return run


def test_what_runs_is_shown_by_its_own_bytes(inspected, sidecar, guests):
    """With what was granted, and the resource that would run it."""
    done = inspected("good", "--json")
    assert done.code == 0, done
    (found,) = done.json["plugins"]
    wasm = guests.saying("hello")
    assert (found["sha256"], found["size"]) == (hashlib.sha256(wasm).hexdigest(), len(wasm))
    assert found["hooks"] == ["custom_hook"]
    assert found["granted"] == ["kv.read", "kv.write"]
    assert found["digest"] == sidecar.plugin("good")["artifact"]["digest"]
    assert "name: good" in found["resource"]
    lines = {line.strip() for line in inspected("good").out.splitlines()}
    assert "granted   kv.read, kv.write" in lines
    assert "verified  no policy of the sidecar's own asks for signatures" in lines


def test_without_a_name_all_that_runs_in_a_pod_is_shown(in_a_pod):
    """And nothing of what does not."""
    done = in_a_pod("inspect", "pod/web", "--json")
    assert [each["target"].split()[0] for each in done.json["plugins"]] == ["good", "traps"]


def test_what_does_not_run_is_told_with_where_to_look(inspected):
    """And a plugin that nobody asks for with those that there are."""
    done = inspected("gone")
    assert done.code == 3, done
    assert done.err.strip().endswith("'hookline why gone' says why")
    assert inspected("none").err.strip().endswith("it runs good, traps")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.wasm", "guard"], "for what runs in a pod, and x.wasm is an artifact"),
        (["x.wasm", "-n", "shop"], "for what runs in a pod, and x.wasm is an artifact"),
        (["pod/web", "--state", "."], "TARGET is a plugin of it"),
        (["guard", "other", "--state", "."], "TARGET is a plugin of it"),
        (["pod/web", "--insecure"], "are for a registry"),
    ],
)
def test_options_that_do_not_go_together_are_told(hookline, arguments, words):
    """With exit code 2."""
    done = hookline("inspect", *arguments)
    assert (done.code, words in done.sentence) == (2, True), done


async def test_a_module_is_handed_out_to_who_may_see_the_rest(sidecar):
    """On the socket and a port that is this machine's alone; of what does not run there is none."""
    status, body = sidecar.get("/v1/modules/gone")
    assert (status, "nothing of a plugin 'gone' runs" in str(body)) == (404, True)
