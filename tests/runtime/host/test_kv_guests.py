"""Guests whose keys all pods share: one guest runs on both without a change, and its calls end as their policy says."""

from __future__ import annotations

import asyncio

import pytest

from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_runtime.plugin.stats import Summary
from kv_scopes import on_server
from valkey import redis_server
from waiting import until_true


def counter(wat):
    """A guest that counts calls at the key ``n`` and answers the count; -1 where it could not."""
    return wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        data={1024: b"n"},
        hooks={
            "custom_hook": """
            (local.set $w (call $kv_incr (i32.const 1024) (i32.const 1) (i64.const 1)))
            (if (i64.lt_s (local.get $w) (i64.const 0)) (then (return (call $number (i64.const -1)))))
            (call $number (local.get $w))"""
        },
    )


@pytest.mark.parametrize("isolation", ["PerCall", "Pooled"])
async def test_one_guest_counts_in_the_pod_and_over_all_pods(workshop, wat, redis, isolation):
    """Without a change. Two runtimes are two pods: each counts for itself, or both together."""
    common = {"permissions": ["kv.write"], "isolation": {"mode": isolation}, "limits": {"wait": "10s"}}
    settings = on_server(redis, **common)
    first = await workshop.guest(counter(wat), **settings)
    second = await workshop.guest(counter(wat), **settings)
    answers = await asyncio.gather(*(pod.call(Hook.CUSTOM, b"0") for pod in (first, second) for _ in range(50)))
    assert sorted(each["value"] for each in answers) == list(range(1, 101))
    assert workshop.kv.usage() == {}
    alone = await workshop.guest(counter(wat), **common)
    assert [(await alone.call(Hook.CUSTOM, b"0"))["value"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("moved", [False, True])
async def test_a_server_that_is_away_says_nothing_of_a_new_version_unless_it_has_another(
    workshop, wat, redis_program, tmp_path, moved
):
    """A policy changes while it is away, and holds; a version that was given another server is answered for."""
    with redis_server(redis_program, tmp_path / "redis") as server:
        settings = on_server(server, permissions=["kv.write"], limits={"wait": "10s"})
        first = await workshop.plugin(counter(wat), **settings, failurePolicy={"store": "PodLocal"})
        if moved:
            settings["kv"]["valkey"] = server.settings().model_copy(update={"timeout": 99})
        second = await workshop.plugin(counter(wat), **settings, failurePolicy={"store": "Closed"})
        runtime = await workshop.run(first)
        server.kill()
        assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1
        runtime.commit(await runtime.prepare(Bundle.of([second]), workshop.find, before=[first]))
        decision = await runtime.call(Hook.CUSTOM, b"0")
        assert decision.get("failure") == (None if moved else "store")
        assert (decision["value"] == 2) == moved
        assert Summary.of([runtime._stats.row(0, Hook.CUSTOM).values()]).alone == (1 if moved else 0)


@pytest.mark.parametrize(
    ("policy", "answer"), [(None, "deny"), ("Closed", "deny"), ("Open", "defer"), ("PodLocal", "allow")]
)
async def test_a_server_that_is_away_ends_the_call_as_the_policy_says(
    workshop, wat, redis_program, tmp_path, policy, answer
):
    """Closed where nothing is said; and when the server is back, its count goes on."""
    text = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        data={1024: b"n", 2048: b'{"action":"allow"}'},
        hooks={
            "authorize": f"""(drop (call $kv_incr (i32.const 1024) (i32.const 1) (i64.const 1)))
            (i64.const {2048 << 32 | 18})"""
        },
    )
    body = b'{"query":"select 1","action":"read","resource":"t","identity":{"user_id":"u","username":"u"}}'
    with redis_server(redis_program, tmp_path / "redis", durable=True) as server:
        settings = on_server(server, permissions=["kv.write"], limits={"wait": "10s"}, failurePolicy={"store": policy})
        runtime = await workshop.guest(text, **settings)
        assert (await runtime.call(Hook.AUTHORIZE, body))["action"] == "allow"
        server.kill()
        decision = await runtime.call(Hook.AUTHORIZE, body)
        assert decision["action"] == answer
        assert decision.get("failure") == (None if policy in {"PodLocal", "Open"} else "store")
        plugin = runtime.plugins["guest"]
        away = {"kv": f"the server at 127.0.0.1:{server.port} cannot be reached: Connection refused"}
        await until_true(lambda: plugin.host.unavailable == away, "that it is away, which the call may learn first")
        assert workshop.kv.get("guest", b"n") == (b"1" if policy == "PodLocal" else None)
        server.start()
        await until_true(lambda: not plugin.host.unavailable, "the server again")
        assert (await runtime.call(Hook.AUTHORIZE, body))["action"] == "allow"
        tag = f"hookline:{{{settings['namespace']}/guest}}"
        assert server.ask("HGET", f"{tag}:entries", "n") == b"2\n"
