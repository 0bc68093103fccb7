"""``reconcile`` as a table: an observation in YAML goes in, the status in YAML comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hookline_api.distribution import HookHealth, RolledBack, UnavailableSource
from hookline_api.hooks import Hook
from hookline_api.status import WasmPluginStatus
from hookline_operator.status.health import judge, without_figures
from hookline_operator.status.observation import Observation, PodObservation, Resolution
from hookline_operator.status.reasons import STALLED, TROUBLES, WRONG
from hookline_operator.status.reconcile import Outcome, as_json, reconcile

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
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


def test_each_reason_that_is_wrong_says_what_to_do():
    """In ``Stalled``, or that it may pass, in ``Reconciling``."""
    assert {*STALLED, "StoreUnavailable", "Slow", "Overloaded"} == WRONG


troubles = st.builds(
    HookHealth,
    hook=st.sampled_from(Hook),
    trouble=st.sampled_from(TROUBLES),
    calls=st.integers(0, 2**53),
    bad=st.integers(0, 2**53),
    seconds=st.floats(0, 86_400),
    cause=st.none() | st.sampled_from(["trap", "timeout", "result", "overload", "store"]),
    message=st.text(max_size=256),
)
away = st.builds(UnavailableSource, source=st.text(min_size=1, max_size=128), message=st.text(max_size=256))
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
        health=st.lists(troubles, max_size=3),
        unavailable=st.lists(away, max_size=8),
        rolled_back=st.none() | st.builds(
            RolledBack, revision=st.just("x"), calls=st.integers(0, 99), failures=st.integers(0, 99),
            cause=st.sampled_from(["trap", "timeout", "result"]), message=st.text(max_size=256),
        ),
        waits_for=st.lists(st.from_regex(r"[a-z]{253}", fullmatch=True), max_size=20),
    ),
    max_size=12,
)  # fmt: skip
unguarded = st.lists(
    st.fixed_dictionaries({"name": st.from_regex(r"[a-z]{253}", fullmatch=True), "why": st.text(max_size=256)}),
    max_size=9,
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


@pytest.mark.slow
@given(resolution=resolutions, pods=pods, unguarded=unguarded, needs_pods=st.booleans(), generation=st.integers(1, 9))
def test_the_status_is_bounded_and_stays_where_nothing_changes(resolution, pods, unguarded, needs_pods, generation):
    """Bounded whatever is in it, read back by its own model, without a write the second time, never both at once."""

    def observed(now, **more):
        return Observation(
            generation=generation, resolution=resolution, pods=pods, unguarded=unguarded,
            unguarded_count=len(unguarded), needs_pods=needs_pods, now=now, **more,
        )  # fmt: skip

    first = reconcile(observed(NOW))
    written = as_json(first.status)
    assert len(str(written)) < 60_000
    before = WasmPluginStatus.model_validate(written)
    second: Outcome = reconcile(observed("2027-01-01T00:00:00Z", previous=before))
    assert as_json(second.status) == written
    assert second.events == []
    conditions = {each.type: each for each in first.status.conditions}
    assert {each.observed_generation for each in conditions.values()} == {generation}
    # kstatus: settled where it is Ready, and where nobody can say how it goes on; else one of both.
    under_way, stalled = (conditions[each].status == "True" for each in ("Reconciling", "Stalled"))
    assert under_way + stalled == (conditions["Ready"].status == "False")
    assert not any("see Resolved" in each.message for each in (conditions["Ready"], conditions["Resolved"]))
    if conditions["Ready"].status == "True":
        assert resolution.state == "Good"
        assert all(pod.ready and pod.runs == "Current" for pod in pods)
        assert conditions["Healthy"].status == "True" or not (pods or needs_pods)
        assert not unguarded
        assert first.status.rolled_back is None
    counts = first.status.pods
    assert counts.matched == counts.loaded + counts.updating + counts.failed == len(pods)
    assert counts.unguarded == len(unguarded)
    reached = conditions.get("SourcesAvailable")
    told = any(pod.unavailable for pod in pods if pod.runs != "Nothing")
    assert (reached is not None and reached.status == "False") == told


def test_a_sentence_stands_in_two_conditions_at_the_most():
    """In Ready, and in the one that it is of: whoever reads all eight finds eight things said."""
    for path in CASES:
        case = yaml.safe_load(path.read_text())
        messages = [each.partition(": ")[2] for each in case["then"]["status"].get("conditions", {}).values()]
        for each in messages:
            if len(each) > len("see Resolved"):
                assert sum(each in other for other in messages) <= 2, (path.stem, each)


def test_figures_alone_are_no_news():
    """More calls, another share, another newest failure: the same but for figures. Another pod, or trouble: not."""

    def status(*pods):
        good = Resolution(state="Good", artifact=artifact, revision="r1")
        return without_figures(
            as_json(reconcile(Observation(generation=1, resolution=good, pods=pods, now=NOW)).status)
        )

    first = status(ailing("a"), ailing("b", trouble="Slow"))
    assert first == status(ailing("a", calls=99, bad=98, cause="timeout", message="other"), ailing("b", trouble="Slow"))
    assert first != status(ailing("a"), ailing("b", trouble="Slow"), ailing("c"))
    assert first != status(ailing("a", trouble="Paused"), ailing("b", trouble="Slow"))
    assert first != status(ailing("b", trouble="Slow"))


def test_what_a_sidecar_says_of_its_health_is_bounded_and_printable():
    """Whatever its figures are, and its sentence."""
    verdict = judge([ailing("a", calls=0, bad=2**53, seconds=0.2, message="\x1b[2J\n" + "x" * 240)])
    assert verdict.message.startswith("100 % of 9007199254740992 calls of route in pod 'a' failed in the last 1 s")
    assert verdict.message.isprintable()
    assert judge([ailing("a", calls=0, bad=0)]).truth is False


def test_a_guests_last_words_are_in_the_status():
    """In the condition and among the failures: as much of them as a sidecar may tell."""
    told = "route trapped: wasm `unreachable` instruction executed: panicked at src/lib.rs:12: no rule for orders"
    verdict = judge([ailing("a", message=told.ljust(256, "!"))])
    assert f": trap: {told}!!" in verdict.message
    (failure,) = verdict.failures
    assert f"trap: {told}!!" in failure.message


def ailing(name, **more):
    """A pod whose route fails."""
    health = {"hook": Hook.ROUTE, "trouble": "FailingCalls", "calls": 10, "bad": 5, "seconds": 30, "cause": "trap"}
    return PodObservation(name=name, ready=True, connected=True, runs="Current", health=[HookHealth(**health | more)])


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
        "Ready": later, "Healthy": NOW, "Resolved": NOW, "Verified": NOW, "PermissionsGranted": NOW,
        "Programmed": later, "Reconciling": later, "Stalled": NOW,
    }  # fmt: skip
