"""Plugins on threads share a process and nothing else: no errors, no memory, no host."""

from __future__ import annotations

import asyncio
import collections
import threading
import time

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.guest import calls, program
from hookline_runtime.guest import native as native_calls


async def test_two_plugins_that_trap_at_the_same_time_never_get_each_others_errors(workshop, wat):
    """wasmtime-py keeps one exception for the whole process: one trap in ten was the other plugin's."""
    spin = """(local.set $i (i32.const 2000))
    (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"""
    host = wat.host("env", "kv_get", "i32 i32 i32 i32", "i32")
    ask = "(drop (call $kv_get (i32.const -1) (i32.const -1) (i32.const -1) (i32.const -1)))"
    divides = await workshop.plugin(
        wat.module(imports=host, hooks={"route": f"{spin} {ask} (i64.div_u (i64.const 1) (i64.const 0))"}),
        "divides",
    )
    stops = await workshop.plugin(wat.module(imports=host, hooks={"rewrite": f"{spin} {ask} unreachable"}), "stops")
    runtime = await workshop.run(divides, stops)
    problems = []

    def hammer(plugin, hook, says):
        guest = plugin._instances.guest
        for _ in range(400):
            instance = guest.instantiate()
            try:
                instance.call(hook, b"{}", last=True)
            except Exception as error:  # noqa: BLE001 - any other exception is the failure that is looked for
                if says not in str(error):
                    problems.append(error)
            instance.close()

    threads = [
        threading.Thread(target=hammer, args=(runtime.plugins["divides"], "route", "divide by zero")),
        threading.Thread(target=hammer, args=(runtime.plugins["stops"], "rewrite", "unreachable")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert problems == []


async def test_many_plugins_at_once_answer_each_for_itself(workshop, wat):
    """Eight plugins, on threads and inline, with host functions: each gets its own settings every time."""
    names = [f"p{number}" for number in range(8)]
    entries = [
        await workshop.plugin(
            wat.configured(),
            name,
            config={"custom_hook": name},
            permissions=["config.read"],
            hooks=["custom_hook"],
        )
        for name in names
    ]
    runtimes = [await workshop.run(entry) for entry in entries]
    for _ in range(10):
        answers = await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for runtime in runtimes for _ in range(5)))
        assert [answer["value"] for answer in answers] == [name for name in names for _ in range(5)]


@pytest.mark.slow
async def test_a_plugin_that_loops_does_not_hold_the_event_loop_while_it_is_on_probation(workshop, wat):
    """Another plugin's calls are answered while the loop runs."""
    looping = await workshop.plugin(wat.switch(), "looping", limits={"timeout": "2s"})
    quick = await workshop.plugin(wat.module(answers={"authorize": {"action": "allow"}}), "quick")
    runtime = await workshop.run(looping, quick)
    loop = asyncio.create_task(runtime.call(Hook.CUSTOM, b"2"))
    await asyncio.sleep(0)
    for _ in range(5):
        assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["action"] == "allow"
    assert not loop.done()
    assert (await loop)["failure"] == "timeout"


@pytest.mark.skipif(calls.Guest is not native_calls.Guest, reason="there is no such table")
async def test_instances_that_change_threads_take_nothing_from_who_runs_there(workshop, wat, monkeypatch):
    """A thread that takes an instance over, and the thread that had it, each reach their own guest's host."""

    class Yielding(dict):
        """A table whose readers lose the interpreter before they can act on what they read."""

        def get(self, key, default=None):
            found = super().get(key, default)
            time.sleep(0)
            return found

    running = Yielding()
    for room in native_calls, program:
        monkeypatch.setattr(room, "RUNNING", running)
    ask = "(call $random (i32.const 64) (i32.const 8))"
    text = wat.module(
        imports=wat.host("hookline", "random", "i32 i32", "i32"),
        hooks={"custom_hook": f"(if {ask} (then unreachable)) {wat.echo}"},
    )
    runtime = await workshop.guest(text, isolation={"mode": "Pooled"})
    guest = runtime.plugins["guest"]._instances.guest
    monkeypatch.setattr(guest, "quick", frozenset())  # the accelerator has the other table
    ready = collections.deque(guest.instantiate(timeout_ms=5000) for _ in range(6))
    start, problems = threading.Barrier(4), []

    def hammer():
        start.wait()
        for _ in range(2000):
            instance = ready.popleft()
            try:
                assert instance.call("custom_hook", b"1", last=False) == b"1"
            except Exception as error:  # noqa: BLE001 - whatever it is, the guest did nothing wrong
                problems.append(error)
                return
            ready.append(instance)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    for instance in ready:
        instance.close()
    assert problems == []
