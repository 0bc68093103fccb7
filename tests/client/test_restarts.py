"""Real sidecars that are killed, frozen, replaced and overloaded: what a proxy's calls get meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from hookline_api.hooks import Hook
from hookline_client import HookClient, Policy
from waiting import PATIENCE_S as DEADLINE
from waiting import until_true

UNANSWERED = {"lost", "unreachable"}


@pytest.fixture
def echo(new_sidecar, guests):
    """A sidecar whose custom hook answers its input, and whose pre_query blocks."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("echo", guests.module({"custom_hook": guests.echo}))
    sidecar.folder.plugin("guard", guests.answering(pre_query={"action": "block", "value": "no"}))
    return sidecar.start()


class Callers:
    """Tasks that go on to ask the custom hook, each call with a word of its own."""

    def __init__(self, hooks, count):
        self.answered = 0
        self.failed = []
        self._going = True
        self._hooks = hooks
        self._tasks = [asyncio.create_task(self._ask(n)) for n in range(count)]

    async def _ask(self, number):
        asked = 0
        while self._going:
            asked += 1
            decision = await self._hooks.custom([number, asked])
            if decision.action == "answered":
                assert decision.value == [number, asked], "the answer of another call"
                self.answered += 1
            else:
                assert decision.action == "block", decision
                self.failed.append(decision)
                await asyncio.sleep(0.01)  # the pace of a proxy that refuses its clients

    async def reach(self, count):
        """Return when so many more calls were answered."""
        goal = self.answered + count

        def reached():
            for task in self._tasks:
                assert not task.done(), task.result()
            return self.answered >= goal

        await until_true(reached, f"{count} more answers")

    async def end(self):
        """Stop after the calls under way."""
        self._going = False
        await asyncio.gather(*self._tasks)


async def test_a_sidecar_that_is_killed_and_started_again_is_asked_again(echo, caplog):
    """Meanwhile every call is refused with its cause; two lines tell of it, whatever the number of calls."""
    caplog.set_level(logging.INFO, "hookline.client")
    async with HookClient(str(echo.socket), timeout=DEADLINE) as hooks:
        callers = Callers(hooks, 12)
        await callers.reach(200)
        echo.end()
        await until_true(lambda: callers.failed and callers.failed[-1].failure == "unreachable", "nobody there")
        await asyncio.to_thread(echo.start)
        await callers.reach(200)
        await until_true(lambda: len(caplog.messages) >= 2, "a word about it")
        await callers.end()
        assert {decision.failure for decision in callers.failed} <= UNANSWERED
        assert sum(hooks.failures.values()) == len(callers.failed)
        assert len(caplog.messages) == 2
        assert "answers no hooks" in caplog.messages[0]
        assert f"answers hooks again; {len(callers.failed)} calls" in caplog.messages[1]


async def test_a_worker_that_is_killed_loses_only_the_calls_it_had(echo):
    """The socket stays: calls wait for the next worker, and none but those in flight is lost."""
    async with HookClient(str(echo.socket), timeout=DEADLINE, connections=2, depth=2) as hooks:
        callers = Callers(hooks, 12)
        await callers.reach(200)
        os.kill(echo.workers[0], signal.SIGKILL)
        await callers.reach(500)
        await callers.end()
        assert {decision.failure for decision in callers.failed} <= {"lost"}
        assert len(callers.failed) <= 4


async def test_a_change_of_plugins_fails_no_call(echo, guests):
    """Nor does a sidecar that reloads end a connection."""
    async with HookClient(str(echo.socket), timeout=DEADLINE) as hooks:
        callers = Callers(hooks, 4)
        await callers.reach(50)
        before = (await hooks.pre_query(query="q")).bundle
        echo.folder.plugin("guard", guests.answering(pre_query={"action": "continue"}), priority=3)

        async def changed():
            return (await hooks.pre_query(query="q")).bundle != before

        await until_true(changed, "another bundle")
        await callers.reach(50)
        await callers.end()
        assert not hooks.failures


async def test_calls_to_a_frozen_sidecar_end_at_their_deadline_and_it_is_asked_again(echo):
    """Nothing that it answers when it goes on is taken for the answer of a newer call."""
    async with HookClient(str(echo.socket), timeout=DEADLINE, connections=2) as hooks:
        await asyncio.gather(*(hooks.custom(n) for n in range(4)))
        workers = echo.workers
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            calls = [hooks.custom(n, timeout=0.2) for n in range(40)]
            assert {decision.failure for decision in await asyncio.gather(*calls)} == {"timeout"}
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        decisions = await asyncio.gather(*(hooks.custom(n) for n in range(100, 200)))
        assert [decision.value for decision in decisions] == list(range(100, 200))


async def test_a_sidecar_that_shuts_down_answers_or_refuses_and_opens_nothing(echo):
    """A guard that blocks is never passed, in whatever moment the sidecar goes."""
    policy = {Hook.PRE_QUERY: Policy.CLOSED}
    async with HookClient(str(echo.socket), timeout=DEADLINE, policy=policy) as hooks:
        answered = failed = 0
        stopping = None
        async with asyncio.timeout(DEADLINE):
            while not failed or not stopping.done():
                decisions = await asyncio.gather(*(hooks.pre_query(query="drop") for _ in range(20)))
                assert {decision.action for decision in decisions} == {"block"}
                failed += sum(decision.failure is not None for decision in decisions)
                answered += sum(decision.plugin == "guard" for decision in decisions)
                stopping = stopping or asyncio.create_task(asyncio.to_thread(echo.stop))
        assert await stopping == 0
        assert answered
        assert sum(hooks.failures.values()) == failed


async def test_a_plugin_that_is_overloaded_is_a_decision_of_the_sidecars(new_sidecar, guests):
    """Its failure policy has decided, and the client's has nothing to say."""
    sidecar = new_sidecar()
    limits = {"concurrency": 1, "timeout": "2s"}  # over a second: on threads, so that calls meet
    sidecar.folder.plugin("busy", guests.busy(50_000_000), limits=limits)
    sidecar.start()
    async with HookClient(str(sidecar.socket), timeout=DEADLINE, connections=40, depth=1) as hooks:
        decisions = await asyncio.gather(*(hooks.custom(n) for n in range(40)))
        failures = {decision.failure for decision in decisions}
        assert "overload" in failures
        assert all(decision.bundle for decision in decisions)
        assert not hooks.failures


async def test_more_calls_than_the_client_holds_are_refused_at_once(echo):
    """The others are answered: an overload hurts those that are too many."""
    async with HookClient(str(echo.socket), timeout=DEADLINE, connections=1, depth=1, queue=50) as hooks:
        decisions = await asyncio.gather(*(hooks.custom(n) for n in range(500)))
        failed = [decision for decision in decisions if decision.failure]
        assert {decision.failure for decision in failed} == {"overload"}
        assert [d.value for d in decisions if not d.failure] == [n for n, d in enumerate(decisions) if not d.failure]
        assert 50 <= len(decisions) - len(failed) <= 60
        assert (await hooks.custom("after")).value == "after"
