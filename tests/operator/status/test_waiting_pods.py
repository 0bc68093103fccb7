"""A pod that waits for a thousand plugins says so of each of them, and that costs the operator next to nothing."""

from __future__ import annotations

from hookline_api.distribution import PluginReport, Report
from hookline_operator.cluster.pods import Pod
from hookline_operator.lead.publisher import _observed
from hookline_operator.serve.fleet import PodState
from hookline_operator.status.observation import Observation, Resolution
from hookline_operator.status.reconcile import reconcile

POD = Pod("shop", "web", "u", {}, ready=False, live=True)


def _state(*plugins, ready=False):
    return PodState(uid="u", namespace="shop", name="web", report=Report(ready=ready, plugins=list(plugins)))


def _message(name, state):
    resolution = Resolution(state="Good", revision="r1", artifact={"digest": "sha256:" + "a" * 64})
    pods = [_observed(name, POD, state, None)]
    status = reconcile(Observation(generation=1, resolution=resolution, pods=pods, now="2026-01-02T03:04:05Z")).status
    return next(each.message for each in status.conditions if each.type == "Ready")


def test_the_first_of_the_others_are_named_and_all_are_counted():
    """Never the plugin itself, wherever its name stands among theirs."""
    closed = [PluginReport(name=name, state="Closed") for name in "edcba"]
    state = _state(*closed, PluginReport(name="fine", state="Running", revision="r"))
    others = "pod 'web' waits for plugins 'a', 'b', 'c' and 2 more"
    assert _message("fine", state) == f"0 of 1 pods run it; {others}"
    assert _message("a", state) == "0 of 1 pods run it; pod 'web' waits for plugins 'b', 'c', 'd' and 1 more"
    assert _message("e", state) == "0 of 1 pods run it; pod 'web' waits for plugins 'a', 'b', 'c' and 1 more"
    assert "waits for" not in _message("a", _state(closed[-1]))
    assert "waits for" not in _message("fine", _state(*closed, ready=True))


def test_of_a_thousand_others_no_list_is_made_for_each_of_a_thousand_plugins():
    """A tenant whose sources are all away would keep the leader from everybody else's work."""
    state = _state(*(PluginReport(name=f"p{number:04}", state="Closed") for number in range(1000)))
    found = [_observed(f"p{number:04}", POD, state, None) for number in range(1000)]
    assert {len(each.waits_for) for each in found} == {3}
    assert {each.waits_for_number for each in found} == {999}
    assert all(each.waits for each in found)
