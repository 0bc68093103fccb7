"""The ten known traps of the system that these plugins come from, each as the promise that is kept here.

Those of the manifest folder (a bad new file, two files of one name) are in tests/sidecar as well.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re

import pytest

from hookline_api.abi import E_DENIED
from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_artifacts.module.inspection import inspect_module
from hookline_runtime.host.kv import MAX_KEYS
from hookline_runtime.plugin.stats import Summary
from hookline_runtime.runtime import PrepareError


@pytest.mark.parametrize("size", [17 * 1024, 490 * 1024, 1024 * 1024, 3 * 1024 * 1024])
async def test_1_a_policy_is_not_skipped_because_a_query_is_long(workshop, wat, size):
    """17 KB exhausted the default fuel there, 490 KB the guest's buffer; here the policy answers, or refuses."""
    read_all = """(loop $next
      (if (i32.lt_u (local.get $i) (local.get $n)) (then
        (if (i64.eq (i64.load (i32.add (local.get $p) (local.get $i))) (i64.const 0x4547524555534e55))
          (then (return (i64.const BLOCK))))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $next)))) (i64.const 0)"""
    block = b'{"action":"block","value":"found"}'
    text = wat.module(data={1024: block}, hooks={"pre_query": read_all.replace("BLOCK", str(1024 << 32 | len(block)))})
    runtime = await workshop.guest(text, limits={"timeout": "5s", "input": "1Mi"})
    query = "x" * size + (0x4547524555534E55).to_bytes(8, "little").decode()
    decision = await runtime.call(Hook.PRE_QUERY, json.dumps({"query": query}).encode())
    assert decision["action"] == "block"
    assert decision["value"] == "found" if size < 2**20 else decision["failure"] == "overload"


@pytest.mark.parametrize(
    ("hooks", "body"),
    [
        ({"pre_query": "unreachable"}, b'{"query": "drop table t"}'),
        ({"pre_query": "(loop $l (br $l)) (i64.const 0)"}, b'{"query": "drop table t"}'),
        ({"pre_query": f"(i64.const {1024 << 32 | 8})"}, b'{"query": "drop table t"}'),
        ({"pre_query": f"(i64.const {1032 << 32 | 3})"}, b'{"query": "drop table t"}'),
    ],
    ids=["a trap", "a timeout", "bad JSON", "a byte that is not UTF-8"],
)
async def test_2_a_guard_that_fails_refuses(workshop, wat, hooks, body):
    """There everything failed open: a trap, a timeout, bad JSON, one byte that is not UTF-8."""
    text = wat.module(hooks=hooks, data={1024: b"not json", 1032: b'"\xff"'})
    decision = await (await workshop.guest(text, limits={"timeout": "20ms"})).call(Hook.PRE_QUERY, body)
    assert decision["action"] == "block"
    assert decision["failure"] in {"trap", "timeout", "result"}


async def test_2_a_guard_without_its_export_is_not_loaded(workshop, wat):
    """There a missing export was a hook that agreed to everything."""
    entry = await workshop.plugin(wat.module(hooks={"route": "(i64.const 0)"}), hooks=["pre_query"])
    with pytest.raises(PrepareError, match="pre_query"):
        await workshop.run(entry)


async def test_3_a_rewrite_ahead_of_a_guard_does_not_disable_the_guard(workshop, wat):
    """The guard sees the rewritten query, whatever its ``match`` said of the old one; priority is the order."""
    rewriter = await workshop.plugin(
        wat.module(answers={"pre_query": {"kind": "rewrite", "sql": "drop table users"}}),
        "z-rewriter",
        priority=10,
    )
    guard = await workshop.plugin(
        wat.module(answers={"pre_query": {"action": "block", "value": "guarded"}}),
        "a-guard", match={"queryClasses": ["ddl"], "tables": ["users"]},
    )  # fmt: skip
    runtime = await workshop.run(guard, rewriter)
    body = b'{"query": "select 1", "tables": ["orders"], "is_read_only": true}'
    decision = await runtime.call(Hook.PRE_QUERY, body)
    assert (decision["action"], decision["value"], decision["plugin"]) == ("block", "guarded", "a-guard")
    alone = await workshop.run(guard)
    assert (await alone.call(Hook.PRE_QUERY, body))["action"] == "continue"


async def test_4_one_request_id_attributes_and_the_outcome_reach_every_hook(workshop, wat):
    """There: three ids for one statement, attributes always empty, success always true."""
    context = {"request_id": "r-42", "attributes": {"tenant_id": "t1", "helios.agent_id": "a"}}
    bodies = {
        Hook.PRE_QUERY: {"query": "q", "hook_context": context},
        Hook.ROUTE: {"query": "q", "hook_context": context},
        Hook.CACHE_GET: {"query": "q", "key": "k", "hook_context": context},
        Hook.POST_QUERY: [{"query": "q", "hook_context": context}, {"success": False, "error": "no such table"}],
    }
    kept = wat.module(
        imports=wat.host("env", "kv_set", "i32 i32 i32 i32", "i32"),
        data={1024: b"".join(hook.value.encode().ljust(16) for hook in bodies)},
        hooks={
            hook.value: f"""(drop (call $kv_set (i32.const {1024 + 16 * place}) (i32.const {len(hook.value)})
                                   (local.get $p) (local.get $n))) (i64.const 0)"""
            for place, hook in enumerate(bodies)
        },
    )
    runtime = await workshop.guest(kept, permissions=["kv.write"])
    for hook, body in bodies.items():
        assert (await runtime.call(hook, json.dumps(body).encode()))["request_id"] == "r-42"
    await runtime.drained()
    for hook in bodies:
        seen = json.loads(workshop.kv.get("guest", hook.value.encode()))
        head = seen[0] if hook is Hook.POST_QUERY else seen
        assert head["hook_context"]["request_id"] == "r-42"
        attributes = head["hook_context"]["attributes"]
        assert attributes == {**context["attributes"], "hookline.normalized": "verbatim"}
    outcome = json.loads(workshop.kv.get("guest", b"post_query"))[1]
    assert outcome["success"] is False
    assert outcome["error"] == "no such table"


async def test_5_permissions_memory_and_plugin_count_are_enforced(workshop, wat):
    """There all three were parsed and forgotten."""
    text = wat.module(
        imports=wat.host("hookline", "random", "i32 i32", "i32")
        + wat.host("hookline", "hmac_sha256", "i32 i32 i32 i32 i32", "i32"),
        hooks={
            "custom_hook": """(call $number (i64.extend_i32_s
              (call $hmac_sha256 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))""",
            "route": "(call $number (i64.extend_i32_s (memory.grow (i32.const 2000))))",
        },
    )
    runtime = await workshop.guest(text)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == E_DENIED
    assert runtime.plugins["guest"].host.denied == {"hmac_sha256": 1}
    grow = wat.module(hooks={"custom_hook": "(call $number (i64.extend_i32_s (memory.grow (i32.const 2000))))"})
    assert (await workshop.ask(grow))["value"] == -1
    with pytest.raises(PrepareError, match="more than 256"):
        await runtime.prepare(runtime.bundle.of([runtime.bundle.plugins[0].model_copy(update={"priority": 1})]),
                              workshop.find, numbers={"guest": 300})  # fmt: skip


async def test_6_a_reload_loads_before_it_unloads(workshop, wat):
    """There a bad new file left nothing; here the old one answers before, during and after."""
    good = await workshop.plugin(wat.module(answers={"authorize": {"action": "deny"}}))
    runtime = await workshop.run(good)
    bad = await workshop.plugin(wat.module("(start $t) (func $t unreachable)", answers={"authorize": {}}))
    for _ in range(3):
        loading = asyncio.create_task(runtime.load(Bundle.of([bad]), workshop.find))
        assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["action"] == "deny"
        with pytest.raises(PrepareError):
            await loading
        assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["action"] == "deny"


async def test_7_no_plugin_runs_twice(workshop, wat):
    """There a second file of the same name ran beside the first; here such a bundle is refused."""
    one, two = [await workshop.plugin(wat.switch(), priority=priority) for priority in (1, 2)]
    with pytest.raises(PrepareError, match="two plugins of this name"):
        await workshop.run(one, two)


async def test_8_a_plugin_without_a_manifest_answers_every_hook_that_it_exports(workshop, wat):
    """There it had no hooks, was shown as running, and was never called."""
    wasm_hooks = {hook.value: "(i64.const 0)" for hook in Hook}
    import wasmtime

    info = inspect_module(bytes(wasmtime.wat2wasm(wat.module(hooks=wasm_hooks))))
    assert info.description is None
    assert info.hooks == tuple(Hook)
    runtime = await workshop.guest(wat.module(hooks=wasm_hooks))
    bodies = {
        Hook.POST_QUERY: b'[{"query": ""}, {"success": true}]',
        Hook.CACHE_SET: b'{"query": "", "key": "", "value": ""}',
    }
    for hook in Hook:
        await runtime.call(hook, bodies.get(hook, b'{"query": "", "key": ""}'))
    await runtime.drained()
    assert [Summary.of([runtime._stats.row(0, hook).values()]).calls for hook in Hook] == [1] * 12


async def test_9_counters_lose_no_update_and_a_full_store_is_heard_of(workshop, wat):
    """There counters lost updates, and the audit plugin stopped at 1022 records without a word."""
    count = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        hooks={"custom_hook": "(call $number (call $kv_incr (local.get $p) (local.get $n) (i64.const 1)))"},
    )
    # on threads, and none of those that wait for one gives up
    runtime = await workshop.guest(count, permissions=["kv.write"], limits={"timeout": "60s"})
    for _ in range(10):
        await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(50)))
    assert workshop.kv.get("guest", b"0") == b"500"
    for number in range(MAX_KEYS - 1):
        workshop.kv.put("guest", b"record %d" % number, b"")
    assert (await runtime.call(Hook.CUSTOM, b"1"))["value"] < 0
    assert runtime.plugins["guest"].host.refused == {"kv_incr": 1}


async def test_10_statistics_cost_the_same_however_much_was_counted(workshop, wat):
    """There 10,000 samples were sorted on every call; here a call is a few additions in a fixed array."""
    from hookline_runtime.plugin import stats

    runtime = await workshop.guest(wat.switch())
    row = runtime._stats.row(0, Hook.CUSTOM)
    length = len(row.values())
    for _ in range(300):
        await runtime.call(Hook.CUSTOM, b"0")
    assert len(row.values()) == length
    source = inspect.getsource(stats).split("def count(")[1].split("def ")[0]
    assert not re.search(r"\b(sort|sorted|append|for|while)\b", source)
