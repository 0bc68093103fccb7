"""A plugin that is loaded and does not work: who is told, how soon, how often, and until when.

Real sidecars with real guests, and an operator that reads their reports.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hookline_api.hooks import Hook
from waiting import until_true

QUERY = {"query": "select 1"}
SECRET = "a-value-of-a-secret"
TAKES_A_WHILE = """
(local $begin i64)
(local.set $begin (call $get_time))
(loop $until
  (local.set $i (i64.const 0))
  (loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
    (br_if $more (i64.lt_u (local.get $i) (i64.const 300000))))
  (br_if $until (i64.lt_s (i64.sub (call $get_time) (local.get $begin)) (i64.const 1700))))
"""
CLOCK = '(import "hookline" "get_time" (func $get_time (result i64)))'


@pytest.fixture
def sidecar(new_sidecar, operator):
    """A sidecar of that operator with two workers, not started yet."""
    sidecar = new_sidecar(
        plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token, workers=2
    )
    yield sidecar
    sidecar.end()


def health(operator, name="p"):
    """What the operator was last told of a plugin's hooks."""
    return next((each.health for each in operator.last.plugins if each.name == name), [])


async def asked_until(sidecar, done, *, hook="route", body=QUERY, calls=8):
    """Ask, some calls at a time, until something is so."""

    async def look():
        await asyncio.gather(*(sidecar.ask(hook, body) for _ in range(calls)))
        return done()

    return await until_true(look, "what the calls lead to")


def samples(sidecar, name):
    """A family of ``/metrics``, by the sorted values of its labels."""
    families = {each.name: each for each in text_string_to_metric_families(sidecar.get("/metrics")[1])}
    return {tuple(sorted(sample.labels.values())): sample.value for sample in families[name].samples}


async def test_a_plugin_that_traps_on_each_call_is_told_of_until_it_is_replaced(sidecar, operator, guests, eventually):
    """To the operator, on the admin page and in the metrics; and the pod stays in service."""
    good = operator.entry("good", guests.saying("hello"))
    version = operator.send(operator.entry("p", guests.module({"route": guests.trap}), hooks=["route"]), good)
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    assert health(operator) == []
    (told,) = await asked_until(sidecar, lambda: health(operator))
    assert (told.hook, told.cause) == (Hook.ROUTE, "trap")
    assert told.trouble in {"Paused", "FailingCalls"}
    (told,) = await asked_until(sidecar, lambda: [each for each in health(operator) if each.trouble == "Paused"])
    assert "unreachable" in told.message
    assert told.bad <= told.calls
    (shown,) = sidecar.plugin("p")["health"]
    assert (shown["hook"], shown["trouble"]) == ("route", "Paused")
    assert sidecar.plugin("good")["health"] == []
    assert samples(sidecar, "hookline_plugin_healthy") == {("good",): 1, ("p",): 0}
    assert samples(sidecar, "hookline_plugin_trouble") == {("Paused", "p", "route"): 1}
    assert sidecar.get("/readyz") == (200, {"ready": True, "reasons": []})
    assert operator.last.ready
    sidecar.logs("plugin 'p', hook route, is not well")

    version = operator.send(operator.entry("p", guests.answering(route={"action": "default"}), hooks=["route"]), good)
    eventually(lambda: operator.last.running == version and health(operator) == [], "a plugin that is well")
    seen = len(operator.reports)
    await asked_until(sidecar, lambda: sidecar.plugin("p")["stats"]["route"]["calls"] > 200)
    assert all(not each.health for report in operator.reports[seen:] for each in report.plugins)
    assert samples(sidecar, "hookline_plugin_healthy") == {("good",): 1, ("p",): 1}
    assert samples(sidecar, "hookline_plugin_trouble") == {}


async def test_while_it_fails_there_are_few_reports(sidecar, operator, guests, eventually):
    """That it fails is told once, and its figures at most once in ten seconds."""
    module = guests.answering(route={"action": "no such thing"})
    version = operator.send(operator.entry("p", module, hooks=["route"]))
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    (first,) = await asked_until(sidecar, lambda: health(operator))
    assert (first.trouble, first.cause) == ("FailingCalls", "result")
    seen = len(operator.reports)
    await asked_until(sidecar, lambda: health(operator)[0].calls > first.calls)  # ten seconds
    assert len(operator.reports) - seen <= 3
    assert health(operator)[0].bad == health(operator)[0].calls


async def test_an_observer_and_a_shadow_are_told_of_as_well(sidecar, operator, guests, eventually):
    """Nobody's answer is the worse for them, and so nobody else would see it."""
    version = operator.send(
        operator.entry("observer", guests.module({"on_connect": guests.trap}), hooks=["on_connect"]),
        operator.entry("shadow", guests.module({"route": guests.trap}), hooks=["route"], mode="Shadow"),
    )
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    await asked_until(sidecar, lambda: health(operator, "shadow"))
    await asked_until(sidecar, lambda: health(operator, "observer"), hook="on_connect", body={"client": {}})


async def test_slow_calls_are_told_of(sidecar, operator, guests, eventually):
    """More than half of their time, and less than all of it."""
    module = guests.module({"route": TAKES_A_WHILE + "(i64.const 0)"}, imports=CLOCK)
    version = operator.send(operator.entry("p", module, hooks=["route"], limits={"timeout": "3s"}))
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    (told,) = await asked_until(sidecar, lambda: health(operator), calls=4)
    assert told.trouble == "Slow"


async def test_inputs_that_are_too_large_are_told_of(sidecar, operator, guests, eventually):
    """They are refused, and the guest never sees them."""
    module = guests.answering(route={"action": "default"})
    version = operator.send(operator.entry("p", module, hooks=["route"], limits={"input": "1Ki"}))
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    (told,) = await asked_until(sidecar, lambda: health(operator), body={"query": "x" * 2000})
    assert (told.trouble, told.cause) == ("Overloaded", "overload")
    eventually(lambda: "limits.input" in health(operator)[0].message, "the sentence")


async def test_no_word_of_a_guest_that_has_secrets_is_told(sidecar, operator, guests, eventually):
    """It ends with its Secret's number: neither report, admin page, metrics nor log have it."""
    ends = guests.module(
        {"route": "(call $exit (i32.const 424242)) (i64.const 0)"},
        imports='(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))',
    )
    answers = guests.configured()
    config = {"pre_query": {"action": SECRET}, "token": SECRET}
    version = operator.send(
        operator.entry("ends", ends, hooks=["route"], config=config, secret_paths=["token"]),
        operator.entry(
            "answers", answers, hooks=["pre_query"], config=config, secret_paths=["token"], permissions=["config.read"]
        ),
    )
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")
    for name, hook in ("ends", "route"), ("answers", "pre_query"):
        await asked_until(sidecar, lambda name=name: health(operator, name), hook=hook)
        eventually(lambda name=name: "values of Secrets" in health(operator, name)[0].message, "the sentence")
    eventually(lambda: sidecar.plugin("ends")["last_failure"], "the last failure")
    eventually(lambda: sidecar.plugin("answers")["last_failure"], "the last failure")
    shown = json.dumps([sidecar.get("/v1/plugins"), sidecar.get("/metrics")]) + sidecar.log
    told = "".join(report.model_dump_json() for report in operator.reports)
    for word in (SECRET, "424242"):
        assert word not in shown + told
