"""A plugin that keeps trapping or timing out is paused, for longer each time, and comes back."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.errors import TrapError
from hookline_runtime.plugin import breaker as breaker_module
from hookline_runtime.plugin import plugin as plugin_module
from hookline_runtime.plugin.stats import Summary

_OK, _TRAP, _LOOP, _NONSENSE, _SILENT = b"0", b"1", b"2", b"3", b"4"


class Clock:
    """The breaker's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0


def _counted(runtime, hook):
    summary = Summary.of([runtime._stats.row(0, hook).values()])
    return summary.calls, summary.skipped


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the plugin and its breakers take for the time; the event loop keeps the real one."""
    made = Clock()
    fake = SimpleNamespace(
        monotonic=lambda: made.now,
        perf_counter_ns=time.perf_counter_ns,
        thread_time_ns=time.thread_time_ns,
        time=time.time,
    )
    for module in breaker_module, plugin_module:
        monkeypatch.setattr(module, "time", fake)
    return made


@pytest.fixture
async def guest(workshop, wat):
    """A runtime with one plugin that does what the first byte of its input says, and a way to call it."""
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "10ms", "input": 100, "concurrency": 2})

    async def call(body: bytes) -> dict[str, object]:
        return await runtime.call(Hook.CUSTOM, body)

    row = runtime._stats.row(0, Hook.CUSTOM)
    return SimpleNamespace(
        call=call,
        plugin=runtime.plugins["guest"],
        breaker=runtime.plugins["guest"].hooks[Hook.CUSTOM].breaker,
        ran=lambda: Summary.of([row.values()]).calls,
        skipped=lambda: Summary.of([row.values()]).skipped,
    )


@pytest.mark.parametrize(("body", "cause"), [(_TRAP, "trap"), (_LOOP, "timeout")])
@pytest.mark.usefixtures("clock")
async def test_five_failures_in_a_row_pause_it(guest, body, cause, caplog):
    """From then on calls are answered at once, with the cause that opened the breaker, and said so once."""
    for _ in range(5):
        assert (await guest.call(body))["failure"] == cause
    for _ in range(3):
        assert (await guest.call(_OK))["failure"] == cause
    assert (guest.ran(), guest.skipped()) == (5, 3)
    assert guest.breaker.open_for == 1.0
    off = [record.getMessage() for record in caplog.records if "is paused" in record.getMessage()]
    assert len(off) == 1
    assert "for 1 s after 5 failures" in off[0]


async def test_after_the_pause_one_good_call_brings_it_back(guest, clock):
    """And the next failures count from zero, with the first pause again."""
    for _ in range(5):
        await guest.call(_TRAP)
    clock.now += 1.0
    assert (await guest.call(_OK))["value"] == 0
    assert guest.breaker.open_for == 0
    for _ in range(4):
        await guest.call(_TRAP)
    assert (await guest.call(_OK))["value"] == 0


async def test_the_pause_doubles_up_to_a_minute(guest, clock):
    """Each trial that fails: 1, 2, 4 … 60, 60 seconds."""
    for _ in range(5):
        await guest.call(_TRAP)
    pauses = []
    for _ in range(9):
        pauses.append(guest.breaker.open_for)
        clock.now += pauses[-1] - 0.5
        await guest.call(_TRAP)
        clock.now += 0.5
        ran = guest.ran()
        await guest.call(_TRAP)
        assert guest.ran() == ran + 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_only_one_trial_runs_at_a_time(guest, clock):
    """A plugin that loops must not hold every caller for one more deadline."""
    for _ in range(5):
        await guest.call(_TRAP)
    clock.now += 1
    answers = await asyncio.gather(*(guest.call(_LOOP) for _ in range(5)))
    assert guest.ran() == 6
    assert guest.skipped() == 4
    assert {answer["failure"] for answer in answers} == {"timeout", "trap"}


@pytest.mark.parametrize("spoiler", ["too long", "gone", "nonsense", "silent"])
async def test_a_trial_that_is_neither_good_nor_bad_does_not_pause_it_for_ever(guest, clock, spoiler):
    """Its input was too long, its caller went away, or the guest came back with something that is not an answer."""
    for _ in range(5):
        await guest.call(_TRAP)
    clock.now += 1
    if spoiler == "too long":
        assert (await guest.call(b'"' + b"x" * 200 + b'"'))["failure"] == "overload"
    elif spoiler == "gone":
        task = asyncio.create_task(guest.call(_OK))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while guest.plugin.permits.running:  # noqa: ASYNC110 - there is no event for a call that nobody waits for
            await asyncio.sleep(0)
    elif spoiler == "nonsense":
        assert (await guest.call(_NONSENSE))["failure"] == "result"
    else:
        assert (await guest.call(_SILENT))["action"] == "empty"
    assert (await guest.call(_OK))["value"] == 0


async def test_a_trial_that_gives_up_waiting_for_its_turn_does_not_pause_it(guest, clock):
    """The permits are taken by calls that were under way when the breaker opened."""
    permits = guest.plugin.permits
    for _ in range(2):
        await permits.enter(0)
    for _ in range(5):
        guest.breaker.count_failure(TrapError)
    clock.now += 1
    task = asyncio.create_task(guest.call(_OK))
    await asyncio.sleep(0)
    assert permits._waiting
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(2):
        permits.leave()
    clock.now += 10
    assert (await guest.call(_OK))["value"] == 0


@pytest.mark.usefixtures("clock")
async def test_answers_that_are_no_decision_do_not_open_the_breaker(guest):
    """The guest comes back quickly; it is not the runtime that needs protection."""
    for _ in range(20):
        assert (await guest.call(_NONSENSE))["failure"] == "result"
    assert guest.skipped() == 0


@pytest.mark.usefixtures("clock")
async def test_inputs_that_are_too_long_do_not_open_the_breaker(guest):
    """Nothing that a client sends pauses a plugin for others."""
    for _ in range(20):
        await guest.call(b'"' + b"x" * 200 + b'"')
    assert (await guest.call(_OK))["value"] == 0


@pytest.mark.usefixtures("clock")
async def test_each_hook_has_a_breaker_of_its_own(workshop, wat):
    """A plugin whose ``metrics`` traps still guards queries."""
    text = wat.module(hooks={"route": "unreachable"}, answers={"pre_query": {"action": "block", "value": "no"}})
    runtime = await workshop.guest(text)
    for _ in range(7):
        assert (await runtime.call(Hook.ROUTE, b'{"query": ""}'))["failure"] == "trap"
        assert (await runtime.call(Hook.PRE_QUERY, b'{"query": ""}'))["value"] == "no"
    assert _counted(runtime, Hook.ROUTE) == (5, 2)


async def test_a_paused_plugin_answers_as_its_policy_for_the_cause_says(workshop, wat, clock):
    """Open for traps means as if it were not there, also while it does not run at all."""
    runtime = await workshop.guest(
        wat.switch(), limits={"timeout": "10ms"}, failurePolicy={"trap": "Open", "timeout": "Closed"}
    )
    for _ in range(8):
        assert (await runtime.call(Hook.CUSTOM, _TRAP))["action"] == "empty"
    clock.now += 1
    assert (await runtime.call(Hook.CUSTOM, _LOOP))["action"] == "block"
    assert (await runtime.call(Hook.CUSTOM, _OK))["action"] == "block"
    assert _counted(runtime, Hook.CUSTOM)[1] == 4


async def test_failures_are_logged_once_per_change_of_state(guest, clock, caplog):
    """And not faster than a person reads, where one call in two fails."""
    for _ in range(10):
        await guest.call(_NONSENSE)
    for _ in range(50):
        await guest.call(_OK)
        await guest.call(_NONSENSE)
    assert [record.getMessage() for record in caplog.records if "failed" in record.getMessage()] == [
        record.getMessage() for record in caplog.records
    ]
    assert len(caplog.records) == 1
    await guest.call(_OK)
    clock.now += 10
    await guest.call(_NONSENSE)
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("clock")
async def test_the_pause_survives_a_change_of_another_plugin(workshop, wat):
    """A bundle that carries the plugin over carries its breaker."""
    from hookline_api.bundle import Bundle

    bad = await workshop.plugin(wat.switch(), "bad")
    runtime = await workshop.run(bad)
    for _ in range(5):
        await runtime.call(Hook.CUSTOM, _TRAP)
    other = await workshop.plugin(wat.configured(), "other")
    await runtime.load(Bundle.of([bad, other]), workshop.find)
    assert (await runtime.call(Hook.CUSTOM, _OK))["failure"] == "trap"
