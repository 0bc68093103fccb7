"""Results are bounded while they come: the process never holds what is over a cap."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import pytest

from host_calls import Memory

_TIMES = 4
_ALLOWED = 40 * 2**20


def _resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _most() -> int:
    """Bytes that it had at the most since ``_forget``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _forget() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is what it is now
    return _resident()


async def test_a_result_has_as_many_rows_as_it_may(make):
    """And not one more."""
    source = make(maxRows=100)
    assert (await source.ask("select generate_series(1, 100)"))["rowCount"] == 100
    assert await source.error("select generate_series(1, 101)") == ("limit", None)
    await source.idle()
    assert await source.one("select 1") == 1


async def test_a_result_has_as_many_bytes_as_it_may(make):
    """Of its JSON."""
    source = make(maxBytes="64Ki")
    assert len(await source.one("select repeat('x', 65000)")) == 65000
    assert await source.error("select repeat('x', 65536)") == ("limit", None)
    assert await source.error("select repeat('x', 700) from generate_series(1, 100)") == ("limit", None)
    assert await source.error("select repeat('\"', 40000)") == ("limit", None)


@pytest.mark.parametrize(
    "sql",
    [
        "select repeat('x', 100000000)",
        "select decode(repeat('00', 50000000), 'hex')",
        "select generate_series(1, 1000000), repeat('x', 100)",
        "do $$ begin for i in 1..100 loop raise notice '%', repeat('x', 1000000); end loop; end $$",
        "do $$ begin raise exception '%', repeat('x', 100000000); end $$",
        "select set_config('my.own', repeat('x', 100000000), false)",
        "select array_agg(i) from generate_series(1, 5000000) i",
    ],
    ids=["row", "bytea", "rows", "notices", "error", "setting", "array"],
)
async def test_what_is_far_over_a_cap_is_never_in_memory(make, sql):
    """A row of 100 MB, a million rows: not even in libpq's."""
    source = make(statementTimeout="60s", wait="60s", maxRows=100_000)
    assert await source.one("select 1") == 1
    grown = []
    while len(grown) < _TIMES and (not grown or min(grown) >= _ALLOWED):  # others work in this process, too
        before = _forget()
        assert (await source.error(sql))[0] == "limit"
        grown.append(_most() - before)
        await source.idle()
    assert min(grown) < _ALLOWED, f"{min(grown) / 2**20:.0f} MiB"
    assert await source.one("select 1") == 1
    assert source.unavailable == {}


async def test_a_result_of_the_largest_size_comes_whole(make):
    """What is small as JSON and large on the wire is not cut short."""
    source = make(maxBytes="1Mi", maxRows=100_000)
    answer = await source.ask("select 1 from generate_series(1, 99000)")
    assert answer["rowCount"] == 99_000
    answer = await source.ask("select i%10, 1, 2, null, true from generate_series(1, 40000) i")
    assert answer["rowCount"] == 40_000


@pytest.mark.parametrize(
    "sql",
    [
        "select array_agg('item ' || i) from generate_series(1, 90000) i",
        "select array_agg('item ' || i) from generate_series(1, 90000) i group by i % 50",
    ],
    ids=["one value", "rows"],
)
async def test_a_large_result_is_not_read_on_the_event_loop(make, sql):
    """The loop turns while a hundred thousand items become JSON."""
    source = make(maxBytes="16Mi")
    assert await source.one("select 1") == 1
    longest, last = 0, 0
    turning = True

    async def turn() -> None:
        nonlocal longest, last
        while turning:
            last = time.thread_time_ns()  # of this thread: what other processes do to it is no fault of ours
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time_ns() - last)

    watching = asyncio.create_task(turn())
    memory = Memory(200)
    answer = await source.functions["query_execute"](memory, *memory.put(0, b"db"), *memory.put(10, sql.encode()), 0, 0)
    turning = False
    await watching
    assert answer.count(b"item") >= 90_000
    assert longest < 50_000_000


async def test_memory_is_flat_over_results_that_are_too_large(make):
    """Each ends its connection, and nothing of it is left."""
    source = make()

    async def some() -> None:
        for _ in range(20):
            assert (await source.error("select repeat('x', 6000000)"))[0] == "limit"
            await source.idle()

    await some()
    before = _resident()
    await some()
    assert _resident() - before < 8 * 2**20


async def test_a_column_list_is_bounded_too(make):
    """Names count as bytes of the result."""
    source = make(maxBytes="1Ki")
    many = ", ".join(f"1 as {'c' * 50}{number}" for number in range(100))
    assert await source.error(f"select {many}") == ("limit", None)
