"""Every hook is answered over TCP and over the unix socket, with who decided and which bundle."""

from __future__ import annotations

import json

import pytest

from hookline_api.hooks import Hook

QUERY = {"query": "select 1", "hook_context": {"request_id": "r-1"}}
CALLS = {
    "authenticate": ({"headers": {"x-request-id": "r-1"}}, {"action": "denied", "message": "no"}),
    "authorize": (QUERY, {"action": "deny", "reason": "no"}),
    "pre_query": (QUERY, {"action": "block", "value": "no"}),
    "rewrite": (QUERY, {"action": "rewrite", "value": "select 2"}),
    "route": (QUERY, {"action": "node", "target": "n7"}),
    "cache_get": (QUERY | {"key": "k"}, {"action": "hit", "data": [1, 2], "ttl_ms": 5}),
    "cache_set": (QUERY | {"key": "k", "value": "AQI="}, {"action": "store", "ttl_ms": 5}),
    "post_query": ([QUERY, {"success": True}], None),
    "metrics": ({"hook_context": {"request_id": "r-1"}, "event": {}}, None),
    "on_connect": ({"hook_context": {"request_id": "r-1"}, "event": {}}, None),
    "on_disconnect": ({"hook_context": {"request_id": "r-1"}, "event": {}}, None),
    "custom_hook": ({"hook_context": {"request_id": "r-1"}}, {"deep": [1]}),
}


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """One plugin that answers what its config says, and one that is asked before it and has no opinion."""
    sidecar = new_sidecar()
    answers = {name: answer for name, (_, answer) in CALLS.items() if answer is not None}
    sidecar.folder.plugin("decider", guests.configured(), config=answers)
    sidecar.folder.plugin("silent", guests.configured(), config={}, priority=10)
    return sidecar.start()


def test_there_is_a_call_for_every_hook():
    """The table above is whole."""
    assert set(CALLS) == set(Hook)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix socket"])
@pytest.mark.parametrize("hook", CALLS)
async def test_a_hook_is_answered_with_the_decision(sidecar, hook, unix):
    """200, the plugin's own answer, and the frame: who, for which request, by which bundle."""
    body, answer = CALLS[hook]
    expected = {"action": "accepted"} if answer is None else answer
    if hook == "custom_hook":
        expected = {"action": "answered", "value": answer}
    decision = await sidecar.ask(hook, body, unix=unix)
    bundle = sidecar.get("/v1/bundle")[1]["version"]
    frame = {"plugin": None if answer is None else "decider", "request_id": "r-1", "bundle": bundle}
    assert decision == expected | frame


async def test_a_request_id_is_made_where_there_is_none(sidecar):
    """Two calls, two ids; both plugins of the chain see the same one by construction."""
    first, second = [await sidecar.ask("pre_query", {"query": "select 1"}) for _ in range(2)]
    assert first["request_id"]
    assert second["request_id"]
    assert first["request_id"] != second["request_id"]


@pytest.mark.parametrize("spelling", ["PRE_QUERY", "prequery", "Pre_Query"])
async def test_hooks_answer_to_the_spellings_of_existing_manifests(sidecar, spelling):
    """Any case, with and without the underscore."""
    assert (await sidecar.ask(spelling, QUERY))["action"] == "block"


async def test_observers_run_off_the_replys_path(sidecar, eventually):
    """The answer is there at once; the calls are counted when they ran."""
    before = sidecar.plugin("decider")["stats"].get("on_connect", {"calls": 0})["calls"]
    for _ in range(5):
        await sidecar.ask("on_connect", {"event": {"n": 1}})
    eventually(lambda: sidecar.plugin("decider")["stats"]["on_connect"]["calls"] >= before + 5, "five observed calls")


async def test_a_body_without_content_type_is_taken_as_json(sidecar):
    """The proxy's HTTP client may not set one."""
    async with (
        sidecar.client(skip_auto_headers=["Content-Type"]) as session,
        session.post("/v1/hooks/pre_query", data=json.dumps(QUERY).encode()) as response,
    ):
        assert response.status == 200
        assert response.content_type == "application/json"
