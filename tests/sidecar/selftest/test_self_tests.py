"""A version that fails its own cases never replaces a good one: in real sidecars, of a folder and of an operator."""

from __future__ import annotations

import asyncio
import json

import pytest
import wasmtime

from hookline_artifacts.module.annotate import with_sections
from sidecars import decide
from waiting import until_true

NO_HOOK = {"name": "it says so", "hook": "custom_hook", "input": 1, "expect": {"action": "answered"}}


def carrying(wasm, *cases):
    """A module with its own cases; each is what its custom hook has to answer."""
    written = [NO_HOOK | {"name": f"case {number}"} | case for number, case in enumerate(cases)]
    return with_sections(wasm, {"hookline.cases": json.dumps(written).encode()})


def saying(value):
    """What a case expects."""
    return {"expect": {"action": "answered", "value": value}}


async def asked(sidecar):
    """What the proxy is answered now."""
    async with sidecar.client() as session:
        return (await decide(session)).get("value")


async def answers(sidecar, value):
    """Return once the proxy is answered that."""

    async def look():
        return await asked(sidecar) == value

    await until_true(look, f"the answer {value!r}")


@pytest.fixture
def good(sidecar, guests):
    """A sidecar that runs a version which holds its cases."""
    sidecar.folder.plugin("p", carrying(guests.saying("one"), saying("one")))
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    return sidecar


async def test_a_version_that_fails_its_own_cases_never_answers(good, guests, load) -> None:
    """Calls go on under it, the good one answers each, and the sentence names the case and what was found."""
    async with load(good, clients=1) as calls:
        await calls.reaches(20)
        good.folder.plugin("p", carrying(guests.saying("two"), saying("two"), saying("three")))
        found = await asyncio.to_thread(good.wait_plugin, "p", failure=lambda failure: failure is not None)
        await calls.reaches(20)
        assert found["state"] == "LastGood"
        assert found["failure"]["cause"] == "verify"
        assert found["failure"]["message"] == (
            'its own case \'case 1\' does not hold: value is "two", and should be "three"'
        )
        assert {each["value"] for each in calls.answers} == {"one"}
        good.folder.plugin("p", carrying(guests.saying("three"), saying("three")))
        await asyncio.to_thread(good.wait_plugin, "p", state="Running", failure=None)
        await calls.reaches(20)
    assert calls.failures == []
    assert {each["value"] for each in calls.answers} == {"one", "three"}


async def test_a_plugin_whose_first_version_fails_its_cases_is_closed(sidecar, guests) -> None:
    """There is no good one: its hooks refuse, as for a bad signature."""
    wasm = carrying(guests.answering(pre_query={"action": "continue"}), {
        "hook": "pre_query", "input": {"query": "drop table t"}, "expect": {"action": "block"},
    })  # fmt: skip
    sidecar.folder.plugin("p", wasm)
    sidecar.start(wait=False)
    found = await asyncio.to_thread(sidecar.wait_plugin, "p", failure=lambda failure: failure is not None)
    assert found["failure"]["message"].startswith("its own case 'case 0' does not hold: action is \"continue\"")


async def test_required_refuses_a_module_without_cases_and_off_asks_none(good, guests) -> None:
    """Each with its own sentence."""
    good.folder.plugin("p", guests.saying("two"), selfTest="Required")
    found = good.wait_plugin("p", failure=lambda failure: failure is not None)
    assert "spec.selfTest: Required asks for a module that carries its own cases" in found["failure"]["message"]
    assert await asked(good) == "one"
    good.folder.plugin("p", carrying(guests.saying("two"), saying("three")), selfTest="Off")
    await answers(good, "two")
    good.logs("spec.selfTest: Off asks none")


async def test_a_restart_asks_no_version_again(good, guests) -> None:
    """It is remembered beside the compiled modules, pass and failure."""
    good.folder.plugin("p", carrying(guests.saying("two"), saying("three")))
    good.wait_plugin("p", failure=lambda failure: failure is not None)
    good.stop()
    held = good.log.count("own case holds")
    assert held == 1
    good.start()
    found = good.wait_plugin("p", failure=lambda failure: failure is not None)
    assert found["failure"]["message"].endswith("(it is not asked again before it changes)")
    assert await asked(good) == "one"
    good.folder.plugin("p", carrying(guests.saying("one"), saying("one")))
    good.wait_plugin("p", state="Running", failure=None)
    assert good.log.count("own case holds") == held


async def test_an_operator_hears_of_it_before_anything_switches(new_sidecar, operator, guests, eventually) -> None:
    """The report says verify, and why; what ran goes on, in all workers."""
    sidecar = new_sidecar(
        plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token, workers=2
    )
    first = operator.entry("p", carrying(guests.saying("one"), saying("one")))
    version = operator.send(first)
    sidecar.start()
    eventually(lambda: operator.last.running == version, "the first version")
    operator.send(operator.entry("p", carrying(guests.saying("two"), saying("three"))), hold=True)

    def failure():
        return next((each.failure for each in operator.last.plugins if each.name == "p" and each.failure), None)

    told = eventually(failure, "a failure in the report")
    assert told.cause == "verify"
    assert told.message == 'its own case \'case 0\' does not hold: value is "two", and should be "three"'
    assert await asked(sidecar) == "one"
    (plugin,) = operator.last.plugins
    assert plugin.revision == first.revision
    sidecar.end()


async def test_cases_that_cannot_be_read_hold_up_nothing(good, guests) -> None:
    """They say nothing of the module: that is a line in the log."""
    good.folder.plugin("p", with_sections(guests.saying("two"), {"hookline.cases": b"\xff"}))
    await answers(good, "two")
    good.logs("the section hookline.cases cannot be read: the cases are not text in UTF-8")


async def test_a_module_whose_alloc_traps_is_not_switched_to(good) -> None:
    """It carries no case, and would fail each call."""
    text = (
        '(module (memory (export "memory") 2) (func (export "alloc") (param i32) (result i32) unreachable)'
        ' (func (export "custom_hook") (param i32 i32) (result i64) (i64.const 0)))'
    )
    good.folder.plugin("p", bytes(wasmtime.wat2wasm(text)))
    found = good.wait_plugin("p", failure=lambda failure: failure is not None)
    assert found["failure"]["cause"] == "verify"
    assert "an input of 64 bytes was handed over when the module was tried" in found["failure"]["message"]
    assert await asked(good) == "one"
