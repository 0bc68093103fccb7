"""A guest asks again and again for what is answered without any waiting, such as what no rule allows."""

from __future__ import annotations

import asyncio
import time

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_api.hooks import Hook
from waiting import until_true

_EVER = f"(loop $ever (drop {ASK}) (br $ever)) (i64.const 0)"
_WORK_S = 0.001


@pytest.fixture
async def runtime(workshop, wat, way, others, monkeypatch):
    """A guest that asks for ever, and each answer takes a millisecond of the event loop's time."""

    async def fetch(*_):
        others.asked += 1
        time.sleep(_WORK_S)  # noqa: ASYNC251 - this is what it is about
        return b"{}"

    monkeypatch.setattr(others, "fetch", fetch)
    text = wat.module(imports=FETCH, hooks={"custom_hook": _EVER})
    return await workshop.guest(text, **SETTINGS, limits={"timeout": 1000, "wait": "200ms"})


async def _turns_until(tasks):
    """The event loop's turns that others had meanwhile."""
    turns = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        turns += 1
    return turns


@pytest.mark.parametrize("inline", [True, False])
async def test_a_guest_that_asks_without_waiting_is_cut_at_its_limit(runtime, others, inline):
    """What the answers take is a part of limits.wait, though no time-out of the event loop can come in between."""
    if inline:
        runtime.plugins["guest"].trust()
    answer = await runtime.call(Hook.CUSTOM, b"0")
    assert answer["failure"] == "timeout"
    assert "limits.wait (200 ms)" in runtime.plugins["guest"].last_failure.message
    assert 1 <= others.asked <= 0.2 / _WORK_S + 1


@pytest.mark.parametrize("inline", [True, False])
async def test_others_have_their_turn_while_guests_ask_without_waiting(runtime, others, inline):
    """Calls of one plugin that never wait have few milliseconds of each turn together, however many they are."""
    if inline:
        runtime.plugins["guest"].trust()
    calls = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"0")) for _ in range(4)]
    turns = await _turns_until(calls)
    assert turns >= others.asked / 4  # two or three answers in a turn, of which there are hundreds
    assert {call.result()["failure"] for call in calls} == {"timeout"}


async def test_a_guest_that_asks_without_waiting_ends_with_the_process(runtime, others):
    """It is answered by policy when the time of the others is over, and not at its own limit."""
    runtime.plugins["guest"].trust()
    call = asyncio.create_task(runtime.call(Hook.CUSTOM, b"0"))
    await until_true(lambda: others.asked, "it asks")
    runtime.end_waits(asyncio.get_running_loop().time())
    assert (await call)["failure"] == "timeout"
    assert "the process ends" in runtime.plugins["guest"].last_failure.message
