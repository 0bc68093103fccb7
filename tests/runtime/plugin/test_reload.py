"""A new bundle takes over without a call noticing, and a bad one leaves everything as it is."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime import runtime as runtime_module
from hookline_runtime.plugin import plugin as plugin_module
from hookline_runtime.plugin.backlog import Asker
from hookline_runtime.runtime import PrepareError, Runtime
from waiting import PATIENCE_S, until_true

_QUERY = b'{"query": "select 1"}'


async def _version(workshop, wat, number, **settings):
    """A plugin that says which version it is."""
    return await workshop.plugin(
        wat.configured(),
        config={"custom_hook": number},
        permissions=["config.read"],
        **{"hooks": ["custom_hook"], **settings},
    )


async def test_reloads_under_load_lose_no_call(workshop, wat):
    """Fifty versions while calls are under way, inline and on threads: each call is answered by one of them."""
    versions = [await _version(workshop, wat, number) for number in range(50)]
    runtime = await workshop.run(versions[0])
    seen, done = [], asyncio.Event()

    async def caller():
        while not done.is_set():
            seen.append(await runtime.call(Hook.CUSTOM, b"0"))
            await asyncio.sleep(0)

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    for version in versions[1:]:
        await runtime.load(Bundle.of([version]), workshop.find)
        before = len(seen)
        while len(seen) < before + 20:  # noqa: ASYNC110 - the callers count
            await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*callers)
    assert {decision["action"] for decision in seen} == {"answered"}
    assert [decision["value"] for decision in seen][-1] == 49
    bundles = {Bundle.of([version]).version: number for number, version in enumerate(versions)}
    assert all(bundles[decision["bundle"]] == decision["value"] for decision in seen)


async def test_a_call_that_began_before_a_reload_ends_with_the_bundle_it_began_with(workshop, wat):
    """Its chain's second plugin is still there when the first one comes back, though the bundle is long gone."""
    slow = await workshop.plugin(
        wat.module(hooks={"authorize": "(loop $l (br $l)) (i64.const 0)"}),
        "slow", priority=1, limits={"timeout": "200ms"}, failurePolicy={"timeout": "Open"},
    )  # fmt: skip
    late = await workshop.plugin(
        wat.module(answers={"authorize": {"action": "deny", "reason": "late"}}),
        "late",
        isolation={"mode": "Pooled"},
    )
    runtime = await workshop.run(slow, late)
    for _ in range(3):
        await runtime.plugins["late"].call(Hook.AUTHORIZE, _QUERY)  # it has a thread pool and an instance
    plugin, version = runtime.plugins["late"], runtime.bundle.version
    call = asyncio.create_task(runtime.call(Hook.AUTHORIZE, _QUERY))
    await asyncio.sleep(0)
    await runtime.load(Bundle.of([]), workshop.find)
    assert not plugin.closed
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["action"] == "defer"
    decision = await call
    assert (decision["reason"], decision["bundle"]) == ("late", version)
    await plugin.ended()
    assert plugin.closed
    assert not plugin._instances.ready


@pytest.mark.parametrize("begun", [False, True], ids=["not asked", "cancelled before it began"])
@pytest.mark.parametrize("decides", [False, True], ids=["answer", "decide"])
async def test_an_answer_that_nobody_waits_for_keeps_no_old_version(workshop, wat, begun, decides):
    """It holds its bundle from when it was promised, and gives it back with the last reference."""
    runtime = await workshop.run(await _version(workshop, wat, 1))
    plugin, chains = runtime.plugins["guest"], runtime.chains
    later = chains.decide(Hook.CUSTOM, b"0", "id") if decides else chains.answer(Hook.CUSTOM, b"0")
    assert not isinstance(later, bytes)
    await runtime.load(Bundle.of([await _version(workshop, wat, 2)]), workshop.find)
    assert not plugin.closed
    if begun:
        task = asyncio.ensure_future(later(Asker()))
        task.cancel()
        await asyncio.wait([task])
        del task
    del later
    assert plugin.closed
    assert plugin.permits.running == 0


async def test_observed_calls_of_an_old_bundle_still_run(workshop, wat):
    """What was accepted is done, and only then the old plugin ends."""
    text = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        hooks={"metrics": "(drop (call $kv_incr (i32.const 0) (i32.const 1) (i64.const 1))) (i64.const 0)"},
    )
    runtime = await workshop.run(await workshop.plugin(text, "p", permissions=["kv.write"]))
    old = runtime.plugins["p"]
    for _ in range(30):
        await runtime.call(Hook.METRICS, b"{}")
    await runtime.load(Bundle.of([]), workshop.find)
    assert not old.closed
    await runtime.drained()
    assert workshop.kv.get("p", b"\0") == b"30"
    await old.ended()


async def test_the_old_version_is_given_back_whole(workshop, wat):
    """Its instances are closed and its module, memory and threads are gone."""
    runtime = await workshop.run(await _version(workshop, wat, 1, isolation={"mode": "Pooled"}))
    await runtime.call(Hook.CUSTOM, b"0")
    old = runtime.plugins["guest"]
    instances = list(old._instances.ready)
    remains = weakref.ref(old)
    assert [instance.closed for instance in instances] == [False]
    await runtime.load(Bundle.of([await _version(workshop, wat, 2)]), workshop.find)
    assert old.closed
    assert [instance.closed for instance in instances] == [True]
    await runtime.load(Bundle.of([await _version(workshop, wat, 3)]), workshop.find)
    del old, instances
    gc.collect()
    assert remains() is None


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_an_old_version_goes_without_a_search_for_cycles(workshop, wat, mode):
    """A worker hardly ever searches, and a module that stays mapped is a file that stays open."""
    runtime = await workshop.run(await _version(workshop, wat, 0, isolation={"mode": mode}))
    gc.collect()
    gc.disable()
    try:
        gone = []
        for number in range(1, 6):
            for _ in range(12):
                await runtime.call(Hook.CUSTOM, b"0")
            await asyncio.sleep(0)
            gone += [weakref.ref(runtime.plugins["guest"]), weakref.ref(runtime.plugins["guest"]._instances.guest)]
            await runtime.load(
                Bundle.of([await _version(workshop, wat, number, isolation={"mode": mode})]), workshop.find
            )
        await until_true(lambda: all(each() is None for each in gone), "threads that let go of their last call")
    finally:
        gc.enable()


async def test_a_plugin_that_did_not_change_is_carried_over(workshop, wat):
    """The same object, with its instances and what it has learnt; only the changed one is new."""
    one = await _version(workshop, wat, 1, name="one")
    two = await _version(workshop, wat, 2, name="two")
    runtime = await workshop.run(one, two)
    kept, replaced = runtime.plugins["one"], runtime.plugins["two"]
    changed = two.model_copy(update={"priority": 7})
    told = one.model_copy(update={"generation": 12, "origin": "elsewhere"})
    await runtime.load(Bundle.of([told, changed]), workshop.find)
    assert runtime.plugins["one"] is kept
    assert runtime.plugins["two"] is not replaced
    assert replaced.closed
    assert not kept.closed
    assert (await runtime.call(Hook.CUSTOM, b"0"))["plugin"] == "two"


async def test_a_bundle_with_one_bad_plugin_changes_nothing_and_leaves_nothing(workshop, wat, monkeypatch):
    """The error names it, the running plugins go on, and those loaded beside it are closed again."""
    runtime = await workshop.run(await _version(workshop, wat, 1))
    before, plugin = runtime.bundle, runtime.plugins["guest"]
    made = []
    load = Runtime._load

    def watched(self, *arguments):
        made.append(load(self, *arguments))
        return made[-1]

    monkeypatch.setattr(Runtime, "_load", watched)
    fresh = await _version(workshop, wat, 2, name="fresh", priority=9, isolation={"mode": "Pooled"})
    bad = await workshop.plugin(wat.module("(start $t) (func $t unreachable)", hooks={"route": "(i64.const 0)"}), "bad")
    with pytest.raises(PrepareError, match=r"^plugin 'bad': ") as refused:
        await runtime.load(Bundle.of([*before.plugins, fresh, bad]), workshop.find)
    assert refused.value.plugin == "bad"
    assert runtime.bundle is before
    assert runtime.plugins["guest"] is plugin
    assert not plugin.closed
    assert [each.closed for each in made] == [True]
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


@pytest.mark.parametrize("error", [KeyError("no number"), asyncio.CancelledError()])
async def test_whatever_breaks_a_preparation_leaves_nothing(workshop, wat, error):
    """Also another error than LoadError: a mistake of the embedding program, or its cancellation."""
    runtime = await workshop.run(await _version(workshop, wat, 1))
    kept = runtime.plugins["guest"]
    fresh = await _version(workshop, wat, 2, name="fresh", priority=1)
    broken = await _version(workshop, wat, 3, name="broken")

    def find(entry):
        if entry.name == "broken":
            raise error
        return workshop.find(entry)

    with pytest.raises(type(error)):
        await runtime.prepare(Bundle.of([*runtime.bundle.plugins, fresh, broken]), find)
    assert not kept.closed
    assert kept._holders == 1


async def test_a_prepared_bundle_that_is_not_wanted_is_given_back(workshop, wat):
    """Twice is as good as once, and what it shares with the running bundle goes on."""
    runtime = await workshop.run(await _version(workshop, wat, 1))
    kept = runtime.plugins["guest"]
    other = await _version(workshop, wat, 2, name="other")
    prepared = await runtime.prepare(Bundle.of([*runtime.bundle.plugins, other]), workshop.find)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1
    prepared.discard()
    prepared.discard()
    assert prepared.plugins["other"].closed
    assert not kept.closed
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


async def test_a_bundle_prepared_beside_another_change_still_has_its_plugins(workshop, wat, monkeypatch):
    """It carries a plugin over that the bundle committed meanwhile dropped: it is held, and works."""
    keep = await _version(workshop, wat, 1)
    runtime = await workshop.run(keep)
    slow = await _version(workshop, wat, 2, name="slow", priority=-1)
    go = asyncio.Event()
    to_thread = asyncio.to_thread

    async def held(function, *arguments):
        if function == runtime._load:
            await go.wait()
        return await to_thread(function, *arguments)

    monkeypatch.setattr(runtime_module.asyncio, "to_thread", held)
    preparing = asyncio.create_task(runtime.prepare(Bundle.of([keep, slow]), workshop.find))
    await asyncio.sleep(0)
    runtime.commit(await runtime.prepare(Bundle.of([]), workshop.find))
    go.set()
    runtime.commit(await preparing)
    for _ in range(3):
        assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


async def test_a_plugin_that_is_gone_and_comes_back_works(workshop, wat):
    """Its object is a new one; its stored entries are the old ones."""
    entry = await _version(workshop, wat, 1)
    runtime = await workshop.run(entry)
    for _ in range(3):
        await runtime.load(Bundle.of([]), workshop.find)
        await runtime.load(Bundle.of([entry]), workshop.find)
        assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


async def test_many_reloads_leave_as_many_threads_and_instances_as_before(workshop, wat):
    """A hundred versions, each with calls on threads: nothing is left of ninety-nine."""
    import threading

    steady = await _version(workshop, wat, 0, name="steady", priority=-1)
    runtime = await workshop.run(steady)
    before = _plugins()
    for number in range(100):
        await runtime.load(Bundle.of([steady, await _version(workshop, wat, number)]), workshop.find)
        await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(4)))
    for thread in threading.enumerate():
        if thread.name.startswith("plugin-") and thread not in runtime.plugins["guest"]._runs._threads._threads:
            await asyncio.to_thread(thread.join, PATIENCE_S)
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("plugin-")]
    assert len(mine) <= 4
    assert len(runtime._ending) <= 1
    assert _plugins() <= before + 2


def _plugins() -> int:
    gc.collect()
    return sum(isinstance(each, plugin_module.Plugin) for each in gc.get_objects())


async def test_a_plugin_that_could_not_be_had_keeps_what_it_stored(workshop, monkeypatch):
    """Room is made of plugins that are gone; one that cannot be fetched today is none of them."""
    for name in ("gone", "missing"):
        workshop.kv.put(name, b"k", b"v")
    from hookline_runtime.host import kv as kv_module

    monkeypatch.setattr(kv_module, "MAX_NAMESPACES", 2)
    missing = BundlePlugin.model_validate(
        {"name": "missing", "hooks": ["route"], "failure": {"cause": "fetch", "message": "404"}}
    )
    await workshop.run(missing)
    assert set(workshop.kv.usage()) == {"missing"}


async def test_more_plugins_than_the_statistics_have_rows_for_are_refused(workshop, wat):
    """256, and one more is a sentence and no crash."""
    entry = await _version(workshop, wat, 1)
    runtime = Runtime()
    with pytest.raises(PrepareError, match="more than 256 plugins"):
        await runtime.prepare(Bundle.of([entry]), workshop.find, numbers={"guest": 256})
    await runtime.close()


async def test_closing_twice_is_closing_once(workshop, wat):
    """And a call afterwards is a mistake of the embedding program."""
    runtime = await workshop.guest(wat.switch())
    await runtime.call(Hook.CUSTOM, b"0")
    await runtime.close()
    await runtime.close()
    with pytest.raises(RuntimeError, match="no bundle"):
        await runtime.call(Hook.CUSTOM, b"0")


@pytest.mark.usefixtures("unhurried")
async def test_a_version_that_follows_a_quick_one_takes_as_many_calls_at_once(workshop, wat):
    """On probation it would answer some of a burst with an overload, because of nothing but the change."""
    text = wat.module(answers={"pre_query": {"action": "block", "value": "old"}})
    runtime = await workshop.run(await workshop.plugin(text, limits={"concurrency": 1}))
    runtime.plugins["guest"].trust()
    text = wat.module(answers={"pre_query": {"action": "block", "value": "new"}})
    await runtime.load(Bundle.of([await workshop.plugin(text, limits={"concurrency": 1})]), workshop.find)
    answers = await asyncio.gather(*(runtime.call(Hook.PRE_QUERY, b'{"query": ""}') for _ in range(50)))
    assert {answer["value"] for answer in answers} == {"new"}


async def test_a_plugin_with_a_long_timeout_is_never_run_on_the_event_loop(workshop, wat):
    """However quick it is: it could hold all other calls for that long."""
    text = wat.module(answers={"pre_query": {"action": "block", "value": "no"}})
    runtime = await workshop.run(await workshop.plugin(text, limits={"timeout": "2s"}))
    for _ in range(20):
        await runtime.call(Hook.PRE_QUERY, b'{"query": ""}')
    assert not runtime.plugins["guest"].inline
