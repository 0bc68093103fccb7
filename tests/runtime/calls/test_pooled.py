"""``Pooled`` is safe or refused: no decision changes with the number of calls before it."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_runtime.runtime import PrepareError

from .test_own_memory import helios

MIB = 2**20
_POOLED = {"isolation": {"mode": "Pooled"}}
_TOP = "(global $next (mut i32) (i32.const 65536)) (global $freed (mut i32) (i32.const 0))"
_GROW = """(loop $more
  (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
    (then (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))) (return (i32.const 0)))))"""


def _guest(wat, *, alloc: str, dealloc: str | None, memory: str = "2", hook: str = "", parts: str = _TOP) -> str:
    """A guest whose hook answers how many bytes of its input are ``x``; then it does what ``hook`` says."""
    count = """
    (local.set $j (i32.const 0)) (local.set $i (i32.const 0))
    (loop $next
      (local.set $j (i32.add (local.get $j)
        (i32.eq (i32.load8_u (i32.add (local.get $p) (local.get $i))) (i32.const 120))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
    """
    return wat.module(
        parts,
        memory=f'(memory (export "memory") {memory})',
        alloc=f'(func $alloc (export "alloc") (param $n i32) (result i32) (local $p i32) {alloc})',
        dealloc="" if dealloc is None else f'(func (export "dealloc") (param $p i32) (param $n i32) {dealloc})',
        hooks={"custom_hook": f"{count} {hook} (call $number (i64.extend_i32_u (local.get $j)))"},
    )


_BUMP = f"""(local.set $p (global.get $next)) (global.set $next (i32.add (local.get $p) (local.get $n)))
  {_GROW} (local.get $p)"""
_DOWN = "(global.set $next (i32.sub (global.get $next) (local.get $n))) (global.get $next)"
_LAST = (
    "(if (i32.eq (i32.add (local.get $p) (local.get $n)) (global.get $next)) (then (global.set $next (local.get $p))))"
)

_NEVER_FREE = {
    "a bump that grows": {"alloc": _BUMP, "dealloc": ""},
    "without dealloc": {"alloc": _BUMP, "dealloc": None},
    "a bump in memory that does not grow": {"alloc": _BUMP, "dealloc": "", "memory": "4 4"},
    "downwards": {
        "alloc": _DOWN, "dealloc": "", "memory": "400",
        "parts": "(global $next (mut i32) (i32.const 26214400))",
    },
    "a page for each": {
        "alloc": "(i32.mul (memory.grow (i32.const 3)) (i32.const 65536))", "dealloc": "", "memory": "2",
    },
    "it keeps eight bytes of each": {
        "alloc": f"""(local.set $p (global.get $next))
          (global.set $next (i32.add (local.get $p) (i32.add (local.get $n) (i32.const 8)))) {_GROW} (local.get $p)""",
        "dealloc": "(global.set $next (i32.sub (global.get $next) (local.get $n)))",
    },
    "it frees the small ones": {
        "alloc": _BUMP,
        "dealloc": f"(if (i32.lt_u (local.get $n) (i32.const 1000)) (then {_LAST}))",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", _NEVER_FREE)
async def test_a_guest_that_never_frees_is_refused_when_it_is_loaded(workshop, wat, kind):
    """The cause is the settings', and the sentence says what to write instead."""
    with pytest.raises(PrepareError, match=r"Pooled is for plugins that free what they take.*PerCall") as refused:
        await workshop.guest(_guest(wat, **_NEVER_FREE[kind]), **_POOLED)
    assert refused.value.reason.cause == "config"
    assert "failure" not in await workshop.ask(_guest(wat, **_NEVER_FREE[kind]))


async def test_a_guest_of_heliosdbs_sdk_is_refused_for_its_stack(workshop):
    """Its inputs lie in its own stack, and climb."""
    with pytest.raises(PrepareError, match=r"inside its own stack \(0 to 1048576\).*PerCall"):
        await workshop.guest(helios(marks={"__data_end": MIB + 16, "__heap_base": MIB + 16}), **_POOLED)


_FREE = {
    "the last one": {"alloc": _BUMP, "dealloc": _LAST},
    "one place for all": {"alloc": "(i32.const 65536)", "dealloc": None, "memory": "8"},
    "all, when the first one goes": {
        "alloc": _BUMP,
        "dealloc": "(if (i32.eq (local.get $p) (i32.const 65536)) (then (global.set $next (i32.const 65536))))",
    },
    "a ring": {
        "alloc": "(if (i32.gt_u (i32.add (global.get $next) (local.get $n)) (i32.const 1000000))"
                 f" (then (global.set $next (i32.const 65536)))) {_BUMP}",
        "dealloc": None, "memory": "16",
    },
    "a collector that runs now and then": {
        "alloc": _BUMP,
        "dealloc": """(global.set $freed (i32.add (global.get $freed) (local.get $n)))
          (if (i32.gt_u (global.get $freed) (i32.const 4000000))
            (then (global.set $freed (i32.const 0)) (global.set $next (i32.const 65536))))""",
    },
    "two classes of sizes": {
        "alloc": """(if (result i32) (i32.lt_u (local.get $n) (i32.const 5000))
          (then (i32.const 65536)) (else (i32.const 131072)))""",
        "dealloc": "", "memory": "8",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", _FREE)
async def test_a_guest_that_frees_in_its_own_way_is_pooled(workshop, wat, kind):
    """Arenas, rings, collectors and classes of sizes all come to rest."""
    runtime = await workshop.guest(_guest(wat, **_FREE[kind]), **_POOLED)
    for size in (3, 20_000, 3, 200_000, 3, 3):
        decision = await runtime.call(Hook.CUSTOM, json.dumps("x" * (size - 2)).encode())
        assert decision["value"] == size - 2


# What no input shows: memory that the hook takes and keeps, and answers that are not freed.
_LEAKS = {
    "pages": {
        "alloc": "(i32.const 65536)", "dealloc": None, "memory": "8", "hook": "(drop (memory.grow (i32.const 3)))",
    },
    "it traps without a page": {
        "alloc": "(i32.const 65536)", "dealloc": None, "memory": "8",
        "hook": "(if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))",
    },
    "answers": {
        "alloc": _BUMP, "memory": "2",
        "dealloc": _LAST,
        "hook": """(local.set $i (call $alloc (i32.const 70000)))
          (if (i32.eqz (local.get $i)) (then unreachable))
          (i32.store8 (local.get $i) (i32.const 55))
          (return (i64.or (i64.shl (i64.extend_i32_u (local.get $i)) (i64.const 32)) (i64.const 1)))""",
    },
    "the place of the input": {
        "alloc": f"(if (i32.gt_u (global.get $freed) (i32.const 400)) (then (return (i32.const 0)))) {_BUMP}",
        "dealloc": _LAST, "hook": "(global.set $freed (i32.add (global.get $freed) (i32.const 1)))",
    },
    "an alloc that breaks": {
        "alloc": f"(if (i32.gt_u (global.get $freed) (i32.const 40)) (then unreachable)) {_BUMP}",
        "dealloc": _LAST, "hook": "(global.set $freed (i32.add (global.get $freed) (i32.const 1)))",
    },
    "the room in front of its rules": {
        # One byte that the hook reads and a lost piece may overwrite, though no input ever lies on it.
        "alloc": _BUMP, "dealloc": _LAST, "memory": "16",
        "parts": f'{_TOP} (data (i32.const 400000) "r")',
        "hook": """(local.set $i (call $alloc (i32.const 5000)))
          (if (i32.eqz (local.get $i)) (then unreachable))
          (memory.fill (local.get $i) (i32.const 0) (i32.const 5000))
          (if (i32.ne (i32.load8_u (i32.const 400000)) (i32.const 114)) (then (local.set $j (i32.const -1))))""",
    },
    "an alloc that strays into the data": {
        "alloc": f"(if (i32.gt_u (global.get $freed) (i32.const 40)) (then (return (i32.const 500)))) {_BUMP}",
        "dealloc": _LAST, "hook": "(global.set $freed (i32.add (global.get $freed) (i32.const 1)))",
        "parts": f'{_TOP} (data (i32.const 500) "policy")',
    },
}  # fmt: skip


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from([*_LEAKS, *_FREE]),
    isolation=st.sampled_from([
        {"mode": "PerCall"}, {"mode": "Pooled"}, {"mode": "Pooled", "size": 1}, {"mode": "Pooled", "maxCalls": 7},
    ]),
    memory=st.sampled_from(["2Mi", "5Mi", "64Mi"]),
    sizes=st.lists(st.sampled_from([3, 50, 3_000, 70_000]), min_size=1, max_size=4),
)  # fmt: skip
async def test_no_decision_changes_with_the_number_of_calls_before_it(workshop, wat, kind, isolation, memory, sizes):
    """What a guest loses is given back by taking a fresh instance, before its memory ends; or it is refused."""
    text = _guest(wat, **(_LEAKS | _FREE)[kind])
    limits = {"memory": memory, "timeout": "5s"}
    try:
        runtime = await workshop.guest(text, isolation=isolation, limits=limits)
    except PrepareError:  # it would collect after more than it may have
        assert (kind, isolation["mode"], memory) == ("a collector that runs now and then", "Pooled", "2Mi")
        return
    for size in sizes * (600 // len(sizes)):
        decision = await runtime.call(Hook.CUSTOM, json.dumps("x" * (size - 2)).encode())
        assert decision.get("value") == (7 if kind == "answers" else size - 2), decision


async def test_twelve_thousand_equal_calls_have_one_answer(workshop, wat):
    """In one process, as a connection sends them; before, a guest that never freed went on after 11,368 of them."""
    body = json.dumps("x" * 90).encode()
    for kind in ("pages", "answers"):
        runtime = await workshop.guest(_guest(wat, **_LEAKS[kind]), name=kind, **_POOLED)
        seen = {json.dumps((await runtime.call(Hook.CUSTOM, body))["value"]) for _ in range(12_000)}
        assert len(seen) == 1


@pytest.mark.parametrize("fuel", [None, 1_000_000])
@pytest.mark.parametrize("kind", ["pages", "an alloc that breaks"])
async def test_a_replacement_that_does_not_come_up_fails_the_call_and_nothing_else(workshop, wat, kind, fuel):
    """Where an instance cannot be set up any more; the process goes on, and so do plugins that can."""
    parts = f"""(func (export "_initialize")
      (if (i32.ge_s (call $kv_get (i32.const 8) (i32.const 1) (i32.const 16) (i32.const 8)) (i32.const 0))
        (then unreachable)))
      {_TOP}"""
    settings_of = dict(_LEAKS[kind])
    hook = f"(drop (call $kv_set (i32.const 8) (i32.const 1) (i32.const 8) (i32.const 1))) {settings_of.pop('hook')}"
    text = _guest(wat, parts=parts, hook=hook, **settings_of).replace(
        "(module",
        "(module"
        + wat.host("env", "kv_get", "i32 i32 i32 i32", "i32")
        + wat.host("env", "kv_set", "i32 i32 i32 i32", "i32"),
        1,
    )
    isolation, limits = {"mode": "Pooled", "size": 1}, {"fuel": fuel, "memory": "2Mi", "timeout": "5s"}
    runtime = await workshop.guest(
        text, isolation=isolation, limits=limits, permissions=["kv.read", "kv.write"], name="stuck"
    )
    came = [(await runtime.call(Hook.CUSTOM, b'"xx"')).get("failure") for _ in range(60)]
    assert came[0] is None
    assert came[-1] == "trap"
    assert came == sorted(came, key=lambda each: each is not None)
    assert "instantiation trapped" in runtime.plugins["stuck"].last_failure.message or "is paused" in str(
        runtime.plugins["stuck"].last_failure.message
    )


async def test_an_instance_that_is_replaced_counts_its_calls_anew(workshop, wat):
    """The next one has ``maxCalls`` of its own."""
    runtime = await workshop.guest(
        _guest(wat, **_LEAKS["an alloc that breaks"]), isolation={"mode": "Pooled", "size": 1}
    )
    plugin = runtime.plugins["guest"]
    seen = []
    for _ in range(100):
        await runtime.call(Hook.CUSTOM, b'"xx"')
        seen.append(plugin._instances.ready[0].calls)
    assert max(seen) == 41
    assert seen.count(1) >= 2


@pytest.mark.parametrize("size", [3, 90, 3_000])
async def test_an_instance_is_replaced_before_what_it_loses_reaches_its_own_data(workshop, wat, size):
    """What a hook takes for itself lies behind the input: no check of inputs sees it come near."""
    runtime = await workshop.guest(_guest(wat, **_LEAKS["the room in front of its rules"]), **_POOLED)
    body = json.dumps("x" * (size - 2)).encode()
    assert {(await runtime.call(Hook.CUSTOM, body))["value"] for _ in range(500)} == {size - 2}
