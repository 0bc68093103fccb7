"""What is said of a failed call, where values of Secrets are in the plugin's settings and where not."""

from __future__ import annotations

import pytest

from hookline_runtime import errors
from hookline_runtime.errors import DeadlineError, OverloadError, ResultError, TrapError, told
from hookline_runtime.native_calls import _TRAPS

WORD = "a-value-of-a-secret"


@pytest.mark.parametrize("kind", [TrapError, DeadlineError, ResultError, OverloadError])
def test_nothing_that_a_guest_has_chosen_is_told_where_it_has_secrets(kind):
    """A sentence of ours for the cause; without Secrets, what happened."""
    for said in (f"the hook failed: {WORD}", f"the hook trapped: {WORD}", f"{WORD} trapped: integer overflow", WORD):
        assert told(kind(said), secrets=False) == said
        assert WORD not in told(kind(said), secrets=True)
        assert "values of Secrets" in told(kind(said), secrets=True)


def test_the_engines_own_word_for_a_trap_is_told():
    """There are a dozen of them, and none has anything in it that a guest had."""
    assert "integer divide by zero" in told(TrapError("route trapped: integer divide by zero"), secrets=True)
    assert set(_TRAPS) >= errors._TRAPS
