"""What a tired operator does to a running sidecar: nothing of it opens a guard, and nothing needs a restart."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

QUERY = {"query": "drop table t"}
BLOCK = {"action": "block", "value": "no"}


@pytest.fixture
def sidecar(new_sidecar, guests):
    """One guard runs."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("guard", guests.answering(pre_query=BLOCK))
    sidecar.start()
    yield sidecar
    sidecar.end()


async def guarded(sidecar):
    """The guard answers."""
    assert (await sidecar.ask("pre_query", QUERY)).get("value") == "no"


async def test_a_guard_whose_file_was_renamed_survives_a_mistake_in_it(sidecar):
    """The file that is mistreated is the one it is in now, and not the one it came from."""
    path = sidecar.folder.path
    (path / "guard.yaml").rename(path / "other.yaml")
    sidecar.wait_plugin("guard", state="Running", manifest="other.yaml")
    sidecar.folder.write("other.yaml", "a: [")
    sidecar.wait_plugin("guard", state="LastGood")
    await guarded(sidecar)


async def test_a_manifest_whose_link_leads_nowhere_is_no_removal(sidecar):
    """A mount that is late, or a folder that was moved away."""
    path = sidecar.folder.path
    aside = path.parent / "aside"
    aside.mkdir()
    (path / "guard.yaml").rename(aside / "guard.yaml")
    (path / "guard.yaml").symlink_to(aside / "guard.yaml")
    sidecar.wait_plugin("guard", state="Running")
    aside.rename(path.parent / "away")
    sidecar.wait_problem("link leads nowhere")
    sidecar.wait_plugin("guard", state="LastGood")
    await guarded(sidecar)


async def test_a_new_name_with_a_mistake_keeps_what_the_file_held(sidecar, make_manifest, eventually):
    """The guard under its old name goes on until the one under the new name is loaded."""
    renamed = make_manifest("sentry", source={"file": {"path": "missing.wasm"}})
    sidecar.folder.write("guard.yaml", renamed)
    sidecar.wait_plugin("sentry", state="LeftOut")
    await guarded(sidecar)
    sidecar.folder.write("guard.yaml", make_manifest("sentry", source={"file": {"path": "guard.wasm"}}))
    sidecar.wait_plugin("sentry", state="Running")
    eventually(lambda: len(sidecar.get("/v1/bundle")[1]["plugins"]) == 1, "a bundle of one")
    await guarded(sidecar)


async def test_a_state_folder_that_was_emptied_is_made_again(sidecar, guests, eventually):
    """Also the socket by which a new worker finds its supervisor: changes load, and a dead worker is replaced."""
    before = sidecar.plugin("guard")["revision"]
    for each in sidecar.state.iterdir():  # the sidecar is at work in it: what went away by itself is as good as removed
        shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
    sidecar.folder.plugin("guard", guests.answering(pre_query={"action": "block", "value": "newer"}))
    sidecar.wait_plugin("guard", state="Running", revision=lambda revision: revision != before)
    assert (await sidecar.ask("pre_query", QUERY))["value"] == "newer"
    eventually((sidecar.state / "control.sock").exists, "a socket")
    (old,) = sidecar.workers
    os.kill(old, signal.SIGKILL)
    eventually(lambda: sidecar.workers and sidecar.workers != [old], "a new worker")
    sidecar.wait_ready()
    assert (await sidecar.ask("pre_query", QUERY))["value"] == "newer"
