"""Operator and sidecar ask one table what stands for a plugin that cannot be fetched."""

import pytest

from hookline_api.bundle import BundleArtifact, BundlePlugin, LoadFailure
from hookline_api.resources import FailurePolicy
from hookline_api.standing import DECIDING, STILL_LOADING, policy_of, stands

ARTIFACT = BundleArtifact(digest="sha256:0", sha256="0" * 64, size=1, layout="file", reference="a:1")
RAN = BundlePlugin(name="p", artifact=ARTIFACT)
PLACEHOLDER = BundlePlugin(name="p", priority=5)
FAILED = LoadFailure(cause="fetch", message="no")


@pytest.mark.parametrize(
    ("last", "policy", "is_new", "stands_as"),
    [
        (RAN, "LastGood", False, "last"),
        (RAN, "Closed", False, "placeholder"),
        (RAN, "Open", False, None),
        (None, "LastGood", False, "placeholder"),
        (None, "LastGood", True, None),
        (None, "Closed", True, "placeholder"),
        (None, "Open", False, None),
    ],
)
def test_what_stands_goes_by_the_policy(last, policy, is_new, stands_as):
    """And says why it is not what was asked for."""
    entry = stands(last, FAILED, policy, placeholder=PLACEHOLDER, is_new=is_new)
    if stands_as is None:
        assert entry is None
    else:
        assert entry.failure == FAILED
        assert (entry.artifact is ARTIFACT) == (stands_as == "last")


def test_a_placeholder_without_hooks_answers_every_deciding_hook():
    """Nobody knows which ones its plugin would have; those that it names are the only ones otherwise."""
    assert stands(None, None, "LastGood", placeholder=PLACEHOLDER).hooks == list(DECIDING)
    named = PLACEHOLDER.model_copy(update={"hooks": [DECIDING[0]]})
    assert stands(None, None, "LastGood", placeholder=named).hooks == [DECIDING[0]]


def test_what_is_still_being_loaded_says_so():
    """Until then what ran goes on, whatever the policy for failures."""
    policy = policy_of(FailurePolicy(fetch="Closed"), None)
    assert policy == "LastGood"
    assert stands(RAN, None, policy, placeholder=PLACEHOLDER).failure is None
    assert stands(None, None, policy, placeholder=PLACEHOLDER).failure == STILL_LOADING["fetching"]
    compiling = stands(None, None, policy, placeholder=PLACEHOLDER, stage="compiling").failure
    assert (compiling.cause, compiling.message) == ("fetch", "the plugin is being compiled")


@pytest.mark.parametrize("cause", ["fetch", "verify", "config"])
def test_each_cause_has_its_own_policy(cause):
    """As the resource says."""
    policy = FailurePolicy(**{cause: "Closed"})
    causes = ("fetch", "verify", "config")
    found = {each: policy_of(policy, LoadFailure(cause=each, message="no")) for each in causes}
    assert found == {each: "Closed" if each == cause else "LastGood" for each in causes}
