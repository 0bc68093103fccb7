"""When a plugin's hook is well and when it is not, by counts that are fed in: no clock, no process."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from hookline_api import json_cost
from hookline_api.base import Name, Resource
from hookline_api.bundle import LoadFailure
from hookline_api.distribution import (
    MAX_REPORT,
    MAX_REPORT_VALUES,
    REPORT_BASE,
    REPORT_OF_PLUGIN,
    HookHealth,
    PluginReport,
    PluginState,
    Report,
    RolledBack,
    UnavailableSource,
)
from hookline_api.hooks import Hook
from hookline_api.sources import MAX_UNAVAILABLE
from hookline_runtime.plugin.stats import StatsTable, bucket_above, upper_bound
from hookline_sidecar.control.health import Counts, Failure, Health, PluginReading, Reading, Window
from hookline_sidecar.control.report import written

ROUTE = Hook.ROUTE


class Fed:
    """The health of one plugin's ``route``, second by second."""

    def __init__(self, name="p", revision="one"):
        self.health = Health()
        self.name, self.revision = name, revision
        self.now = 1000.0
        self.counts = Counts(calls=5_000, trap=77, skipped=9)
        self.reports = 0
        self.look()

    def look(self, *, paused=False, failure=None):
        """Have judged what is counted by now."""
        reading = Reading(self.counts, paused=paused, failure=failure)
        plugin = PluginReading(name=self.name, revision=self.revision, hooks={ROUTE: reading})
        self.reports += self.health.look([plugin], self.now)

    def second(self, seconds=1, *, paused=False, failure=None, **counts):
        """So many seconds with so many calls in each."""
        for _ in range(seconds):
            self.now += 1.0
            self.counts = self.counts.plus(Counts(**counts))
            self.look(paused=paused, failure=failure)
        return self

    @property
    def trouble(self):
        """What is told of the hook."""
        found = self.health.troubles.get(self.name)
        return found[0].trouble if found else None

    @property
    def told(self):
        """All that is told of the hook."""
        return self.health.troubles[self.name][0]


def test_what_was_counted_before_is_held_against_nobody():
    """A supervisor that starts again finds the figures of days."""
    fed = Fed().second(40, calls=10)
    assert (fed.trouble, fed.reports) == (None, 0)


@pytest.mark.parametrize("cause", ["trap", "timeout", "result"])
def test_a_hook_whose_calls_fail_is_told_of_within_two_looks(cause):
    """Also after half a minute of good ones."""
    fed = Fed().second(30, calls=100)
    fed.second(2, calls=100, **{cause: 100})
    assert fed.trouble == "FailingCalls"
    assert fed.told.cause == cause
    assert 100 <= fed.told.bad <= 200
    assert fed.told.calls > 2_000
    assert fed.told.message


def test_one_call_in_fifty_is_enough_at_once():
    """The whole window would say so after a quarter of a minute."""
    fed = Fed().second(30, calls=1000).second(3, calls=1000, trap=20)
    assert fed.trouble == "FailingCalls"


def test_a_few_failures_among_many_calls_are_nothing():
    """One in two hundred."""
    fed = Fed()
    for _ in range(60):
        fed.second(1, calls=1000, trap=5, overload=5, slow=50)
    assert (fed.trouble, fed.reports) == (None, 0)


def test_two_failures_are_nothing_and_three_are():
    """Where there are few calls."""
    assert Fed().second(2, calls=1, trap=1).trouble is None
    assert Fed().second(3, calls=1, trap=1).trouble == "FailingCalls"


def test_a_plugin_that_is_seldom_asked_is_judged_too():
    """A call a minute, and each traps: it is not well until it was, and not once in a minute."""
    fed = Fed()
    for _ in range(3):
        fed.second(1, calls=1, trap=1).second(59)
    assert fed.trouble == "FailingCalls"
    for _ in range(10):
        fed.second(1, calls=1, trap=1).second(59)
        assert fed.trouble == "FailingCalls"
    assert fed.told.seconds <= 300


def test_a_breaker_that_is_open_is_a_pause():
    """Whether calls come or not; what was told of the failure is told with it."""
    fed = Fed().second(1, paused=True, failure=Failure("trap", "the hook trapped", 7.0))
    assert fed.trouble == "Paused"
    assert (fed.told.calls, fed.told.bad, fed.told.cause, fed.told.message) == (0, 0, "trap", "the hook trapped")
    fed = Fed().second(1, calls=5, trap=5).second(1, skipped=50)
    assert fed.trouble == "Paused"
    assert (fed.told.calls, fed.told.bad) == (55, 50)


def test_a_pause_comes_before_the_failures_that_led_to_it():
    """Five calls of five thousand trapped: that would read as if it were nothing."""
    fed = Fed().second(1, calls=5, trap=5)
    fed.second(60, skipped=100, calls=1, trap=1)
    assert fed.trouble == "Paused"


def test_a_breaker_whose_plugin_gets_no_call_any_more_ends():
    """Nothing says that it is well; but it must not stay for ever."""
    fed = Fed().second(1, calls=5, trap=5, paused=True).second(5, skipped=3, paused=True)
    assert fed.second(60).trouble == "Paused"
    assert fed.second(300).trouble is None


def test_it_is_well_again_when_a_whole_window_is_clean():
    """And not as long as there is less than that."""
    fed = Fed().second(10, calls=100, trap=100)
    assert fed.second(15, calls=100).trouble == "FailingCalls"
    assert fed.second(20, calls=100).trouble is None
    assert fed.reports <= 5


def test_a_share_around_the_bound_does_not_flap():
    """Of the calls between 0.6 and 1.4 percent fail, in turn."""
    fed = Fed().second(5, calls=1000, trap=14)
    before = fed.reports
    for _ in range(40):
        fed.second(5, calls=1000, trap=6).second(5, calls=1000, trap=14)
        assert fed.trouble == "FailingCalls"
    assert fed.reports - before <= 4


def test_bursts_do_not_flap():
    """A second of failures in each ten: not well throughout."""
    fed = Fed()
    for _ in range(30):
        fed.second(1, calls=1000, result=500).second(9, calls=1000)
        assert fed.trouble == "FailingCalls"


def test_slow_calls_are_told_of():
    """A tenth of them, and not one in twenty."""
    assert Fed().second(30, calls=100, slow=5).trouble is None
    fed = Fed().second(30, calls=100).second(5, calls=100, slow=90)
    assert (fed.trouble, fed.told.cause) == ("Slow", None)
    assert "limits.timeout" in fed.told.message


def test_overload_is_told_of():
    """With the newest failure only where it is one of that kind."""
    fed = Fed().second(3, calls=10, overload=10, failure=Failure("trap", "another", 1.0))
    assert (fed.trouble, fed.told.cause) == ("Overloaded", "overload")
    assert "another" not in fed.told.message
    fed = Fed().second(3, calls=10, overload=10, failure=Failure("overload", "the input has 9 bytes", 1.0))
    assert fed.told.message == "the input has 9 bytes"


def test_another_revision_begins_anew():
    """Also with calls of the one before that were still under way; and what it does itself counts."""
    fed = Fed().second(10, calls=100, trap=100)
    fed.revision = "two"
    fed.second(1, calls=100, trap=100)
    assert fed.trouble is None
    fed.second(1, calls=10, trap=10)
    assert fed.second(20, calls=100).trouble is None
    fed.revision = "three"
    assert fed.second(4, calls=100, trap=100).trouble == "FailingCalls"


def test_a_plugin_that_is_gone_is_forgotten():
    """And one of its name begins anew."""
    fed = Fed().second(10, calls=100, trap=100)
    assert fed.health.look([], fed.now)
    assert fed.health.troubles == {}
    assert fed.health._plugins == {}


def test_rows_that_go_to_another_plugin_count_from_zero():
    """A sum that is less than before is not a call."""
    fed = Fed().second(10, calls=100, trap=100)
    fed.counts = Counts()
    assert fed.second(1).trouble is None


def test_a_plugin_that_fails_for_an_hour_is_no_storm_of_reports():
    """It is told of at once, and its figures at most once in ten seconds; once they say the same, never."""
    fed = Fed().second(1, calls=100, trap=100)
    assert fed.reports == 1
    fed.second(60, calls=100, trap=100)
    assert fed.reports <= 7
    before = fed.reports
    for second in range(3600):
        fed.second(1, calls=90 + second % 20, trap=80 + second % 7)
    assert fed.reports == before


def test_the_sentence_of_the_failure_follows_at_once():
    """What is counted is known before the worker has said what it was; it is told once."""
    fed = Fed().second(1, calls=10, trap=10)
    fed.second(1, calls=10, trap=10, failure=Failure("trap", "the hook trapped: 1", 1.0))
    assert (fed.told.message, fed.reports) == ("the hook trapped: 1", 2)
    for second in range(2, 8):
        fed.second(1, calls=10, trap=10, failure=Failure("trap", f"the hook trapped: {second}", float(second)))
    assert (fed.told.message, fed.reports) == ("the hook trapped: 1", 2)


def test_a_plugin_whose_failures_change_is_told_of_six_times_a_minute():
    """Each second another cause, and other figures."""
    fed = Fed().second(5, calls=10, trap=10)
    before = fed.reports
    for second in range(600):
        cause = ("trap", "timeout")[second % 2]
        fed.second(1, calls=1 + 10 ** (second % 4), trap=1, failure=Failure(cause, f"at {second}", float(second)))
    assert fed.reports - before <= 60


def test_a_window_keeps_little():
    """Whatever comes in at whatever times."""
    counts, now = Counts(), 0.0
    window = Window(counts, now)
    most = 0
    for step in range(5_000):
        now += (0.1, 1.0, 1.0, 7.0, 1.0)[step // 100 % 5]
        counts = counts.plus(Counts(calls=(0, 1, 50)[step // 300 % 3]))
        window.add(counts, now)
        most = max(most, len(window._parts))
    assert 10 < most <= 36
    assert window.total.calls == sum(part[2].calls for part in window._parts)


def test_what_is_slow_is_slow_by_its_bucket():
    """Calls that took less than asked for are never among those above."""
    row = StatsTable().row(3, ROUTE)
    half = 25_000_000
    for ns in (1_000, half - 1, half * 3 // 2, half * 10):
        row.count(ns)
    assert upper_bound(bucket_above(half) - 1) >= half
    assert row.calls(above=bucket_above(half)) == 2
    assert row.calls() == 4


# ── reports ──


def _sick(hook, trouble="FailingCalls", bad=50, message="\N{GRINNING FACE}" * 256):
    return HookHealth(hook=hook, trouble=trouble, calls=100, bad=bad, seconds=30.0, cause="trap", message=message)


def _fits(text, plugins):
    assert len(text.encode()) <= MAX_REPORT
    assert len(text) <= REPORT_BASE + REPORT_OF_PLUGIN * plugins
    json_cost.check(text, what="a report", max_values=MAX_REPORT_VALUES)
    return Report.model_validate_json(text, extra="forbid")


@pytest.mark.parametrize("message", ["\N{GRINNING FACE}" * 256, "\x01" * 256, '"' * 256])
@pytest.mark.parametrize("plugins", [1, 2, 12, 256])
def test_a_report_of_plugins_that_are_all_sick_is_never_cut(plugins, message):
    """All hooks of all plugins, with the longest names and sentences: an operator of before reads it, too."""
    failure = LoadFailure(cause="verify", message=message * 8)
    back = RolledBack(revision="r" * 64, calls=2**53, failures=2**53, cause="trap", message=message)
    hooks = [_sick(hook, message=message) for hook in Hook]
    away = [UnavailableSource(source=f"{each}{message}"[:128], message=message) for each in range(MAX_UNAVAILABLE)]
    report = Report(
        plugins=[
            PluginReport(
                name=f"p{number:03}".ljust(253, "p"), state="LastGood", revision="r" * 64, failure=failure,
                health=hooks, probation=True, rolled_back=back, unavailable=away,
            )
            for number in range(plugins)
        ]
    )  # fmt: skip
    found = _fits(written(report), plugins)
    assert all(each.health for each in found.plugins)
    assert sum(len(each.health) for each in found.plugins) == min(12 * plugins, 512)
    assert all(each.unavailable for each in found.plugins)
    assert sum(len(each.unavailable) for each in found.plugins) == min(8 * plugins, 512)


def test_a_thousand_plugins_of_which_all_that_can_be_loaded_are_sick_are_reported():
    """The least bad hooks are left out, and no plugin."""
    good = [_sick(hook, "Slow", bad=10) for hook in Hook if hook is not ROUTE]
    failure = LoadFailure(cause="config", message="there are more than 256 plugins" * 40)
    plugins = [
        PluginReport(name=f"p{number:03}" + "p" * 249, state="Running", health=[*good, _sick(ROUTE, "Paused", bad=99)])
        for number in range(256)
    ] + [PluginReport(name=f"x{number:03}" + "x" * 249, state="LeftOut", failure=failure) for number in range(744)]
    found = _fits(written(Report(plugins=plugins)), 1000)
    assert len(found.plugins) == 1000
    assert all("Paused" in {hook.trouble for hook in each.health} for each in found.plugins[:256])


def test_what_fits_is_told_as_it_is():
    """With its sentences whole."""
    health = [_sick(ROUTE, message="the hook trapped")]
    plugin = PluginReport(name="p", state="Running", revision="r", health=health)
    report = Report(running="v", ready=True, plugins=[plugin])
    assert Report.model_validate_json(written(report), extra="forbid") == report
    assert json.loads(written(report))["type"] == "report"


class _PluginBefore(Resource):
    """``PluginReport`` of the release before."""

    name: Name
    state: PluginState
    revision: Annotated[str, Field(max_length=64)] | None = None
    failure: LoadFailure | None = None


class _ReportBefore(Resource):
    """``Report`` of the release before."""

    type: Literal["report"] = "report"
    running: Annotated[str, Field(max_length=64)] | None = None
    prepared: Annotated[str, Field(max_length=64)] | None = None
    ready: bool = False
    plugins: Annotated[list[_PluginBefore], Field(max_length=1000, default_factory=list)]
    sidecar: Annotated[str, Field(max_length=64)] | None = None


def test_an_operator_of_the_release_before_reads_what_it_knows():
    """What it does not know it passes over; what it knows means what it did."""
    failure = LoadFailure(cause="fetch", message="no")
    plugin = PluginReport(name="p", state="LastGood", revision="r", failure=failure, health=[_sick(ROUTE)])
    for report in (
        Report(running="v", prepared="w", ready=True, plugins=[plugin], sidecar="1"),
        Report(plugins=[PluginReport(name="p", state="Updating")]),
        Report(),
    ):
        found = _ReportBefore.model_validate_json(written(report))
        assert "type" in found.model_fields_set  # or it takes it for no report
        known = set(_ReportBefore.model_fields)
        told = report.model_dump(include=known - {"plugins"})
        assert found.model_dump(exclude={"plugins"}) == told
        for old, new in zip(found.plugins, report.plugins, strict=True):
            assert old.model_dump() == new.model_dump(include=set(_PluginBefore.model_fields))
