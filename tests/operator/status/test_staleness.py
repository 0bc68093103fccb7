"""A status says how old it is, and what was true is not shown as what is."""

from __future__ import annotations

import datetime as dt

import pytest

from hookline_api.status import Condition, PodCounts, WasmPluginStatus
from hookline_operator.status.observation import Observation, Resolution
from hookline_operator.status.reconcile import reconcile
from hookline_operator.status.staleness import abandoned, age_of, confirmed, restored

BEFORE, NOW = "2026-01-02T03:04:05Z", "2026-01-02T03:14:05Z"


def _status(ready="True", reason="Ready", message="2 of 2 pods run it", *, observed=None, matched=2):
    conditions = [_condition("Ready", ready, reason, message)]
    if observed is not None:
        conditions.append(_condition("Observed", observed, "Watched", "watched"))
    return WasmPluginStatus(observed_generation=1, conditions=conditions, pods=PodCounts(matched=matched))


def _condition(kind, status, reason, message):
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=BEFORE)


def _of(status, kind):
    return next(each for each in status.conditions if each.type == kind)


@pytest.mark.parametrize("known", [_status(observed="True"), _status()])
def test_a_status_in_which_nothing_changes_is_not_written_before_it_is_due(known):
    """Nor does one that has no heartbeat yet get one: five thousand would at the same moment."""
    assert confirmed(_status(), [known], due=False, now=NOW) == known


@pytest.mark.parametrize("known", [_status(observed="True"), _status()])
def test_a_heartbeat_that_is_due_moves_its_time_alone(known):
    """And nothing else of the status."""
    written = confirmed(_status(), [known], due=True, now=NOW)
    assert (_of(written, "Observed").status, _of(written, "Observed").reason) == ("True", "Watched")
    assert _of(written, "Observed").last_transition_time == NOW
    assert _of(written, "Ready") == _of(known, "Ready")


def test_a_change_confirms_all_of_it():
    """It is written anyhow."""
    written = confirmed(_status(matched=3), [_status(observed="True")], due=False, now=NOW)
    assert _of(written, "Observed").last_transition_time == NOW


def test_a_status_of_the_version_before_gets_no_heartbeat_with_its_first_change():
    """A replica of that version reads no ninth condition, and with it nothing of the status at all."""
    assert confirmed(_status(matched=3), [_status()], due=False, now=NOW) == _status(matched=3)
    assert _of(confirmed(_status(), [WasmPluginStatus()], due=False, now=NOW), "Observed").status == "True"


def test_all_but_the_heartbeat_is_what_the_version_before_reads():
    """Its model, and its definition, take eight conditions."""
    resolution = Resolution(state="Good", revision="r1", artifact={"digest": "sha256:" + "a" * 64})
    made = reconcile(Observation(generation=1, resolution=resolution, now=NOW)).status
    assert len(made.conditions) <= 8


def test_what_an_older_definition_leaves_out_is_no_change():
    """What was sent is compared too; a heartbeat with each look would be a write each second, for ever."""
    sent, pruned = _status(matched=3, observed="True"), _status(matched=0, observed="True")
    assert confirmed(_status(matched=3), [pruned, sent], due=False, now=NOW) == sent


def test_what_nobody_looks_after_is_unknown_and_says_what_it_was():
    """Ready alone: what reads it waits, and nobody goes by a True that is hours old."""
    left = abandoned(_status(observed="True"), now=NOW)
    ready, observed = _of(left, "Ready"), _of(left, "Observed")
    assert (ready.status, ready.reason, ready.last_transition_time) == ("Unknown", "NotObserved", NOW)
    assert ready.message == f"no operator is at work; what was true at {NOW}: True (Ready): 2 of 2 pods run it"
    assert (observed.status, observed.reason) == ("False", "NotObserved")
    assert observed.last_transition_time == BEFORE
    assert abandoned(left, now="2027-01-01T00:00:00Z") == left


def test_what_was_not_ready_stays_as_it_is():
    """What pods are given of a plugin that failed is read from there, by each replica that starts."""
    failed = _status("False", "ConfigInvalid", "limit is missing")
    assert abandoned(failed, now=NOW) == failed


def test_who_comes_back_takes_its_absence_for_no_news():
    """No Event, where all is as it was; the status is written, since it says something else."""
    resolution = Resolution(state="Good", revision="r1", artifact={"digest": "sha256:" + "a" * 64})
    first = reconcile(Observation(generation=1, resolution=resolution, now=BEFORE)).status
    left = abandoned(confirmed(first, [], due=False, now=BEFORE), now=NOW)
    again = reconcile(Observation(generation=1, previous=restored(left), resolution=resolution, now=NOW))
    assert again.events == []
    assert _of(again.status, "Ready").status == _of(first, "Ready").status
    written = confirmed(again.status, [left], due=False, now=NOW)
    assert written != left
    assert (_of(written, "Observed").status, _of(written, "Observed").last_transition_time) == ("True", NOW)


@pytest.mark.parametrize("message", ["", "no operator is at work", "no operator is at work; what was true at x: y"])
def test_a_message_that_somebody_wrote_over_restores_nothing(message):
    """Then it is news."""
    left = _status("Unknown", "NotObserved", message)
    assert restored(left) == left


def test_an_age_is_of_the_last_confirmation():
    """None where there never was one, or its time is none."""
    now = dt.datetime.fromisoformat(NOW)
    assert age_of(_status(observed="True"), now=now) == 600
    assert age_of(_status(), now=now) is None
    odd = _status(observed="True")
    changed = [each.model_copy(update={"last_transition_time": "never"}) for each in odd.conditions]
    assert age_of(odd.model_copy(update={"conditions": changed}), now=now) is None
