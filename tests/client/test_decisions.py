"""A proxy asks every hook with the client, and gets what the plugins of a real sidecar decide."""

from __future__ import annotations

import asyncio
import typing

import pytest

from hookline_api.hooks import DEFAULTS, RESULTS, AuthenticateInput, Hook, Outcome, QueryInput, closed
from hookline_client import HookClient, HookError, Policy, RefusedError, client
from waiting import PATIENCE_S

ANSWERS = {
    "authenticate": {
        "action": "success",
        "identity": {"user_id": "7", "username": "ada", "roles": ["dba"], "tenant_id": None, "claims": {}},
    },
    "authorize": {"action": "deny", "reason": "not you"},
    "pre_query": {"action": "rewrite", "value": "select 2"},
    "rewrite": {"action": "block", "value": "no"},
    "route": {"action": "node", "target": "n7"},
    "cache_get": {"action": "hit", "data": [0, 1, 255], "ttl_ms": 5},
    "cache_set": {"action": "store", "ttl_ms": 5},
    "custom_hook": {"deep": [1]},
}
WORDS = {
    Hook.AUTHENTICATE: client.Authentication,
    Hook.AUTHORIZE: client.Authorization,
    Hook.PRE_QUERY: client.PreQuery,
    Hook.REWRITE: client.Rewriting,
    Hook.ROUTE: client.Routing,
    Hook.CACHE_GET: client.Lookup,
    Hook.CACHE_SET: client.Storing,
    Hook.CUSTOM: client.Custom,
}


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """One plugin that answers what its config says."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("decider", guests.configured(), config=ANSWERS)
    return sidecar.start()


@pytest.fixture(params=["tcp", "unix socket"])
async def hooks(sidecar, request):
    """A client of that sidecar."""
    address = f"http://127.0.0.1:{sidecar.port}" if request.param == "tcp" else str(sidecar.socket)
    async with HookClient(address, timeout=PATIENCE_S) as hooks:
        yield hooks
        assert not hooks.failures


async def test_every_hook_is_asked_by_its_method(hooks):
    """What each decision holds is where a proxy looks for it."""
    who = await hooks.authenticate(username="ada", password="x", headers={"x-request-id": "r-1"})
    assert (who.action, who.identity["username"], who.request_id) == ("success", "ada", "r-1")
    who = await hooks.authenticate(username="ada", hook_context={"request_id": "r-2"})
    assert (who.action, who.request_id) == ("success", "r-2")
    assert (await hooks.authenticate(username="ada")).request_id
    may = await hooks.authorize(query="q", action="read", resource="t", identity=who.identity)
    assert (may.action, may.reason, may.refuses) == ("deny", "not you", True)
    query = await hooks.pre_query(query="select 1", tables=["t"], hook_context={"request_id": "r-1"})
    assert (query.action, query.value, query.plugin) == ("rewrite", "select 2", "decider")
    assert not query.refuses
    assert (query.request_id, query.failure) == ("r-1", None)
    rewritten = await hooks.rewrite(query="select 1")
    assert (rewritten.action, rewritten.reason, rewritten.refuses) == ("block", "no", True)
    node = await hooks.route(query="select 1", is_read_only=True)
    assert (node.action, node.target) == ("node", "n7")
    found = await hooks.cache_get(query="select 1", key="k")
    assert (found.action, found.data, found.ttl_ms) == ("hit", b"\x00\x01\xff", 5)
    kept = await hooks.cache_set(query="select 1", key="k", value=b"\xff", ttl_ms=9)
    assert (kept.action, kept.ttl_ms) == ("store", 5)
    assert (await hooks.custom([1, 2])).value == {"deep": [1]}
    for told in (
        hooks.post_query(query="select 1", success=True, elapsed_us=3),
        hooks.on_connect(event={"n": 1}),
        hooks.on_disconnect(hook_context={"identity": "ada"}),
        hooks.metrics(),
    ):
        decision = await told
        assert decision.action == "accepted"
    assert hooks.calls == 14


@pytest.mark.parametrize(
    ("hook", "given"),
    [
        (Hook.PRE_QUERY, QueryInput(query="select 1")),
        (Hook.PRE_QUERY, {"query": "select 1"}),
        (Hook.PRE_QUERY, b'{"query": "select 1"}'),
        (Hook.AUTHENTICATE, AuthenticateInput(username="ada")),
        (Hook.POST_QUERY, (QueryInput(query="select 1"), Outcome(success=True))),
        (Hook.POST_QUERY, [{"query": "select 1"}, {"success": True}]),
    ],
)
async def test_an_input_is_a_model_or_plain_data_or_bytes(hooks, hook, given):
    """All are the same to the sidecar."""
    decision = await hooks.call(hook, given)
    assert decision.action == ANSWERS.get(hook, {"action": "accepted"})["action"]
    assert decision.as_dict()["request_id"] == decision.request_id


async def test_request_ids_are_made_and_differ(hooks):
    """A statement's next hook can bear the id of the first."""
    first, second = await hooks.route(query="q"), await hooks.route(query="q")
    assert first.request_id != second.request_id
    third = await hooks.route(query="q", hook_context={"request_id": first.request_id})
    assert third.request_id == first.request_id


async def test_a_decision_does_not_change(hooks):
    """It may be handed around."""
    decision = await hooks.route(query="q")
    with pytest.raises(AttributeError):
        decision.action = "primary"
    decision.as_dict()["action"] = "primary"
    assert decision.action == "node"


@pytest.mark.parametrize("hook", list(Hook))
def test_the_words_are_those_of_the_contract(hook):
    """What a type checker sees for ``action`` is what the sidecar may answer."""
    words = {word for model in RESULTS[hook] for word in typing.get_args(model.model_fields["action"].annotation)}
    assert set(typing.get_args(WORDS.get(hook, client.Accepted))) == words


@pytest.mark.parametrize("hook", list(Hook))
@pytest.mark.parametrize("policy", [Policy.CLOSED, Policy.OPEN])
async def test_without_a_sidecar_the_policy_answers_as_the_sidecar_would(tmp_path, hook, policy):
    """Closed is the refusing answer of docs/reference/hooks.md, open the answer of an empty chain; both say why."""
    async with HookClient(str(tmp_path / "none.sock"), policy=policy) as hooks:
        decision = await hooks.call(hook, {"query": "q", "hook_context": {"request_id": "r-1"}})
        assert hooks.failures == {(hook, "unreachable", policy): 1}
    frame = {"plugin": None, "bundle": None, "failure": "unreachable", "detail": decision.detail}
    frame["request_id"] = "r-1"
    words = "the hook could not be asked (unreachable)"
    expected = closed(hook, words) if policy is Policy.CLOSED else {"action": DEFAULTS[hook]}
    assert decision.as_dict() == expected | frame


async def test_unless_told_otherwise_deciding_hooks_are_closed_and_observers_open(tmp_path):
    """And one hook's policy leaves the others alone."""
    async with HookClient(str(tmp_path / "none.sock"), policy={Hook.ROUTE: Policy.RAISE}) as hooks:
        assert (await hooks.pre_query(query="q")).refuses
        assert (await hooks.on_connect()).action == "accepted"
        with pytest.raises(HookError, match="No such file"):
            await hooks.route(query="q")
        assert sorted(hooks.failures) == [
            (Hook.ON_CONNECT, "unreachable", Policy.OPEN),
            (Hook.PRE_QUERY, "unreachable", Policy.CLOSED),
            (Hook.ROUTE, "unreachable", Policy.RAISE),
        ]


@pytest.mark.parametrize(
    "given",
    [
        {"query": 5},
        {"query": "\ud800"},
        {"query": "q", "tables": {1, 2}},
        b"no json",
        {"query": "q" * 2**20},
        {"query": "q" * 2**22},
    ],
    ids=["type", "surrogate", "no JSON type", "no JSON", "over the sidecar's limit", "over the client's"],
)
async def test_what_the_sidecar_refuses_is_never_let_through(new_sidecar, guests, given):
    """Who sends the statement could bring that about: an open policy is closed to it."""
    sidecar = new_sidecar(max_body="1Mi")
    sidecar.folder.plugin("decider", guests.configured(), config=ANSWERS)
    sidecar.start()
    async with HookClient(str(sidecar.socket), limit=2**21, timeout=PATIENCE_S, policy=Policy.OPEN) as hooks:
        decision = await hooks.call(Hook.PRE_QUERY, given)
        assert (decision.action, decision.failure) == ("block", "refused")
        assert hooks.failures == {(Hook.PRE_QUERY, "refused", Policy.CLOSED): 1}
        assert (await hooks.pre_query(query="select 1")).action == "rewrite"
    async with HookClient(str(sidecar.socket), limit=2**21, timeout=PATIENCE_S, policy=Policy.RAISE) as hooks:
        with pytest.raises(RefusedError):
            await hooks.call(Hook.PRE_QUERY, given)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"connections": 0}, {"depth": -1}, {"queue": 0}, {"limit": 0}])
def test_a_bound_that_lets_nothing_through_is_a_mistake(options):
    """Said when the client is made."""
    with pytest.raises(ValueError, match="above zero"):
        HookClient("/run/hooks.sock", **options)


@pytest.mark.parametrize("address", ["hooks.sock", "https://127.0.0.1", "http://", "http://h/path", "http://h:x"])
def test_an_address_that_is_none_is_a_mistake(address):
    """Said when the client is made."""
    with pytest.raises(ValueError, match=r"neither|Port"):
        HookClient(address)


async def test_a_client_is_used_while_it_is_open(tmp_path):
    """Before and after, a call is a mistake of the program, and no policy hides it."""
    hooks = HookClient(str(tmp_path / "none.sock"))
    with pytest.raises(RuntimeError, match="not open"):
        await hooks.pre_query(query="q")
    async with hooks:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await hooks.pre_query(query="q")


async def test_many_calls_at_once_get_each_their_own_answer(new_sidecar, guests):
    """Two connections, eight calls in flight on each, the rest waits: answers are never mixed up."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("echo", guests.module({"custom_hook": guests.echo}))
    sidecar.start()
    async with HookClient(str(sidecar.socket), timeout=PATIENCE_S, connections=2, depth=8, queue=2000) as hooks:
        decisions = await asyncio.gather(*(hooks.custom({"n": n, "pad": "x" * (n % 700)}) for n in range(2000)))
        assert [decision.value["n"] for decision in decisions] == list(range(2000))
        assert not hooks.failures
