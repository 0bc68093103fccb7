"""Whether plugins that are loaded do their work: a judgement on each of their hooks, over its newest calls.

``Health`` judges what ``readings`` finds once a second, and knows neither clock nor worker. A hook is not well where
one of these holds, and what is told of it is the first:

========================  ==========================================================================================
``Paused``                the circuit breaker is open in a worker, or has answered calls
``FailingCalls``          at least 3 and at least 1 % of the calls trapped, timed out, or answered no decision
``StoreUnavailable``      at least 3 and at least 1 % ended because the server with the plugin's keys is away
``Overloaded``            at least 3 and at least 1 % found their input or their queue over its limit
``Slow``                  at least 10 and at least 10 % took more than half of ``limits.timeout``
========================  ==========================================================================================

of the calls of the last 30 seconds; of all but ``Paused`` and ``Slow`` also where 10 and 1 % of the newest 4 seconds
were, since after much good traffic it would be long until the whole window says so. Where there are fewer than
20 calls, the window is longer, up to 5 minutes, so that a plugin that is seldom asked is judged too, and does not seem
well because nobody asked it. It is well again when its window holds none of them any more, or after 30 seconds in
which none of these was reached and less than half of that share failed.

Figures are of a plugin and not of a revision: with another revision its hooks begin anew, from where they stand then.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from operator import add, sub
from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_api.distribution import HookHealth, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hookline_api.bundle import CallCause
    from hookline_api.hooks import Hook

WINDOW_S: Final = 30.0
LONGEST_S: Final = 300.0
"""Of a window with few calls."""
FEW: Final = 20
"""Calls below which a window grows."""
NEWEST_S: Final = 4.0
FIGURES_S: Final = 10.0
"""How often figures may change that are told of a hook that is not well; that it is not well is told at once."""
_PART_S: Final = 2.0
"""What is counted in so many seconds is one part of a window: it has sixteen, and twenty more where it is long."""
_OLD_CALLS_S: Final = 1.5
"""For calls of the revision before that were under way: they are not held against this one."""
_OTHERWISE: Final = 1.5
"""Figures that differ by this factor are worth a report."""

log = logging.getLogger("hookline.health")


class Counts(NamedTuple):
    """What was counted of one hook, over all workers: ever, or between two looks."""

    calls: int = 0
    """Those that the breaker answered are not among them."""
    skipped: int = 0
    trap: int = 0
    timeout: int = 0
    result: int = 0
    overload: int = 0
    store: int = 0
    slow: int = 0
    """Of the calls, those that took more than half of their time."""

    @property
    def failing(self) -> int:
        """Calls that failed by the plugin's own doing."""
        return self.trap + self.timeout + self.result

    def plus(self, other: Counts) -> Counts:
        """The sum."""
        return Counts(*map(add, self, other))

    def minus(self, other: Counts) -> Counts:
        """The difference."""
        return Counts(*map(sub, self, other))


_NOTHING: Final = Counts()


class Failure(NamedTuple):
    """The newest failure of a hook."""

    cause: CallCause
    message: str
    at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One hook of one plugin at one time."""

    counts: Counts
    paused: bool = False
    """Whether the breaker of any worker is open."""
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginReading:
    """One plugin that is loaded."""

    name: str
    revision: str
    hooks: dict[Hook, Reading]


class Window:
    """The newest calls of one hook. Its memory is bounded: parts of two seconds with calls in them."""

    __slots__ = ("_last", "_last_at", "_parts", "total")

    def __init__(self, counts: Counts, now: float) -> None:
        self._last, self._last_at = counts, now
        self._parts: deque[tuple[float, float, Counts]] = deque()
        """Begin, end, and what was counted in between."""
        self.total = Counts()

    def add(self, counts: Counts, now: float) -> None:
        """Take in what has been counted by now, and forget what is too old."""
        more = counts.minus(self._last) if counts is not self._last else _NOTHING
        begin, self._last, self._last_at = self._last_at, counts, now
        if min(more) < 0:  # the rows were given to another plugin, and count from zero
            self._parts.clear()
            self.total = Counts()
        elif any(more):
            if self._parts and now - self._parts[-1][0] <= _PART_S:
                begin, _, counted = self._parts.pop()
                self._parts.append((begin, now, counted.plus(more)))
            else:
                self._parts.append((begin, now, more))
            self.total = self.total.plus(more)
        while self._parts and self._is_old(now):
            self.total = self.total.minus(self._parts.popleft()[2])

    def _is_old(self, now: float) -> bool:
        _, end, counted = self._parts[0]
        left = self.total.minus(counted)
        return now - end > LONGEST_S or (now - end > WINDOW_S and left.calls + left.skipped >= FEW)

    def newest(self, now: float) -> Counts:
        """What was counted in the newest seconds."""
        found = Counts()
        for begin, _, counted in reversed(self._parts):
            if now - begin > NEWEST_S:
                break
            found = found.plus(counted)
        return found

    def seconds(self, now: float) -> float:
        """How long it is."""
        return now - self._parts[0][0] if self._parts else WINDOW_S


class _Rule(NamedTuple):
    trouble: Trouble
    bad: Callable[[Counts], int]
    least: int
    share: float
    newest: int | None
    """How many of the newest seconds' calls are enough, with the same share."""

    def holds(self, window: Counts, newest: Counts) -> bool:
        """Whether a hook is not well."""
        bad = self.bad(window)
        if bad >= self.least and bad >= self.share * window.calls:
            return True
        bad = self.bad(newest)
        return self.newest is not None and bad >= self.newest and bad >= self.share * newest.calls

    def lingers(self, window: Counts) -> bool:
        """Whether it is not well yet."""
        return self.bad(window) >= self.share / 2 * window.calls


_RULES: Final = (
    _Rule("Paused", lambda counts: counts.skipped, least=1, share=0.0, newest=None),
    _Rule("FailingCalls", lambda counts: counts.failing, least=3, share=0.01, newest=10),
    _Rule("StoreUnavailable", lambda counts: counts.store, least=3, share=0.01, newest=10),
    _Rule("Overloaded", lambda counts: counts.overload, least=3, share=0.01, newest=10),
    _Rule("Slow", lambda counts: counts.slow, least=10, share=0.1, newest=None),
)
"""The worst first. A pause comes before what led to it: of that, hardly a call is left to be counted."""
SEVERITY: Final[dict[Trouble, int]] = {rule.trouble: rank for rank, rule in enumerate(_RULES)}


class _HookState:
    """One hook of one plugin, from look to look."""

    def __init__(self, hook: Hook, counts: Counts, now: float) -> None:
        self.hook = hook
        self.window = Window(counts, now)
        self._held: dict[Trouble, float] = {}
        """What is wrong, and until when at the least, unless the window is clean."""

    def judge(self, reading: Reading, now: float) -> HookHealth | None:
        """What is wrong."""
        self.window.add(reading.counts, now)
        total = self.window.total
        if not (any(total[1:]) or reading.paused):  # as most are, most of the time
            self._held.clear()
            return None
        newest = self.window.newest(now)
        worst = None
        for rule in _RULES:
            if rule.holds(total, newest) or (rule.trouble == "Paused" and reading.paused):
                self._held[rule.trouble] = now + WINDOW_S
            elif not rule.bad(total) or (now > self._held.get(rule.trouble, 0.0) and not rule.lingers(total)):
                self._held.pop(rule.trouble, None)
            if rule.trouble in self._held and worst is None:
                worst = rule
        return None if worst is None else self._told(worst, reading, now)

    def _told(self, rule: _Rule, reading: Reading, now: float) -> HookHealth:
        total, failure = self.window.total, reading.failure
        calls, bad = total.calls + total.skipped, rule.bad(total)
        cause = _cause(rule.trouble, total)
        # The newest failure may be of another kind, or not have been told yet.
        if failure is not None and failure.cause in _CAUSES_OF[rule.trouble]:
            cause, message = failure.cause, failure.message
        else:
            message = _SENTENCES[cause]
        return HookHealth(
            hook=self.hook,
            trouble=rule.trouble,
            calls=calls,
            bad=min(bad, calls),  # a call that fails is counted before its failure
            seconds=round(min(self.window.seconds(now), 86_400.0), 1),
            cause=cause,
            message=message,
        )


_CAUSES_OF: Final[dict[Trouble, tuple[CallCause, ...]]] = {
    "Paused": ("trap", "timeout"),
    "FailingCalls": ("trap", "timeout", "result"),
    "StoreUnavailable": ("store",),
    "Overloaded": ("overload",),
    "Slow": (),
}
_SENTENCES: Final[dict[CallCause | None, str]] = {
    "trap": "calls trap",
    "timeout": "calls take longer than limits.timeout, or use up limits.fuel",
    "result": "answers are not valid decisions",
    "overload": "inputs, or the calls that wait, are over their limit",
    "store": "the server with the plugin's keys does not answer",
    None: "calls take more than half of limits.timeout",
}


def _cause(trouble: Trouble, total: Counts) -> CallCause | None:
    """Why most of those calls were bad."""
    counts = total._asdict()
    return max(_CAUSES_OF[trouble], key=counts.__getitem__, default=None)


@dataclass(slots=True)
class _PluginState:
    revision: str
    begins: float
    """When its calls begin to count."""
    hooks: dict[Hook, _HookState] = field(default_factory=dict)


class Health:
    """The judgement on all plugins. ``troubles`` has the hooks that are not well, in the order of the contract."""

    def __init__(self) -> None:
        self.troubles: dict[str, list[HookHealth]] = {}
        self._plugins: dict[str, _PluginState] = {}
        self._figures_at = 0.0

    def look(self, plugins: Iterable[PluginReading], now: float) -> bool:
        """Judge what is counted by now, in seconds of any steady clock; whether something else is to be told."""
        found = {plugin.name: self._judge(plugin, now) for plugin in plugins}
        for name in self._plugins.keys() - found.keys():
            del self._plugins[name]
        found = {name: hooks for name, hooks in found.items() if hooks}
        may_refresh = now - self._figures_at >= FIGURES_S
        told: dict[str, list[HookHealth]] = {}
        refreshed = False
        for name, hooks in found.items():
            before = self.troubles.get(name, [])
            if _troubles(before) != _troubles(hooks) or any(map(_explains, before, hooks)):
                told[name] = hooks
            elif may_refresh and any(map(_differs, before, hooks)):
                told[name], refreshed = hooks, True
            else:
                told[name] = before
        changed = told != self.troubles
        if refreshed or (changed and not self.troubles):
            self._figures_at = now
        self._say(told)
        self.troubles = told
        return changed

    def _judge(self, plugin: PluginReading, now: float) -> list[HookHealth]:
        state = self._plugins.get(plugin.name)
        if state is None or state.revision != plugin.revision:
            # At the start of all, what is counted has been counted before; of another revision, a little may still be.
            begins = now if state is None else now + _OLD_CALLS_S
            state = self._plugins[plugin.name] = _PluginState(plugin.revision, begins)
        found = []
        for hook, reading in plugin.hooks.items():
            known = state.hooks.get(hook)
            if known is None or now <= state.begins:
                state.hooks[hook] = _HookState(hook, reading.counts, now)
            elif (health := known.judge(reading, now)) is not None:
                found.append(health)
        return found

    def _say(self, told: dict[str, list[HookHealth]]) -> None:
        """Log what has changed."""
        for name, hooks in told.items():
            before = dict(_troubles(self.troubles.get(name, [])))
            for each in hooks:
                if before.get(each.hook) != each.trouble:
                    log.warning(
                        "plugin '%s', hook %s, is not well (%s: %d of %d calls in %.0f s): %s",
                        name, each.hook, each.trouble, each.bad, each.calls, each.seconds, each.message,
                    )  # fmt: skip
        for name, hooks in self.troubles.items():
            now = {each.hook for each in told.get(name, ())}
            for each in hooks:
                if each.hook not in now and name in self._plugins:
                    log.info("plugin '%s', hook %s, is well again, or was replaced", name, each.hook)


def _troubles(hooks: list[HookHealth]) -> list[tuple[Hook, Trouble]]:
    return [(each.hook, each.trouble) for each in hooks]


def _explains(before: HookHealth, now: HookHealth) -> bool:
    """Whether the worker's own sentence has come; it does so once, within a second of what was counted."""
    ours = _SENTENCES.values()
    return before.message in ours and now.message not in ours


def _differs(before: HookHealth, now: HookHealth) -> bool:
    """Whether the new figures say something else."""
    if before.cause != now.cause:
        return True
    return any(
        max(old, new) > _OTHERWISE * max(min(old, new), 1)
        for old, new in ((before.calls, now.calls), (before.bad, now.bad))
    )
