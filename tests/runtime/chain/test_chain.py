"""How the plugins of one hook come to one decision: the table "The twelve hooks"."""

from __future__ import annotations

import json

import pytest

from hookline_api.hooks import OBSERVERS, Hook
from hookline_runtime.call.inputs import read_call
from hookline_runtime.plugin.stats import Summary

_QUERY = {"query": "select 1"}
_WHO = {"user_id": "1", "username": "ann", "roles": [], "tenant_id": None, "claims": {}}
_BODIES = {
    "authenticate": {},
    "cache_get": {**_QUERY, "key": "k"},
    "cache_set": {**_QUERY, "key": "k", "value": "", "ttl_ms": 1000},
    "post_query": [_QUERY, {"success": True}],
    "custom_hook": {"any": "thing"},
    "metrics": {}, "on_connect": {}, "on_disconnect": {},
}  # fmt: skip

# hook, the answers in the order of the chain (None: no opinion), the decision, whose it is
_TABLE = [
    ("authenticate", [{"action": "defer"}, None], {"action": "defer"}, None),
    ("authenticate", [None, {"action": "success", "identity": _WHO}, {"action": "denied", "message": "late"}],
     {"action": "success", "identity": _WHO}, 1),
    ("authenticate", [{"action": "denied", "message": "no"}, {"action": "success", "identity": _WHO}],
     {"action": "denied", "message": "no"}, 0),
    ("authorize", [None, None], {"action": "defer"}, None),
    ("authorize", [{"action": "allow", "reason": "a"}, {"action": "allow", "reason": "b"}],
     {"action": "allow", "reason": "a"}, 0),
    ("authorize", [{"action": "allow"}, {"action": "defer"}, {"action": "deny", "reason": "no"}],
     {"action": "deny", "reason": "no"}, 2),
    ("authorize", [{"action": "deny"}, {"action": "allow"}], {"action": "deny"}, 0),
    ("pre_query", [None, {"kind": "continue"}], {"action": "continue"}, None),
    ("pre_query", [{"kind": "rewrite", "sql": "a"}, None], {"action": "rewrite", "value": "a"}, 0),
    ("pre_query", [{"kind": "rewrite", "sql": "a"}, {"action": "rewrite", "value": "b"}, None],
     {"action": "rewrite", "value": "b"}, 1),
    ("pre_query",
     [{"kind": "rewrite", "sql": "a"}, {"kind": "block", "reason": "no"}, {"kind": "rewrite", "sql": "c"}],
     {"action": "block", "value": "no"}, 1),
    ("pre_query", [{"kind": "cached", "bytes": [1]}, {"kind": "block", "reason": "no"}],
     {"action": "cached", "data": [1]}, 0),
    ("rewrite", [None], {"action": "continue"}, None),
    ("rewrite", [{"action": "rewrite", "value": "a"}, {"kind": "rewrite", "sql": "b"}],
     {"action": "rewrite", "value": "b"}, 1),
    ("route", [None, {"action": "default"}], {"action": "default"}, None),
    ("route", [{"action": "default"}, {"action": "node", "target": "n"}, {"action": "primary"}],
     {"action": "node", "target": "n"}, 1),
    ("route", [{"action": "block", "reason": "no"}, {"action": "primary"}],
     {"action": "block", "reason": "no"}, 0),
    ("cache_get", [{"action": "miss"}, None], {"action": "miss"}, None),
    ("cache_get", [{"action": "miss"}, {"action": "hit", "data": [1]}, {"action": "hit", "data": [2]}],
     {"action": "hit", "data": [1]}, 1),
    ("cache_set", [None, {"action": "store"}], {"action": "store", "ttl_ms": 1000}, None),
    ("cache_set", [{"action": "store", "ttl_ms": 50}, None], {"action": "store", "ttl_ms": 50}, 0),
    ("cache_set", [{"action": "store", "ttl_ms": 50}, {"action": "store", "ttl_ms": 60}],
     {"action": "store", "ttl_ms": 60}, 1),
    ("cache_set", [{"action": "store", "ttl_ms": 50}, {"action": "skip"}, {"action": "store", "ttl_ms": 9}],
     {"action": "skip"}, 1),
    ("custom_hook", [None, None], {"action": "empty"}, None),
    ("custom_hook", [None, {"x": 1}, 5], {"action": "answered", "value": {"x": 1}}, 1),
    *((hook, [{"action": "deny"}], {"action": "accepted"}, None)
      for hook in ("post_query", "metrics", "on_connect", "on_disconnect")),
]  # fmt: skip


async def _chain(workshop, wat, hook, answers, **settings):
    """A runtime whose plugins p0, p1, … answer so, in this order."""
    return await workshop.run(
        *[
            await workshop.plugin(
                wat.configured(),
                f"p{place}",
                priority=-place,
                hooks=[hook],
                permissions=["config.read"],
                config={} if answer is None else {hook: answer},
                **settings,
            )
            for place, answer in enumerate(answers)
        ]
    )


@pytest.mark.parametrize(("hook", "answers", "decision", "whose"), _TABLE)
async def test_the_chain_decides_as_the_table_says(workshop, wat, hook, answers, decision, whose):
    """Each row, with who decided, the request's id and the bundle's version."""
    runtime = await _chain(workshop, wat, hook, answers)
    body = _BODIES.get(hook, _QUERY)
    answer = await runtime.call(Hook(hook), json.dumps(body).encode())
    assert answer == {
        **decision,
        "plugin": None if whose is None else f"p{whose}",
        "request_id": answer["request_id"],
        "bundle": runtime.bundle.version,
    }


@pytest.mark.parametrize("hook", Hook)
async def test_without_plugins_nobody_decides(workshop, hook):
    """The hook's default, and a bundle's version all the same."""
    runtime = await workshop.run()
    body = json.dumps(_BODIES.get(hook.value, _QUERY)).encode()
    decision = await runtime.call(hook, body)
    assert decision["plugin"] is None
    assert decision["bundle"] == runtime.bundle.version
    assert not runtime.chains.has_deciders(hook)


async def test_higher_priority_runs_earlier_and_names_break_ties(workshop, wat):
    """Neither the order in the bundle's source nor the folder's counts."""
    plugins = [
        await workshop.plugin(
            wat.configured(), name, priority=priority, config={"custom_hook": name},
            permissions=["config.read"], hooks=["custom_hook"],
        )
        for name, priority in [("zeta", 5), ("beta", 0), ("alpha", 0), ("omega", -5)]
    ]  # fmt: skip
    for gone in range(4):
        rest = sorted(plugins, key=lambda plugin: (-plugin.priority, plugin.name))[gone:]
        runtime = await workshop.run(*reversed(rest))
        assert (await runtime.call(Hook.CUSTOM, b"0"))["plugin"] == rest[0].name


async def test_a_rewrite_feeds_the_next_plugin(workshop, wat):
    """The next guest gets the new query in its input, and what the proxy said of the old one is withdrawn."""
    digit = """(func $hex (param $d i32) (result i32)
      (i32.add (local.get $d) (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $d) (i32.const 10)))))"""
    see = wat.module(digit, hooks={"pre_query": _INPUT_IN_HEX}, data={1024: b'{"action":"block","value":"'})
    first = await workshop.plugin(
        wat.module(answers={"pre_query": {"kind": "rewrite", "sql": "select 2"}}), "first", priority=1
    )
    runtime = await workshop.run(first, await workshop.plugin(see, "second"))
    body = {
        "query": "select 1", "normalized": "select ?", "tables": ["t"], "is_read_only": True,
        "hook_context": {"request_id": "r1", "attributes": {"tenant_id": "x"}},
    }  # fmt: skip
    decision = await runtime.call(Hook.PRE_QUERY, json.dumps(body).encode())
    assert (decision["plugin"], decision["request_id"]) == ("second", "r1")
    seen = json.loads(bytes.fromhex(decision["value"]))
    assert seen["query"] == "select 2"
    assert seen["normalized"] == "select 2"
    assert seen["is_read_only"] is False
    assert seen["tables"] == ["t"]
    assert seen["hook_context"]["attributes"] == {
        "tenant_id": "x", "hookline.rewritten_by": "first", "hookline.normalized": "verbatim",
    }  # fmt: skip
    assert seen["hook_context"]["request_id"] == "r1"


# The body of a hook that answers the 27 bytes at 1024, its input in hexadecimal, and ``"}``.
_INPUT_IN_HEX = """
    (memory.copy (i32.const 2048) (i32.const 1024) (i32.const 27))
    (local.set $j (i32.const 2075))
    (loop $next
      (if (i32.lt_u (local.get $i) (local.get $n)) (then
        (i32.store8 (local.get $j)
          (call $hex (i32.shr_u (i32.load8_u (i32.add (local.get $p) (local.get $i))) (i32.const 4))))
        (i32.store8 (i32.add (local.get $j) (i32.const 1))
          (call $hex (i32.and (i32.load8_u (i32.add (local.get $p) (local.get $i))) (i32.const 15))))
        (local.set $j (i32.add (local.get $j) (i32.const 2)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next))))
    (i32.store16 (local.get $j) (i32.const 0x7d22))
    (i64.or (i64.shl (i64.const 2048) (i64.const 32))
            (i64.extend_i32_u (i32.sub (i32.add (local.get $j) (i32.const 2)) (i32.const 2048))))"""


async def test_a_rewrite_longer_than_the_next_plugin_takes_is_that_plugins_overload(workshop, wat):
    """A guard is not left out because a rewrite made the query long."""
    long = await workshop.plugin(
        wat.module(answers={"pre_query": {"kind": "rewrite", "sql": "x" * 2000}}), "long", priority=1
    )
    guard = await workshop.plugin(wat.module(hooks={"pre_query": "(i64.const 0)"}), "guard", limits={"input": 1000})
    runtime = await workshop.run(long, guard)
    decision = await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1"}')
    assert (decision["action"], decision["failure"], decision["plugin"]) == ("block", "overload", "guard")


async def test_a_changed_ttl_is_what_the_next_plugin_sees(workshop, wat):
    """Its input is longer by the digits: the second plugin's limit lets the short one through only."""
    first = await workshop.plugin(
        wat.module(answers={"cache_set": {"action": "store", "ttl_ms": 10**12}}), "first", priority=1
    )
    body = json.dumps({**_QUERY, "key": "k", "value": "", "ttl_ms": 1}).encode()
    whole = len(read_call(Hook.CACHE_SET, body).data)
    second = await workshop.plugin(wat.module(hooks={"cache_set": "(i64.const 0)"}), "second", limits={"input": whole})
    assert (await (await workshop.run(second)).call(Hook.CACHE_SET, body))["ttl_ms"] == 1
    assert (await (await workshop.run(first)).call(Hook.CACHE_SET, body))["ttl_ms"] == 10**12
    assert (await (await workshop.run(first, second)).call(Hook.CACHE_SET, body))["failure"] == "overload"


@pytest.mark.parametrize("hook", sorted(set(Hook) - OBSERVERS))
async def test_a_shadow_plugin_runs_and_decides_nothing(workshop, wat, hook):
    """Refusing, and failing: neither changes the answer, both are measured."""
    answers = {
        "authenticate": {"action": "denied", "message": "no"}, "authorize": {"action": "deny"},
        "pre_query": {"kind": "block", "reason": "no"}, "rewrite": {"kind": "rewrite", "sql": "x"},
        "route": {"action": "block", "reason": "no"}, "cache_get": {"action": "hit", "data": []},
        "cache_set": {"action": "skip"}, "custom_hook": 5,
    }  # fmt: skip
    shadow = await workshop.plugin(wat.module(answers={hook.value: answers[hook.value]}), "shadow", mode="Shadow")
    broken = await workshop.plugin(wat.module(hooks={hook.value: "unreachable"}), "broken", mode="Shadow")
    runtime = await workshop.run(shadow, broken)
    decision = await runtime.call(hook, json.dumps(_BODIES.get(hook.value, _QUERY)).encode())
    assert decision["plugin"] is None
    assert "failure" not in decision
    assert not runtime.chains.has_deciders(hook)
    await runtime.drained()
    assert Summary.of([runtime._stats.row(0, hook).values()]).calls == 1
    assert Summary.of([runtime._stats.row(1, hook).values()]).calls == 1
    assert runtime.plugins["broken"].last_failure.cause == "trap"


async def test_observers_run_off_the_replys_path(workshop, wat):
    """The reply is there before any of them began; afterwards all of them have run."""
    text = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        hooks={"on_connect": "(drop (call $kv_incr (i32.const 0) (i32.const 1) (i64.const 1))) (i64.const 0)"},
    )
    plugins = [await workshop.plugin(text, f"p{number}", permissions=["kv.write"]) for number in range(3)]
    runtime = await workshop.run(*plugins)
    decisions = [await runtime.call(Hook.ON_CONNECT, b"{}") for _ in range(5)]
    assert {decision["action"] for decision in decisions} == {"accepted"}
    await runtime.drained()
    assert [workshop.kv.get(f"p{number}", b"\0") for number in range(3)] == [b"5"] * 3


async def test_an_observer_sees_the_query_as_it_came(workshop, wat):
    """And not what a plugin made of it on the way: a Shadow plugin sees what the first of a chain sees."""
    rewriter = await workshop.plugin(
        wat.module(answers={"pre_query": {"kind": "rewrite", "sql": "y" * 500}}), "rewriter", priority=5
    )
    shadow = await workshop.plugin(
        wat.module(hooks={"pre_query": "(i64.const 0)"}), "shadow", mode="Shadow", limits={"input": 400}
    )
    runtime = await workshop.run(rewriter, shadow)
    await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1"}')
    await runtime.drained()
    assert runtime.plugins["shadow"].last_failure is None


async def test_a_plugin_that_could_not_be_had_fails_closed_in_its_place(workshop, wat):
    """Its place in the chain answers; those before it are asked, those behind it are not."""
    from hookline_api.bundle import BundlePlugin

    gone = BundlePlugin.model_validate({
        "name": "gone", "hooks": ["authorize", "metrics"], "failure": {"cause": "fetch", "message": "404"},
    })  # fmt: skip
    deny = await workshop.plugin(wat.module(answers={"authorize": {"action": "deny"}}), "deny", priority=1)
    runtime = await workshop.run(gone)
    decision = await runtime.call(Hook.AUTHORIZE, b'{"query": ""}')
    assert (decision["action"], decision["plugin"], decision["failure"]) == ("deny", "gone", "fetch")
    assert runtime.chains.has_deciders(Hook.AUTHORIZE)
    assert (await runtime.call(Hook.METRICS, b"{}"))["action"] == "accepted"
    runtime = await workshop.run(gone, deny)
    assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["plugin"] == "deny"
