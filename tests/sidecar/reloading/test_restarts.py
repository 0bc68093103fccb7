"""What a sidecar starts with when everything else is gone, or damaged: its own state folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import time

import pytest

from waiting import PATIENCE_S


@pytest.fixture(scope="module")
def stopped(new_sidecar, guests):
    """A sidecar that ran two plugins and was stopped."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("a", guests.configured(), config={"custom_hook": "kept"}, priority=1)
    sidecar.folder.plugin("guard", guests.answering(pre_query={"action": "block", "value": "kept"}))
    sidecar.start()
    assert sidecar.stop() == 0
    return sidecar


@pytest.fixture
def sidecar(new_sidecar, stopped):
    """Another one with copies of its folders."""
    sidecar = new_sidecar()
    shutil.copytree(stopped.folder.path, sidecar.folder.path, dirs_exist_ok=True)
    ignored = shutil.ignore_patterns("control.sock")
    shutil.copytree(stopped.state, sidecar.state, ignore=ignored)
    yield sidecar
    sidecar.end()


async def serves_as_before(sidecar):
    """Both plugins answer."""
    assert await sidecar.says() == "kept"
    assert (await sidecar.ask("pre_query", {"query": ""}))["value"] == "kept"


def lose_folder(sidecar):
    """The manifests and the modules beside them are gone."""
    shutil.rmtree(sidecar.folder.path)


async def test_the_last_good_bundle_is_served_with_the_folder_gone(sidecar, eventually):
    """And it goes on being served when the time for a first start is over, which is five seconds."""
    before = kept(sidecar)
    lose_folder(sidecar)
    sidecar.start()
    await serves_as_before(sidecar)
    assert sidecar.wait_problem("cannot be read")["file"] == str(sidecar.folder.path)
    sidecar.wait_plugin("a", state="LastGood")
    assert "cannot be read" in sidecar.wait_plugin("guard", state="LastGood")["failure"]["message"]
    # A retry, a worker's restart and the first wait each make the supervisor think again.
    eventually(lambda: sidecar.get("/metrics")[1].count("hookline_plugin_info{") == 2, "two plugins in the metrics")
    started = sidecar.log.count("cannot be read")
    assert started == 1
    await after_the_first_wait(sidecar)
    await serves_as_before(sidecar)
    assert kept(sidecar) == before


async def test_what_ran_last_is_served_again_however_soon_the_end_came(sidecar, guests):
    """Also where it could not be kept when it began to run: it is kept at the end."""
    partial = sidecar.state / "bundle.partial"
    sidecar.start()
    os.mkfifo(partial)
    reader = os.open(partial, os.O_RDONLY | os.O_NONBLOCK)
    try:
        sidecar.folder.plugin("a", guests.configured(), config={"custom_hook": "newer"}, priority=1)
        await sidecar.wait_says("newer")
        await asyncio.to_thread(sidecar.logs, "the bundle cannot be kept")
    finally:
        os.close(reader)
        partial.unlink()
    assert sidecar.stop() == 0
    lose_folder(sidecar)
    sidecar.start()
    assert await sidecar.says() == "newer"


def kept(sidecar):
    """The bundle on disk, but for what failed beside it."""
    bundle = json.loads((sidecar.state / "bundle.json").read_bytes())
    return [{key: value for key, value in plugin.items() if key != "failure"} for plugin in bundle["plugins"]]


async def after_the_first_wait(sidecar):
    """Return when the supervisor has run for more than five seconds."""
    end = time.monotonic() + 6
    while time.monotonic() < end:
        assert sidecar.get("/v1/bundle")[0] == 200
        assert len(sidecar.get("/v1/bundle")[1]["plugins"]) == 2
        await asyncio.sleep(0.1)  # between two looks


async def test_a_folder_that_comes_back_is_read(sidecar, guests):
    """By itself: mounts come late."""
    lose_folder(sidecar)
    sidecar.start()
    sidecar.folder.path.mkdir()
    sidecar.folder.plugin("a", guests.saying("back"))
    await sidecar.wait_says("back")
    assert set(sidecar.plugins()) == {"a"}


async def test_another_version_of_the_engine_compiles_again(sidecar):
    """With every source gone: from the modules that are kept."""
    lose_folder(sidecar)
    shutil.rmtree(sidecar.state / "compiled")
    sidecar.start()
    await serves_as_before(sidecar)


@pytest.mark.parametrize("folder_is_there", [True, False], ids=["with its source", "with its source gone"])
async def test_a_truncated_compiled_module_is_made_again(sidecar, folder_is_there, eventually):
    """It is said, and the plugin runs."""
    for path in (sidecar.state / "compiled").glob("*.cwasm"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if not folder_is_there:
        lose_folder(sidecar)
    sidecar.start(wait=False)
    eventually(lambda: (sidecar.looks("/readyz") or [0])[0] == 200, "a ready sidecar")
    await serves_as_before(sidecar)
    sidecar.logs("it is compiled again")


async def test_a_damaged_module_in_the_cache_is_fetched_again(sidecar):
    """The compiled form runs meanwhile; the artifact is had from its source."""
    modules = list((sidecar.state / "artifacts" / "modules").glob("*.wasm"))
    assert len(modules) == 2
    sizes = {path.name: path.stat().st_size for path in modules}
    for path in modules:
        path.write_bytes(path.read_bytes()[:10])
    sidecar.start()
    await serves_as_before(sidecar)
    sidecar.wait_plugin("a", state="Running")
    sidecar.wait_plugin("guard", state="Running")
    assert {path.name: path.stat().st_size for path in modules} == sizes


async def test_with_modules_and_compiled_forms_lost_the_guard_fails_closed(sidecar, guests):
    """Nothing is left to run, so nothing is let through; the source mends it."""
    shutil.rmtree(sidecar.state / "compiled")
    shutil.rmtree(sidecar.state / "artifacts")
    lose_folder(sidecar)
    sidecar.start(wait=False)
    sidecar.wait_plugin("guard", state="Closed")
    decision = await sidecar.ask("pre_query", {"query": ""})
    assert (decision["action"], decision["plugin"], decision["failure"]) == ("block", "a", "fetch")
    sidecar.folder.path.mkdir()
    sidecar.folder.plugin("guard", guests.answering(pre_query={"action": "block", "value": "back"}))
    sidecar.wait_ready()
    assert (await sidecar.ask("pre_query", {"query": ""}))["value"] == "back"


@pytest.mark.parametrize("content", [b"", b'{"plugins": [{', b"\xff\xfe"])
async def test_a_damaged_bundle_is_said_and_made_again(sidecar, content, eventually):
    """From the folder."""
    path = sidecar.state / "bundle.json"
    path.write_bytes(content)
    sidecar.start()
    await serves_as_before(sidecar)
    assert sidecar.log.count(f"the last good bundle in {path} cannot be read") == 1
    eventually(lambda: path.read_bytes() != content, "a bundle that is kept")  # it runs before it is on disk
    assert len(json.loads(path.read_bytes())["plugins"]) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_bundle_without_a_folder_is_refused(sidecar):
    """There is nothing to run: better an error than an open door."""
    (sidecar.state / "bundle.json").write_bytes(b"{")
    lose_folder(sidecar)
    sidecar.start(wait=False)
    assert sidecar.process.wait(PATIENCE_S) == 2
    sidecar.logs("is not a folder")


async def test_damaged_numbers_and_a_damaged_store_do_not_keep_it_from_starting(sidecar):
    """What can be made anew is made anew."""
    (sidecar.state / "numbers.json").write_bytes(b"[1]")
    for path in (sidecar.state / "kv").iterdir():
        path.write_bytes(b"damaged" * 1000)
    sidecar.start()
    await serves_as_before(sidecar)


async def test_a_bundle_that_cannot_be_kept_still_runs(sidecar, guests):
    """A full or read-only disk: it is said once, and hooks go on."""
    (sidecar.state / "bundle.partial").mkdir()
    sidecar.start()
    supervisor = sidecar.supervisor
    for value in ("one", "two"):
        sidecar.folder.plugin("a", guests.saying(value))
        await sidecar.wait_says(value)
    assert sidecar.log.count("cannot be kept") == 1
    assert sidecar.supervisor == supervisor


async def test_a_start_with_the_same_folder_changes_nothing(sidecar):
    """The same bundle, by its version, and no compilation."""
    before = json.loads((sidecar.state / "bundle.json").read_bytes())
    compiled = {path.name: path.stat().st_mtime_ns for path in (sidecar.state / "compiled").iterdir()}
    sidecar.start()
    sidecar.wait_plugin("a", state="Running")
    sidecar.wait_plugin("guard", state="Running")
    await serves_as_before(sidecar)
    assert json.loads((sidecar.state / "bundle.json").read_bytes()) == before
    assert {path.name: path.stat().st_mtime_ns for path in (sidecar.state / "compiled").iterdir()} == compiled
    assert sidecar.get("/metrics")[1].count("hookline_bundle_changes_total 0.0") == 1
