"""What a guest says when it fails is where its author looks, and nowhere else where it may be a value of a Secret.

Real sidecars with real guests, and an operator that reads their reports.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from waiting import until_true

IMPORTS = (
    '(import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))'
    '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
)
PANIC, LINE, FUNCTION = "panic: grants are missing", "they were asked for", "look_for_grants"
DATA = {
    1024: (2048).to_bytes(4, "little") + (len(PANIC) + 1).to_bytes(4, "little"),
    2048: PANIC.encode() + b"\n",
    3072: LINE.encode(),
}
FAILS = f"""
(drop (call $fd_write (i32.const 2) (i32.const 1024) (i32.const 1) (i32.const 1000)))
(drop (call $log (i32.const 2) (i32.const 3072) (i32.const {len(LINE)})))
(call ${FUNCTION}) (i64.const 0)
"""
PARTS = f"(func ${FUNCTION} unreachable)"


@pytest.fixture
def module(guests):
    """A guest that says why it traps."""
    return guests.module({"route": FAILS}, parts=PARTS, imports=IMPORTS, data=DATA)


@pytest.fixture
def sidecar(new_sidecar, operator):
    """A sidecar of that operator with two workers, not started yet."""
    sidecar = new_sidecar(
        plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token, workers=2
    )
    yield sidecar
    sidecar.end()


async def failing(sidecar, operator, entry, eventually):
    """What is told of a plugin once it fails on each call: to the operator, and on the admin page."""
    version = operator.send(entry)
    sidecar.start()
    eventually(lambda: operator.last.running == version, "a bundle that runs")

    async def look():
        await asyncio.gather(*(sidecar.ask("route", {"query": "select 1"}) for _ in range(8)))
        told = [health for each in operator.last.plugins for health in each.health if "trap" in health.message]
        shown = sidecar.plugin(entry.name)["last_failure"]
        return told and shown and (told[0], shown)

    return await until_true(look, "a failure that is told of")


async def test_a_guests_last_words_are_on_the_admin_page_and_in_the_report(sidecar, operator, module, eventually):
    """The sentence has its panic; beside it are the last line, and the functions that were under way."""
    health, shown = await failing(sidecar, operator, operator.entry("p", module, hooks=["route"]), eventually)
    sentence = f"route trapped: wasm `unreachable` instruction executed: {PANIC}"
    assert health.message == shown["message"] == sentence
    assert shown["line"] == LINE
    assert shown["backtrace"] == [FUNCTION, "route"]
    sidecar.logs(f"p: {PANIC}")
    sidecar.logs(f"{sentence}, in {FUNCTION} < route")


async def test_those_of_a_guest_that_has_secrets_are_in_the_pods_log_alone(sidecar, operator, module, eventually):
    """Neither report, admin page nor metrics have a word of it, and no name of a function."""
    entry = operator.entry(
        "p", module, hooks=["route"], config={"token": "a-value-of-a-secret"}, secret_paths=["token"]
    )
    health, shown = await failing(sidecar, operator, entry, eventually)
    assert "values of Secrets" in health.message
    assert health.message == shown["message"]
    assert shown["line"] is None
    assert shown["backtrace"] == []
    everywhere = json.dumps([sidecar.get("/v1/plugins"), sidecar.get("/v1/bundle"), sidecar.get("/metrics")])
    everywhere += "".join(report.model_dump_json() for report in operator.reports)
    for word in (PANIC, "grants", LINE, FUNCTION):
        assert word not in everywhere
    sidecar.logs(f"p: {PANIC}")
    sidecar.logs(f", in {FUNCTION} < route")


@pytest.mark.parametrize("secrets", [False, True])
async def test_what_does_not_come_up_says_why_unless_it_has_secrets(sidecar, operator, guests, eventually, secrets):
    """A panic while it is loaded is in the failure that the operator is told of."""
    body = FAILS.replace("(i64.const 0)", "")
    module = guests.module(
        {"route": "(i64.const 0)"}, parts=PARTS + f'(func (export "_initialize") {body})', imports=IMPORTS, data=DATA
    )
    more = {"config": {"token": "a-value-of-a-secret"}, "secret_paths": ["token"]} if secrets else {}
    operator.send(operator.entry("p", module, hooks=["route"], **more))
    sidecar.start(wait=False)

    def failure():
        return next((each.failure for each in operator.last.plugins if each.failure), None)

    eventually(lambda: operator.reports and failure(), "a failure that is told of")
    assert ("grants" in failure().message) is not secrets
    sidecar.logs(f"p: {PANIC}")
