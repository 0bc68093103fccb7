"""A new version that fails is answered for by the version before it, and counted; one that does not costs nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref

import pytest

from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_runtime.plugin.backlog import Asker
from hookline_runtime.plugin.budget import Plan
from hookline_runtime.plugin.stats import Summary
from hookline_runtime.runtime import Runtime
from waiting import until_true

_QUERY = b'{"query": "select 1"}'
_MIB = 2**20


def _summary(runtime, hook, number=0):
    return Summary.of([runtime._stats.row(number, hook).values()])


@pytest.fixture
def versions(workshop, wat):
    """Makes a version that answers, and one whose hook has this body; both of the plugin ``guest``."""

    async def make(body, *, hook="authorize", answer=None, old=None, new=None, more=None):
        answer = answer or {"action": "allow", "reason": "one"}
        first = await workshop.plugin(wat.module(answers={hook: answer}, hooks=more), **(old or {}))
        second = await workshop.plugin(wat.module(hooks={hook: body, **(more or {})}), **(new or {}))
        return first, second

    return make


@pytest.fixture
def switch(workshop):
    """A runtime that ran the first version and runs the second, on probation."""

    async def run(first, second, *, warm_up=True, hook=Hook.AUTHORIZE):
        runtime = await workshop.run(first)
        for _ in range(20 if warm_up else 0):
            await runtime.call(hook, _QUERY)
        runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))
        return runtime

    return run


_FAILING = {
    "trap": "unreachable",
    "timeout": "(loop $ever (br $ever)) (i64.const 0)",
    "result": f"(i64.const {1024 << 32 | 8})",
}


@pytest.mark.parametrize("cause", list(_FAILING))
@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
@pytest.mark.parametrize("warm", [True, False], ids=["inline", "threads"])
async def test_what_the_new_version_fails_on_the_one_before_it_answers(versions, switch, cause, mode, warm):
    """Whatever the failure, on the event loop and on threads, also once the breaker is open: no call is lost."""
    settings = {"isolation": {"mode": mode}, "limits": {"timeout": "20ms"}}
    first, second = await versions(_FAILING[cause], old={"isolation": {"mode": mode}}, new=settings)
    runtime = await switch(first, second, warm_up=warm)
    assert runtime.plugins["guest"].inline == warm
    before = _summary(runtime, Hook.AUTHORIZE)
    for _ in range(12):
        decision = await runtime.call(Hook.AUTHORIZE, _QUERY)
        assert (decision["action"], decision["reason"], decision["plugin"]) == ("allow", "one", "guest")
        assert decision["bundle"] == runtime.bundle.version
    now = _summary(runtime, Hook.AUTHORIZE)
    assert now.alone == 12
    assert now.calls + now.skipped - before.calls == 12, "the answers of the version before count as nobody's calls"
    assert now.skipped == (0 if cause == "result" else 7)


async def test_every_way_to_ask_comes_to_the_version_before(versions, switch):
    """What is answered at once, a decision alone, and an answer that is waited for: all three."""
    runtime = await switch(*await versions("unreachable"))
    found = json.loads(runtime.answer(Hook.AUTHORIZE, _QUERY))
    alone = json.loads(runtime.chains.decide(Hook.AUTHORIZE, _QUERY, "r") + b"}")
    runtime.plugins["guest"].inline = False
    waited = json.loads(await runtime.chains.decide(Hook.AUTHORIZE, _QUERY, "r")(Asker()) + b"}")
    spaced = await runtime.call(Hook.AUTHORIZE, b'{"query":\t"select 1", "hook_context": {"attributes": {"a": "b"}}}')
    assert [each["reason"] for each in (found, alone, waited, spaced)] == ["one"] * 4
    assert _summary(runtime, Hook.AUTHORIZE).alone == 4


async def test_it_stands_in_the_same_place_of_the_chain(workshop, wat):
    """A rewrite of the version before feeds the next plugin, as its own would have."""
    first = await workshop.plugin(wat.module(answers={"pre_query": {"action": "rewrite", "value": "select 2"}}), "p")
    second = await workshop.plugin(wat.module(hooks={"pre_query": "unreachable"}), "p")
    says = wat.module(answers={"pre_query": {"action": "block", "value": "seen"}})
    last = await workshop.plugin(says, "q", match={"tables": ["t"]})
    runtime = await workshop.run(first, last)
    for _ in range(20):
        await runtime.call(Hook.PRE_QUERY, _QUERY)
    runtime.commit(await runtime.prepare(Bundle.of([second, last]), workshop.find, before=[first]))
    for _ in range(3):
        decision = await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1", "hook_context": {"tables": ["u"]}}')
        assert (decision["action"], decision["plugin"]) == ("block", "q")


async def test_what_both_fail_on_is_nobodys_fault(workshop, wat):
    """The failure stands as the new version's policy has it, and does not count against it."""
    first, second = [
        await workshop.plugin(wat.module(wat_parts, hooks={"custom_hook": "unreachable"}))
        for wat_parts in ("", "(func)")
    ]
    runtime = await workshop.run(first)
    runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))
    for _ in range(8):
        assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    found = _summary(runtime, Hook.CUSTOM)
    assert (found.alone, found.failures["trap"], found.skipped) == (0, 5, 3)


async def test_an_overload_is_not_asked_again(versions, switch):
    """An input over the limit says nothing about the version; the version before may even take it."""
    first, second = await versions("(i64.const 0)", new={"limits": {"input": 10}})
    runtime = await switch(first, second)
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["failure"] == "overload"
    assert _summary(runtime, Hook.AUTHORIZE).alone == 0


async def test_an_overload_does_not_hide_why_calls_fail(versions, switch):
    """Behind a guest that loops, overloads are soon the newest failures: what is told is the loop."""
    first, second = await versions("unreachable", new={"limits": {"input": 400}})
    runtime = await switch(first, second)
    await runtime.call(Hook.AUTHORIZE, _QUERY)
    await runtime.call(Hook.AUTHORIZE, b'{"query": "%s"}' % (b"x" * 400))
    plugin = runtime.plugins["guest"]
    assert (plugin.last_failure.cause, plugin.last_fault.cause) == ("overload", "trap")


async def test_nobody_is_asked_about_what_was_not_for_it(workshop, wat):
    """A hook that the version before had not, and calls that its ``match`` left out: the failure stands and counts."""
    first = await workshop.plugin(wat.module(answers={"authorize": {"action": "allow"}}), match={"databases": ["a"]})
    second = await workshop.plugin(wat.module(hooks={"authorize": "unreachable", "custom_hook": "unreachable"}))
    runtime = await workshop.run(first)
    runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))

    async def ask(database):
        body = {"query": "select 1", "hook_context": {"database": database}}
        return await runtime.call(Hook.AUTHORIZE, json.dumps(body).encode())

    assert (await ask("a"))["action"] == "allow"
    assert (await ask("b"))["failure"] == "trap"
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    assert (_summary(runtime, Hook.AUTHORIZE).alone, _summary(runtime, Hook.CUSTOM).alone) == (2, 1)


async def test_what_only_watches_is_seen_by_the_version_before(workshop, wat):
    """An observer's call that fails is not lost to an audit."""
    counts = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        hooks={"metrics": "(drop (call $kv_incr (i32.const 0) (i32.const 1) (i64.const 1))) (i64.const 0)"},
    )
    first = await workshop.plugin(counts, permissions=["kv.write"])
    second = await workshop.plugin(wat.module(hooks={"metrics": "unreachable"}))
    runtime = await workshop.run(first)
    runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))
    for _ in range(9):
        await runtime.call(Hook.METRICS, b"{}")
    await runtime.drained()
    assert workshop.kv.get("guest", b"\0") == b"9"
    assert _summary(runtime, Hook.METRICS).alone == 9


async def test_calls_of_a_version_that_is_replaced_say_nothing_of_the_next_one(workshop, wat):
    """Those that it has accepted run late, on it: they neither prove the new version, nor fail for it."""
    quiet = "(drop (i32.const {})) (i64.const 0)"
    first = await workshop.plugin(wat.module(hooks={"metrics": quiet.format(1)}))
    second = await workshop.plugin(wat.module(hooks={"metrics": "unreachable"}))
    third = await workshop.plugin(wat.module(hooks={"metrics": quiet.format(3)}))
    runtime = await workshop.run(first)
    for new, calls in ((second, 9), (third, 18)):
        prepared = await runtime.prepare(Bundle.of([new]), workshop.find, before=[first])
        for _ in range(9):
            runtime.answer(Hook.METRICS, b"{}")
        runtime.commit(prepared)
        await runtime.drained()
        found = _summary(runtime, Hook.METRICS)
        assert found.calls + found.skipped == found.late == calls
    assert found.alone == 0
    await runtime.call(Hook.METRICS, b"{}")
    await runtime.drained()
    assert (_summary(runtime, Hook.METRICS).late, _summary(runtime, Hook.METRICS).calls) == (18, found.calls + 1)


async def test_a_call_that_succeeds_leaves_the_version_before_alone(versions, switch):
    """It is not asked, not counted, and stays as it was."""
    first, second = await versions("(i64.const 0)")
    runtime = await switch(first, second)
    old = runtime.plugins["guest"].before.plugin
    rows = [each.row.values() for each in runtime.plugins["guest"].before._hooks.values()]
    for _ in range(50):
        assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["action"] == "defer"
    assert [each.row.values() for each in runtime.plugins["guest"].before._hooks.values()] == rows
    assert _summary(runtime, Hook.AUTHORIZE).alone == 0
    assert not old.closed


async def test_the_version_before_is_given_back_once_the_new_one_has_proven_itself(versions, switch):
    """Whole, and without a search for cycles; from then on failures are failures."""
    first, second = await versions("unreachable")
    runtime = await switch(first, second)
    old = weakref.ref(runtime.plugins["guest"].before.plugin)
    await runtime.call(Hook.AUTHORIZE, _QUERY)
    runtime.prove("guest", first.revision)
    assert runtime.plugins["guest"].before is not None, "said of another revision"
    gc.collect()
    gc.disable()
    try:
        runtime.prove("guest", second.revision)
        await until_true(lambda: old() is None, "the end of the version before")
    finally:
        gc.enable()
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["failure"] == "trap"


async def test_going_back_takes_the_very_same_plugin(versions, switch, workshop):
    """Warm as it was: nothing is compiled, loaded or learnt again."""
    first, second = await versions("unreachable")
    runtime = await switch(first, second)
    new, old = runtime.plugins["guest"], runtime.plugins["guest"].before.plugin
    await runtime.load(Bundle.of([first]), workshop.find)
    assert runtime.plugins["guest"] is old
    assert (new.closed, old.closed, old.before) == (True, False, None)
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["reason"] == "one"


async def test_another_bundle_carries_it_over(versions, switch, workshop, wat):
    """A change of another plugin ends no probation; a third version has the one before that had proven itself."""
    first, second = await versions("unreachable")
    third = await workshop.plugin(wat.module("(func)", hooks={"authorize": "unreachable"}))
    other = await workshop.plugin(wat.module(answers={"custom_hook": 1}), "other")
    runtime = await switch(first, second)
    new, old = runtime.plugins["guest"], runtime.plugins["guest"].before.plugin
    runtime.commit(await runtime.prepare(Bundle.of([second, other]), workshop.find, before=[first]))
    assert runtime.plugins["guest"] is new
    assert new.before.plugin is old
    runtime.commit(await runtime.prepare(Bundle.of([third, other]), workshop.find, before=[first]))
    assert new.closed
    assert runtime.plugins["guest"].before.plugin is old
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["reason"] == "one"


async def test_a_process_that_starts_gets_both_versions(versions, workshop):
    """As a worker that was replaced does: neither ran here before."""
    first, second = await versions("unreachable")
    runtime = Runtime(kv=workshop.kv)
    workshop.started.append(runtime)
    runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))
    for _ in range(12):
        assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["reason"] == "one"


async def test_a_bundle_that_does_not_run_lets_go_of_both(versions, workshop):
    """What was prepared and discarded holds nothing; what runs goes on."""
    first, second = await versions("unreachable")
    runtime = await workshop.run(first)
    old = runtime.plugins["guest"]
    prepared = await runtime.prepare(Bundle.of([second]), workshop.find, before=[first])
    prepared.discard()
    assert not old.closed
    await runtime.load(Bundle.of([]), workshop.find)
    assert old.closed


async def test_without_room_for_it_there_is_no_version_before(versions, workshop):
    """The new one runs, and it is said why nothing stands behind it."""
    large = {"limits": {"memory": "64Mi"}}
    first, second = await versions("unreachable", old=large, new=large)
    runtime = Runtime(kv=workshop.kv)
    workshop.started.append(runtime)
    limit = 64 * _MIB + 64 * _MIB + 64 * _MIB + 20 * _MIB + 4 * _MIB + 2 * _MIB
    runtime.budget.follow(Plan.of(limit, workers=1, state=0))
    await runtime.load(Bundle.of([second]), workshop.find)
    for size in range(1, 40):
        runtime.budget.follow(Plan.of(limit - size * _MIB // 8, workers=1, state=0))
        try:
            prepared = await runtime.prepare(Bundle.of([second]), workshop.find, before=[first])
        except Exception:  # noqa: BLE001 - too small for one of them
            break
        alone = prepared.alone
        prepared.discard()
        if alone:
            assert "no room for the version before it" in alone["guest"]
            return
    pytest.fail("there was always room for both, or for none")


async def test_calls_that_wait_for_a_thread_are_answered_while_probation_ends(versions, switch):
    """The version before is held for as long as a call is on its way to it."""
    first, second = await versions("unreachable")
    runtime = await switch(first, second, warm_up=False)
    calls = [asyncio.create_task(runtime.call(Hook.AUTHORIZE, _QUERY)) for _ in range(10)]
    await asyncio.sleep(0)
    runtime.prove("guest", second.revision)
    found = await asyncio.gather(*calls)
    assert all(each.get("reason") == "one" or each.get("failure") == "trap" for each in found)
    assert (await runtime.call(Hook.AUTHORIZE, _QUERY))["failure"] == "trap"


async def test_it_is_not_on_the_event_loop_while_the_version_before_is_not(versions, switch):
    """Where it fails there the other's call runs there too: a slow one holds up nobody."""
    first, second = await versions("(i64.const 0)", old={"limits": {"timeout": "2s"}})
    runtime = await switch(first, second)
    for _ in range(20):
        await runtime.call(Hook.AUTHORIZE, _QUERY)
    assert not runtime.plugins["guest"].inline
    runtime.prove("guest", second.revision)
    await runtime.call(Hook.AUTHORIZE, _QUERY)
    await until_true(lambda: runtime.plugins["guest"].inline, "a plugin that is quick, and free to be")
