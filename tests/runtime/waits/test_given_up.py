"""What a thread has given up touches no guest any more: its instance may be gone by then."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hookline_runtime.errors import DeadlineError
from hookline_runtime.guest.waiting import Waiter


@pytest.mark.parametrize("how", ["time", "end"])
def test_work_that_a_busy_loop_has_not_begun_never_begins(how) -> None:
    """The event loop gets to it after the thread has gone on: nothing of it runs."""
    loop, begun = asyncio.new_event_loop(), []

    async def work():
        begun.append(True)
        return 1

    waiter = Waiter(loop, limit_ms=1 if how == "time" else 600_000)
    if how == "end":
        threading.Timer(0.05, waiter.end, [DeadlineError("the process ends")]).start()
    assert waiter.wait(work()) is None
    assert isinstance(waiter.error, DeadlineError)
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert begun == []


async def test_work_that_has_begun_is_over_when_its_thread_goes_on() -> None:
    """Also what it does while it is cancelled."""
    steps, entered = [], asyncio.Event()

    async def work():
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("cancelled")

    waiter = Waiter(asyncio.get_running_loop(), limit_ms=60_000)

    def call():
        waiter.wait(work())
        steps.append("gone on")

    thread = asyncio.create_task(asyncio.to_thread(call))
    await entered.wait()
    waiter.end(DeadlineError("the process ends"))
    await thread
    assert steps == ["cancelled", "gone on"]
