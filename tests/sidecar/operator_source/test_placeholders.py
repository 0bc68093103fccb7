"""What the operator could not get goes by its failure policy: the last good version, closed, or left out."""

from __future__ import annotations

import pytest

from hookline_api.bundle import LoadFailure
from operator_reports import BLOCK, CHANGES, metric, reasons, states

QUERY = {"query": "select 1"}


async def test_at_a_first_start_a_placeholder_fails_closed(sidecar, operator, reported):
    """Unless its policy is Open for that cause. One that names no hooks closes all."""
    version = operator.send(
        operator.placeholder("closed"),
        operator.placeholder("nameless", hooks=()),
        operator.placeholder("open", "config", hooks=["route"], failure_policy={"config": "Open"}),
    )
    sidecar.start(wait=False)
    report = reported(running=version, ready=False)
    assert states(report) == {"closed": "Closed", "nameless": "Closed", "open": "LeftOut"}
    assert all("nowhere" in plugin.failure.message for plugin in report.plugins)
    assert "closed is nowhere; spec.failurePolicy.fetch: Open lets pods start without it" in reasons(sidecar)
    assert (await sidecar.ask("pre_query", QUERY))["plugin"] == "closed"
    assert (await sidecar.ask("route", QUERY))["plugin"] == "nameless"


@pytest.mark.parametrize(
    ("policy", "state", "value"),
    [("LastGood", "LastGood", "guarded"), ("Closed", "Closed", None), ("Open", "LeftOut", None)],
)
async def test_a_placeholder_for_what_ran_goes_by_its_policy(sidecar, operator, guests, reported, policy, state, value):
    """LastGood: what ran goes on, also after a restart. Beside others, a new one is left out."""
    other = operator.entry("other", guests.saying("here"))
    guard = operator.entry("guard", guests.answering(pre_query=BLOCK), hooks=["pre_query"])
    first = operator.send(guard, other)
    sidecar.start()
    reported(running=first)
    version = operator.send(
        operator.placeholder("guard", failure_policy={"fetch": policy}), operator.placeholder("new"), other
    )
    report = reported(running=version)
    assert states(report) == {"guard": state, "new": "LeftOut", "other": "Running"}
    for _ in range(2):
        decision = await sidecar.ask("pre_query", QUERY)
        assert decision["action"] == ("continue" if policy == "Open" else "block")
        assert decision.get("value") == value or policy == "Closed"
        assert await sidecar.says() == "here"
        sidecar.stop()
        operator.stop()
        sidecar.start(wait=policy != "Closed")
        sidecar.wait_plugin("other", state="LastGood")


async def test_a_last_good_revision_of_the_operators_runs_with_its_failure(sidecar, operator, guests, reported):
    """A pod that is new runs what the others went back to, and shows why."""
    entry = operator.entry("p", guests.saying("good"))
    failure = LoadFailure(cause="verify", message="the new one is not signed")
    version = operator.send(entry.model_copy(update={"failure": failure}))
    sidecar.start()
    report = reported(running=version, ready=True)
    assert states(report) == {"p": "LastGood"}
    assert report.plugins[0].failure == failure
    assert await sidecar.says() == "good"
    changes = metric(sidecar, CHANGES)
    operator.send(entry)
    sidecar.wait_plugin("p", state="Running", failure=None)
    assert metric(sidecar, CHANGES) == changes
