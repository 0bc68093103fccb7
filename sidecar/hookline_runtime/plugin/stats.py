"""Statistics at constant cost per call: a few additions in an array, whatever has been counted before.

One ``StatsTable`` is an array of 64-bit words in memory that its owner chose: private in an embedded runtime,
shared with the supervisor in a sidecar's worker, so that figures over all workers are sums of arrays, and a
worker that dies loses none. A *row* belongs to one plugin and hook. A table has one writing thread (the
worker's event loop); readers may see a call half counted, never a wrong word.

A call that succeeds adds to two words: its time, and its time's bucket. Calls are not counted apart; they are the
sum over the buckets. Buckets are fixed, four to each doubling from 4 µs to two minutes and of 1 µs below. A
quantile is the middle of its bucket, so it is right within 13 %, and within half a microsecond below 4 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_api.hooks import Hook

if TYPE_CHECKING:
    from hookline_api.bundle import CallCause

MAX_PLUGINS: Final = 256
"""Plugins that have rows at the same time."""

CAUSES: Final = ("trap", "timeout", "result", "overload", "store")
_HOOK_INDEX: Final = {hook: index for index, hook in enumerate(Hook)}

_SKIPPED: Final = 0
_TIME: Final = 1
_FUEL: Final = 2
_MEMORY: Final = 3
_DROPPED: Final = 4
_WAITED: Final = 5
_WAITED_TIME: Final = 6
_ALONE: Final = 7
_LATE: Final = 8
_CANCELLED: Final = 9
_FAILURES: Final = 10
_BUCKETS: Final = _FAILURES + len(CAUSES)
_BUCKET_COUNT: Final = 104
_WORDS: Final = _BUCKETS + _BUCKET_COUNT
_PER_PLUGIN: Final = _WORDS * len(Hook)

TABLE_BYTES: Final = MAX_PLUGINS * _PER_PLUGIN * 8
"""Size of one table. Pages that no plugin uses are never touched."""


class StatsTable:
    """The counters of one process. ``memory`` holds at least ``TABLE_BYTES`` zeroed bytes."""

    def __init__(self, memory: memoryview | None = None) -> None:
        self._words = (memoryview(bytearray(TABLE_BYTES)) if memory is None else memory)[:TABLE_BYTES].cast("Q")

    def row(self, plugin: int, hook: Hook) -> Row:
        """The counters of one plugin (by its number, below ``MAX_PLUGINS``) and hook."""
        start = plugin * _PER_PLUGIN + _HOOK_INDEX[hook] * _WORDS
        return Row(self._words[start : start + _WORDS])

    def clear(self, plugin: int) -> None:
        """Set a plugin's counters to zero, before its number goes to another."""
        for at in range(plugin * _PER_PLUGIN, (plugin + 1) * _PER_PLUGIN):
            self._words[at] = 0


def own_row() -> Row:
    """Counters that are in no table."""
    return Row(memoryview(bytearray(_WORDS * 8)).cast("Q"))


class Row:
    """The counters of one plugin and hook in one process."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview[int]) -> None:
        self._words = words

    def count(self, ns: int) -> None:
        """Count a call by its time in nanoseconds."""
        words = self._words
        words[_TIME] += ns
        units = ns >> 10
        words[_BUCKET_OF[units] if units < _LOOKED_UP else _bucket_of(units)] += 1

    def count_failure(self, cause: CallCause) -> None:
        """Say of a call that was counted that it failed."""
        self._words[_FAILURES + CAUSES.index(cause)] += 1

    def count_fuel(self, fuel: int) -> None:
        """Add a call's fuel."""
        self._words[_FUEL] += fuel

    def saw_memory(self, size: int) -> None:
        """An instance had that much memory, in bytes; the largest is kept."""
        self._words[_MEMORY] = max(self._words[_MEMORY], size)

    def count_skipped(self) -> None:
        """Count a call that the circuit breaker answered."""
        self._words[_SKIPPED] += 1

    def count_dropped(self) -> None:
        """Say of a call that failed by overload that it was to be observed, and there was no room for it."""
        self._words[_DROPPED] += 1

    def count_waited(self, ns: int) -> None:
        """Count an answer that waited until its call could be observed, by its time in nanoseconds."""
        self._words[_WAITED] += 1
        self._words[_WAITED_TIME] += ns

    def count_alone(self) -> None:
        """Say of a call that failed that the version before this one did not fail on it (``probation``)."""
        self._words[_ALONE] += 1

    def count_cancelled(self, ns: int) -> None:
        """Count a call that was dropped, because its client was gone, by its time in nanoseconds."""
        self.count(ns)
        self._words[_CANCELLED] += 1

    def late(self) -> Row:
        """The same counters, for a version that another one has replaced."""
        return _LateRow(self._words)

    def timely(self) -> Row:
        """The same counters, for the version that runs."""
        return Row(self._words)

    def values(self) -> list[int]:
        """The words as they are now."""
        return self._words.tolist()

    def marks(self) -> list[int]:
        """Some words of which each call changes at least one: to see cheaply whether there was any."""
        return self._words[:_BUCKETS].tolist()

    def skipped(self) -> int:
        """Calls that the circuit breaker answered."""
        return self._words[_SKIPPED]

    def failures(self) -> list[int]:
        """Calls that failed, in the order of ``CAUSES``."""
        return self._words[_FAILURES:_BUCKETS].tolist()

    def calls(self, *, above: int = 0) -> int:
        """Calls in the buckets from that one on."""
        return sum(self._words[_BUCKETS + above :])


class _LateRow(Row):
    """Calls that a version still has when another one runs. They are counted apart: they say nothing of that one."""

    __slots__ = ()

    def count(self, ns: int) -> None:
        self._words[_LATE] += 1  # first: whoever reads in between must not see a sum that shrinks later
        super().count(ns)

    def count_skipped(self) -> None:
        self._words[_LATE] += 1
        super().count_skipped()

    def count_alone(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One plugin and hook over any number of processes."""

    calls: int
    skipped: int
    """Calls that the circuit breaker answered."""
    failures: dict[str, int]
    dropped: int
    """Calls that were to be observed and never ran, for want of room; among the failures by overload too."""
    waited: int
    """Answers that waited until their call could be observed."""
    waited_seconds: float
    """How long, summed."""
    alone: int
    """Calls that failed while the plugin was on probation, and that the version before it did not fail on."""
    cancelled: int
    """Of the calls: those that were dropped while they waited, because their client was gone."""
    late: int
    """Of the calls, and of those that the breaker answered: those of a version that another one had replaced."""
    seconds: float
    """Time in the plugin, summed."""
    fuel: int
    memory: int
    """The largest linear memory of any instance, in bytes."""
    buckets: tuple[int, ...]

    @classmethod
    def of(cls, rows: list[list[int]]) -> Summary:
        """The sum of rows' values."""
        total = [sum(words) for words in zip(*rows, strict=True)] if rows else [0] * _WORDS
        return cls(
            calls=sum(total[_BUCKETS:]),
            skipped=total[_SKIPPED],
            failures={cause: total[_FAILURES + index] for index, cause in enumerate(CAUSES)},
            dropped=total[_DROPPED],
            waited=total[_WAITED],
            waited_seconds=total[_WAITED_TIME] / 1e9,
            alone=total[_ALONE],
            cancelled=total[_CANCELLED],
            late=total[_LATE],
            seconds=total[_TIME] / 1e9,
            fuel=total[_FUEL],
            memory=max((words[_MEMORY] for words in rows), default=0),
            buckets=tuple(total[_BUCKETS:]),
        )

    def quantile(self, share: float) -> float | None:
        """Microseconds within which that share of the calls ended, to a bucket's middle; None without calls."""
        wanted = share * sum(self.buckets)
        seen = 0
        for index, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return (upper_bound(index - 1) + upper_bound(index)) / 2000 if index else upper_bound(0) / 2000
        return None

    def cumulative(self, bounds: tuple[int, ...]) -> list[tuple[float, int]]:
        """For a Prometheus histogram: upper bounds in seconds, and the calls at or below each.

        ``bounds`` are bucket numbers, ascending.
        """
        return [(upper_bound(bound) / 1e9, sum(self.buckets[: bound + 1])) for bound in bounds]


PROMETHEUS_BOUNDS: Final = tuple(range(11, _BUCKET_COUNT, 8))
"""The buckets that are exported: one to each fourfold time, from 16 µs."""


def _bucket_of(units: int) -> int:
    """The word of the bucket for so many units of 1024 ns: linear below 4, then four to each doubling."""
    if units < 4:  # noqa: PLR2004 - the linear part
        return _BUCKETS + units
    bits = units.bit_length()
    return _BUCKETS + min(4 * (bits - 2) + (units >> (bits - 3) & 3), _BUCKET_COUNT - 1)


_LOOKED_UP: Final = 256
_BUCKET_OF: Final = tuple(map(_bucket_of, range(_LOOKED_UP)))
"""Of quick calls, looked up."""


def upper_bound(bucket: int) -> int:
    """The first nanosecond that is above a bucket."""
    if bucket < 4:  # noqa: PLR2004 - the linear part
        return (bucket + 1) << 10
    bits, part = bucket // 4 + 2, bucket % 4
    return (5 + part) << (bits - 3) << 10


def bucket_above(ns: int) -> int:
    """The first bucket whose calls all took at least so long; the last one where none does."""
    return next((bucket for bucket in range(1, _BUCKET_COUNT) if upper_bound(bucket - 1) >= ns), _BUCKET_COUNT - 1)
