"""A change reaches the workers, and no call notices: old answers, then new answers, and nothing between."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(scope="module")
def running(new_sidecar, guests):
    """Two workers and one plugin."""
    sidecar = new_sidecar(workers=2)
    sidecar.folder.plugin("p", guests.saying("start"))
    return sidecar.start()


@pytest.fixture
async def sidecar(running, guests, eventually):
    """The sidecar; each test begins with the same good version, and no process is lost."""
    running.folder.plugin("p", guests.saying("good"))
    await settled(running, "good", eventually)
    family = running.pids
    yield running
    assert running.pids == family
    assert "Traceback" not in running.log


async def settled(sidecar, value, eventually):
    """Return when every worker answers this."""
    await sidecar.wait_says(value)
    sidecar.wait_plugin("p", state="Running")
    all_run_it(sidecar, eventually)


def all_run_it(sidecar, eventually):
    """Return when every worker runs the bundle of the moment."""

    def all_of_them():
        workers = sidecar.get("/v1/plugins")[1]["workers"]
        return workers["current"] == workers["wanted"]

    eventually(all_of_them, "workers that all run it")


async def test_twenty_replacements_under_load_lose_no_call(sidecar, guests, load):
    """Every answer is that of a version that was there; none fails, and the last one stands in the end."""
    async with load(sidecar, clients=4) as running:
        for number in range(20):
            sidecar.folder.write("p.wasm", guests.saying(f"v{number}"))
            await sidecar.wait_says(f"v{number}")
            await running.reaches(25)
    assert running.failures == []
    said = [answer["value"] for answer in running.answers]
    assert set(said) <= {"good", *(f"v{number}" for number in range(20))}
    assert said[-1] == "v19"


async def test_each_client_sees_versions_in_their_order(sidecar, guests):
    """On one connection the new one is never followed by the old one."""
    sidecar.folder.write("p.wasm", guests.saying("newer"))
    said = []
    async with sidecar.client() as session:
        while not said or said[-1] != "newer":
            async with session.post("/v1/hooks/custom_hook", json=1) as response:
                said.append((await response.json())["value"])
        for _ in range(50):
            async with session.post("/v1/hooks/custom_hook", json=1) as response:
                said.append((await response.json())["value"])
    assert said == sorted(said)  # "good" < "newer"


@pytest.mark.parametrize(
    ("break_it", "cause", "words"),
    [
        (lambda _: b"no wasm at all", "verify", ""),
        (lambda guests: guests.saying("x")[:-20], "verify", ""),
        (lambda guests: guests.module({"custom_hook": guests.echo}, imports='(import "env" "fork" (func))'),
         "verify", "fork"),
        (lambda _: b"\0asm\x0d\0\x01\0", "verify", "component"),
        (lambda guests: guests.module({}), "verify", "hook"),
        (lambda _: b"", "verify", ""),
        (lambda guests: guests.module({"custom_hook": guests.echo}, parts='(func (export "_start"))'),
         "verify", "-mexec-model=reactor"),
        (lambda guests: guests.module({"custom_hook": guests.echo}, parts="(tag $oh)"), "verify", "-fno-exceptions"),
    ],
    ids=["no wasm", "truncated", "unknown import", "component", "no hooks", "empty", "a program", "exceptions"],
)  # fmt: skip
async def test_a_bad_module_keeps_the_good_one(sidecar, guests, load, break_it, cause, words):
    """Trap 6: nothing is unloaded before its successor is loaded; the reason is shown."""
    async with load(sidecar) as running:
        sidecar.folder.write("p.wasm", break_it(guests))
        found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
        await running.reaches(50)
    assert found["failure"]["cause"] == cause
    assert words in found["failure"]["message"]
    assert running.failures == []
    assert {answer["value"] for answer in running.answers} == {"good"}


async def test_a_guest_that_never_frees_is_not_pooled_and_the_good_one_goes_on(sidecar, guests, load):
    """The settings are what is wrong, and what to write instead is shown with the plugin's state."""
    async with load(sidecar) as running:
        sidecar.folder.plugin("p", guests.saying("other"), isolation={"mode": "Pooled"})
        found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
        await running.reaches(50)
    assert found["failure"]["cause"] == "config"
    assert "set isolation.mode: PerCall" in found["failure"]["message"]
    assert running.failures == []
    assert running.answers[-1]["value"] == "good"


async def test_a_start_function_that_loops_keeps_the_good_one(sidecar, guests, load):
    """The worker that tries it goes on answering meanwhile."""
    loop = "(func $start (loop $ever (br $ever))) (start $start)"
    async with load(sidecar) as running:
        sidecar.folder.write("p.wasm", guests.module({"custom_hook": guests.echo}, parts=loop))
        sidecar.wait_plugin("p", state="LastGood", failure=bool)
        await running.reaches(50)
    assert running.failures == []
    assert {answer["value"] for answer in running.answers} == {"good"}


async def test_a_good_module_after_a_bad_one_is_taken(sidecar, guests, eventually):
    """Trap 6: the watcher still looks after a failure."""
    sidecar.folder.write("p.wasm", b"bad")
    sidecar.wait_plugin("p", state="LastGood", failure=bool)
    sidecar.folder.write("p.wasm", guests.saying("mended"))
    await settled(sidecar, "mended", eventually)
    assert sidecar.plugin("p")["failure"] is None


async def test_a_call_under_way_ends_with_the_version_it_began_with(sidecar, guests, eventually):
    """A slow call outlives its version."""
    good = sidecar.plugin("p")["revision"]
    sidecar.folder.plugin("p", guests.patient(), permissions=["kv.read"], limits={"timeout": "60s"})
    slow = sidecar.wait_plugin("p", state="Running", revision=lambda revision: revision != good)["revision"]
    all_run_it(sidecar, eventually)
    before = sidecar.used()
    async with sidecar.client() as session:
        call = asyncio.create_task(session.post("/v1/hooks/custom_hook", json={"slow": True}))
        await sidecar.wait_busy(before)
        sidecar.folder.plugin("p", guests.saying("good"))
        sidecar.wait_plugin("p", state="Running", revision=lambda revision: revision != slow)
        all_run_it(sidecar, eventually)
        assert await sidecar.says() == "good"
        assert not call.done()
        sidecar.let_go("p")
        response = await call
        assert (response.status, (await response.json())["value"]) == (200, {"slow": True})


async def test_a_storm_of_changes_ends_with_the_last_one(sidecar, guests, load):
    """Thirty edits in a row, faster than any is loaded: no failed call, and the last one stands."""
    async with load(sidecar) as running:
        for number in range(30):
            sidecar.folder.plugin("p", guests.saying(f"storm {number}"), priority=number)
        await sidecar.wait_says("storm 29")
    assert running.failures == []
    assert sidecar.wait_plugin("p", state="Running")["priority"] == 29


async def test_a_revision_changes_with_what_runs_and_with_nothing_else(sidecar, guests):
    """A comment is not a change; a setting and a module are."""
    first = sidecar.plugin("p")["revision"]
    text = (sidecar.folder.path / "p.yaml").read_text()
    sidecar.folder.write("p.yaml", "# a comment\n" + text)
    sidecar.folder.plugin("q", guests.answering(route={"action": "primary"}))
    sidecar.wait_plugin("q", state="Running")
    assert sidecar.plugin("p")["revision"] == first
    sidecar.folder.plugin("p", priority=3)
    second = sidecar.wait_plugin("p", priority=3)["revision"]
    assert second != first
    sidecar.folder.plugin("p", guests.saying("other"), priority=3)
    assert sidecar.wait_plugin("p", revision=lambda now: now != second, state="Running")["revision"] != first
    sidecar.folder.remove("q.yaml")
