"""``hookline bench``: hooks are measured beside a guest that does nothing."""

from __future__ import annotations

import pytest

from hookline_api.hooks import Hook
from hookline_artifacts.module.inspection import inspect_module
from hookline_cli.authoring.measured import bare_guest

BRIEF = ("--seconds", "0.01")
CASES = [
    {"name": "a", "hook": "pre_query", "input": {"query": "x"}, "failure": "trap"},
    {"name": "b", "hook": "pre_query", "input": {"query": "x"}, "expect": {"action": "continue"}},
    {"name": "c", "hook": "post_query", "input": [{"query": "x"}, {"success": True}], "expect": {"action": "accepted"}},
]


@pytest.fixture
def module(guests, write):
    """It decides, and observes; with cases for both."""
    wasm = guests.module({"pre_query": "(i64.const 0)", "post_query": "(i64.const 0)"})
    return write("guard.wasm", wasm, cases=CASES)


def test_each_hook_is_measured_in_both_isolations(hookline, module):
    """By what the first of its cases asks that is answered; the last column is a ratio within this run."""
    found = hookline("bench", module, *BRIEF, "--json").json["hooks"]
    measured = {(each["hook"], each["mode"]) for each in found if each["problem"] is None}
    assert {("pre_query", "PerCall"), ("post_query", "PerCall")} <= measured
    assert len(found) == 4
    for each in found:
        if each["problem"] is None:
            assert each["calls"] > 0
            assert 0 < each["p50Us"] <= each["p99Us"]
            assert 0 < each["bareP50Us"] <= each["bareP99Us"]


def test_what_cannot_be_pooled_says_why(hookline, module):
    """The test's modules never give memory back: the other isolation is measured all the same."""
    done = hookline("bench", module, "--hook", "pre_query", *BRIEF)
    assert done.code == 0
    assert "not measured: pre_query Pooled: " in done.out
    assert "pre_query is asked what case 'b' asks" in done.out
    assert hookline("bench", module, "--hook", "pre_query", "--mode", "Pooled", *BRIEF).code == 1


def test_an_input_may_be_given(hookline, guests, write):
    """For one hook; no cases are needed."""
    write("guard.wasm", guests.module({"pre_query": "(i64.const 0)"}))
    arguments = ("bench", "guard.wasm", "--mode", "PerCall", *BRIEF)
    assert hookline(*arguments, "--hook", "pre_query", "--input", "SELECT 1").code == 0
    assert "give --cases FILE" in hookline(*arguments, "--hook", "pre_query").sentence
    assert hookline(*arguments, "--input", "SELECT 1").code == 2
    assert "it exports pre_query" in hookline(*arguments, "--hook", "route", "--input", "x").sentence


def test_a_call_that_fails_is_not_measured(hookline, guests, write):
    """Its time would say nothing."""
    write("trap.wasm", guests.module({"pre_query": guests.trap}))
    done = hookline("bench", "trap.wasm", "--hook", "pre_query", "--input", "x", "--mode", "PerCall", *BRIEF)
    assert (done.code, "the call fails (trap)" in done.out) == (1, True)


def test_an_input_that_is_wrong_is_told(hookline, guests, write):
    """As of a call."""
    write("guard.wasm", guests.module({"pre_query": "(i64.const 0)"}))
    done = hookline("bench", "guard.wasm", "--hook", "pre_query", "--input", "{}", *BRIEF)
    assert (done.code, "query: is missing" in done.sentence) == (2, True)


@pytest.mark.parametrize("hook", [Hook.PRE_QUERY, Hook.CUSTOM])
def test_the_bare_guest_is_a_plugin(hook):
    """With room for the input, whatever its size."""
    info = inspect_module(bare_guest(hook, 10 << 20))
    assert info.hooks == (hook,)
    assert info.memory_pages * 65_536 > 10 << 20
