"""A version whose own cases cannot hold, or are missing where they are asked for, is refused before any pod hears."""

from __future__ import annotations

import json

import pytest

from hookline_api.bundle import LoadFailure
from hookline_artifacts.module.annotate import with_sections

CASE = {"name": "a guest is denied", "hook": "authenticate", "input": {}, "expect": {"action": "denied"}}


def carrying(wasm, *cases):
    """A module with its own cases."""
    written = [CASE | {"name": f"case {number}"} | case for number, case in enumerate(cases)]
    return with_sections(bytes(wasm), {"hookline.cases": json.dumps(written).encode()})


@pytest.mark.parametrize(
    ("document", "spec", "words"),
    [
        (None, {"selfTest": "Required"}, "asks for a module that carries its own cases"),
        (b"\xff", {"selfTest": "Required"}, "not text in UTF-8"),
        (json.dumps([CASE | {"hook": "route"}]).encode(), {}, "asks route, which the module does not export"),
    ],
    ids=["none", "unreadable", "another-hook"],
)
async def test_a_version_is_refused_and_the_good_one_goes_on(
    operator, tenant, module, guarded, eventually, document, spec, words
):
    """With one sentence, and a reason of its own."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    wasm = bytes(module("v2"))
    source = tenant.module("bad", wasm if document is None else with_sections(wasm, {"hookline.cases": document}))
    tenant.plugin("guard", source, **spec)
    await eventually(lambda: tenant.ready("guard") == ("False", "SelfTestFailed"), "SelfTestFailed")
    message = tenant.status("guard")["conditions"]["Ready"]["message"]
    assert words in message
    assert "the last good version goes on in 1 pod" in message
    assert sidecar.runs() == before


async def test_the_status_says_how_many_cases_there_are(operator, tenant, module, connect, eventually):
    """And a pod that refuses the version by one of them is told of, while the others have switched."""
    for name in ("a", "b"):
        tenant.pod(name)
    failure = LoadFailure(cause="verify", message="its own case 'case 0' does not hold: action is \"denied\"")
    good = await connect(operator, tenant, "a")
    await connect(operator, tenant, "b", fails=lambda _: failure)
    tenant.plugin("guard", tenant.module("one", carrying(module("v1"), {}, {})), selfTest="Required")
    await good.until(good.runs)
    await eventually(lambda: tenant.ready("guard") == ("False", "PodsFailed"), "PodsFailed")
    status = tenant.status("guard")
    assert status["artifact"]["cases"] == 2
    assert status["failures"][0] | {"since": None} == {
        "pod": "b", "cause": "verify", "message": failure.message, "since": None,
    }  # fmt: skip
    assert good.bundle_of("guard").self_test == "Required"


async def test_a_note_says_what_nobody_asks(operator, tenant, module, guarded, eventually):
    """Cases that cannot be read keep nothing from running where they are not required."""
    await guarded(operator)
    unreadable = with_sections(bytes(module("v2")), {"hookline.cases": b"[]"})
    tenant.plugin("guard", tenant.module("two", unreadable))
    await eventually(
        lambda: "the section hookline.cases cannot be read" in json.dumps(tenant.status("guard")["conditions"]),
        "a note",
    )
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
