"""PerCall gives every call fresh memory; Pooled uses instances again until they fail or have served."""

from __future__ import annotations

import asyncio

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.errors import OverloadError
from hookline_runtime.guest import engine as engine_module
from hookline_runtime.guest import native as native_calls
from hookline_runtime.guest import official as official_calls
from hookline_runtime.guest.calls import Guest, Instance
from hookline_runtime.plugin import plugin as plugin_module

# Answers how many calls this instance has served, and leaves its input at 4096 for the next one to find.
_MEMORY = """
(i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (i32.const 1)))
(if (i32.eq (i32.load8_u (local.get $p)) (i32.const 49)) (then unreachable))
(call $number (i64.extend_i32_u (i32.load (i32.const 100))))
"""


@pytest.mark.usefixtures("unhurried")
async def test_per_call_no_call_finds_anything_of_another(workshop, wat):
    """A secret is planted all over memory; the next calls look for it, also where they grow."""
    plant_and_look = """
    (drop (memory.grow (i32.const 4)))
    (local.set $i (i32.const 131072))
    (loop $next
      (if (i32.eq (i32.load8_u (local.get $i)) (i32.const 83))
        (then (local.set $j (i32.add (local.get $j) (i32.const 1)))))
      (i32.store8 (local.get $i) (i32.const 83))
      (local.set $i (i32.add (local.get $i) (i32.const 64)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 393216))))
    (call $number (i64.extend_i32_u (local.get $j)))"""
    found = "(global $told (mut i32) (i32.const 0))"
    runtime = await workshop.guest(wat.module(found, hooks={"custom_hook": plant_and_look}))
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(30)] == [0] * 30
    together = await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(30)))
    assert {answer["value"] for answer in together} == {0}


async def test_per_call_globals_and_memory_start_anew(workshop, wat):
    """The first call is every call."""
    runtime = await workshop.guest(wat.module(hooks={"custom_hook": _MEMORY}))
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(20)] == [1] * 20


async def test_pooled_instances_are_used_again(workshop, wat):
    """One after the other, the same instance answers."""
    runtime = await workshop.guest(wat.module(hooks={"custom_hook": _MEMORY}), isolation={"mode": "Pooled"})
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_a_pooled_instance_is_dropped_after_its_calls(workshop, wat):
    """``maxCalls`` bounds what a guest that leaks may collect."""
    runtime = await workshop.guest(
        wat.module(hooks={"custom_hook": _MEMORY}), isolation={"mode": "Pooled", "maxCalls": 3}
    )
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]


async def test_an_instance_that_trapped_is_never_used_again(workshop, wat):
    """Its memory is whatever the trap left."""
    runtime = await workshop.guest(wat.module(hooks={"custom_hook": _MEMORY}), isolation={"mode": "Pooled"})
    values = []
    for body in (b"0", b"0", b"1", b"0", b"0"):
        answer = await runtime.call(Hook.CUSTOM, body)
        values.append(answer.get("failure") or answer["value"])
    assert values == [1, 2, "trap", 1, 2]


async def test_a_pool_keeps_no_more_than_its_size_and_closes_the_rest(workshop, wat, monkeypatch):
    """Every instance that was made is either in the pool or closed."""
    made, closed = [], []
    instantiate, close = Guest.instantiate, Instance.close

    def counted(self, **options):
        made.append(1)
        instead_of, before = options.get("instead_of"), len(closed)
        was_open = instead_of is not None and not instead_of.closed
        instance = instantiate(self, **options)
        if was_open and len(closed) == before:  # it was made anew in its place
            closed.append(1)
        return instance

    def counted_close(self):
        if not self.closed:
            closed.append(1)
        close(self)
        assert self.closed

    monkeypatch.setattr(Guest, "instantiate", counted)
    monkeypatch.setattr(Instance, "close", counted_close)
    runtime = await workshop.guest(wat.switch(), isolation={"mode": "Pooled", "size": 2}, limits={"concurrency": 8})
    for _ in range(5):
        await asyncio.gather(*(runtime.call(Hook.CUSTOM, body) for body in (b"0", b"1", b"3", b"0", b"0", b"0")))
    kept = runtime.plugins["guest"]._instances.ready
    assert len(kept) <= 2
    assert not any(instance.closed for instance in kept)
    assert len(closed) + len(kept) == len(made)
    await runtime.close()
    assert len(closed) == len(made)


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_the_instance_that_was_made_at_load_has_a_deadline_of_its_first_call(workshop, wat, mode, monkeypatch):
    """However long ago that was, and no longer a one than any other call has."""
    from hookline_runtime import runtime as runtime_module

    monkeypatch.setattr(runtime_module, "_FIRST_INSTANCE_MS", 1)
    runtime = await workshop.guest(wat.switch(), isolation={"mode": mode})
    engine = runtime.plugins["guest"]._instances.guest._engine
    for _ in range(1000):  # five seconds later, as the engine's clock has it
        engine.increment_epoch()
    assert (await runtime.call(Hook.CUSTOM, b"0")).get("value") == 0
    monkeypatch.setattr(runtime_module, "_FIRST_INSTANCE_MS", 60_000)
    runtime = await workshop.guest(wat.switch(), isolation={"mode": mode}, limits={"timeout": "20ms"})
    assert (await runtime.call(Hook.CUSTOM, b"2"))["failure"] == "timeout"


async def test_fuel_of_the_first_instance_is_not_the_first_calls(workshop, wat):
    """A guest that needs much to come up has all of its fuel for each call."""
    warm = """(func (export "_initialize") (local $i i32) (local.set $i (i32.const 900))
    (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))"""
    work = """(local.set $i (i32.const 900))
    (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i64.const 0)"""
    runtime = await workshop.guest(
        wat.module(warm, hooks={"custom_hook": work}), isolation={"mode": "Pooled"}, limits={"fuel": 7_000}
    )
    for _ in range(3):
        assert (await runtime.call(Hook.CUSTOM, b"0"))["action"] == "empty"


@pytest.mark.usefixtures("unhurried")
async def test_a_plugin_is_trusted_on_the_event_loop_after_some_quick_calls_and_for_less_each_time(workshop, wat):
    """One slow call sends it back to threads, for twice as many quick ones."""
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "200ms"})
    plugin = runtime.plugins["guest"]
    quick = []
    for _ in range(3):
        count = 0
        while not plugin.inline:
            await runtime.call(Hook.CUSTOM, b"0")
            count += 1
        quick.append(plugin._probation)
        assert count >= plugin._probation
        await runtime.call(Hook.CUSTOM, b"2")
        assert not plugin.inline
    assert quick == [8, 16, 32]
    assert plugin._probation <= plugin_module._MAX_PROBATION


@pytest.mark.parametrize("room", [native_calls, official_calls])
async def test_an_engine_that_has_no_place_left_is_an_overload(workshop, wat, monkeypatch, room):
    """Either way: it is not the guest's mistake, and its breaker has nothing to do with it."""
    monkeypatch.setattr(engine_module, "_engines", {})
    monkeypatch.setitem(engine_module._POOL, "total_core_instances", 2)
    entry = await workshop.plugin(wat.module(hooks={"custom_hook": wat.echo}))
    module = engine_module.load_compiled(workshop.find(entry), fuel=False)
    guest = room.Guest(module, limits=entry.limits, host={})
    instances = [guest.instantiate() for _ in range(2)]
    with pytest.raises(OverloadError, match="no place for another instance"):
        guest.instantiate()
    instances.pop().close()
    guest.instantiate().close()
    instances.pop().close()
