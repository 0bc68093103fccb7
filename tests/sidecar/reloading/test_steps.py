"""The steps of a plugin on its way to the workers: each the last time that it was taken, in order."""

from __future__ import annotations

import pytest

from hookline_sidecar.control.steps import Steps


def test_a_step_says_that_it_is_under_way_and_then_how_it_ended():
    """With the time that it took; one that fails is told as failed, and its error goes on."""
    steps = Steps()
    with steps.taken("fetch"):
        (step,) = steps.values()
        assert (step.ok, step.seconds) == (None, None)
        assert step.at > 0
    assert steps["fetch"].ok
    assert steps["fetch"].seconds >= 0
    with pytest.raises(ZeroDivisionError), steps.taken("compile"):
        raise ZeroDivisionError
    assert [(each.name, each.ok) for each in steps.values()] == [("fetch", True), ("compile", False)]


def test_a_step_that_is_taken_again_comes_last():
    """There are never more than there are names."""
    steps = Steps()
    for name in ("fetch", "compile", "fetch"):
        with steps.taken(name):
            pass
    assert list(steps) == ["compile", "fetch"]
