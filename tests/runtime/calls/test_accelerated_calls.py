"""A call comes to the same with the accelerator and without it, and without it the runtime goes on."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import threading

import pytest

from hookline_runtime.errors import CallError, TrapError
from hookline_runtime.guest import accelerator, capi, engine, layouts
from hookline_runtime.guest.calls import Guest, Instance

pytestmark = pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))

_native = pytest.mark.skipif("HOOKLINE_CALLS" in os.environ, reason="it calls no guest there")


_ALLOC = """
(global $at (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32)
  (if (i32.eq (local.get $n) (i32.const 13)) (then (return (i32.const 0))))
  (if (i32.eq (local.get $n) (i32.const 17)) (then unreachable))
  (if (i32.eq (local.get $n) (i32.const 19)) (then (return (i32.const 0xfffffff0))))
  (if (i32.eq (local.get $n) (i32.const 23)) (then (loop $ever (br $ever))))
  (if (i32.eq (local.get $n) (i32.const 29))
    (then (return (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))))
  (global.get $at))
"""
_DEALLOC = """
(global $freed (mut i32) (i32.const 0))
(func (export "dealloc") (param $p i32) (param $n i32)
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 57)) (then unreachable))
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 58)) (then (loop $ever (br $ever))))
  (global.set $freed (i32.add (global.get $freed) (local.get $n))))
"""
_REGION = f'(func (export "hookline_input") (result i64) (i64.const {70_000 << 32 | 12}))'
_HOOK = """
(local.set $i (i32.load8_u (local.get $p)))
(if (i32.eq (local.get $i) (i32.const 49)) (then unreachable))
(if (i32.eq (local.get $i) (i32.const 50)) (then (loop $ever (br $ever))))
(if (i32.eq (local.get $i) (i32.const 51)) (then (return (i64.const 0))))
(if (i32.eq (local.get $i) (i32.const 52)) (then (return (i64.const 0x7fffffff00000004))))
(if (i32.eq (local.get $i) (i32.const 53)) (then (return (i64.const 0x0000040000000800))))
(if (i32.eq (local.get $i) (i32.const 54))
  (then (drop (memory.grow (i32.const 1)))
        (return (i64.or (i64.shl (i64.extend_i32_u (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)))
                                 (i64.const 32)) (i64.const 8)))))
(if (i32.eq (local.get $i) (i32.const 55)) (then (return (call $get_config (local.get $p) (local.get $n)))))
(if (i32.eq (local.get $i) (i32.const 56))
  (then (return (call $number (i64.extend_i32_u (global.get $freed))))))
(if (i32.eq (local.get $i) (i32.const 48)) (then (return (i64.const 0x0000040000000005))))
"""


@pytest.mark.slow
@_native
@pytest.mark.parametrize("region", ["", _REGION])
@pytest.mark.parametrize("frees", [_DEALLOC, "(global $freed i32 (i32.const 0))"])
async def test_every_call_comes_to_the_same_with_it_and_without(workshop, wat, region, frees):
    """Answers, refusals and their words, memory and what is freed: after calls that went the common way."""
    entry = await workshop.plugin(
        wat.module(
            region,
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": _HOOK + wat.echo},
            data={1024: b"again"},
            alloc=_ALLOC,
            dealloc=frees,
        ),
        hooks=["custom_hook"],
        limits={"timeout": "20ms", "output": "1Ki"},
    )
    module = engine.load_compiled(workshop.find(entry), fuel=False)
    host = {("hookline", "get_config"): lambda memory, pointer, length: memory.give(memory.read(pointer, length) * 2)}
    with_it, without = (Guest(module, limits=entry.limits, host=host) for _ in range(2))
    assert with_it.accelerated
    without.accelerated = False
    ticker = engine.Ticker()
    ticker.start()
    try:
        for first in b"0123456789:x":
            for size in (1, 5, 12, 13, 16, 17, 19, 23, 29, 60):
                said = [_answers(guest, bytes([first]) * size) for guest in (with_it, without)]
                assert said[0] == said[1]
                said = [_said_once(guest, bytes([first]) * size) for guest in (with_it, without)]
                assert said[0] == said[1]
    finally:
        ticker.stop()


_START = """
(func $begin (local $said i64)
  (local.set $said (call $get_config (i32.const 1024) (i32.const 5)))
  (if (i64.eq (local.get $said) (i64.const 1)) (then unreachable))
  (if (i64.eq (local.get $said) (i64.const 2)) (then (loop $ever (br $ever))))
  (if (i64.eq (local.get $said) (i64.const 3)) (then (drop (memory.grow (i32.const 2))))))
(start $begin)
"""


@_native
async def test_every_instance_comes_up_the_same_with_it_and_without(workshop, wat):
    """Each in the place of the one before: also where the guest asks the host, traps, loops or grows as it comes up."""
    entry = await workshop.plugin(
        wat.module(
            _START,
            _REGION,
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": f"(drop (call $get_config (i32.const 0) (i32.const 8))) {wat.echo}"},
            data={1024: b"again"},
        ),
        hooks=["custom_hook"],
        limits={"timeout": "20ms"},
    )
    module = engine.load_compiled(workshop.find(entry), fuel=False)
    seen: list[object] = []
    wanted = [0]

    def host(memory, pointer, length):
        seen.append((memory.read(pointer, length), memory.give(b"0123456789"), memory.read(65_536, 4)))
        return wanted[0]

    def come_up(guest: Guest, before: Instance | None, timeout_ms: int | None) -> Instance | None:
        try:
            instance = guest.instantiate(timeout_ms=timeout_ms, instead_of=before)
            for data in (b"secret", b"x" * 65_536 * 2):
                answer = instance.call("custom_hook", data, last=True)
                seen.append((answer, instance.memory, instance.calls))
        except CallError as error:
            seen.append((type(error), str(error)))
            assert before is None or before.closed
            return None
        return instance

    came_up = []
    ticker = engine.Ticker()
    ticker.start()
    try:
        for accelerated in (True, False):
            guest = Guest(module, limits=entry.limits, host={("hookline", "get_config"): host})
            assert guest.accelerated
            guest.accelerated = accelerated
            instance = None
            for said in (0, 1, 0, 2, 2, 0, 3, 0, 3, 1, 1, 0):
                for timeout_ms in (None, 20, 100):
                    wanted[0] = said
                    instance = come_up(guest, instance, timeout_ms)
            came_up.append(seen.copy())
            seen.clear()
    finally:
        ticker.stop()
    assert came_up[0] == came_up[1]
    assert len({str(each) for each in came_up[0]}) > 8


_GROWING = """(func (export "alloc") (param i32) (result i32)
  (if (i32.eqz (memory.size)) (then (drop (memory.grow (i32.const 2)))))
  (i32.const 65536))"""
_YIELD = '(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))'


@_native
@pytest.mark.parametrize("imports", ["", _YIELD])
@pytest.mark.parametrize("timeout_ms", [None, 20, 100])
async def test_the_input_of_a_guest_whose_memory_is_empty_at_first_is_put_into_that_memory(
    workshop, wat, imports, timeout_ms
):
    """Whoever made the store: there is no size yet by which anybody would see where it is."""
    memory = '(memory (export "memory") 0)'
    text = wat.module(imports=imports, memory=memory, alloc=_GROWING, hooks={"custom_hook": wat.echo})
    entry = await workshop.plugin(text, hooks=["custom_hook"], limits={"timeout": "20ms"})
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={})
    instance, others = None, []
    for data in (b"one", b"two", b"x" * 60_000):
        instance = guest.instantiate(timeout_ms=timeout_ms, instead_of=instance)
        assert instance.call("custom_hook", data, last=False) == data
        assert instance.call("custom_hook", data, last=True) == data
        others.append(guest.instantiate(timeout_ms=timeout_ms))  # takes the place in the pool that comes next
    for each in (instance, *others):
        each.close()


@_native
async def test_the_time_of_an_instance_that_did_not_come_up_is_not_the_next_ones(workshop, wat):
    """It is used again within the same tick of the clock, which stands still here."""
    text = wat.module(
        _START,
        imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
        hooks={"custom_hook": wat.echo},
        data={1024: b"again"},
    )
    entry = await workshop.plugin(text, hooks=["custom_hook"], limits={"timeout": "20ms"})
    wanted = [1]
    host = {("hookline", "get_config"): lambda _memory, _pointer, _length: wanted[0]}
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host=host)
    with pytest.raises(TrapError):
        guest.instantiate(timeout_ms=5000)
    wanted[0] = 0
    instance = guest.instantiate()
    # A thread that was stopped in between has some more: what passed is not what it used. The other had five seconds.
    assert instance.left_ns() < 1_000_000_000
    instance.close()


@_native
async def test_what_does_not_come_up_takes_no_place(workshop, wat):
    """The pool has some thousands; each of these is given back, and so is the instance before it."""
    start = "(func $begin unreachable) (start $begin)"
    entries = [
        await workshop.plugin(wat.module(*parts, hooks={"custom_hook": wat.no_answer}), hooks=["custom_hook"])
        for parts in ((), (start,))
    ]
    fine, broken = (
        Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={}) for entry in entries
    )
    for _ in range(engine._POOL["total_core_instances"] + 1):
        with contextlib.suppress(TrapError):
            broken.instantiate()
    instance = fine.instantiate()
    for _ in range(engine._POOL["total_core_instances"] + 1):
        instance = fine.instantiate(instead_of=instance)
    instance.close()


@_native
async def test_host_functions_see_their_own_guest_whatever_runs_on_other_threads(workshop, wat):
    """An instance that was called here before is called on another thread, in the midst of a call of another one."""
    ask = "(call $get_config (local.get $p) (local.get $n))"
    entry = await workshop.plugin(
        wat.module(
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": f"(drop {ask}) {ask}"},
        ),
        hooks=["custom_hook"],
    )
    seen: list[tuple[int, bytes]] = []

    def host(memory, pointer, length):
        said = memory.read(pointer, length)
        seen.append((memory, said))
        if said == b"outer" and len(seen) % 2:
            thread = threading.Thread(target=lambda: inner.call("custom_hook", b"inner", last=False))
            thread.start()
            thread.join()
            seen.pop()
            seen.pop()
        return 0

    module = engine.load_compiled(workshop.find(entry), fuel=False)
    guest = Guest(module, limits=entry.limits, host={("hookline", "get_config"): host})
    inner, outer = guest.instantiate(), guest.instantiate()
    for _ in range(3):
        inner.call("custom_hook", b"first", last=False)
        outer.call("custom_hook", b"also", last=False)
    seen.clear()
    for _ in range(3):
        outer.call("custom_hook", b"outer", last=False)
    assert seen == [(outer, b"outer")] * 6
    inner.close()
    outer.close()


def _answers(guest: Guest, data: bytes) -> tuple[object, ...]:
    instance = guest.instantiate()
    try:
        before = [instance.call("custom_hook", each, last=False) for each in (b"0", b"a long one, 16b.", b"x")]
        assert bool(instance._quick) is guest.accelerated
        answers = [instance.call("custom_hook", each, last=False) for each in (data, b"xyz", data, b"8", b"")]
        answers.append(instance.call("custom_hook", data, last=True))
        return *before, *answers, instance.memory, instance.calls
    except CallError as error:
        return type(error), str(error), instance.memory, instance.calls
    finally:
        instance.close()


def _said_once(guest: Guest, data: bytes) -> tuple[object, ...]:
    """By an instance that is made ahead, for one call."""
    instance = guest.instantiate(timeout_ms=1000)
    try:
        return instance.call("custom_hook", data, last=True), instance.memory, instance.calls
    except CallError as error:
        return type(error), str(error), instance.memory, instance.calls
    finally:
        instance.close()


_MOVED = """
import hookline_accelerator as it
it.layout = tuple((name, {1}) if name == "{0}" else (name, at, size) for name, at, size in it.layout)
"""
_OTHERWISE = "its memory is laid out otherwise:"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("os.environ['HOOKLINE_ACCELERATOR'] = 'off'", "HOOKLINE_ACCELERATOR is off"),
        ("sys.modules['hookline_accelerator'] = None", "it is not built: "),
        ("import hookline_accelerator as it; it.source = '0'", "it was built from another source"),
        (_MOVED.format("block.armed", "at + 8, size"), f"{_OTHERWISE} block.armed has 8 bytes at 176, and not "),
        (_MOVED.format("export.name", "at, 4"), f"{_OTHERWISE} export.name has 4 bytes at 32, and not "),
        ("import hookline_accelerator as it; it.layout = it.layout[:-1]", f"{_OTHERWISE} it has 58 fields, and not 59"),
        ("import hookline_accelerator as it; del it.layout", f"{_OTHERWISE} it has 0 fields, and not 59"),
    ],
)
def test_without_it_the_runtime_says_why_and_goes_on(change, why):
    """One that is not ours, or that is not there, is never used."""
    script = f"""
import os, sys
{change}
from hookline_runtime.guest import accelerator
from hookline_runtime.guest.calls import Guest, Instance
from hookline_runtime.call.looks import LOOKS
print(accelerator.unused, accelerator.call, LOOKS)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(why)
    assert ended.stdout.strip().endswith("None {}")


@pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))
def test_each_field_of_shared_memory_is_where_python_has_it():
    """Names, places and sizes are compared, and the library's functions are those that it calls by these names."""
    theirs = importlib.import_module("hookline_accelerator").layout
    assert theirs == layouts.LAYOUT
    functions = [name.removeprefix("wasmtime.") for name, _, _ in theirs if name.startswith("wasmtime.")]
    assert [each.__name__ for each in capi.FOR_ACCELERATOR] == [f"wasmtime_{name}" for name in functions]
    for at, (name, offset, size) in enumerate(theirs):
        for other in (f"{name}_", offset, size), (name, offset + 1, size), (name, offset, size + 1):
            assert name in layouts.difference((*theirs[:at], other, *theirs[at + 1 :]))


def test_where_nothing_can_compile_nothing_is_built(tmp_path, monkeypatch):
    """A missing compiler, or one that refuses, is a sentence, and leaves no file."""
    monkeypatch.setenv("CC", "false")
    assert accelerator.build(tmp_path).startswith("no accelerator: ")
    monkeypatch.setattr(accelerator.sysconfig, "get_path", lambda _: str(tmp_path))
    assert accelerator.build(tmp_path).endswith("Python.h is not there")
    assert not list(tmp_path.iterdir())
