"""An input never lies on the guest's own stack or data: where ``alloc`` puts it there, the call is an overload.

The guests do what HeliosDB's SDK does: ``alloc`` hands out memory from 65536 upwards, and the hook writes onto its
stack, which begins at a mebibyte and grows downwards. They count the letter that their data names, in their input.
"""

from __future__ import annotations

import json

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_api.resources import Limits
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.memory_map import STACK_ROOM, read_memory_map
from hookline_runtime.guest import calls
from hookline_runtime.guest import native as native_calls
from hookline_runtime.runtime import PrepareError

MIB = 2**20
_LETTER = "x"
_LARGE = {"limits": {"input": "8Mi", "memory": "32Mi"}}


def helios(
    *,
    top: int = MIB,
    data: int = MIB,
    first: int = 65_536,
    frame: int = 2_048,
    marks: dict[str, int] | None = None,
    globals_: str = '(global $sp (export "__stack_pointer") (mut i32) (i32.const {top}))',
    alloc: str = "",
    parts: str = "",
) -> str:
    """A guest with its stack below ``top``, a byte of data at ``data``, and a bump allocator from ``first`` on."""
    exported = "".join(f'(global (export "{name}") i32 (i32.const {at}))' for name, at in (marks or {}).items())
    return f"""(module
      {parts}
      (memory (export "memory") 17)
      {globals_.format(top=top)}
      (global $next (mut i32) (i32.const {first}))
      {exported}
      (data (i32.const {data}) "{_LETTER}")
      (func $alloc (export "alloc") (param $n i32) (result i32) (local $p i32)
        {alloc}
        (local.set $p (global.get $next))
        (global.set $next (i32.add (local.get $p) (local.get $n)))
        (block $enough (loop $more
          (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
          (br_if $enough (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))
          (br $more)))
        (local.get $p))
      (func (export "dealloc") (param i32 i32))
      (func (export "custom_hook") (param $p i32) (param $n i32) (result i64)
        (local $i i32) (local $count i32) (local $at i32)
        (global.set 0 (i32.sub (global.get 0) (i32.const {frame})))
        (memory.fill (global.get 0) (i32.const 0) (i32.const {frame}))
        (loop $next
          (local.set $count (i32.add (local.get $count) (i32.eq (i32.load8_u (i32.const {data}))
            (i32.load8_u (i32.add (local.get $p) (local.get $i))))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
        (local.set $at (i32.add (global.get 0) (i32.const 64)))
        (loop $digit
          (local.set $at (i32.sub (local.get $at) (i32.const 1)))
          (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $count) (i32.const 10))))
          (local.set $count (i32.div_u (local.get $count) (i32.const 10)))
          (br_if $digit (local.get $count)))
        (local.set $i (i32.sub (i32.add (global.get 0) (i32.const 64)) (local.get $at)))
        (global.set 0 (i32.add (global.get 0) (i32.const {frame})))
        (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $i)))))"""


_RUST = {"__data_end": MIB + 16, "__heap_base": MIB + 16}


def _body(size: int) -> bytes:
    return json.dumps(_LETTER * (size - 2)).encode()


async def _count(runtime, size: int):
    decision = await runtime.call(Hook.CUSTOM, _body(size))
    return decision.get("failure") or decision["value"]


async def test_an_input_that_the_stack_leaves_room_for_is_read_whole(workshop):
    """HeliosDB's guests run unchanged: small inputs lie in their stack's lower part, where no frame comes."""
    runtime = await workshop.guest(helios(marks=_RUST), **_LARGE)
    for size in (3, 1_000, 65_536, 262_144, MIB - 65_536 - STACK_ROOM):
        assert await _count(runtime, size) == size - 2


async def test_an_input_that_would_lie_on_the_stack_or_the_data_is_an_overload(workshop):
    """The call does not run; the sentence says where the bytes would have been, and what to do."""
    runtime = await workshop.guest(helios(marks=_RUST), **_LARGE)
    for size in (MIB - 65_536 - STACK_ROOM + 1, 981_000, 981 * 1024, MIB, 2 * MIB):
        assert await _count(runtime, size) == "overload"
        message = runtime.plugins["guest"].last_failure.message
        assert f"alloc({size}) answered 65536" in message
        assert "overlap the module's own stack" in message
        assert "limits.input" in message


async def test_such_inputs_are_an_ordinary_overload_by_default(workshop):
    """What a plugin gets at the most is a quarter of a mebibyte, unless its resource says more."""
    assert Limits().input == 256 * 1024
    runtime = await workshop.guest(helios(marks=_RUST))
    assert await _count(runtime, 256 * 1024) == 256 * 1024 - 2
    assert await _count(runtime, 256 * 1024 + 1) == "overload"
    assert "limits.input is 262144" in runtime.plugins["guest"].last_failure.message


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(size=st.integers(3, 3 * MIB), frame=st.integers(64, STACK_ROOM // 16).map(lambda each: each * 16))
async def test_no_size_of_an_input_makes_a_wrong_answer(workshop, size, frame):
    """Whatever the frames of the hook: the answer is right, or the call is an overload."""
    runtime = await workshop.guest(helios(marks=_RUST, frame=frame), **_LARGE)
    assert await _count(runtime, size) in (size - 2, "overload")


_UNNAMED = "(global (mut i32) (i32.const {top}))"
_PROLOGUE = """(func (local i32)
  global.get 0 i32.const 16 i32.sub local.tee 0 global.set 0 local.get 0 i32.const 16 i32.add global.set 0)"""
_LAYOUTS = {
    "everything is exported": {"marks": _RUST},
    "the stack pointer is exported": {},
    "its name is in the section name": {"globals_": "(global $__stack_pointer (mut i32) (i32.const {top}))"},
    "data and heap are exported, and the first global is the pointer": {"globals_": _UNNAMED, "marks": _RUST},
    "the data begins where the stack does": {"globals_": _UNNAMED},
    "a function takes room from the first global": {"globals_": _UNNAMED, "data": MIB + 4096, "parts": _PROLOGUE},
    "the bounds of the stack are exported": {
        "globals_": _UNNAMED, "marks": {"__stack_low": 0, "__stack_high": MIB}, "data": MIB + 4096,
    },
    "the stack is behind the data": {"data": 1024, "marks": {"__data_end": 1040, "__heap_base": MIB}},
    "the stack is behind the data, and begins at an unknown place": {"data": 1024, "frame": 1024},
    "the heap is exported and the stack is full of data, as Wizer leaves it": {
        "marks": {"__data_end": MIB + 16, "__heap_base": MIB + 16}, "parts": '(data (i32.const 500) "left")',
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", _LAYOUTS)
async def test_all_that_linkers_say_of_the_stack_is_understood(workshop, layout):
    """The same guest, built by other linkers and with other settings of theirs."""
    runtime = await workshop.guest(helios(**_LAYOUTS[layout]), **_LARGE)
    assert await _count(runtime, 100_000) == 99_998
    assert await _count(runtime, 981_040) == "overload"
    assert await _count(runtime, 2 * MIB) == "overload"


async def test_an_input_from_within_the_data_is_an_overload(workshop):
    """Bytes that a module has from the start are its data, whether or not its linker's marks are there."""
    for first in (MIB - 4, MIB):
        text = helios(first=first, globals_="(global $other (mut i32) (i32.const 4096))", top=4096)
        runtime = await workshop.guest(text, name=f"at-{first}", **_LARGE)
        decision = await runtime.call(Hook.CUSTOM, _body(100))
        assert decision["failure"] == "overload"
        assert "the module's own data" in runtime.plugins[f"at-{first}"].last_failure.message


async def test_an_alloc_that_knows_nothing_of_the_data_keeps_off_all_of_it(workshop):
    """Also off what is zero at first, which no segment has: it would hand out bytes across the end of the data."""
    text = helios(first=MIB + 4096, marks={"__data_end": MIB + 65_536, "__heap_base": MIB + 65_536})
    runtime = await workshop.guest(text, **_LARGE)
    assert await _count(runtime, 100) == "overload"


async def test_a_buffer_for_inputs_among_the_data_is_the_modules_own_affair(workshop):
    """Where ``alloc`` knows its bounds: an arena in static memory is a common way to do without a heap."""
    bounded = f"""(if (i32.gt_u (local.get $n) (i32.const 40000)) (then (return (i32.const 0))))
      (return (i32.const {MIB + 4096}))"""
    text = helios(alloc=bounded, marks={"__data_end": MIB + 65_536, "__heap_base": MIB + 65_536})
    for mode in ("PerCall", "Pooled"):
        runtime = await workshop.guest(text, isolation={"mode": mode}, name=mode.lower(), **_LARGE)
        assert [await _count(runtime, size) for size in (100, 40_000, 40_001)] == [98, 39_998, "trap"]


async def test_a_buffer_below_a_stack_of_unknown_size_is_not_taken_for_the_stack(workshop):
    """An older linker puts the stack behind the data, and says nothing of either; buffers are right below it."""
    top = 49_232
    bounded = (
        """(if (i32.gt_u (local.get $n) (i32.const 40000)) (then (return (i32.const 0)))) (return (i32.const 1040))"""
    )
    text = helios(top=top, data=1024, alloc=bounded)
    for mode in ("PerCall", "Pooled"):
        runtime = await workshop.guest(text, isolation={"mode": mode}, name=mode.lower(), **_LARGE)
        assert [await _count(runtime, size) for size in (100, 40_000, 40_001)] == [98, 39_998, "trap"]


async def test_a_guest_with_a_heap_takes_any_input(workshop):
    """Behind the stack and the data there is nothing to be kept off."""
    for place, marks in enumerate((_RUST, {})):
        runtime = await workshop.guest(helios(first=MIB + 64, marks=marks), name=f"heap-{place}", **_LARGE)
        assert [await _count(runtime, size) for size in (3, 981_000, 4 * MIB)] == [1, 980_998, 4 * MIB - 2]


@pytest.mark.parametrize(
    "globals_",
    [
        "(global $limit (mut i32) (i32.const {top}))",  # it has another name
        '(global (export "limit") (mut i32) (i32.const {top}))',
        "(global i32 (i32.const {top}))",
        "(global (mut i64) (i64.const 5))",
        "(global (mut i32) (i32.const 0))",  # Go, and AssemblyScript without a stack
    ],
)
async def test_another_first_global_is_not_taken_for_a_stack(globals_):
    """Hand-written modules and other compilers have globals of their own."""
    text = f'(module (memory 17) {globals_.format(top=MIB)} (data (i32.const {MIB}) "x"))'
    assert read_memory_map(bytes(wasmtime.wat2wasm(text))).stack is None


async def test_what_the_host_gives_never_lies_on_the_stack_or_the_data_either(workshop, wat):
    """A host function answers that there is no room, as where ``alloc`` has none."""
    for where, answer in ((64, -6), (4096, None)):
        text = wat.module(
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            data={0: bytes(1024)},
            alloc=f"""(func (export "alloc") (param $n i32) (result i32)
              (if (i32.eq (local.get $n) (i32.const 3)) (then (return (i32.const 2000)))) (i32.const {where}))""",
            hooks={
                "custom_hook": """(local.set $w (call $get_config (i32.const 0) (i32.const 0)))
                (if (i64.lt_u (local.get $w) (i64.const 4294967296))
                  (then (return (call $number (i64.sub (i64.const 0) (local.get $w))))))
                (local.get $w)"""
            },
        )
        config = {"a": "b"}
        runtime = await workshop.guest(text, name=f"g{where}", config=config, permissions=["config.read"])
        decision = await runtime.call(Hook.CUSTOM, b"123")
        assert decision["value"] == (config if answer is None else answer)


@pytest.mark.skipif(calls.Guest is not native_calls.Guest, reason="regions are the quick way's")
async def test_a_region_for_inputs_on_the_stack_or_the_data_is_refused_when_loaded(workshop):
    """Not at the first call."""
    for at in (MIB - 100, MIB):
        region = f'(func (export "hookline_input") (result i64) (i64.const {at << 32 | 64}))'
        with pytest.raises(PrepareError, match="input region overlaps the module's own stack or data"):
            await workshop.guest(helios(marks=_RUST, parts=region))


def test_a_constant_that_is_reckoned_is_understood():
    """Position-independent modules place their data by sums."""
    text = """(module (memory 2) (global $base i32 (i32.const 1000))
      (data (i32.add (global.get $base) (i32.mul (i32.const 8) (i32.const 3))) "abc"))"""
    assert read_memory_map(bytes(wasmtime.wat2wasm(text))).data == ((1024, 1027),)


def test_a_module_that_is_cut_anywhere_is_read_or_refused():
    """No count and no length of a hostile module is believed."""
    whole = bytes(wasmtime.wat2wasm(helios(marks=_RUST)))
    for length in range(8, len(whole)):
        try:
            read_memory_map(whole[:length])
        except VerifyError as error:
            assert "cannot be read" in str(error)  # noqa: PT017 - most lengths are refused, those between sections not
