"""What a plugin observes: dropped and counted where there is no room, or the answer waits until there is."""

from __future__ import annotations

import asyncio
import json

import pytest

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.plugin.backlog import MAX_BACKLOG, MAX_BACKLOG_BYTES, Asker
from hookline_runtime.plugin.permits import SharedPermits
from hookline_runtime.plugin.stats import Summary

_WAIT = {"overflow": "Wait"}
_CALL = b"{}"


def _observer(wat):
    """A module that watches: it counts each call in the store, under the key ``n``."""
    body = "(drop (call $kv_incr (i32.const 1024) (i32.const 1) (i64.const 1))) (i64.const 0)"
    return wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        data={1024: b"n"},
        hooks={"metrics": body, "pre_query": body},
    )


def _recorded(workshop, name="guest"):
    raw = workshop.kv.get(name, b"n")
    return int(raw) if raw else 0


def _counted(runtime, hook=Hook.METRICS, number=0):
    return Summary.of([runtime._stats.row(number, hook).values()])


async def _watching(workshop, wat, **settings):
    settings = {"hooks": ["metrics"], "permissions": ["kv.write"], "observers": _WAIT} | settings
    return await workshop.plugin(_observer(wat), **settings)


def _fill(runtime, hook=Hook.METRICS, body=_CALL):
    """Observe at once, without a turn of the loop, until there is no room; how many calls that took."""
    count = 0
    while isinstance(runtime.answer(hook, body), bytes):
        count += 1
    return count


async def test_an_answer_waits_until_its_call_can_be_observed(workshop, wat):
    """Three thousand calls at the same time: each is recorded, and those that waited are counted."""
    runtime = await workshop.run(await _watching(workshop, wat))
    answers = await asyncio.gather(*(runtime.call(Hook.METRICS, _CALL) for _ in range(3000)))
    assert {answer["action"] for answer in answers} == {"accepted"}
    await runtime.drained()
    assert _recorded(workshop) == 3000
    counted = _counted(runtime)
    assert (counted.calls, counted.dropped, counted.failures["overload"]) == (3000, 0, 0)
    assert counted.waited == 3000 - MAX_BACKLOG
    assert counted.waited_seconds > 0


async def test_by_default_what_does_not_fit_is_dropped_and_all_of_it_counted(workshop, wat):
    """Recorded and dropped make three thousand; nobody waits."""
    runtime = await workshop.run(await _watching(workshop, wat, observers={}))
    await asyncio.gather(*(runtime.call(Hook.METRICS, _CALL) for _ in range(3000)))
    await runtime.drained()
    counted = _counted(runtime)
    assert counted.dropped == counted.failures["overload"] == 3000 - MAX_BACKLOG
    assert _recorded(workshop) + counted.dropped == 3000
    assert counted.waited == 0


async def test_who_cannot_wait_is_told_before_anything_has_run(workshop, wat):
    """``answer`` gives what is to be awaited, and neither that plugin nor another has seen the call."""
    first = await _watching(workshop, wat, name="first", priority=9, observers={})
    runtime = await workshop.run(first, await _watching(workshop, wat, name="second"))
    assert _fill(runtime) == MAX_BACKLOG
    assert not isinstance(runtime.answer(Hook.METRICS, _CALL), bytes)
    await runtime.drained()
    assert (_recorded(workshop, "first"), _recorded(workshop, "second")) == (MAX_BACKLOG, MAX_BACKLOG)
    assert _counted(runtime, number=0).dropped == 0


async def test_a_plugin_in_shadow_is_waited_for_on_a_deciding_hook(workshop, wat):
    """The decision is another plugin's, and comes when the observer has room."""
    shadow = await _watching(workshop, wat, name="shadow", hooks=["pre_query"], mode="Shadow")
    guard = await workshop.plugin(wat.module(answers={"pre_query": {"action": "block", "value": "no"}}), "guard")
    runtime = await workshop.run(shadow, guard)
    body = json.dumps({"query": "select 1"}).encode()
    answers = await asyncio.gather(*(runtime.call(Hook.PRE_QUERY, body) for _ in range(2000)))
    assert {(answer["action"], answer["plugin"]) for answer in answers} == {("block", "guard")}
    await runtime.drained()
    assert _recorded(workshop, "shadow") == 2000


async def test_large_calls_wait_for_bytes(workshop, wat):
    """Sixteen mebibytes, whatever the number of calls; one call always fits."""
    runtime = await workshop.run(await _watching(workshop, wat, limits={"input": "64Mi", "memory": "256Mi"}))
    big = b'{"event": {"x": "' + b"x" * (MAX_BACKLOG_BYTES + 1) + b'"}}'
    assert isinstance(runtime.answer(Hook.METRICS, big), bytes)
    assert not isinstance(runtime.answer(Hook.METRICS, _CALL), bytes)
    await asyncio.gather(*(runtime.call(Hook.METRICS, big) for _ in range(2)))
    await runtime.drained()
    assert (_recorded(workshop), _counted(runtime).waited) == (3, 1)


async def test_calls_are_observed_in_the_order_in_which_they_came(workshop, wat):
    """Who comes while others wait does not go before them, though there is room by then."""
    echo = wat.module(hooks={"metrics": "(i64.const 0)"})
    runtime = await workshop.guest(echo, observers=_WAIT)
    plugin, seen = runtime.plugins["guest"], []
    call = plugin._call

    async def noting(hook, data, patience):
        seen.append(json.loads(data)["event"]["n"])
        return await call(hook, data, patience)

    plugin._call = noting
    bodies = [json.dumps({"event": {"n": n}}).encode() for n in range(1500)]
    await asyncio.gather(*(runtime.call(Hook.METRICS, body) for body in bodies))
    await runtime.drained()
    assert seen == list(range(1500))


@pytest.mark.parametrize("how", ["cancelled", "its client is gone"])
async def test_who_gives_up_waiting_leaves_the_call_behind_up_to_as_much_again(workshop, wat, how):
    """Beyond that it is dropped and counted: clients that come and go fill no memory, and nothing gets lost unsaid."""
    runtime = await workshop.run(await _watching(workshop, wat))
    go = _held(runtime)
    assert _fill(runtime) == MAX_BACKLOG
    askers = [Asker() for _ in range(MAX_BACKLOG + 100)]
    waiting = [asyncio.ensure_future(runtime.answer(Hook.METRICS, _CALL)(asker)) for asker in askers]
    await _turns()  # the first call is under way by then, so one of these has its place
    assert sum(task.done() for task in waiting) == 1
    for task, asker in zip(waiting[1:], askers[1:], strict=True):
        if how == "cancelled":
            task.cancel()
        else:
            asker.leave()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, bytes) == (how != "cancelled") for each in ended[1:])
    assert _counted(runtime).dropped == 99
    late = await runtime.answer(Hook.METRICS, _CALL)(askers[-1] if how != "cancelled" else _gone())
    assert b"accepted" in late
    assert _counted(runtime).dropped == 100
    go.set()
    await runtime.drained()
    assert _recorded(workshop) == 2 * MAX_BACKLOG + 1
    assert _counted(runtime).waited == MAX_BACKLOG + 99


async def test_the_call_is_left_behind_for_every_plugin_that_watches(workshop, wat):
    """Whoever gives up waits for the first of them; the second hears of the call all the same."""
    first = await _watching(workshop, wat, name="first", priority=9)
    runtime = await workshop.run(first, await _watching(workshop, wat, name="second"))
    go = _held(runtime, "first")
    assert _fill(runtime) == MAX_BACKLOG
    task = asyncio.ensure_future(runtime.call(Hook.METRICS, _CALL))
    other = asyncio.ensure_future(runtime.call(Hook.METRICS, _CALL))
    await _turns()
    other.cancel()
    await asyncio.wait([task, other])
    go.set()
    await runtime.drained()
    assert (_recorded(workshop, "first"), _recorded(workshop, "second")) == (MAX_BACKLOG + 2, MAX_BACKLOG + 2)


async def test_a_change_of_the_bundle_loses_nothing_that_was_observed_or_waits(workshop, wat):
    """What the old version had taken, it runs; who waited for it waits on; and then it closes."""
    runtime = await workshop.run(await _watching(workshop, wat))
    old = runtime.plugins["guest"]
    go = _held(runtime)
    waiting = [asyncio.ensure_future(runtime.call(Hook.METRICS, _CALL)) for _ in range(1500)]
    await _turns()
    await runtime.load(Bundle.of([await _watching(workshop, wat, priority=1)]), workshop.find)
    assert runtime.plugins["guest"] is not old
    await runtime.call(Hook.METRICS, _CALL)
    go.set()
    await asyncio.gather(*waiting)
    await runtime.drained()
    assert _recorded(workshop) == 1501
    await old.ended()


async def test_the_end_of_a_runtime_waits_for_what_was_observed(workshop, wat):
    """Also for those that waited for room."""
    runtime = await workshop.run(await _watching(workshop, wat))
    waiting = [asyncio.ensure_future(runtime.call(Hook.METRICS, _CALL)) for _ in range(1500)]
    await asyncio.sleep(0)
    await runtime.close()
    assert _recorded(workshop) == 1500
    await asyncio.gather(*waiting)


async def test_what_is_abandoned_is_counted(workshop, wat):
    """A process whose time is up says how many calls it did not run."""
    runtime = await workshop.run(await _watching(workshop, wat))
    go = _held(runtime)
    waiting = [asyncio.ensure_future(runtime.call(Hook.METRICS, _CALL)) for _ in range(1500)]
    await _turns()
    assert runtime.abandon() == 1499
    assert _counted(runtime).dropped == 1499
    assert runtime.plugins["guest"].last_failure.message.startswith("the process ended")
    go.set()
    await asyncio.gather(*waiting)
    await runtime.drained()
    assert _recorded(workshop) == 1


async def test_an_open_breaker_holds_nobody_up_and_what_it_skips_is_counted(workshop, wat):
    """A broken observer does not close the proxy: its calls are failures or skipped, each of them counted."""
    runtime = await workshop.guest(wat.module(hooks={"metrics": "unreachable"}), observers=_WAIT)
    await asyncio.gather(*(runtime.call(Hook.METRICS, _CALL) for _ in range(2000)))
    await runtime.drained()
    counted = _counted(runtime)
    assert counted.failures["trap"] >= 5
    assert counted.failures["trap"] + counted.skipped == 2000
    assert counted.dropped == 0


@pytest.mark.parametrize(("overflow", "recorded", "failed"), [("Drop", 0, 1), ("Wait", 1, 0)])
async def test_who_must_see_everything_waits_for_a_place_that_another_process_has(
    workshop, wat, tmp_path, overflow, recorded, failed
):
    """``limits.concurrency`` is all workers' together, and the other one may be busy for longer than a time-out."""
    shared = SharedPermits(tmp_path / "permits", 2)
    mine, theirs = shared.join(0), shared.join(1)
    for each in (mine, theirs):
        each.listen()
    entry = await _watching(
        workshop, wat, observers={"overflow": overflow}, limits={"concurrency": 1, "timeout": "50ms"}
    )
    held = theirs.make_permits(plugin=0, key=f"{entry.name} {entry.revision}", limit=1, most=1)
    await held.enter(1)
    runtime = await workshop.run(entry, member=mine)
    try:
        await runtime.call(Hook.METRICS, _CALL)
        if overflow == "Drop":
            await runtime.drained()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):  # ten time-outs
                    await runtime.drained()
        held.leave()
        held.close()
        await runtime.drained()
        assert (_recorded(workshop), _counted(runtime).failures["overload"]) == (recorded, failed)
    finally:
        await runtime.close()
        for bell in shared.bells:
            asyncio.get_running_loop().remove_reader(bell)
        shared.close()


def test_a_revision_is_what_it_was_where_nothing_is_said_about_observers():
    """Operator and sidecar of two versions compare revisions: a field that one of them does not know changes none."""
    plain = BundlePlugin(name="guest")
    known = plain.model_dump(mode="json", by_alias=True, exclude={"observers"})
    assert BundlePlugin.model_validate(known).revision == plain.revision
    assert BundlePlugin.model_validate(known | {"observers": {"overflow": "Drop"}}).revision == plain.revision
    assert BundlePlugin.model_validate(known | {"observers": {"overflow": "Wait"}}).revision != plain.revision


def _held(runtime, name="guest"):
    """Keep a plugin from running what it observes until the event is set: a guest cannot be told to wait for that."""
    backlog, go = runtime.plugins[name].backlog, asyncio.Event()
    run = backlog._run

    async def held(hook, data):
        await go.wait()
        return await run(hook, data)

    backlog._run = held
    return go


def _gone():
    asker = Asker()
    asker.leave()
    return asker


async def _turns():
    """Let everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)
