"""Caches in a real sidecar: all workers share them, none is lost with a worker, and ``/metrics`` counts each look."""

from __future__ import annotations

import os
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

_REMEMBER = """
(local.set $i (call $cache_get (i32.const 1028) (i32.const 5) (i32.const 1024) (i32.const 1)))
(if (i64.eqz (local.get $i)) (then
  (drop (call $cache_set (i32.const 1028) (i32.const 5) (i32.const 1024) (i32.const 1)
                         (local.get $p) (local.get $n) (i64.const 3600000)))
  (return (i64.const 0))))
(local.get $i)"""
_IMPORTS = """
(import "hookline" "cache_get" (func $cache_get (param i32 i32 i32 i32) (result i64)))
(import "hookline" "cache_set" (func $cache_set (param i32 i32 i32 i32 i32 i32 i64) (result i32)))"""
_SPEC = {
    "permissions": ["cache.read", "cache.write"],
    "caches": [{"name": "first", "memory": {"size": "1Mi"}}],
}


@pytest.fixture
def sidecar(new_sidecar, guests):
    """Two workers; a plugin that remembers the first input that it got, and answers it from then on."""
    sidecar = new_sidecar(workers=2, cache_memory="8Mi")
    module = guests.module({"custom_hook": _REMEMBER}, imports=_IMPORTS, data={1024: b"k", 1028: b"first"})
    sidecar.folder.plugin("remember", module, **_SPEC)
    return sidecar.start()


def looks(sidecar, result):
    """How often looking came to that, in both workers."""
    families = text_string_to_metric_families(sidecar.get("/metrics")[1])
    family = next(family for family in families if family.name == "hookline_cache_requests")
    return sum(
        sample.value
        for sample in family.samples
        if sample.labels == {"plugin": "remember", "cache": "first", "result": result}
    )


async def ask(sidecar, number):
    """What the guest answers, on a connection of its own: any worker may have it."""
    return (await sidecar.ask(body=number)).get("value")


async def test_workers_share_a_cache_and_one_that_is_replaced_finds_it(sidecar, eventually):
    """Killed, both of them: what was stored is found; and a new run of the sidecar begins without it."""
    assert await ask(sidecar, 1) is None
    assert [await ask(sidecar, number) for number in range(2, 22)] == [1] * 20
    eventually(lambda: looks(sidecar, "hit") == 20, "all hits")
    assert (looks(sidecar, "miss"), looks(sidecar, "away")) == (1, 0)
    before = sidecar.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(sidecar.workers) - set(before)) == 2, "new workers")
    sidecar.wait_workers()
    assert await ask(sidecar, 30) == 1
    sidecar.stop()
    sidecar.start()
    assert await ask(sidecar, 40) is None
    assert await ask(sidecar, 41) == 40


async def test_the_supervisor_drops_what_belongs_to_a_plugin_that_is_gone(sidecar, guests, eventually):
    """Another plugin of the same name begins without it."""
    assert await ask(sidecar, 1) is None
    sidecar.folder.plugin("another", guests.saying(7), priority=-1)
    sidecar.folder.remove("remember.yaml")
    await sidecar.wait_says(7)
    sidecar.folder.plugin("remember", **_SPEC)
    sidecar.wait_plugin("remember", state="Running")
    eventually(lambda: looks(sidecar, "miss") == 0, "a report of the new one")
    assert await ask(sidecar, 2) == 7
    assert await ask(sidecar, 3) == 2
