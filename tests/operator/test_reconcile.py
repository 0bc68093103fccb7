"""``reconcile`` as a table: an observation in YAML goes in, the status in YAML comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hookline_api.resources import WasmPluginStatus
from hookline_operator.reconcile import Observation, Outcome, PodObservation, Resolution, as_json, reconcile

CASES = sorted((Path(__file__).parent / "cases" / "reconcile").glob("*.yaml"))
NOW = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_an_observation_gives_a_status(path):
    """What each file says; conditions as ``status reason: message``."""
    case = yaml.safe_load(path.read_text())
    outcome = reconcile(Observation.model_validate({"now": NOW, "generation": 1} | case["given"]))
    status = as_json(outcome.status)
    status["conditions"] = {
        each["type"]: f"{each['status']} {each['reason']}: {each['message']}".removesuffix(": ")
        for each in status["conditions"]
    }
    assert {name: status.get(name) for name in case["then"]["status"]} == case["then"]["status"]
    assert [f"{each.type} {each.reason}: {each.message}" for each in outcome.events] == case["then"]["events"]


def test_there_are_cases():
    """A folder that is empty proves nothing."""
    assert len(CASES) >= 10


pods = st.lists(
    st.builds(
        PodObservation,
        name=st.from_regex(r"[a-z]{1,3}", fullmatch=True),
        ready=st.booleans(),
        connected=st.booleans(),
        runs=st.sampled_from(["Current", "Older", "Nothing"]),
        failure=st.none()
        | st.fixed_dictionaries({"cause": st.just("trap"), "message": st.text(max_size=3000)}).map(
            lambda data: {**data, "message": data["message"][:1024]}
        ),
    ),
    max_size=12,
)
artifact = {"digest": "sha256:" + "a" * 64, "hooks": ["authenticate"], "imports": ["env.x"] * 256}
resolutions = st.one_of(
    st.just(Resolution()),
    st.builds(
        Resolution, state=st.just("Good"), artifact=st.just(artifact), revision=st.sampled_from(["r1", "r2"]),
        message=st.text(max_size=50),
    ),
    st.builds(
        Resolution, state=st.just("Failed"), cause=st.sampled_from(["fetch", "verify", "config"]),
        message=st.text(max_size=5000), transient=st.booleans(), artifact=st.none() | st.just(artifact),
    ),
)  # fmt: skip


@given(resolution=resolutions, pods=pods, generation=st.integers(1, 9))
def test_the_status_is_bounded_and_stays_where_nothing_changes(resolution, pods, generation):
    """Bounded whatever is in it, read back by its own model, without a write the second time, never both at once."""
    first = reconcile(Observation(generation=generation, resolution=resolution, pods=pods, now=NOW))
    written = as_json(first.status)
    assert len(str(written)) < 60_000
    before = WasmPluginStatus.model_validate(written)
    later = "2027-01-01T00:00:00Z"
    second: Outcome = reconcile(
        Observation(generation=generation, resolution=resolution, pods=pods, now=later, previous=before)
    )
    assert as_json(second.status) == written
    assert second.events == []
    conditions = {each.type: each for each in first.status.conditions}
    assert {each.observed_generation for each in conditions.values()} == {generation}
    assert (conditions["Reconciling"].status, conditions["Stalled"].status) != ("True", "True")
    if conditions["Ready"].status == "True":
        assert resolution.state == "Good"
        assert all(pod.ready and pod.runs == "Current" for pod in pods)
        assert conditions["Reconciling"].status == conditions["Stalled"].status == "False"
    counts = first.status.pods
    assert counts.matched == counts.loaded + counts.updating + counts.failed == len(pods)


def test_the_time_of_a_condition_moves_only_with_its_status():
    """``lastTransitionTime`` as the API conventions have it."""
    good = Resolution(state="Good", artifact=artifact, revision="r1")
    one = PodObservation(name="a", ready=True, connected=True, runs="Current")
    first = reconcile(Observation(generation=1, resolution=good, pods=[one], now=NOW)).status
    later = "2027-01-01T00:00:00Z"
    waiting = one.model_copy(update={"ready": False})
    second = reconcile(Observation(generation=1, resolution=good, pods=[waiting], now=later, previous=first)).status
    times = {each.type: each.last_transition_time for each in second.conditions}
    assert times == {
        "Ready": later, "Resolved": NOW, "Verified": NOW, "Programmed": later, "Reconciling": later, "Stalled": NOW,
    }  # fmt: skip
