"""``spec.kv.initial`` in a whole sidecar: before the first call in every worker, over reloads, restarts and kills."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from hookline_runtime.host.kv import MAX_KEYS, KvStore

READER = ["kv.read", "kv.write"]


def wait_log(sidecar, eventually, words):
    """Return once the log has these words."""
    eventually(lambda: words in sidecar.log, lambda: f"{words!r} in:\n{sidecar.log}")


@contextlib.contextmanager
def store_of(sidecar):
    """The sidecar's store, from another process."""
    store = KvStore(sidecar.state / "kv")
    try:
        yield store
    finally:
        store.close()


async def say_all(sidecar, count=8):
    """What the workers say: one call on each of so many connections that are open together."""
    sidecar.wait_workers()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(sidecar.client()) for _ in range(count)]
        said = []
        for session in sessions:
            async with session.post("/v1/hooks/custom_hook", json=0) as response:
                said.append((await response.json()).get("value"))
        assert all(sidecar.connections())  # so each worker was asked
        return said


async def test_every_worker_has_them_and_the_bundle_shows_them(new_sidecar, guests):
    """From the first call on."""
    sidecar = new_sidecar(workers=2)
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"', "other": ""}})
    sidecar.start()
    assert await say_all(sidecar) == ["one"] * 8
    (entry,) = sidecar.get("/v1/bundle")[1]["plugins"]
    shared = {"scope": "Pod", "valkey": None}
    assert entry["kv"] == {"initial": {"k": '"one"', "other": ""}, "overwrite": "Never", **shared}
    sidecar.logs("plugin 'p': 2 keys of kv.initial are written: 'k', 'other'")


async def test_never_keeps_what_was_done_since_over_reloads_restarts_and_kills(new_sidecar, guests, eventually):
    """An administrator's value, and that a key was deleted."""
    sidecar = new_sidecar(workers=2)
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"', "gone": "1"}})
    sidecar.start()
    with store_of(sidecar) as store:
        store.put("p", b"k", b'"changed"')
        store.delete("p", b"gone")
    sidecar.folder.plugin("p", permissions=READER, kv={"initial": {"k": '"two"', "gone": "1", "new": "2"}})
    wait_log(sidecar, eventually, "1 keys of kv.initial are written: 'new'")
    assert await say_all(sidecar) == ["changed"] * 8
    family = sidecar.pids
    sidecar.process.kill()
    sidecar.process.wait()
    eventually(lambda: not any(map(alive, family)), "the end of its children")
    sidecar.start()
    assert await say_all(sidecar) == ["changed"] * 8
    assert sidecar.stop() == 0
    sidecar.start()
    assert await say_all(sidecar) == ["changed"] * 8
    with store_of(sidecar) as store:
        assert store.list_keys("p", b"") == [b"k", b"new"]


def alive(pid):
    """Whether a process is there and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_on_change_writes_what_changes_and_a_restart_writes_nothing(new_sidecar, guests):
    """And no call of a worker sees the new version of the plugin without its new key."""
    sidecar = new_sidecar(workers=2)
    on_change = {"permissions": READER}
    kv = {"initial": {"k": '"one"'}, "overwrite": "OnChange"}
    sidecar.folder.plugin("p", guests.stored(), kv=kv, **on_change)
    sidecar.start()
    sidecar.folder.plugin("p", kv=kv | {"initial": {"k": '"two"'}}, **on_change)
    await sidecar.wait_says("two")
    assert await say_all(sidecar) == ["two"] * 8
    with store_of(sidecar) as store:
        store.put("p", b"k", b'"changed"')
    supervisor = sidecar.supervisor
    sidecar.process.send_signal(signal.SIGHUP)
    assert sidecar.stop() == 0
    sidecar.start()
    assert sidecar.supervisor != supervisor
    assert await say_all(sidecar) == ["changed"] * 8


async def test_the_last_good_bundle_has_them_in_a_store_that_was_lost(sidecar, guests):
    """The folder of plugins is gone, and so is the store: what the bundle says is written anew, before a call."""
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"'}})
    sidecar.start()
    sidecar.settled_log()
    assert sidecar.stop() == 0
    for path in (sidecar.state / "kv").iterdir():
        path.unlink()
    sidecar.start(plugins=sidecar.root / "nowhere")
    assert await sidecar.says() == "one"


def fill(sidecar, plugin, but=0):
    """Take a plugin's keys, but for so many."""
    with store_of(sidecar) as store:
        for number in range(MAX_KEYS - but):
            store.put(plugin, b"%d" % number, b"")


async def test_where_they_do_not_fit_the_plugin_stays_as_it_was_and_says_why(sidecar, guests):
    """LastGood is the policy for settings; with Closed it closes. Room that somebody makes is found by SIGHUP."""
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"'}})
    sidecar.start()
    fill(sidecar, "p", but=1)
    more = {"kv": {"initial": {"k": '"one"', "more": "1"}}, "permissions": READER}
    sidecar.folder.plugin("p", **more)
    found = sidecar.wait_plugin("p", state="LastGood")
    assert found["failure"]["cause"] == "config"
    assert (
        "the keys of spec.kv.initial do not fit into the store: the plugin has its 1024" in found["failure"]["message"]
    )
    assert await sidecar.says() == "one"
    sidecar.folder.plugin("p", **more, failurePolicy={"config": "Closed"})
    sidecar.wait_plugin("p", state="Closed")
    assert (await sidecar.ask())["failure"] == "config"
    with store_of(sidecar) as store:
        store.delete("p", b"0")
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_plugin("p", state="Running", failure=None)
    assert await sidecar.says() == "one"


async def test_a_start_without_room_fails_closed_and_another_plugin_is_served(sidecar, guests, eventually):
    """The first start with a store that somebody has filled; the plugin beside it runs, with its keys."""
    with contextlib.suppress(FileExistsError):
        sidecar.state.mkdir()
    fill(sidecar, "full")
    full = guests.stored("pre_query")
    sidecar.folder.plugin("full", full, hooks=["pre_query"], permissions=READER, kv={"initial": {"k": "1"}})
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"'}})
    sidecar.start(wait=False)
    eventually(lambda: sidecar.looks("/v1/plugins"), "an answer")
    sidecar.wait_plugin("full", state="Closed", failure=lambda failure: failure and failure["cause"] == "config")
    sidecar.wait_plugin("p", state="Running")
    assert await sidecar.says() == "one"
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["action"] == "block"


async def test_a_last_good_bundle_that_finds_no_room_closes_that_plugin(sidecar, guests):
    """The store was lost, and filled by somebody else, while nothing ran."""
    sidecar.folder.plugin("p", guests.stored(), permissions=READER, kv={"initial": {"k": '"one"'}})
    sidecar.start()
    sidecar.settled_log()
    assert sidecar.stop() == 0
    for path in (sidecar.state / "kv").iterdir():
        path.unlink()
    fill(sidecar, "p")
    sidecar.start(plugins=sidecar.root / "nowhere", wait=False)
    sidecar.wait_plugin("p", state="Closed")
    assert (await sidecar.ask())["failure"] == "config"


async def test_while_a_bundle_is_held_nothing_is_written(new_sidecar, operator, guests, eventually):
    """What runs reads on as before, until the operator says go."""
    sidecar = new_sidecar(
        plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token, workers=2
    )  # fmt: skip
    kv = {"initial": {"k": '"one"'}, "overwrite": "OnChange"}

    def entry(value):
        return operator.entry("p", guests.stored(), permissions=READER, kv=kv | {"initial": {"k": value}})

    operator.send(entry('"one"'))
    sidecar.start()
    version = operator.send(entry('"two"'), hold=True)
    eventually(lambda: operator.last.prepared == version, "a report that it is prepared")
    assert await say_all(sidecar) == ["one"] * 8
    operator.commit(version)
    await sidecar.wait_says("two")
    assert await say_all(sidecar) == ["two"] * 8


async def test_a_held_bundle_without_room_is_told_to_the_operator(new_sidecar, operator, guests, eventually):
    """Before it is let go."""
    sidecar = new_sidecar(plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token)
    operator.send(operator.entry("p", guests.stored(), permissions=READER))
    sidecar.start()
    fill(sidecar, "p")
    operator.send(operator.entry("p", guests.stored(), permissions=READER, kv={"initial": {"k": "1"}}), hold=True)

    def told():
        return [each for each in operator.last.plugins if each.failure is not None]

    (failed,) = eventually(told, "a report of the failure")
    assert failed.failure.cause == "config"
    assert "do not fit into the store" in failed.failure.message


@pytest.mark.parametrize(
    ("kv", "words"),
    [
        ({"initial": {"k": True}}, "is not text: write a number or a boolean in quotes"),
        ({"initial": {"k": "x" * 65537}}, "at most 65536 characters"),
        ({"initial": {"": "x"}}, "a key has 1 to 65536 bytes"),
        ({"initial": {}, "overwrite": "Always"}, "'Never' or 'OnChange'"),
        ({"initail": {}}, "there is no such field"),
    ],
)
def test_what_cannot_be_is_a_problem_of_its_manifest(new_sidecar, guests, eventually, kv, words):
    """With the field, and a sentence that says what to write."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("p", guests.stored(), kv=kv)
    sidecar.start(wait=False)
    eventually(lambda: sidecar.looks("/v1/plugins"), "an answer")
    problem = sidecar.wait_problem(words)
    assert problem["field"].startswith("spec.kv")
    assert problem["plugin"] == "p"
