"""Large results are read on threads beside the event loop's, which have the interpreter for moments alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hookline_runtime.host.backends import postgres_statement as statement
from hookline_runtime.host.backends import postgres_values as values
from hookline_runtime.host.query_errors import QueryError
from waiting import PATIENCE_S, until_true

_TEXTS = values.encoder(1009)
_MANY = b"{" + b",".join(b'"an item"' for _ in range(10_000)) + b"}"
_LARGE = "select array_agg('item ' || i) from generate_series(1, 20000) i"


def test_whoever_reads_beside_the_event_loop_lets_it_go_on_all_the_time(monkeypatch):
    """Without that, a thread keeps the interpreter for 5 ms at a time, and calls wait for as long."""
    breaths = []
    monkeypatch.setattr(values.time, "sleep", breaths.append)
    with values.beside(threading.Event()):
        _TEXTS(_MANY)
    assert len(breaths) >= 20_000 // 128
    breaths.clear()
    _TEXTS(_MANY)  # on the event loop's own thread
    assert not breaths


def test_what_nobody_waits_for_is_not_read_to_its_end():
    """A result of 16 MiB takes many seconds of a thread that others wait for."""
    given_up = threading.Event()
    given_up.set()
    with values.beside(given_up), pytest.raises(QueryError, match="nobody waits"):
        _TEXTS(_MANY)
    assert _TEXTS(b"{a}") == b'["a"]'


async def test_a_call_that_is_cancelled_gives_its_thread_back(make, monkeypatch):
    """And that is none of the event loop's own, which reloads and other plugins' keys need."""
    begun, ended = threading.Event(), []

    def read(_taker, _result, given_up):
        begun.set()
        ended.append((given_up.wait(PATIENCE_S), threading.current_thread().name))

    monkeypatch.setattr(statement, "_read", read)
    source = make()
    asking = asyncio.create_task(source.ask(_LARGE))
    await until_true(begun.is_set, "a large result")
    asking.cancel()
    await asyncio.wait([asking])
    await until_true(lambda: ended, "the end of the thread's work")
    [(was_told, name)] = ended
    assert was_told
    assert name.startswith("hookline-rows")
    await source.idle()


async def test_a_large_result_is_whole(make):
    """Whichever thread has read it."""
    rows = await make().one(_LARGE)
    assert rows == [f"item {number}" for number in range(1, 20_001)]
