"""What works on artifacts has threads of its own, and nobody has all of them."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings

import pytest

from hookline_artifacts import threads
from hookline_artifacts.errors import FetchError
from hookline_artifacts.threads import in_thread, on_behalf_of


async def test_whoever_blocks_all_that_they_may_have_leaves_the_rest_to_others():
    """Seven jobs of one namespace that never end: its own wait, another's and the default executor's do not."""
    ends = threading.Event()
    try:
        with on_behalf_of("hostile"):
            stuck = [asyncio.create_task(in_thread(ends.wait)) for _ in range(7)]
        await asyncio.sleep(0)
        with on_behalf_of("other"):
            assert await in_thread(threading.current_thread) is not threading.main_thread()
            assert (await in_thread(lambda: threading.current_thread().name)).startswith("artifacts")
        assert not (await asyncio.to_thread(lambda: threading.current_thread().name)).startswith("artifacts")
        assert threads._pool._running["hostile"] == threads.OF_ONE_SHARE
    finally:
        ends.set()
    assert await asyncio.gather(*stuck) == [True] * 7


async def test_more_than_may_wait_is_refused(monkeypatch):
    """Transiently: it is tried again."""
    ends = threading.Event()
    monkeypatch.setattr(threads, "MAX_WAITING", 3)
    try:
        waiting = [asyncio.create_task(in_thread(ends.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(FetchError, match="too many artifacts") as caught:
            await in_thread(ends.wait)
        assert caught.value.transient
    finally:
        ends.set()
    await asyncio.gather(*waiting)


async def test_what_fails_or_is_given_up_frees_its_place():
    """An error comes to who asked; a job that was cancelled while it waited is never begun."""
    ends, began = threading.Event(), []
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)
    stuck = [asyncio.create_task(in_thread(ends.wait)) for _ in range(threads.OF_ONE_SHARE)]
    await asyncio.sleep(0)
    late = asyncio.create_task(in_thread(began.append, 1))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait({late})
    ends.set()
    await asyncio.gather(*stuck)
    assert await in_thread(lambda: 7) == 7
    assert not began


def test_a_process_that_was_forked_has_threads_of_its_own():
    """Its parent's are not there."""
    assert asyncio.run(in_thread(lambda: 1)) == 1
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer interpreters warn of forks beside threads
        child = os.fork()
    if not child:
        try:
            os.write(writing, b"%d" % asyncio.run(in_thread(lambda: 2)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"2"
    os.close(reading)
    os.close(writing)
