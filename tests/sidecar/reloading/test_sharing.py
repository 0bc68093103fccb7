"""What workers share: the key-value store and the statistics; and what ``/metrics`` and ``/openapi.json`` say."""

from __future__ import annotations

import asyncio
import itertools
import json

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hookline_api.hooks import Hook
from waiting import until_true

QUERY = {"query": "select 1"}


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """Two workers; a counter, a plugin that traps, one that decides, and one that has no permission."""
    sidecar = new_sidecar(workers=2)
    sidecar.folder.plugin("counter", guests.counter(), permissions=["kv.write"])
    sidecar.folder.plugin("trap", guests.module({"route": guests.trap}))
    sidecar.folder.plugin(
        "open",
        guests.module({"cache_get": guests.forever}),
        failurePolicy={"timeout": "Open"},
        limits={"timeout": "5ms"},
    )
    sidecar.folder.plugin("decider", guests.configured(), hooks=["authenticate", "pre_query"], priority=5, config={
        "pre_query": {"action": "block", "value": "no"},
        "authenticate": {"action": "success", "identity": {"user_id": "1", "username": "u"}},
    })  # fmt: skip
    sidecar.folder.plugin(
        "denied", guests.counter(), hooks=["custom_hook"], priority=-5, permissions=[], permissionsPolicy="Lenient"
    )
    return sidecar.start()


def families(sidecar):
    """``/metrics``, parsed by Prometheus' own parser."""
    status, text = sidecar.get("/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(sidecar, name, **labels):
    """The sum over all samples of that name with these labels."""
    samples = [
        sample.value
        for family in families(sidecar).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert samples, name
    return sum(samples)


async def test_a_counter_in_the_store_is_exact_over_workers(sidecar):
    """Trap 9: 400 calls on 20 connections to two workers, and every number comes once."""

    async def client():
        async with sidecar.client() as session:
            numbers = []
            for _ in range(20):
                async with session.post("/v1/hooks/custom_hook", json=0) as response:
                    numbers.append((await response.json())["value"])
            return numbers

    everything = sorted(itertools.chain(*await asyncio.gather(*(client() for _ in range(20)))))
    assert everything == list(range(everything[0], everything[0] + 400))


async def test_the_statistics_are_those_of_both_workers(sidecar):
    """The calls above are all there, whoever answered them."""
    calls = sidecar.plugin("counter")["stats"]["custom_hook"]["calls"]
    assert calls >= 400
    assert value(sidecar, "hookline_plugin_calls_total", plugin="counter") == calls
    assert value(sidecar, "hookline_workers_current") == 2


def test_the_documented_families_are_there(sidecar):
    """Names and labels that an alert may rely on."""
    found = families(sidecar)
    for name in (
        "hookline_ready", "hookline_workers", "hookline_workers_current", "hookline_worker_connections",
        "hookline_connections",
        "hookline_bundle_changes", "hookline_manifest_problems", "hookline_bundle_info", "hookline_plugin_ready",
        "hookline_plugin_info", "hookline_plugin_healthy", "hookline_plugin_trouble", "hookline_plugin_calls",
        "hookline_plugin_failures", "hookline_plugin_skipped",
        "hookline_observers_dropped", "hookline_observers_waited", "hookline_observers_waited_seconds",
        "hookline_plugin_call_duration_seconds", "hookline_plugin_fuel", "hookline_plugin_memory_max_bytes",
        "hookline_host_calls_denied", "hookline_host_calls_refused", "hookline_cache_requests",
    ):  # fmt: skip
        assert name in found, name
        assert found[name].documentation
    assert value(sidecar, "hookline_ready") == 1
    assert {sample.labels["plugin"] for sample in found["hookline_plugin_ready"].samples} == set(sidecar.plugins())


async def test_failures_are_counted_by_cause_and_the_breaker_by_what_it_skips(sidecar, eventually):
    """In ``/metrics`` and in ``/v1/plugins`` alike."""
    for _ in range(30):
        decision = await sidecar.ask("route", QUERY)
        assert (decision["action"], decision["failure"], decision["plugin"]) == ("block", "trap", "trap")
    stats = sidecar.plugin("trap")["stats"]["route"]
    assert stats["failures"]["trap"] == stats["calls"] >= 5
    assert stats["calls"] + stats["skipped"] >= 30
    assert value(sidecar, "hookline_plugin_failures_total", plugin="trap", cause="trap") >= stats["calls"]
    assert value(sidecar, "hookline_plugin_skipped_total", plugin="trap") >= stats["skipped"]
    found = eventually(lambda: sidecar.plugin("trap")["last_failure"], "the last failure")
    assert found["cause"] == "trap"
    assert found["hook"] == "route"

    async def off():  # for longer with each call that fails: a look may come late
        await sidecar.ask("route", QUERY)
        return sidecar.plugin("trap")["paused"]

    assert (await until_true(off, "the breaker"))[0]["hook"] == "route"
    assert sidecar.log.count("plugin 'trap', hook route failed") <= 2  # once for each worker


async def test_a_failure_that_goes_open_is_counted_all_the_same(sidecar):
    """Nothing fails open silently."""
    assert (await sidecar.ask("cache_get", QUERY | {"key": "k"}))["action"] == "miss"
    assert value(sidecar, "hookline_plugin_failures_total", plugin="open", cause="timeout") >= 1


async def test_a_missing_permission_is_counted(sidecar, eventually):
    """By plugin and function."""
    sidecar.folder.plugin("counter", permissions=[], permissionsPolicy="Lenient")
    sidecar.wait_plugin("counter", state="Running", ungranted=["kv.write"])
    await sidecar.ask()
    eventually(lambda: sidecar.plugin("counter")["denied"] == {"kv_incr": 1}, "a denied call")
    assert value(sidecar, "hookline_host_calls_denied_total", plugin="counter", function="kv_incr") == 1
    sidecar.folder.plugin("counter", permissions=["kv.write"])
    sidecar.wait_plugin("counter", state="Running", ungranted=[])


async def test_histograms_are_cumulative_and_agree_with_the_count(sidecar):
    """As Prometheus wants them."""
    await sidecar.ask("pre_query", QUERY)
    buckets = [
        sample
        for sample in families(sidecar)["hookline_plugin_call_duration_seconds"].samples
        if sample.labels["plugin"] == "decider" and sample.name.endswith("_bucket")
    ]
    counts = [sample.value for sample in buckets]
    assert counts == sorted(counts)
    assert buckets[-1].labels["le"] == "+Inf"
    assert counts[-1] == value(sidecar, "hookline_plugin_calls_total", plugin="decider")


async def test_the_store_is_kept_over_a_restart(new_sidecar, guests):
    """Counters go on where they were."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("counter", guests.counter(), permissions=["kv.write"])
    sidecar.start()
    for expected in (1, 2, 3):
        assert await sidecar.says() == expected
    assert sidecar.stop() == 0
    sidecar.start()
    assert await sidecar.says() == 4
    sidecar.folder.plugin("counter", permissions=["kv.write"], priority=1)
    sidecar.wait_plugin("counter", state="Running", priority=1)
    assert await sidecar.says() == 5
    sidecar.stop()


# --- /openapi.json


def schema_of(document, hook, place):
    """The schema of a hook's input or answer, references resolved against the document."""
    operation = document["paths"][f"/v1/hooks/{hook}"]["post"]
    content = operation["requestBody"] if place == "input" else operation["responses"]["200"]
    found = content["content"]["application/json"]["schema"]
    return {"components": document["components"], **(found if isinstance(found, dict) else {})}


def test_openapi_is_whole(sidecar):
    """3.1, every hook, every admin path, and no reference that leads nowhere."""
    status, document = sidecar.get("/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    assert {f"/v1/hooks/{hook}" for hook in Hook} | {"/v1/auth", "/v1/hooks:batch", "/metrics"} <= set(
        document["paths"]
    )
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [path["post"]["operationId"] for path in document["paths"].values() if "post" in path]
    assert len(ids) == len(set(ids)) == 13  # the hooks, and batches


async def test_openapi_accepts_real_calls_and_real_decisions(sidecar):
    """What was sent and what came back, closed answers included."""
    document = sidecar.get("/openapi.json")[1]
    calls = {
        "authenticate": {"headers": {}}, "authorize": QUERY, "pre_query": QUERY, "rewrite": QUERY, "route": QUERY,
        "cache_get": QUERY | {"key": "k"}, "cache_set": QUERY | {"key": "k", "value": "AQ=="},
        "post_query": [QUERY, {"success": True}], "metrics": {}, "on_connect": {}, "on_disconnect": {},
        "custom_hook": {"any": 1},
    }  # fmt: skip
    assert set(calls) == set(Hook)
    for hook, body in calls.items():
        if hook != "custom_hook":
            jsonschema.validate(body, schema_of(document, hook, "input"), cls=jsonschema.Draft202012Validator)
        decision = await sidecar.ask(hook, body)
        jsonschema.validate(decision, schema_of(document, hook, "answer"), cls=jsonschema.Draft202012Validator)
        wrong = decision | {"action": "of no hook"}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema_of(document, hook, "answer"), cls=jsonschema.Draft202012Validator)


def test_the_admin_port_answers_what_is_not_there_with_a_problem(sidecar):
    """Hooks are elsewhere, and it says so."""
    status, body = sidecar.get("/v1/hooks/pre_query", method="POST")
    assert (status, body["status"]) == (404, 404)
    assert "/v1/plugins" in body["detail"]
    assert sidecar.get("/metrics", method="DELETE")[0] == 405
    assert sidecar.get("/healthz") == (200, {"status": "ok"})
