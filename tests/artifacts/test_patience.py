"""When a failed load is tried again: one rule for the operator and the sidecar."""

import pytest

from hookline_artifacts.errors import ConfigError, FetchError, VerifyError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.patience import FIRST_S, LAST_S, SLOW_S, pause, pause_within


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (FetchError("no"), FIRST_S),
        (FetchError("no", transient=False), SLOW_S),
        (VerifyError("no"), SLOW_S),
    ],
)
def test_each_pause_is_twice_as_long_up_to_the_last(error, first):
    """The first depends on who can mend it; jitter takes at most three tenths."""
    for attempts in range(1, 40):
        longest = min(first * 2 ** (attempts - 1), LAST_S)
        assert 0.7 * longest <= pause(error, attempts) <= longest


def test_wrong_settings_are_not_tried_again():
    """It takes a change, and that is noticed."""
    assert pause(ConfigError("no"), 1) is None


def test_a_server_may_ask_for_a_longer_pause_but_not_for_any():
    """It is kept to up to the longest pause."""
    assert pause(FetchError("no", retry_after=50), 1) == 50
    assert pause(FetchError("no", retry_after=1e6), 1) == LAST_S


def test_one_request_is_tried_again_while_that_is_worth_it():
    """Not what somebody has to mend, nor after the last attempt, nor where the server asks for too long a pause."""
    limits = FetchLimits()
    assert 0.5 * limits.backoff <= pause_within(limits, FetchError("no"), 1) <= limits.backoff
    assert pause_within(limits, FetchError("no", retry_after=limits.max_pause), 1) == limits.max_pause
    assert pause_within(limits, FetchError("no", retry_after=limits.max_pause + 1), 1) is None
    assert pause_within(limits, FetchError("no", transient=False), 1) is None
    assert pause_within(limits, FetchError("no"), limits.attempts) is None
