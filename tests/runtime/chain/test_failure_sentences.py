"""What is said of a failed call, where values of Secrets are in the plugin's settings and where not."""

from __future__ import annotations

import traceback

import pytest

from hookline_artifacts.errors import VerifyError
from hookline_runtime import errors
from hookline_runtime.errors import (
    DeadlineError,
    OverloadError,
    ResultError,
    TrapError,
    failure_sentence,
    load_sentence,
    without_words,
)
from hookline_runtime.guest.traps import TRAPS

WORD = "a-value-of-a-secret"


@pytest.mark.parametrize("kind", [TrapError, DeadlineError, ResultError, OverloadError])
def test_nothing_that_a_guest_has_chosen_is_told_where_it_has_secrets(kind):
    """A sentence of ours for the cause; without Secrets, what happened."""
    for said in (f"the hook failed: {WORD}", f"the hook trapped: {WORD}", f"{WORD} trapped: integer overflow", WORD):
        assert failure_sentence(kind(said), secrets=False) == said
        assert WORD not in failure_sentence(kind(said), secrets=True)
        assert "values of Secrets" in failure_sentence(kind(said), secrets=True)


@pytest.mark.parametrize("said", ["{} at the start", "before: {}", "{}", "nothing of it"])
def test_nothing_of_it_is_told_where_it_does_not_come_up_either(said):
    """Its first instance may have read its settings already."""
    for cause in (TrapError(WORD), DeadlineError(WORD)):
        reason = VerifyError(said.format(cause))
        reason.__cause__ = cause
        assert load_sentence(reason, secrets=False) == str(reason)
        assert WORD not in load_sentence(reason, secrets=True)
        assert "values of Secrets" in load_sentence(reason, secrets=True)
    assert load_sentence(VerifyError("no module"), secrets=True) == "no module"


def test_a_mistake_of_ours_is_logged_without_the_words_of_a_guest_that_has_secrets():
    """With the lines where it was made, which are ours."""
    with pytest.raises(ValueError, match=WORD) as caught:
        int(WORD)
    assert without_words(caught.value, secrets=False) is caught.value
    text = "".join(traceback.format_exception(without_words(caught.value, secrets=True)))
    assert WORD not in text
    assert "ValueError" in text
    assert "int(WORD)" in text


def test_the_engines_own_word_for_a_trap_is_told():
    """There are a dozen of them, and none has anything in it that a guest had."""
    assert "integer divide by zero" in failure_sentence(
        TrapError("route trapped: integer divide by zero"), secrets=True
    )
    assert set(TRAPS) >= errors._TRAPS
