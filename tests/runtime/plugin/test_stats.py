"""Statistics cost the same for the first call and for the millionth, and say what was."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_runtime.plugin.stats import (
    MAX_PLUGINS,
    PROMETHEUS_BOUNDS,
    TABLE_BYTES,
    StatsTable,
    Summary,
    upper_bound,
)


def _row(*times_ns: int):
    row = StatsTable().row(0, Hook.ROUTE)
    for ns in times_ns:
        row.count(ns)
    return row


def _count_all(row, ns: int) -> None:
    row.count(ns)
    row.count_failure("trap")
    row.count_fuel(ns)
    row.saw_memory(ns)


def _exact(times: list[int], share: float) -> int:
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


@settings(max_examples=300, deadline=None)
@given(
    times=st.lists(st.integers(4096, 100 * 10**9), min_size=1, max_size=60),
    share=st.sampled_from([0.5, 0.9, 0.99, 1]),
)
def test_a_quantile_is_right_within_19_percent(times, share):
    """From four microseconds to two minutes, beside the exact one of the same times."""
    found = Summary.of([_row(*times).values()]).quantile(share) * 1000
    assert found == pytest.approx(_exact(times, share), rel=0.19)


@given(times=st.lists(st.integers(0, 4095), min_size=1, max_size=60), share=st.sampled_from([0.5, 0.9, 0.99, 1]))
@settings(deadline=None)
def test_a_quantile_of_very_short_times_is_right_within_a_microsecond(times, share):
    """Below four microseconds the clock's own cost is as large."""
    found = Summary.of([_row(*times).values()]).quantile(share) * 1000
    assert found == pytest.approx(_exact(times, share), abs=1024)


def test_the_buckets_have_no_gap_and_no_overlap():
    """Each nanosecond falls into the bucket whose bounds are around it."""
    count = len(Summary.of([_row(1).values()]).buckets)
    bounds = [upper_bound(bucket) for bucket in range(count)]
    assert bounds == sorted(set(bounds))
    for bucket, bound in enumerate(bounds[:-1]):
        found = Summary.of([_row(bound - 1, bound).values()]).buckets
        assert (found[bucket], found[bucket + 1]) == (1, 1)
    assert bounds[-2] > 100 * 10**9
    assert Summary.of([_row(10**18).values()]).buckets[-1] == 1


def test_without_calls_there_is_no_quantile():
    """None, and not a zero that looks quick."""
    assert Summary.of([]).quantile(0.5) is None
    assert Summary.of([_row().values()]).quantile(0.99) is None


def test_counting_allocates_nothing_and_grows_nothing():
    """A hundred thousand calls later the table is as large as before."""
    row = _row()
    for ns in range(100):
        _count_all(row, ns)
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for ns in range(100_000):
        _count_all(row, ns * 1000)
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    grown = sum(
        stat.size_diff for stat in after.compare_to(before, "filename") if "stats.py" in stat.traceback[0].filename
    )
    assert grown < 1000
    assert len(row._words) == len(_row()._words)


def test_a_summary_is_the_sum_over_processes():
    """Counters add up, the memory is the largest, and quantiles are those of all calls."""
    one, two = StatsTable(), StatsTable()
    for table, ns, fuel, memory, failed in (
        (one, 10_000, 5, 100, None), (one, 20_000, 5, 70, "trap"), (two, 1_000_000, 1, 500, "overload"),
    ):  # fmt: skip
        row = table.row(3, Hook.ROUTE)
        row.count(ns)
        row.count_fuel(fuel)
        row.saw_memory(memory)
        if failed:
            row.count_failure(failed)
    two.row(3, Hook.ROUTE).count_skipped()
    two.row(3, Hook.REWRITE).count(1)
    summary = Summary.of([table.row(3, Hook.ROUTE).values() for table in (one, two)])
    assert (summary.calls, summary.skipped, summary.fuel, summary.memory) == (3, 1, 11, 500)
    assert summary.failures == {"trap": 1, "timeout": 0, "result": 0, "overload": 1, "store": 0}
    assert summary.seconds == pytest.approx(0.00103)
    assert summary.quantile(0.99) == pytest.approx(1000, rel=0.19)


def test_rows_of_plugins_and_hooks_do_not_touch_each_other():
    """The last of the table too, and clearing one plugin leaves its neighbours."""
    table = StatsTable(memoryview(bytearray(TABLE_BYTES + 100)))
    corners = [(plugin, hook) for plugin in (0, 1, MAX_PLUGINS - 1) for hook in (Hook.AUTHENTICATE, Hook.CUSTOM)]
    for place, (plugin, hook) in enumerate(corners, 1):
        for _ in range(place):
            table.row(plugin, hook).count_skipped()
    assert [table.row(*corner).values()[0] for corner in corners] == [1, 2, 3, 4, 5, 6]
    table.clear(1)
    assert [table.row(*corner).values()[0] for corner in corners] == [1, 2, 0, 0, 5, 6]
    assert sum(map(sum, (table.row(1, hook).values() for hook in Hook))) == 0


def test_prometheus_buckets_are_cumulative_and_end_with_all_calls():
    """As the exposition format wants them."""
    summary = Summary.of([_row(1000, 20_000, 3_000_000, 10**9).values()])
    counts = [count for _, count in summary.cumulative(PROMETHEUS_BOUNDS)]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    bounds = [bound for bound, _ in summary.cumulative(PROMETHEUS_BOUNDS)]
    assert bounds[0] == pytest.approx(16e-6, rel=0.05)
    assert all(later == pytest.approx(4 * earlier) for earlier, later in itertools.pairwise(bounds))
