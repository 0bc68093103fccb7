"""Plugins of HeliosDB-Proxy's SDK run unchanged: they read every input, whatever the proxy leaves out.

``heliosdb/guard`` is such a plugin. One null where it reads a ``String``, and it has no opinion about anything.
"""

from __future__ import annotations

import json

import pytest

from hookline_runtime.host.kv import KvStore

_DROP = "DROP TABLE users"


@pytest.fixture(scope="module")
def guarded(new_sidecar, heliosdb_guard):
    """A sidecar that runs the guard alone."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("guard", heliosdb_guard, permissions=["kv.read", "kv.write"])
    return sidecar.start()


def _query(said, **more):
    """The least of a query, with its strings as a proxy may say them."""
    return {"query": _DROP, **({} if said is _NOTHING else {"normalized": said}), **more}


_NOTHING = object()
_DECIDED = {
    "pre_query": {"action": "block", "value": "it drops"},
    "rewrite": {"action": "block", "value": "it drops"},
    "route": {"action": "block", "reason": "it drops"},
    "authorize": {"action": "deny", "reason": "  of r-1"},
    "cache_get": {"action": "miss"},
    "cache_set": {"action": "skip"},
    "custom_hook": {"action": "answered", "value": {"refused": True}},
}
_LEAST = {"cache_get": {"key": "k"}, "cache_set": {"key": "k", "value": "AA=="}}
_SAID = {"nothing": _NOTHING, "null": None, "empty": "", "its own": _DROP}


@pytest.mark.parametrize("hook", _DECIDED)
@pytest.mark.parametrize("said", _SAID)
async def test_a_guard_sees_what_will_run_whatever_is_said_of_it(guarded, hook, said):
    """It reads ``normalized`` alone; a custom hook gets what the proxy sent, and that is all of it."""
    body = _query(_SAID[said], hook_context={"request_id": "r-1"}, **_LEAST.get(hook, {}))
    if hook == "custom_hook":
        body["normalized"] = _DROP
    if hook == "authorize" and said == "null":
        body |= {"action": None, "resource": None, "identity": None}
    decision = await guarded.ask(hook, body)
    assert decision.items() >= _DECIDED[hook].items()
    if hook == "cache_get":  # a miss is also what nobody says: a query that drops nothing is a hit
        assert (await guarded.ask(hook, {"query": "select 1", "key": "k"}))["action"] == "hit"


async def test_the_first_field_report_is_blocked(guarded):
    """As it was sent: no normalized query, one attribute."""
    body = {"query": _DROP, "hook_context": {"attributes": {"application_name": "claude-bot"}}}
    assert (await guarded.ask("pre_query", body))["action"] == "block"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "'' at '' with 0 headers"),
        ({"username": None, "client_ip": None, "password": None}, "'' at '' with 0 headers"),
        ({"username": "ann", "client_ip": "::1", "headers": {"x": "y"}}, "'ann' at '::1' with 1 headers"),
    ],
)
async def test_an_authentication_is_read(guarded, body, message):
    """Also one of a client that says nothing of itself, and one that comes as a subrequest."""
    decision = await guarded.ask("authenticate", body)
    assert (decision["action"], decision["message"]) == ("denied", message)
    async with guarded.client() as session, session.get("/v1/auth") as response:
        assert response.status == 401


@pytest.mark.parametrize("hook", ["post_query", "metrics", "on_connect", "on_disconnect"])
@pytest.mark.parametrize("said", ["nothing", "null"])
async def test_an_observer_reads_what_it_is_told(guarded, hook, said, eventually):
    """What it read is in the store under the hook's name."""
    context = {"request_id": f"{hook}-{said}"}
    body = {"hook_context": context}
    expected = f"{hook}-{said} 0"
    if hook == "post_query":
        body = [{**_query(_SAID[said]), "query": f"{_DROP} -- {said}"}, {"success": False}]
        expected = f"{_DROP} -- {said} false 0 0"
    assert (await guarded.ask(hook, body))["action"] == "accepted"
    store = KvStore(guarded.state / "kv")
    try:
        eventually(lambda: store.get("guard", hook.encode()) == expected.encode(), expected)
    finally:
        store.close()


@pytest.mark.parametrize("hook", ["pre_query", "rewrite"])
@pytest.mark.parametrize("first", ["guard", "rewriter"])
async def test_a_guard_sees_a_rewritten_query_from_behind_and_the_first_one_from_before(
    new_sidecar, heliosdb_guard, guests, hook, first
):
    """Behind a rewriter it is asked about the new text, whatever the proxy said of the old one."""
    sidecar = new_sidecar()
    order = {"guard": 0, "rewriter": 0} | {first: 1}
    sidecar.folder.plugin("guard", heliosdb_guard, permissions=["kv.write"], hooks=[hook], priority=order["guard"])
    rewriter = guests.answering(**{hook: {"kind": "rewrite", "sql": _DROP if first == "rewriter" else "select 2"}})
    sidecar.folder.plugin("rewriter", rewriter, hooks=[hook], priority=order["rewriter"])
    sidecar.start()
    old = "select 1" if first == "rewriter" else _DROP
    for normalized in ({}, {"normalized": None}, {"normalized": "select ?" if first == "rewriter" else _DROP}):
        decision = await sidecar.ask(hook, {"query": old, **normalized})
        assert (decision["action"], decision["plugin"]) == ("block", "guard")
    harmless = await sidecar.ask(hook, {"query": "select 1"})
    assert harmless["action"] == ("rewrite" if first == "guard" else "block")


@pytest.mark.parametrize("hook", ["pre_query", "authenticate", "custom_hook", "on_connect"])
@pytest.mark.parametrize("way", ["lane", "server", "batch"])
async def test_a_body_that_says_a_name_twice_is_refused_whichever_way_it_comes(guarded, hook, way):
    """Some readers take the first and some the last: what the guard saw would not be what runs."""
    body = b'{"query":"select 1","more":{"x":[{"n":1,"n":2}]}}'
    options = {"headers": {"content-type": "application/json"}, "data": body}
    path = f"/v1/hooks/{hook}"
    if way == "server":
        options["chunked"] = True
    if way == "batch":
        path = "/v1/hooks:batch"
        options["data"] = b'{"calls":[{"hook":"%s","input":%s}]}' % (hook.encode(), body)
    async with guarded.client() as session, session.post(path, **options) as response:
        problem = json.loads(await response.read())
        problem = problem["decisions"][0] if way == "batch" else problem
        assert problem["status"] == 400
        assert "the name 'n' stands twice" in problem["detail"]
