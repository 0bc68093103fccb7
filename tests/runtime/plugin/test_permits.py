"""Permits for calls: processes that have one limit together keep it, exactly, and none of them is left out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import random
import signal
import time

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.errors import OverloadError, TrapError
from hookline_runtime.plugin.permits import Permits, SharedPermits

PLUGIN = {"plugin": 7, "key": "guest one"}


@pytest.fixture
def shared(tmp_path):
    """What three processes share."""
    made = SharedPermits(tmp_path / "permits", 3)
    yield made
    made.close()


@pytest.fixture
async def members(shared):
    """The three, on one event loop: locks of two open files exclude each other within a process too."""
    made = [shared.join(process) for process in range(3)]
    for each in made:
        each.listen()
    yield made
    for bell in shared.bells:
        asyncio.get_running_loop().remove_reader(bell)


@pytest.fixture
def permits(members):
    """Makes the permits of one plugin in each of them."""
    with contextlib.ExitStack() as stack:

        def make(limit, *, most=16, **named):
            made = [each.make_permits(limit=limit, most=most, **PLUGIN | named) for each in members]
            for each in made:
                stack.callback(each.close)
            return made

        yield make


async def taken(permits, count):
    """Take so many."""
    for _ in range(count):
        await permits.enter(0.001)


async def test_the_limit_is_one_for_all(permits):
    """Whoever takes them; and no permit has to be taken by two."""
    first, second, third = permits(5)
    await taken(first, 2)
    await taken(second, 1)
    await taken(third, 2)
    for each in (first, second, third):
        with pytest.raises(OverloadError, match="waited 1 ms for one of 5 calls to end"):
            await each.enter(0.001)
    second.leave()
    await first.enter(20)
    assert [each.running for each in (first, second, third)] == [3, 0, 2]
    assert sum(each.held for each in (first, second, third)) == 5


async def test_one_process_may_have_them_all_but_for_its_own_limit(permits):
    """Nothing is reserved for who does not need it."""
    first, second, _ = permits(20, most=16)
    await taken(first, 16)
    assert not first.get()
    await taken(second, 4)
    assert not second.get()


async def test_a_permit_that_was_needed_once_is_kept(permits, monkeypatch):
    """Calls that follow each other ask the system for nothing."""
    first, second, _ = permits(4)
    await taken(first, 2)
    first.leave()
    first.leave()
    asked = []
    monkeypatch.setattr(fcntl, "fcntl", lambda *arguments: asked.append(arguments))
    for _ in range(100):
        await first.enter(0)
        first.leave()
    assert not asked
    assert (first.held, second.held) == (2, 0)


async def test_an_idle_permit_comes_to_who_asks_for_it(permits):
    """One that lies idle elsewhere neither delays nor fails a call."""
    first, second, _ = permits(1)
    await taken(first, 1)
    first.leave()
    assert (first.running, first.held) == (0, 1)
    await second.enter(20)
    assert (first.held, second.held) == (0, 1)


async def test_a_busy_process_leaves_a_permit_to_others(permits):
    """Also where calls wait in it, one behind the other, all the time: who came first does not keep all."""
    first, second, _ = permits(1)
    going, ended = True, []

    async def crowd():
        while going:
            await first.enter(20)
            await asyncio.sleep(0)  # the call
            first.leave()
            ended.append(1)

    async def more(calls):
        goal = len(ended) + calls
        while len(ended) < goal:  # noqa: ASYNC110 - the calls go on meanwhile
            await asyncio.sleep(0)

    crowds = [asyncio.create_task(crowd()) for _ in range(4)]
    await more(100)
    for _ in range(5):
        await second.enter(20)
        assert not first.running
        second.leave()
    await more(100)
    going = False
    await asyncio.gather(*crowds)
    assert first.running == second.running == 0


async def test_waiting_is_bounded_by_number_and_time(permits):
    """Four times the limit in each process; and who gives up keeps no permit and no turn."""
    first, second, third = permits(3)
    await taken(first, 3)
    waiting = [asyncio.create_task(second.enter(20)) for _ in range(12)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadError, match=r"0 calls run and 12 wait; limits.concurrency allows 3"):
        await second.enter(20)
    for each in waiting[3:]:
        each.cancel()
    for _ in range(3):
        first.leave()
    await asyncio.gather(*waiting[:3])
    assert second.running == 3
    for _ in range(3):
        second.leave()
    for _ in range(3):
        await third.enter(20)


async def test_revisions_and_plugins_have_limits_of_their_own(permits):
    """By their key, also where they have the same number."""
    old, *_ = permits(2)
    new, other, _ = permits(2, key="guest two")
    await taken(old, 2)
    await taken(new, 2)
    assert not other.get()
    again, *_ = permits(2)
    assert not again.get(), "the same revision, loaded once more in the same process"


async def test_closing_gives_all_back_and_takes_nothing_more(permits):
    """And closes its file once, whoever has the number by then."""
    first, second, _ = permits(2)
    await taken(first, 2)
    first.leave()
    first.leave()
    first.close()
    with open(os.devnull) as other:  # noqa: ASYNC230, PTH123 - takes the number
        first.close()
        os.fstat(other.fileno())
        assert not first.get()
        await taken(second, 2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda how: how.name)
async def test_what_a_dead_process_held_is_there_at_once(shared, permits, how):
    """Killed in a call, it needs not say so. One that is only stopped keeps what it has."""
    first, *_ = permits(3)
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            mine = shared.join(1).make_permits(limit=3, most=16, **PLUGIN)
            while mine.get():
                pass
            os.write(tell, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        await asyncio.to_thread(os.read, ready, 1)
        assert not first.get()
        os.kill(pid, how)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        if how == signal.SIGKILL:
            await first.enter(20)
            await taken(first, 2)
        else:
            with pytest.raises(OverloadError):
                await first.enter(0.05)
    finally:
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)
        os.close(ready)
        os.close(tell)


def contend(shared, process, limit, counts, lock, gate):
    """In a process of its own: 120 calls by 4 clients, once the gate is closed by all that have it open.

    ``counts`` is how many calls run, the most that did, and all.
    """
    random.seed(process)
    os.read(gate, 1)

    def change(by):
        fcntl.flock(lock, fcntl.LOCK_EX)
        counts[0] += by
        counts[1] = max(counts[1], counts[0])
        counts[2] += by > 0
        fcntl.flock(lock, fcntl.LOCK_UN)

    async def run():
        member = shared.join(process)
        member.listen()
        permits = member.make_permits(limit=limit, most=16, **PLUGIN)

        async def client():
            for _ in range(30):
                await permits.enter(60)
                change(1)
                if random.random() < 0.5:
                    await asyncio.sleep(random.random() / 500)
                change(-1)
                permits.leave()

        await asyncio.gather(*(client() for _ in range(4)))

    asyncio.run(run())


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_real_processes_keep_the_limit_and_all_get_through(shared, tmp_path, limit):
    """Three processes that want more than there is, in calls of all lengths: never one too many, and none starves."""
    counts = memoryview(mmap.mmap(-1, 24)).cast("q")
    gate, closed = os.pipe()
    pids = []
    for process in range(3):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(closed)
                with (tmp_path / "lock").open("w") as lock:
                    contend(shared, process, limit, counts, lock, gate)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(closed)  # otherwise the first is done before the last begins
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    os.close(gate)
    running, most, calls = counts
    assert (running, calls) == (0, 360)
    assert 1 <= most <= limit  # how many meet is the scheduler's affair; that all may be taken is tested above


async def test_a_process_alone_counts(monkeypatch):
    """No file, no lock."""
    monkeypatch.delattr(fcntl, "fcntl")
    permits = Permits(2, most=16)
    await taken(permits, 2)
    waiting = asyncio.create_task(permits.enter(20))
    await asyncio.sleep(0)
    assert not waiting.done()
    permits.leave()
    await waiting
    assert permits.running == 2
    assert not permits.get()


def test_a_file_without_locks_is_refused_with_a_sentence(tmp_path):
    """At the start, and not at a call."""
    with pytest.raises(OSError, match="nowhere/permits: No such file"):
        SharedPermits(tmp_path / "nowhere" / "permits", 2)


@pytest.mark.usefixtures("unhurried")
async def test_a_quick_plugin_that_waited_for_a_permit_runs_on_the_loop_all_the_same(members, workshop, wat):
    """It wanted a permit, and no thread; and two processes that have one permit for both fail no call."""
    entry = await workshop.plugin(wat.switch(), limits={"concurrency": 1, "timeout": "900ms"})
    runtimes = [await workshop.run(entry, member=member) for member in members[:2]]
    plugins = [runtime.plugins["guest"] for runtime in runtimes]
    for plugin in plugins:
        plugin.trust()
    for _ in range(20):
        for runtime in runtimes:
            decision = await runtime.call(Hook.CUSTOM, b"0")
            assert "failure" not in decision, decision
    assert [plugin._runs._threads for plugin in plugins] == [None, None]
    assert [plugin.permits.running for plugin in plugins] == [0, 0]
    assert sum(plugin.permits.held for plugin in plugins) == 1
    for runtime in runtimes:
        await runtime.close()
    assert [plugin.permits.held for plugin in plugins] == [0, 0]


@pytest.mark.usefixtures("unhurried")
async def test_quick_calls_that_wait_for_a_permit_of_another_process_are_no_overload(members, workshop, wat):
    """In one process all of them would have waited in their connections; while the permit travels, they wait here."""
    entry = await workshop.plugin(wat.switch(), limits={"concurrency": 1, "timeout": "900ms"})
    runtime = await workshop.run(entry, member=members[0])
    runtime.plugins["guest"].trust()
    other = members[1].make_permits(plugin=0, key=f"{entry.name} {entry.revision}", limit=1, most=16)
    await other.enter(20)
    calls = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"0")) for _ in range(100)]
    await asyncio.sleep(0)
    other.leave()
    assert [answer for answer in await asyncio.gather(*calls) if "failure" in answer] == []
    other.close()


@pytest.mark.usefixtures("unhurried")
async def test_a_trial_that_waited_for_a_permit_is_one_trial(members, workshop, wat, monkeypatch):
    """The circuit breaker lets one call through, and that one runs, though it was asked twice."""
    entry = await workshop.plugin(wat.switch(), limits={"concurrency": 1, "timeout": "900ms"})
    runtime = await workshop.run(entry, member=members[0])
    plugin = runtime.plugins["guest"]
    plugin.trust()
    breaker = plugin.hooks[Hook.CUSTOM].breaker
    now = time.monotonic()
    for _ in range(5):
        breaker.count_failure(TrapError)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    other = members[1].make_permits(plugin=0, key=f"{entry.name} {entry.revision}", limit=1, most=16)
    await other.enter(20)
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    call = asyncio.create_task(runtime.call(Hook.CUSTOM, b"0"))
    await asyncio.sleep(0)
    other.leave()
    assert "failure" not in await call
    assert not breaker.failures
    other.close()
