"""Calls are dropped at every point: nothing leaks, nothing crashes, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_api.hooks import Hook
from hookline_runtime.guest import calls
from hookline_runtime.plugin.backlog import Asker
from hookline_runtime.plugin.stats import Summary
from hookline_runtime.plugin.waits import Waits
from waiting import PATIENCE_S, until_true

_CANCELLED = max(3_000, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 2)
_ROUNDS = 5
_WAITS = 3
_GROWTH_KIB = 1024
"""What a process may have more after all rounds but the first: allocators take their time to come to rest."""

pytestmark = pytest.mark.skipif(calls._fibers_unfit is not None, reason=f"there are no fibers: {calls._fibers_unfit}")


def _resident_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def _drop_one(runtime, others, chance):
    """Begin a call, let it come to some point, and drop it there, by its client or by its task."""
    asker, answered = Asker(), chance.randrange(_WAITS + 1)
    later = runtime.answer(Hook.CUSTOM, b"%d" % chance.randrange(10))
    call = asyncio.ensure_future(later(asker))
    for _ in range(chance.randrange(4)):  # before it has begun, or has its permit
        await asyncio.sleep(0)
    for _ in range(answered):
        if others.open:
            others.answer_all()
        await asyncio.sleep(0)
    if chance.random() < 0.5:
        asker.leave()
    else:
        call.cancel()
    while not call.done():  # who left before it began is waited for no less: one that closes its side looks the same
        others.answer_all()
        await asyncio.sleep(0)
    if not call.cancelled():
        call.result()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_calls_that_are_dropped_at_any_point_leave_nothing(workshop, wat, others, mode):
    """Thousands of them (with HOOKLINE_FUZZ, as many as it says): memory stays flat, and all permits come back."""
    body = f"(drop {ASK})" * (_WAITS - 1) + ASK
    text = wat.module(imports=FETCH, hooks={"custom_hook": body})
    runtime = await workshop.guest(text, **SETTINGS, isolation={"mode": mode}, limits={"wait": "60s"})
    plugin, chance = runtime.plugins["guest"], random.Random(mode)
    plugin.trust()
    sizes = []
    for _ in range(_ROUNDS):
        for _ in range(_CANCELLED // _ROUNDS):
            await _drop_one(runtime, others, chance)
        await until_true(lambda: not plugin.permits.running, "all permits are back")
        sizes.append(_resident_kib())
    assert max(sizes[1:]) - sizes[0] < _GROWTH_KIB, f"resident memory, KiB: {sizes}"
    assert not others.open
    summary = Summary.of([plugin.hooks[Hook.CUSTOM].row.values()])
    assert summary.cancelled > _CANCELLED // 4
    assert not any(summary.failures.values())
    others.answer = b"1"
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


async def test_guests_that_wait_may_end_with_their_process(workshop, wat, others):
    """A runtime that is closed while calls are dropped gives everything back."""
    text = wat.module(imports=FETCH, hooks={"custom_hook": ASK})
    runtime = await workshop.guest(text, **SETTINGS, limits={"wait": "60s", "concurrency": 64})
    tasks = [asyncio.create_task(runtime.call(Hook.CUSTOM, b"0")) for _ in range(64)]
    await others.until(64)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await runtime.close()
    workshop.started.remove(runtime)
    assert others.cancelled == 64


async def test_a_call_that_waits_for_a_thread_is_cancelled_at_once():
    """Where all threads of its plugin are busy, nobody waits until one of them would have begun it."""
    go, begun = threading.Event(), []
    with ThreadPoolExecutor(1) as threads:
        threads.submit(go.wait)
        call = asyncio.create_task(Waits(1000).drive(lambda: begun.append(1), threads))
        await asyncio.sleep(0)
        call.cancel()
        try:
            await asyncio.wait([call], timeout=PATIENCE_S)
            assert call.cancelled()
        finally:
            go.set()
    assert not begun


async def test_a_call_for_which_there_is_no_thread_is_an_overload(workshop, wat, others, monkeypatch):
    """It is none of the guest's faults, and its breaker does not count it."""

    def submit(*_, **__):
        raise RuntimeError("can't start new thread")

    runtime = await workshop.guest(wat.module(imports=FETCH, hooks={"custom_hook": ASK}), **SETTINGS)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "overload"
    plugin = runtime.plugins["guest"]
    assert plugin.hooks[Hook.CUSTOM].breaker.failures == plugin.permits.running == 0
