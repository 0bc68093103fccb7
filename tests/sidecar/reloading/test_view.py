"""What is shown of a sidecar is made of a view alone: no supervisor, no worker and no source is there."""

from __future__ import annotations

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin, LoadFailure
from hookline_api.hooks import Hook
from hookline_artifacts.resolve import Resolved
from hookline_runtime.plugin.stats import StatsTable
from hookline_sidecar.control.admin.describe import describe
from hookline_sidecar.control.report import report
from hookline_sidecar.control.rows import Rows
from hookline_sidecar.control.view import SourceView, View, WantedPlugin, WorkersView
from hookline_sidecar.messages import Paused, PluginFacts

FAILED = LoadFailure(cause="fetch", message="the registry said hunter2")
ARTIFACT = BundleArtifact(digest="sha256:0", sha256="0" * 64, size=1, layout="file", reference="r")
OLD, NEW = (BundlePlugin(name="p", artifact=ARTIFACT, hooks=[Hook.ROUTE], priority=priority) for priority in (1, 2))
CLOSED = BundlePlugin(name="p", hooks=[Hook.ROUTE], failure=FAILED)


class _State:
    def load_numbers(self):
        return {"p": 0}


def wanted(*, resolved=None, failure=None):
    """The plugin that is asked for."""
    if resolved is not None:
        resolved = Resolved(entry=resolved, artifact=None, info=None, description=None, hooks=(), notes=())
    return WantedPlugin(name="p", file="p.yaml", resolved=resolved, failure=failure, rolled_back=None)


def view(*entries, plugin=None, bundle=True, current=1, facts=(), draining=False):
    """A sidecar that runs these plugins, and is asked for this one."""
    return View(
        draining=draining,
        bundle=Bundle.of(list(entries)) if bundle else None,
        changes=0,
        running="v1",
        prepared=None,
        plugins=(plugin or wanted(failure=FAILED),),
        source=SourceView(description={}, problems=(), link=None, waiting_for="the registry said hunter2"),
        workers=WorkersView(size=1, current=current, connections=1, facts=facts),
        health={},
        on_probation=frozenset(),
        rows=Rows(_State(), [StatsTable()]),
    )


@pytest.mark.parametrize(
    ("entries", "resolved", "failure", "state"),
    [
        ([NEW], NEW, None, "Running"),
        ([OLD], NEW, None, "Updating"),
        ([OLD], None, None, "Updating"),
        ([OLD], None, FAILED, "LastGood"),
        ([NEW], NEW, FAILED, "LastGood"),
        ([CLOSED], None, FAILED, "Closed"),
        ([], None, FAILED, "LeftOut"),
        ([], NEW, None, "Updating"),
    ],
)
def test_the_state_of_a_plugin_goes_by_what_runs_and_what_is_wanted(entries, resolved, failure, state):
    """The report says the same."""
    plugin = wanted(resolved=resolved, failure=failure)
    found = view(*entries, plugin=plugin)
    assert found.state_of(plugin) == state
    assert [each.state for each in report(found).plugins] == [state]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (view(OLD), None),
        (view(OLD, draining=True), "draining"),
        (view(bundle=False), "there is no bundle yet"),
        (view(OLD, current=0), "no worker runs the bundle yet"),
        (view(CLOSED), "plugin 'p' fails closed: cause fetch"),
    ],
)
def test_a_stranger_hears_why_it_is_not_ready_in_our_words_alone(found, says):
    """Ours hear what a registry said, too."""
    reasons = found.not_ready(in_our_words=True)
    assert (says is None) == (reasons == []) == report(found).ready
    assert says is None or says in reasons[0]
    assert "hunter2" not in str(reasons)
    assert bool(reasons) == bool(found.not_ready())


def test_a_hook_that_is_paused_is_shown_under_its_older_name_too():
    """For one release, so that scripts go on."""
    facts = PluginFacts(
        revision="0", inline=True, paused={"route": Paused(failures=5, until=0.0)}, last_failure=None, last_fault=None,
        last_failures={}, denied={}, refused={}, metrics={},
    )  # fmt: skip
    plugin = describe(view(OLD, facts=({"p": facts},)), is_folder=True)["plugins"][0]
    assert plugin["paused"] == [{"hook": "route", "failures": 5, "for_seconds": 0}]
    assert plugin["off_the_road"] == plugin["paused"]
