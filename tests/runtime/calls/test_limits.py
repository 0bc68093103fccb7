"""A plugin is held to each of its limits, and reaching one is answered as its failure policy says."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest

from hookline_api.bundle import Bundle
from hookline_api.hooks import DEFAULTS, OBSERVERS, Hook
from hookline_runtime.plugin.stats import Summary
from hookline_runtime.runtime import PrepareError, Runtime

_QUERY = b'{"query": "select 1"}'
_INPUTS = {
    Hook.AUTHENTICATE: b"{}",
    Hook.CACHE_GET: b'{"query": "select 1", "key": "k"}',
    Hook.CACHE_SET: b'{"query": "select 1", "key": "k", "value": ""}',
    Hook.POST_QUERY: b'[{"query": "select 1"}, {"success": true}]',
    Hook.METRICS: b"{}",
    Hook.ON_CONNECT: b"{}",
    Hook.ON_DISCONNECT: b"{}",
    Hook.CUSTOM: b'{"any": "thing"}',
}
_REFUSALS = {
    Hook.AUTHENTICATE: "denied", Hook.AUTHORIZE: "deny", Hook.PRE_QUERY: "block", Hook.REWRITE: "block",
    Hook.ROUTE: "block", Hook.CACHE_GET: "miss", Hook.CACHE_SET: "skip", Hook.CUSTOM: "block",
}  # fmt: skip
_BODIES = {
    "trap": "unreachable",
    "timeout": "(loop $ever (br $ever)) (i64.const 0)",
    "result": "(i64.const -1)",
    "overload": "(i64.const 0)",
}


def _failing(wat, cause):
    return wat.module(hooks={hook.value: _BODIES[cause] for hook in Hook})


def _limits(cause):
    return {"timeout": "10ms", **({"input": 1} if cause == "overload" else {})}


@pytest.mark.parametrize("cause", _BODIES)
async def test_a_deciding_hook_fails_closed_unless_its_policy_says_open(workshop, wat, cause):
    """Each hook, each cause: the refusing answer with plugin and cause by default, as if not there with Open."""
    shut = await workshop.guest(_failing(wat, cause), limits=_limits(cause))
    open_ = await workshop.guest(_failing(wat, cause), limits=_limits(cause), failurePolicy={cause: "Open"})
    others = {each: "Open" for each in _BODIES if each != cause}
    other = await workshop.guest(_failing(wat, cause), limits=_limits(cause), failurePolicy=others)
    for hook in set(Hook) - OBSERVERS:
        body = _INPUTS.get(hook, _QUERY)
        for runtime in (shut, other):
            decision = await runtime.call(hook, body)
            assert decision["action"] == _REFUSALS[hook]
            assert (decision["failure"], decision["plugin"]) == (cause, "guest")
        decision = await open_.call(hook, body)
        assert decision["action"] == DEFAULTS[hook]
        assert (decision.get("failure"), decision["plugin"]) == (None, None)
        assert open_.plugins["guest"].last_failure.cause == cause
        assert Summary.of([open_._stats.row(0, hook).values()]).failures[cause] == 1


@pytest.mark.parametrize("cause", [cause for cause in _BODIES if cause != "result"])
async def test_an_observing_hook_that_fails_changes_no_reply_and_is_counted(workshop, wat, cause):
    """Also where its policy is Closed: there is no reply to close."""
    for policy in ({}, {cause: "Closed"}):
        runtime = await workshop.guest(_failing(wat, cause), limits=_limits(cause), failurePolicy=policy)
        for hook in OBSERVERS:
            decision = await runtime.call(hook, _INPUTS[hook])
            assert (decision["action"], decision["plugin"]) == ("accepted", None)
        await runtime.drained()
        for hook in OBSERVERS:
            assert Summary.of([runtime._stats.row(0, hook).values()]).failures[cause] == 1


async def test_what_an_observing_hook_answers_is_ignored_whatever_it_is(workshop, wat):
    """A pointer to nowhere, and nonsense; also where the instance is used again."""
    for mode in ("PerCall", "Pooled"):
        body = "(i64.const 0x7fffffff7fffffff)"
        guest = await workshop.guest(wat.module(hooks={"post_query": body}), isolation={"mode": mode})
        for _ in range(3):
            await guest.call(Hook.POST_QUERY, _INPUTS[Hook.POST_QUERY])
        await guest.drained()
        assert guest.plugins["guest"].last_failure is None
        assert Summary.of([guest._stats.row(0, Hook.POST_QUERY).values()]).calls == 3


async def test_an_open_failure_hands_the_call_to_the_next_plugin(workshop, wat):
    """As if the plugin were not there."""
    broken = await workshop.plugin(_failing(wat, "trap"), "broken", priority=9, failurePolicy={"trap": "Open"})
    guard = await workshop.plugin(wat.module(answers={"pre_query": {"action": "block", "value": "no"}}), "guard")
    runtime = await workshop.run(broken, guard)
    decision = await runtime.call(Hook.PRE_QUERY, _QUERY)
    assert (decision["action"], decision["plugin"]) == ("block", "guard")


async def test_a_closed_failure_ends_the_chain(workshop, wat):
    """A later plugin's "allow" does not help."""
    broken = await workshop.plugin(_failing(wat, "trap"), "broken", priority=9)
    allow = await workshop.plugin(wat.module(answers={"authorize": {"action": "allow"}}), "allow")
    runtime = await workshop.run(broken, allow)
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["action"] == "deny"


async def test_the_message_to_the_client_tells_nothing_of_the_guests_inside(workshop, wat):
    """Who failed and how in a word; the rest is the operator's."""
    decision = await workshop.ask(_failing(wat, "trap"), "pre_query", {"query": "select 1"})
    assert decision["value"] == "plugin 'guest' failed (trap)"


async def test_an_input_as_long_as_allowed_is_taken_and_one_byte_more_is_an_overload(workshop, wat):
    """Counted in the bytes that the guest would get."""
    runtime = await workshop.guest(wat.switch(), limits={"input": 10})
    assert (await runtime.call(Hook.CUSTOM, b"0         "))["value"] == 0
    assert (await runtime.call(Hook.CUSTOM, b"0          "))["failure"] == "overload"


async def test_fuel_is_counted_per_call_and_its_end_is_a_timeout(workshop, wat):
    """A loop of a thousand rounds costs about as much each time; too much is cut without any clock."""
    count = """(local.set $i (i32.const 1000))
    (loop $again (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i64.const 0)"""
    text = wat.module(hooks={"custom_hook": count})
    for mode in ("PerCall", "Pooled"):
        runtime = await workshop.guest(text, limits={"fuel": 20_000}, isolation={"mode": mode})
        for _ in range(20):
            assert (await runtime.call(Hook.CUSTOM, b"0"))["action"] == "empty"
        used = Summary.of([runtime._stats.row(0, Hook.CUSTOM).values()]).fuel
        assert used % 20 == 0
        assert 3_000 < used // 20 < 20_000
    runtime = await workshop.guest(text, limits={"fuel": 500, "timeout": "60s"})
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "timeout"
    assert "limits.fuel (500)" in runtime.plugins["guest"].last_failure.message


async def test_a_module_that_starts_with_more_memory_than_allowed_is_refused(workshop, wat):
    """With both numbers; a call would only trap."""
    big = wat.module(hooks={"route": wat.no_answer}, memory='(memory (export "memory") 33)')
    entry = await workshop.plugin(big, limits={"memory": "2Mi"})
    with pytest.raises(PrepareError, match=r"2162688.*2097152") as refused:
        await workshop.run(entry)
    assert refused.value.reason.cause == "config"


async def test_the_memory_high_water_mark_is_in_the_statistics(workshop, wat):
    """The largest linear memory of any instance."""
    runtime = await workshop.guest(
        wat.module(hooks={"custom_hook": "(drop (memory.grow (i32.const 5))) (i64.const 0)"})
    )
    await runtime.call(Hook.CUSTOM, b"0")
    assert Summary.of([runtime._stats.row(0, Hook.CUSTOM).values()]).memory == 7 * 65_536


async def test_calls_beyond_the_concurrency_wait_and_beyond_the_queue_are_an_overload(workshop, wat):
    """One runs, four wait and run after it, the sixth is refused at once."""
    runtime = await workshop.guest(wat.switch(), limits={"concurrency": 1, "timeout": "60s"})
    answers = await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(6)))
    assert [answer.get("failure") for answer in answers] == [None] * 5 + ["overload"]
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 0


async def test_a_call_waits_no_longer_than_its_timeout(workshop, wat):
    """The permit in front is taken for as long; whoever waited that long is told."""
    runtime = await workshop.guest(wat.switch(), limits={"concurrency": 1, "timeout": "50ms"})
    looping = asyncio.create_task(runtime.call(Hook.CUSTOM, b"2"))
    waiting = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"2")) for _ in range(3)]
    causes = [(await task)["failure"] for task in (looping, *waiting)]
    assert causes[0] == "timeout"
    assert "overload" in causes[1:]
    assert runtime.plugins["guest"].permits.running == 0
    assert not runtime.plugins["guest"].permits._waiting


async def test_a_caller_that_goes_away_leaves_its_place_in_the_queue(workshop, wat):
    """Clients that hang up while they wait must not keep others out."""
    runtime = await workshop.guest(wat.switch(), limits={"concurrency": 1, "timeout": "300ms"})
    first = asyncio.create_task(runtime.call(Hook.CUSTOM, b"2"))
    gone = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"0")) for _ in range(4)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    assert all(task.cancelled() for task in gone)
    answers = await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(4)))
    assert {answer.get("failure") for answer in answers} <= {None, "overload"}
    assert "4 wait" not in str(runtime.plugins["guest"].last_failure)
    await first
    assert runtime.plugins["guest"].permits.running == 0


async def test_a_caller_that_goes_away_during_its_call_leaves_nothing_behind(workshop, wat, caplog):
    """The thread ends in its time, the permit is free again, and no exception is left that nobody retrieved."""
    lost = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    runtime = await workshop.guest(wat.switch(), limits={"concurrency": 2, "timeout": "30ms"})
    tasks = [asyncio.create_task(runtime.call(Hook.CUSTOM, body)) for body in (b"2", b"1")]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
    )
    plugin = runtime.plugins["guest"]
    await runtime.close()
    assert plugin.closed
    assert plugin.permits.running == 0
    gc.collect()
    assert lost == []
    assert "Traceback" not in caplog.text


async def test_closing_waits_for_a_guest_that_loops_on_a_thread(workshop, wat):
    """Were the clock stopped first, the loop would never end and the process could not either."""
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "50ms"})
    task = asyncio.create_task(runtime.call(Hook.CUSTOM, b"2"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await runtime.close()
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("plugin-guest")]
    assert Summary.of([runtime._stats.row(0, Hook.CUSTOM).values()]).calls == 1
    assert len(names) <= 1  # idle, and on its way out


async def test_observed_calls_have_a_bounded_queue(workshop, wat):
    """What does not fit is dropped and counted; one call always fits, whatever its size."""
    text = wat.module(hooks={"metrics": "(i64.const 0)"})
    runtime = await workshop.guest(text, limits={"input": "64Mi", "memory": "256Mi", "timeout": "10s"})
    big = b'{"event": {"x": "' + b"x" * (17 * 2**20) + b'"}}'
    await runtime.call(Hook.METRICS, big)
    assert (await runtime.call(Hook.METRICS, big))["action"] == "accepted"
    await runtime.drained()
    counted = Summary.of([runtime._stats.row(0, Hook.METRICS).values()])
    assert counted.calls == 2
    assert counted.failures == {"trap": 0, "timeout": 0, "result": 0, "overload": 1, "store": 0}
    for _ in range(2000):
        await runtime.call(Hook.METRICS, b"{}")
    await runtime.drained()
    assert Summary.of([runtime._stats.row(0, Hook.METRICS).values()]).calls == 2002


async def test_who_gives_up_waiting_for_observers_does_not_stop_them(workshop, wat, monkeypatch):
    """A drain with a deadline of its own."""
    runtime = await workshop.guest(wat.module(hooks={"metrics": _BODIES["timeout"]}), limits={"timeout": "60ms"})
    plugin, go = runtime.plugins["guest"], asyncio.Event()
    observe = plugin.call

    async def held(*arguments):
        await go.wait()
        return await observe(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(plugin, "call", held)
        await runtime.call(Hook.METRICS, b"{}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await runtime.drained()
    go.set()
    await runtime.drained()
    await runtime.call(Hook.METRICS, b"{}")
    await runtime.drained()
    assert Summary.of([runtime._stats.row(0, Hook.METRICS).values()]).calls == 2


async def test_two_runtimes_in_one_process_do_not_make_time_run_faster(workshop, wat):
    """The clock is the process's: with a thread per runtime, deadlines would be cut in half."""
    runtimes = [Runtime() for _ in range(3)]
    assert [thread.name for thread in threading.enumerate()].count("hookline-epoch") == 1
    for runtime in runtimes:
        runtime._ticker.stop()
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "20ms"})
    assert (await runtime.call(Hook.CUSTOM, b"2"))["failure"] == "timeout"


async def test_two_plugins_of_one_name_are_refused(workshop, wat):
    """One would run beside the other with the same settings, store and statistics."""
    one = await workshop.plugin(wat.switch(), "twin", priority=1)
    two = await workshop.plugin(wat.configured(), "twin")
    runtime = Runtime()
    with pytest.raises(PrepareError, match=r"twin.*two plugins of this name"):
        await runtime.load(Bundle.of([one, two]), workshop.find)
    await runtime.close()


@pytest.mark.skipif(os.environ.get("HOOKLINE_CALLS") == "official", reason="wasmtime-py's own Trap is in a cycle")
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "on a thread"])
@pytest.mark.parametrize("body", [b"1", b"3", b'"%b"' % (b"0" * 2**20)], ids=["trap", "result", "overload"])
async def test_a_call_that_failed_leaves_nothing_for_the_collector(workshop, wat, inline, body):
    """It runs rarely in a worker: an error that leads to itself would keep its input, of a megabyte, until then."""
    runtime = await workshop.guest(wat.switch(), limits={"input": 1000})
    if inline:
        runtime.plugins["guest"].trust()
    await runtime.call(Hook.CUSTOM, body)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert "failure" in await runtime.call(Hook.CUSTOM, body)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = [each for each in gc.garbage if isinstance(each, BaseException)]
        assert found == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
