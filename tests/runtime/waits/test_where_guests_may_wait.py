"""Only a hook may wait. Everywhere else, and in what a guest does for another answer, the function is unavailable."""

from __future__ import annotations

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_api.hooks import Hook

_UNAVAILABLE = 6
_KEEP = "(i64.store (i32.const 600) (call $fetch (i32.const 1024) (i32.const 2)))"
_SAY = "(call $number (i64.load (i32.const 600)))"
_ALLOC = f"""
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32) (local $p i32)
  {_KEEP}
  (local.set $p (global.get $top))
  (global.set $top (i32.add (global.get $top) (local.get $n)))
  (local.get $p))
"""


async def test_a_guest_that_asks_in_its_alloc_gets_an_error(workshop, wat, way, others):
    """Its alloc is called for the input, which does not wait."""
    runtime = await workshop.guest(
        wat.module(imports=FETCH, alloc=_ALLOC, hooks={"custom_hook": _SAY}, data={1024: b"{}"}), **SETTINGS
    )
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == _UNAVAILABLE
    assert others.asked == 0


async def test_a_guest_that_asks_in_its_alloc_for_an_answer_does_not_recurse(workshop, wat, way, others):
    """The answer of one question is put where alloc says, and alloc cannot ask the next one."""
    others.answer = b"{}"
    runtime = await workshop.guest(
        wat.module(imports=FETCH, alloc=_ALLOC, hooks={"custom_hook": f"(drop {ASK}) {_SAY}"}, data={1024: b"{}"}),
        **SETTINGS,
    )
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == _UNAVAILABLE
    assert others.asked == 1


async def test_a_guest_that_asks_in_its_alloc_for_what_needs_no_waiting_does_not_recurse(workshop, wat, way, others):
    """Settings are given in the same way; the process of a guest that asks meanwhile goes on."""
    imports = FETCH + wat.host("hookline", "get_config", "i32 i32", "i64")
    body = f"(drop (call $get_config (i32.const 0) (i32.const 0))) {_SAY}"
    runtime = await workshop.guest(
        wat.module(imports=imports, alloc=_ALLOC, hooks={"custom_hook": body}, data={1024: b"{}"}),
        permissions=["http.fetch", "config.read"],
        config={"a": 1},
    )
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == _UNAVAILABLE
    assert others.asked == 0


async def test_a_guest_that_asks_in_its_dealloc_gets_an_error(workshop, wat, way, others):
    """It frees its input after the hook."""
    dealloc = f"""
    (func (export "dealloc") (param $p i32) (param $n i32) {_KEEP}
      (if (i32.eq (i32.add (local.get $p) (local.get $n)) (global.get $top))
        (then (global.set $top (local.get $p)))))"""
    runtime = await workshop.guest(
        wat.module(imports=FETCH, dealloc=dealloc, hooks={"custom_hook": _SAY}, data={1024: b"{}"}),
        **SETTINGS,
        isolation={"mode": "Pooled", "size": 1},
    )
    await runtime.call(Hook.CUSTOM, b"0")
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == _UNAVAILABLE
    assert others.asked == 0


@pytest.mark.parametrize(
    "part",
    [f'(func (export "_initialize") {_KEEP})', f"(func $begin {_KEEP}) (start $begin)"],
    ids=["_initialize", "start"],
)
async def test_a_guest_that_asks_while_it_comes_up_gets_an_error(workshop, wat, way, others, part):
    """A module is loaded all the same: what it makes of the error is its affair."""
    runtime = await workshop.guest(
        wat.module(part, imports=FETCH, hooks={"custom_hook": _SAY}, data={1024: b"{}"}), **SETTINGS
    )
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == _UNAVAILABLE
    assert others.asked == 0


async def test_an_alloc_that_traps_for_an_answer_is_an_error_of_the_function(workshop, wat, way, others):
    """The hook goes on, and the next call is served."""
    others.answer = b"1234567"
    alloc = """
    (func $alloc (export "alloc") (param $n i32) (result i32)
      (if (i32.eq (local.get $n) (i32.const 7)) (then unreachable))
      (i32.const 65536))"""
    runtime = await workshop.guest(
        wat.module(imports=FETCH, alloc=alloc, hooks={"custom_hook": f"(call $number {ASK})"}), **SETTINGS
    )
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(2)] == [_UNAVAILABLE] * 2


async def test_a_guest_without_the_permission_is_told_and_does_not_wait(workshop, wat, others):
    """The denial is JSON, as every other error of the function."""
    runtime = await workshop.guest(wat.module(imports=FETCH, hooks={"custom_hook": ASK}))
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"]["error"]["cause"] == "denied"
    assert runtime.plugins["guest"].host.denied == {"http_fetch": 1}
    assert not runtime.plugins["guest"].waits


async def test_a_guest_counts_its_fuel_over_all_its_steps(workshop, wat, way, others):
    """What is spent before it waits is spent after it, too."""
    others.answer = b"{}"
    spin = """
    (local.set $i (i32.const 0))
    (loop $more (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $more (i32.lt_u (local.get $i)
      (i32.const 2000))))"""
    text = wat.module(imports=FETCH, hooks={"custom_hook": f"{spin} (drop {ASK}) {spin} {wat.echo}"})
    enough = await workshop.guest(text, **SETTINGS, limits={"fuel": 100_000})
    assert (await enough.call(Hook.CUSTOM, b"1"))["value"] == 1
    little = await workshop.guest(text, **SETTINGS, limits={"fuel": 20_000})
    assert (await little.call(Hook.CUSTOM, b"1"))["failure"] == "timeout"
