"""What guests may have of a pod's memory is one account: who finds too little waits, and is then an overload."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_runtime.errors import OverloadError
from hookline_runtime.plugin.backlog import MAX_BACKLOG_BYTES, Asker, Backlog
from hookline_runtime.plugin.budget import CALL, CHILD_LEAST, PROCESSES, WAITING, WORKER, Budget, Plan, TooLargeError
from hookline_runtime.runtime import PrepareError, Runtime
from waiting import until, until_true

MIB = 2**20
LIMITS = {"memory": "16Mi", "input": "64Ki", "output": "64Ki"}
NEED = 16 * MIB + 2**17 + CALL


def plan(guests, *, workers=1):
    """A pod where the guests of each worker have so much, and a child what it needs at the least."""
    return Plan.of(PROCESSES + workers * WORKER + CHILD_LEAST + workers * guests, workers=workers, state=0)


@pytest.fixture
def held():
    """Guests that log wait until they are let go; how many are in there."""
    inside, most, lock, go = [], [0], threading.Lock(), threading.Event()

    class Handler(logging.Handler):
        def handle(self, record):  # not emit, which one at a time may do
            with lock:
                inside.append(record)
                most[0] = max(most[0], len(inside))
            go.wait(60)
            with lock:
                inside.pop()

    handler, log = Handler(), logging.getLogger("hookline.guest")
    log.addHandler(handler)
    handler.inside, handler.most, handler.go = inside, most, go
    yield handler
    go.set()
    log.removeHandler(handler)


async def guests(workshop, memory, *plugins):
    """A runtime whose guests have that much memory, as a worker's would that was told of it."""
    runtime = Runtime(kv=workshop.kv)
    workshop.started.append(runtime)
    runtime.budget.follow(plan(memory))
    await runtime.load(Bundle.of(list(plugins)), workshop.find)
    return runtime


def logging_guest(wat, body=""):
    """A guest that logs, and so is held."""
    return wat.module(
        imports=wat.host("hookline", "log", "i32 i32 i32", "i32"),
        hooks={"custom_hook": f"(drop (call $log (i32.const 3) (i32.const 0) (i32.const 1))) {body} {wat.echo}"},
    )


async def entered(held, count):
    """So many guests are held."""
    await asyncio.to_thread(until, lambda: len(held.inside) >= count, "guests that are held")


async def test_calls_beyond_the_memory_wait_and_all_are_answered(workshop, wat, held):
    """Sixteen may run by their number; by their memory, three."""
    entry = await workshop.plugin(logging_guest(wat), limits=LIMITS | {"timeout": "20s"})
    runtime = await guests(workshop, 4 * NEED - 1, entry)
    calls = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"%d" % number)) for number in range(9)]
    await entered(held, 3)
    assert runtime.budget.free < NEED
    held.go.set()
    assert [answer["value"] for answer in await asyncio.gather(*calls)] == list(range(9))
    assert held.most[0] == 3
    assert runtime.budget.free >= 3 * NEED


async def test_who_waits_for_too_long_is_an_overload_that_says_why(workshop, wat, held):
    """And what it would have taken is nobody's."""
    entry = await workshop.plugin(logging_guest(wat), limits=LIMITS | {"timeout": "50ms"})
    runtime = await guests(workshop, NEED + MIB, entry)
    first = asyncio.create_task(runtime.call(Hook.CUSTOM, b"1"))
    await entered(held, 1)
    late = await runtime.call(Hook.CUSTOM, b"2")
    assert late["failure"] == "overload"
    assert "of memory; all guests of this worker have" in runtime.plugins["guest"].last_failure.message
    held.go.set()
    assert (await first)["value"] == 1
    assert (await runtime.call(Hook.CUSTOM, b"3"))["value"] == 3


async def test_an_inline_call_waits_for_memory_too(workshop, wat, held):
    """A quick plugin beside one whose calls have it all."""
    slow = await workshop.plugin(logging_guest(wat), "slow", limits=LIMITS | {"timeout": "20s"})
    quick = await workshop.plugin(
        wat.module(answers={"authorize": {"action": "allow"}}), "quick", limits=LIMITS | {"timeout": "900ms"}
    )
    runtime = await guests(workshop, NEED + MIB, slow, quick)
    runtime.plugins["quick"].trust()
    assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["action"] == "allow"
    first = asyncio.create_task(runtime.call(Hook.CUSTOM, b"1"))
    await entered(held, 1)
    assert not runtime.plugins["quick"].get_ready()
    waits = asyncio.create_task(runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))
    await asyncio.sleep(0)
    held.go.set()
    assert (await waits)["action"] == "allow"
    await first


GROW = "(drop (memory.grow (i32.const {pages})))"


@pytest.mark.parametrize("inline", [True, False])
async def test_a_used_instance_that_has_grown_and_does_not_fit_is_not_kept(workshop, wat, inline):
    """What is kept leaves room for the largest call; a plugin that grows is answered all the same."""
    text = wat.module(hooks={"custom_hook": f"{GROW.format(pages=100)} {wat.echo}"})
    entry = await workshop.plugin(text, limits=LIMITS, isolation={"mode": "Pooled"})
    small = await guests(workshop, NEED + MIB, entry)
    large = await guests(workshop, NEED + 64 * MIB, entry)
    for runtime, kept in ((small, 0), (large, 1)):
        plugin, free = runtime.plugins["guest"], runtime.budget.free
        if inline:
            plugin.trust()
        for number in range(3):
            assert (await runtime.call(Hook.CUSTOM, b"%d" % number))["value"] == number
        assert plugin.inline is inline
        assert len(plugin._instances.ready) == kept
        assert free - runtime.budget.free == (plugin.each - 2 * 65536 if kept else -2 * 65536)
        assert runtime.budget.free >= NEED


async def test_what_others_keep_is_given_up_for_a_call():
    """Instances that wait for calls are a convenience; a call is not."""
    budget = Budget()
    budget.follow(plan(100))

    class Keeper:
        name, need, each = "keeper", 60, 20

        def __init__(self):
            self.kept = 0

        def shed(self):
            budget.give(self.kept * self.each)
            self.kept = 0

    keeper = Keeper()
    budget.add(keeper)
    while budget.keep(20):
        keeper.kept += 1
    assert (keeper.kept, budget.free) == (2, 60)
    await budget.enter(60, 1)
    waiting = asyncio.create_task(budget.enter(40, None))
    await asyncio.wait([waiting], timeout=10)
    assert waiting.done()
    assert (keeper.kept, budget.free) == (0, 0)
    with pytest.raises(OverloadError, match="all guests of this worker"):
        await budget.enter(101, 1)
    late = asyncio.create_task(budget.enter(100, None))
    small = asyncio.create_task(budget.enter(1, None))
    await asyncio.sleep(0)
    budget.give(60)
    await asyncio.sleep(0)
    assert not small.done()  # who came later does not go before who waits for more
    budget.give(40)
    await late
    budget.give(100)
    await small


async def test_a_plugin_with_calls_leaves_room_for_one_that_has_none():
    """And where there is none left, who has no call under way is next, whoever waits longer."""

    class Asker:
        name, each = "asker", 0

        def __init__(self, need):
            self.need = need

        def shed(self):
            """Nothing is kept."""

    budget = Budget()
    budget.follow(plan(200))
    greedy, honest = Asker(50), Asker(60)
    budget.add(greedy)
    budget.add(honest)
    await budget.enter(50, 1, greedy)
    await budget.enter(50, 1, greedy)
    third = asyncio.create_task(budget.enter(50, None, greedy))
    await asyncio.sleep(0)
    assert not third.done()
    assert budget.free == 100
    await budget.enter(60, 1, honest)
    another = asyncio.create_task(budget.enter(60, None, honest))
    await asyncio.sleep(0)
    assert budget.free == 40
    budget.leave(60, honest)
    await another
    assert not third.done()  # it came first, and has calls
    budget.leave(50, greedy)
    await asyncio.sleep(0)
    assert third.done()
    budget.leave(50, greedy)
    budget.leave(50, greedy)
    budget.leave(60, honest)
    assert budget.free == 200


async def test_a_bundle_that_does_not_fit_once_is_refused_with_the_sum(workshop, wat):
    """Before anything of it runs; the plugin is named, and how much memory would do."""
    entry = await workshop.plugin(wat.switch(), limits={"memory": "64Mi"})
    with pytest.raises(PrepareError) as refused:
        await guests(workshop, 60 * MIB, entry)
    assert refused.value.plugin == "guest"
    sentence = str(refused.value.reason)
    assert "one call of 'guest' may have 70Mi" in sentence
    assert "leaves 60Mi for the guests of each worker. Give the sidecar 218Mi, or lower limits.memory" in sentence


async def test_many_plugins_that_need_little_fit_although_their_limits_do_not(workshop, wat):
    """Twelve with the default of 64 MiB in a pod of 512 MiB: what counts is what they have, and one call."""
    entries = [await workshop.plugin(wat.switch(), f"p{number}") for number in range(12)]
    runtime = Runtime(kv=workshop.kv)
    workshop.started.append(runtime)
    runtime.budget.follow(Plan.of(512 * MIB, workers=1, state=64 * MIB))
    await runtime.load(Bundle.of(entries), workshop.find)
    assert (await runtime.call(Hook.CUSTOM, b"4")).get("failure") is None


async def test_what_waits_to_be_observed_counts_too(workshop, wat, held):
    """It leaves room for the largest call; what finds none is dropped and counted, as beyond its own bounds."""
    text = wat.module(
        imports=wat.host("hookline", "log", "i32 i32 i32", "i32"),
        hooks={"post_query": "(drop (call $log (i32.const 3) (i32.const 0) (i32.const 1))) (i64.const 0)"},
    )
    entry = await workshop.plugin(text, limits=LIMITS | {"timeout": "20s"})
    runtime = await guests(workshop, 2 * NEED + 2 * MIB, entry)
    plugin, data = runtime.plugins["guest"], bytes(60 * 1024)
    free = runtime.budget.free
    for _ in range(600):
        plugin.backlog.add(Hook.POST_QUERY, data)
    waits = (free - runtime.budget.free) // len(data)
    assert 0 < waits < 600
    assert runtime.budget.free >= NEED
    assert "wait already" in plugin.last_failure.message
    held.go.set()
    await runtime.drained()
    assert runtime.budget.free >= free  # its first instance is used up


async def test_inputs_of_calls_that_wait_are_bounded_in_bytes(workshop, wat, held, monkeypatch):
    """Each plugin has a share of what may wait; four may wait whatever their size, and beyond it is an overload."""
    monkeypatch.setattr("hookline_runtime.plugin.budget.WAITING", 120_000)
    limits = LIMITS | {"timeout": "20s", "concurrency": 1}
    slow = await workshop.plugin(logging_guest(wat), "slow", limits=limits | {"concurrency": 8})
    other = await workshop.plugin(wat.module(answers={"authorize": {"action": "allow"}}), "other", limits=limits)
    runtime = await guests(workshop, 2 * NEED - 1, slow, other)
    text = b'"%s"' % (b"x" * 10_000)
    first = asyncio.create_task(runtime.call(Hook.CUSTOM, b"1"))
    await entered(held, 1)
    waiting = [asyncio.create_task(runtime.call(Hook.CUSTOM, text)) for _ in range(5)]
    await asyncio.sleep(0)
    refused = await runtime.call(Hook.CUSTOM, text)
    assert refused["failure"] == "overload"
    message = runtime.plugins["slow"].last_failure.message
    assert message == "5 calls wait with 50010 bytes of input; 60000 bytes may wait for this plugin in one worker"
    held.go.set()
    assert {answer["value"] for answer in await asyncio.gather(*waiting)} == {"x" * 10_000}
    assert (await first)["value"] == 1
    assert (await runtime.call(Hook.CUSTOM, text))["value"] == "x" * 10_000


@pytest.mark.parametrize("size", [40_000, 10])
async def test_four_calls_may_wait_whatever_their_size(workshop, wat, held, monkeypatch, size):
    """So many large bodies are read at once; small ones wait as before."""
    monkeypatch.setattr("hookline_runtime.plugin.budget.WAITING", 1_000)
    entry = await workshop.plugin(logging_guest(wat), limits=LIMITS | {"timeout": "20s", "concurrency": 8})
    runtime = await guests(workshop, 2 * NEED - 1, entry)
    first = asyncio.create_task(runtime.call(Hook.CUSTOM, b"1"))
    await entered(held, 1)
    text = b'"%s"' % (b"x" * size)
    waiting = [asyncio.create_task(runtime.call(Hook.CUSTOM, text)) for _ in range(4 if size > 1_000 else 20)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    held.go.set()
    assert {answer["value"] for answer in await asyncio.gather(*waiting)} == {"x" * size}
    await first


async def test_clients_that_wait_to_be_observed_have_so_many_bytes_together():
    """Where answers wait for room, hundreds of clients kept their calls beside all that is counted."""
    budget, begun, go, dropped = Budget(), [], asyncio.Event(), []

    async def run(_, data):
        begun.append(data)
        await go.wait()

    backlog = Backlog(
        waits=True, run=run, dropped=lambda _, why: dropped.append(why), waited=lambda *_: None,
        idle=lambda: None, budget=budget,
    )  # fmt: skip
    data = bytes(2**20)
    waiting, taken = WAITING // len(data), 2 * MAX_BACKLOG_BYTES // len(data)
    tasks = [asyncio.create_task(backlog.put(Hook.POST_QUERY, data, Asker())) for _ in range(200)]
    await until_true(lambda: begun and sum(each.done() for each in tasks) == 200 - waiting, "calls that do not wait")
    assert len(backlog._waiting) == waiting
    assert len(begun) + len(backlog._calls) == taken
    assert len(dropped) == 200 - taken - waiting
    go.set()
    await asyncio.gather(*tasks)
    await backlog.drained()
    assert len(begun) + len(dropped) == 200
    assert backlog._waiting_bytes == 0
    backlog.close()
    assert budget.backlogs == 0


def test_of_what_is_too_much_the_one_is_named_that_is_new_and_largest():
    """What runs goes on; and where the sum is of many small ones, it is one of the new ones."""

    class Holder:
        def __init__(self, name, need, each):
            self.name, self.need, self.each = name, need, each

        def shed(self):
            """Has nothing."""

    budget = Budget()
    budget.follow(plan(100))
    runs, small, large = Holder("runs", 80, 10), Holder("small", 20, 15), Holder("large", 120, 5)
    budget.check([runs], running=set())
    for holders, blamed in (([runs, small], "small"), ([runs, large, small], "large"), ([runs, large], "large")):
        with pytest.raises(TooLargeError) as refused:
            budget.check(holders, running={"runs"})
        assert refused.value.plugin == blamed
    with pytest.raises(TooLargeError) as refused:
        budget.check([runs, small], running={"runs", "small"})
    assert refused.value.plugin == "runs"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_parts_of_a_plan_are_no_more_than_the_limit(workers):
    """However much the guests get of what there is."""
    for limit in (0, 100 * MIB, 200 * MIB, 512 * MIB, 2**32):
        made = Plan.of(limit, workers=workers, state=10 * MIB)
        for guests_have in (made.guests, made.most_guests):
            total = made.processes + made.state + workers * guests_have + made.child(guests_have)
            assert total <= max(limit, made.processes + made.state)
            assert made.child(guests_have) >= min(CHILD_LEAST, made.rest)
