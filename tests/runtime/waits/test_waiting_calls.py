"""A guest writes a call that seems to block, and no other call waits for it."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_api.hooks import Hook
from hookline_runtime.errors import StoreError
from hookline_runtime.guest import calls
from hookline_runtime.plugin.backlog import Asker
from waiting import until_true


def _summary(runtime, name="guest", hook=Hook.CUSTOM):
    from hookline_runtime.plugin.stats import Summary

    return Summary.of([runtime.plugins[name].hooks[hook].row.values()])


_fibers = pytest.mark.skipif(calls._fibers_unfit is not None, reason=f"there are no fibers: {calls._fibers_unfit}")
_EVER = f"(loop $ever (drop {ASK}) (br $ever)) (i64.const 0)"
_THEN_EVER = f"(drop {ASK}) (loop $ever (br $ever)) (i64.const 0)"


async def _asking(workshop, wat, body=ASK, **settings):
    text = wat.module(imports=FETCH, hooks={"custom_hook": body})
    return await workshop.guest(text, **{**SETTINGS, **settings})


def _call(runtime, body=0):
    return asyncio.create_task(runtime.call(Hook.CUSTOM, json.dumps(body).encode()))


async def test_a_guest_gets_what_it_waits_for(workshop, wat, way, others):
    """Bytes come where its own alloc says, and the hook goes on as if the call had blocked."""
    runtime = await _asking(workshop, wat)
    call = _call(runtime, {"a": [1, "é"]})
    await others.until(1)
    others.answer_all()
    assert (await call)["value"] == {"a": [1, "é"]}
    assert runtime.plugins["guest"].host.times["http_fetch"].buckets.count(0) < len(
        runtime.plugins["guest"].host.times["http_fetch"].buckets
    )


async def test_a_guest_may_wait_again_and_again(workshop, wat, way, others):
    """What it has in its locals and its memory is there after each wait."""
    others.answer = 0.0
    body = f"""
    (loop $again
      (drop {ASK})
      (local.set $w (i64.add (local.get $w) (i64.const 1)))
      (br_if $again (i64.lt_u (local.get $w) (i64.const 20))))
    (call $number (i64.add (local.get $w) (i64.extend_i32_u (i32.load8_u (local.get $p)))))"""
    runtime = await _asking(workshop, wat, body)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 20 + ord("0")
    assert others.asked == 20


@_fibers
async def test_a_hundred_guests_wait_at_the_same_time(workshop, wat, others):
    """They wait beside each other, on one event loop and without a thread for each."""
    runtime = await _asking(workshop, wat, limits={"concurrency": 100, "memory": 2**20})
    calls = [_call(runtime, number) for number in range(100)]
    await others.until(100)
    others.answer_all()
    assert [(await call)["value"] for call in calls] == list(range(100))


@_fibers
async def test_another_plugin_answers_while_a_thousand_calls_wait(workshop, wat, others):
    """The others' calls are answered inline, with nothing of the waiting ones in their way."""
    waiting = await workshop.plugin(
        wat.module(imports=FETCH, hooks={"custom_hook": ASK}),
        name="waits",
        **SETTINGS,
        limits={"concurrency": 1000, "memory": 2**17, "wait": "60s"},
    )
    quick = await workshop.plugin(wat.module(answers={"pre_query": {"action": "block", "value": "no"}}), name="quick")
    runtime = await workshop.run(waiting, quick)
    runtime.plugins["quick"].trust()
    calls = [_call(runtime, number) for number in range(1000)]
    await others.until(1000)
    for _ in range(1000):
        answer = runtime.answer(Hook.PRE_QUERY, b'{"query":"select 1"}')
        assert isinstance(answer, bytes)
        assert b'"block"' in answer
    assert others.most == 1000
    others.answer_all()
    assert {(await call)["value"] for call in calls} == set(range(1000))


async def test_who_waits_too_long_is_cut_in_the_middle_of_it(workshop, wat, way, others):
    """limits.wait ends the call, and what it waited for is cancelled."""
    runtime = await _asking(workshop, wat, limits={"wait": "50ms"})
    answer = await runtime.call(Hook.CUSTOM, b"0")
    assert answer["failure"] == "timeout"
    await until_true(lambda: others.cancelled == 1 and not others.open, "all is given back")
    assert "limits.wait (50 ms)" in runtime.plugins["guest"].last_failure.message
    assert _summary(runtime).failures["timeout"] == 1


async def test_all_waits_of_a_call_are_bounded_together(workshop, wat, way, others):
    """A guest that asks for ever ends, though each answer comes soon."""
    others.answer = 0.02
    runtime = await _asking(workshop, wat, _EVER, limits={"wait": "200ms"})
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "timeout"
    assert 1 <= others.asked <= 11


async def test_time_that_a_guest_waits_is_none_of_its_processor_time(workshop, wat, way, others):
    """limits.timeout is for what it computes; a call may wait for many times as long."""
    others.answer = 0.3
    runtime = await _asking(workshop, wat, limits={"timeout": "50ms", "wait": "30s"})
    assert (await runtime.call(Hook.CUSTOM, b"7"))["value"] == 7


async def test_a_guest_that_never_ends_after_it_waited_is_cut(workshop, wat, way, others):
    """What it used before counts, and its deadline is set anew for each step."""
    others.answer = b"{}"
    runtime = await _asking(workshop, wat, _THEN_EVER, limits={"timeout": 80})
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "timeout"
    assert "limits.timeout (80 ms)" in runtime.plugins["guest"].last_failure.message


async def test_a_guest_that_traps_after_its_answer_came_has_failed(workshop, wat, way, others):
    """And the next call has another instance."""
    others.answer = b"{}"
    body = f"(drop {ASK}) (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 49)) (then unreachable)) {wat.echo}"
    for mode in ("PerCall", "Pooled"):
        runtime = await _asking(workshop, wat, body, isolation={"mode": mode})
        assert (await runtime.call(Hook.CUSTOM, b"1"))["failure"] == "trap"
        assert (await runtime.call(Hook.CUSTOM, b"2"))["value"] == 2


async def test_a_client_that_leaves_ends_its_call_and_is_nobodys_failure(workshop, wat, way, others):
    """It is counted apart; the breaker, the permits and the memory are as if it had not been."""
    runtime = await _asking(workshop, wat, limits={"concurrency": 1, "wait": "60s"})
    plugin = runtime.plugins["guest"]
    free = None
    for _ in range(12):
        asker = Asker()
        later = runtime.answer(Hook.CUSTOM, b"0")
        assert not isinstance(later, bytes)
        call = asyncio.ensure_future(later(asker))
        await others.until(1)
        asker.leave()
        assert b'"failure"' in await call
        await until_true(lambda: not plugin.permits.running, "all is given back")
        free = runtime.budget.free if free is None else free  # the first one had an instance that was kept
        assert runtime.budget.free == free
    assert others.cancelled == 12
    summary = _summary(runtime)
    assert (summary.calls, summary.cancelled, sum(summary.failures.values())) == (12, 12, 0)
    assert plugin.hooks[Hook.CUSTOM].breaker.failures == 0
    others.answer = b"1"
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


async def test_a_client_that_has_left_asks_nobody_any_more(workshop, wat, way, others):
    """Each of the other calls of its batch would wait, one after the other, and ask others for nobody."""
    runtime = await _asking(workshop, wat, limits={"wait": "60s"})
    asker = Asker()
    calls = [runtime.answer(Hook.CUSTOM, b"%d" % number) for number in range(100)]

    async def batch():
        return [await later(asker) for later in calls]

    answering = asyncio.create_task(batch())
    await others.until(1)
    asker.leave()
    assert all(b'"failure"' in answer for answer in await answering)
    assert others.asked == 1
    await until_true(lambda: not runtime.plugins["guest"].permits.running, "all is given back")
    assert sum(_summary(runtime).failures.values()) == 0


async def test_the_same_asker_may_ask_again(workshop, wat, way, others):
    """A connection asks one call after the other."""
    others.answer = 0.0
    runtime = await _asking(workshop, wat)
    asker = Asker()
    for number in range(3):
        later = runtime.answer(Hook.CUSTOM, b"%d" % number)
        assert json.loads(await later(asker))["value"] == number


async def test_an_instance_whose_call_was_dropped_is_used_no_more(workshop, wat, way, others):
    """A pooled guest counts its calls in its memory: after a dropped one, it begins anew."""
    counting = f"""
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 49)) (then (drop {ASK})))
    (i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (i32.const 1)))
    (call $number (i64.extend_i32_u (i32.load (i32.const 512))))"""
    runtime = await _asking(workshop, wat, counting, isolation={"mode": "Pooled", "size": 1}, limits={"wait": "100ms"})
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(3)] == [1, 2, 3]
    assert (await runtime.call(Hook.CUSTOM, b"1"))["failure"] == "timeout"
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(2)] == [1, 2]


async def test_an_error_of_the_function_ends_the_call_by_policy(workshop, wat, way, others):
    """The store is away: failurePolicy.store says what that means, whatever the guest would have made of it."""
    others.answer = StoreError("the server with the plugin's keys does not answer")
    closed = await _asking(workshop, wat, f"(drop {ASK}) {wat.echo}")
    assert (await closed.call(Hook.CUSTOM, b"5"))["failure"] == "store"
    opened = await _asking(workshop, wat, f"(drop {ASK}) {wat.echo}", failurePolicy={"store": "Open"})
    answer = await opened.call(Hook.CUSTOM, b"5")
    assert "failure" not in answer
    assert answer["action"] == "empty"
    assert _summary(opened).failures["store"] == 1


async def test_a_mistake_of_ours_is_a_code_for_the_guest(workshop, wat, way, others, caplog):
    """It is logged once, and the guest decides."""
    others.answer = ZeroDivisionError("ours")
    runtime = await _asking(workshop, wat, f"(call $number {ASK})")
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(2)] == [6, 6]
    assert len([each for each in caplog.records if "http_fetch failed" in each.message]) == 1


async def test_no_more_calls_wait_than_the_plugin_may_have(workshop, wat, way, others):
    """Who waits for somebody else holds a permit meanwhile; the next ones wait for it, and are then an overload."""
    runtime = await _asking(workshop, wat, limits={"concurrency": 2, "timeout": "300ms", "wait": "30s"})
    calls = [_call(runtime, number) for number in range(3)]
    await others.until(2)
    assert (await calls[2])["failure"] == "overload"
    others.answer_all()
    assert [(await call)["value"] for call in calls[:2]] == [0, 1]
    assert others.most == 2


async def test_calls_that_wait_while_the_bundle_changes_end_as_they_began(workshop, wat, way, others):
    """The old version's calls get their answers from it, and it is closed after the last."""
    runtime = await _asking(workshop, wat)
    old, call = runtime.plugins["guest"], _call(runtime, "old")
    await others.until(1)
    from hookline_api.bundle import Bundle

    new = await workshop.plugin(wat.module(answers={"custom_hook": b'"new"'}))
    await runtime.load(Bundle.of([new]), workshop.find)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == "new"
    assert not old.closed
    others.answer_all()
    assert (await call)["value"] == "old"
    await until_true(lambda: old.closed, "all is given back")


async def test_at_the_end_of_the_process_calls_that_wait_are_answered_by_policy(workshop, wat, way, others):
    """They do not hold it up, and their clients get an answer."""
    runtime = await _asking(workshop, wat, limits={"wait": "60s"})
    calls = [_call(runtime, number) for number in range(5)]
    await others.until(5)
    runtime.end_waits(asyncio.get_running_loop().time() + 0.05)
    assert {(await call)["failure"] for call in calls} == {"timeout"}
    assert (await runtime.call(Hook.CUSTOM, b"9"))["failure"] == "timeout"
    await until_true(lambda: not others.open, "all is given back")


@_fibers
async def test_a_guest_that_computes_long_between_its_waits_leaves_the_event_loop(workshop, wat, others):
    """Its steps run on threads until it is quick again; a loop on the event loop is nobody else's wait for long."""
    others.answer = b"{}"
    runtime = await _asking(workshop, wat, _THEN_EVER, limits={"timeout": 100})
    plugin = runtime.plugins["guest"]
    plugin.trust()
    assert plugin.on_loop
    await runtime.call(Hook.CUSTOM, b"0")
    assert not plugin.on_loop
    gaps, stop = [asyncio.get_running_loop().time()], False

    async def watch():
        while not stop:
            await asyncio.sleep(0.001)
            gaps.append(asyncio.get_running_loop().time())

    watching = asyncio.create_task(watch())
    await runtime.call(Hook.CUSTOM, b"0")
    stop = True
    await watching
    assert len(gaps) > 5, "the loop stood still while the guest computed"
    assert max(after - before for before, after in pairwise(gaps)) < 60


async def test_a_plugin_that_only_watches_may_wait_too(workshop, wat, way, others):
    """Off the reply's path, one call after the other."""
    text = wat.module(imports=FETCH, hooks={"post_query": f"(drop {ASK}) (i64.const 0)"})
    runtime = await workshop.guest(text, **SETTINGS)
    for _ in range(3):
        await runtime.call(Hook.POST_QUERY, b'[{"query":"x"},{"success":true}]')
    for _ in range(3):
        await others.until(1)
        others.answer_all(0)
        await asyncio.sleep(0)
    await runtime.drained()
    assert others.asked == 3


async def test_guests_on_many_threads_never_get_each_others_answers(workshop, wat, way, others):
    """A call goes on on whichever thread is free; what it asks there is its own guest's question."""
    others.answer = 0.0
    imports = FETCH + wat.host("hookline", "get_config", "i32 i32", "i64")
    text = wat.module(
        imports=imports,
        data={1024: b"who"},
        hooks={"custom_hook": f"(drop {ASK}) (call $get_config (i32.const 1024) (i32.const 3))"},
    )
    settings = {"permissions": ["http.fetch", "config.read"], "limits": {"concurrency": 16}}
    names = ["a", "b", "c"]
    runtimes = {
        name: await workshop.guest(text, config={"who": name}, isolation={"mode": mode, "maxCalls": 2}, **settings)
        for name, mode in zip(names, ("PerCall", "Pooled", "Pooled"), strict=True)
    }
    for runtime in runtimes.values():
        runtime.plugins["guest"]._may_run_inline = False
    asked = names * 100
    answers = await asyncio.gather(*(runtimes[name].call(Hook.CUSTOM, b"0") for name in asked[:48]))
    for begin in range(48, len(asked), 48):
        answers += await asyncio.gather(*(runtimes[name].call(Hook.CUSTOM, b"0") for name in asked[begin : begin + 48]))
    assert [answer["value"] for answer in answers] == asked
