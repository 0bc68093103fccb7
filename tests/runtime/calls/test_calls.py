"""The call path: the same promises on both ways to the engine, and what only the quick one could break."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.guest import accelerator, border, capi, engine
from hookline_runtime.guest.calls import Guest
from waiting import until_true

_HERE = Path(__file__).parents[1]
_ON_THE_FALLBACK = os.environ.get("HOOKLINE_CALLS") == "official"
_WITHOUT_GUESTS = (
    "backends",
    "cache",
    "guests/test_compiler.py",
    "guests/test_costly_modules.py",
    "guests/test_inspection_agrees.py",
    "guests/test_inspection_costs.py",
    "host/test_initial_keys_scopes.py",
    "host/test_kv.py",
    "host/test_kv_cluster.py",
    "host/test_kv_counts.py",
    "host/test_kv_functions.py",
    "host/test_kv_nodes.py",
    "host/test_kv_processes.py",
    "host/test_kv_scopes.py",
    "http",
    "chain/test_results.py",
    "plugin/test_stats.py",
    "query",
)
"""These call no plugin, or few and on all ways by themselves."""
_SECRET = "correct horse battery staple"
_FIND = """
(local.set $i (i32.const 0))
(block $end (loop $next
  (br_if $end (i32.ge_u (local.get $i) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8))))
  (if (i64.eq (i64.load (local.get $i)) (i64.const {word}))
    (then (return (call $number (i64.extend_i32_u (local.get $i))))))
  (local.set $i (i32.add (local.get $i) (i32.const 1)))
  (br $next)))
(call $number (i64.const -1))
"""


def test_the_quick_way_fits_the_library_that_is_locked():
    """Nothing in this project's own environment makes it fall back."""
    assert capi.unfit is None


@pytest.mark.skipif(not {"HOOKLINE_CALLS", "HOOKLINE_ACCELERATOR"}.isdisjoint(os.environ), reason="this is that run")
@pytest.mark.parametrize(
    "setting", [{"HOOKLINE_CALLS": "official"}, {"HOOKLINE_CALLS": "fibers"}, {"HOOKLINE_ACCELERATOR": "off"}]
)
def test_the_runtimes_whole_suite_passes_on_the_other_ways_too(setting):
    """The reference and the fallback are tested as what they are: ways to run plugins. All that calls one is run."""
    if "HOOKLINE_ACCELERATOR" in setting and accelerator.unused:
        pytest.skip(f"the ordinary run is that one: {accelerator.unused}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(_HERE)]
    command += [f"--ignore={_HERE / name}" for name in _WITHOUT_GUESTS]
    ended = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("capi_version = '51.0.0'", "this is wasmtime 51.0.0"),
        ("bindings._wasmtime_func_call_unchecked.argtypes = [ctypes.c_int] * 5", "is called otherwise there"),
        ("bindings.wasmtime_memory_t = ctypes.c_uint64 * 4", "has 32 bytes here"),
        ("bindings.wasmtime_instance_t = bindings.wasmtime_func_t = turned", "the number of a store is elsewhere"),
    ],
)
def test_another_library_is_noticed_and_plugins_run_all_the_same(change, why):
    """Prototypes that do not fit would end the process; the official way is slower and right."""
    script = f"""
import ctypes, importlib.metadata, logging, os
os.environ.pop("HOOKLINE_CALLS", None)
logging.basicConfig(format="%(message)s")
from wasmtime import _bindings as bindings
class turned(ctypes.Structure):
    _fields_ = [("private", ctypes.c_uint64), ("store_id", ctypes.c_uint64)]
capi_version = importlib.metadata.version("wasmtime")
{change}
importlib.metadata.version = lambda name: capi_version
from hookline_runtime.guest.calls import Guest
print(Guest.__module__)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "hookline_runtime.guest.official"
    assert "calls take the fallback" in ended.stderr
    assert why in ended.stderr


async def test_a_secret_that_one_call_leaves_is_seen_by_no_other(workshop, wat):
    """Each instance is searched whole, byte by byte, for what a call before it was told: also one from the pool."""
    word = int.from_bytes(_SECRET.encode()[:8], "little")
    keep = """
    (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 34))
      (then (drop (memory.grow (i32.const 7)))
            (memory.copy (i32.const 1000) (local.get $p) (local.get $n))
            (memory.copy (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 100))
                         (local.get $p) (local.get $n))
            (return (i64.const 0))))
    """
    runtime = await workshop.guest(wat.module(hooks={"custom_hook": keep + _FIND.format(word=word)}))
    seen = []
    for _ in range(60):
        await runtime.call(Hook.CUSTOM, json.dumps(_SECRET).encode())
        seen.append((await runtime.call(Hook.CUSTOM, b"0"))["value"])
    assert seen == [-1] * 60
    pooled = await workshop.guest(
        wat.module(hooks={"custom_hook": keep + _FIND.format(word=word)}), isolation={"mode": "Pooled"}
    )
    await pooled.call(Hook.CUSTOM, json.dumps(_SECRET).encode())
    assert (await pooled.call(Hook.CUSTOM, b"0"))["value"] != -1  # the search does find it where it is


@pytest.mark.usefixtures("unhurried")
async def test_a_call_at_low_load_finds_an_instance_ready(workshop, wat, monkeypatch):
    """What a fresh instance costs is paid between calls."""
    runtime = await workshop.guest(wat.module(answers={"custom_hook": "1"}))
    kept = runtime.plugins["guest"]._instances
    for _ in range(10):
        await runtime.call(Hook.CUSTOM, b"0")

    async def tidy():
        await until_true(lambda: not (kept.used or kept.will_tidy or kept.tidying), "rest", pause=0.001)

    await tidy()
    in_a_call, made, instantiate = [], [], Guest.instantiate

    def watched(self, *, timeout_ms=None, instead_of=None):
        (in_a_call if timeout_ms is None else made).append(1)
        return instantiate(self, timeout_ms=timeout_ms, instead_of=instead_of)

    monkeypatch.setattr(Guest, "instantiate", watched)
    runtime.plugins["guest"].trust()
    for _ in range(50):
        assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1
        await asyncio.sleep(0)
    await tidy()
    assert (len(in_a_call), len(made)) == (0, 50)


@pytest.mark.usefixtures("unhurried")
async def test_calls_without_a_pause_between_them_give_their_instances_back(workshop, wat):
    """A batch never returns to the event loop, where a call's instance is usually given back."""
    runtime = await workshop.guest(wat.module(answers={"custom_hook": "1"}))
    for _ in range(10):
        await runtime.call(Hook.CUSTOM, b"0")
    plugin, answered = runtime.plugins["guest"], 0
    plugin.trust()
    for _ in range(6000):
        answer = runtime.answer(Hook.CUSTOM, b"0")
        answered += isinstance(answer, bytes) and answer.startswith(b'{"action":"answered","value":1,')
    assert answered == 6000
    assert len(plugin._instances.used) <= 32


async def test_no_innocent_call_is_cut_when_the_machine_is_busy(workshop, wat, monkeypatch):
    """Four times as many busy processes as cores, and a deadline of a few milliseconds; a loop is cut all the same.

    Until some calls were without a core for longer than their time-out, in the guest, and went on.
    """
    went_on = []

    def watched(*, timeout_ns, used_ns, passed_ns):
        left = left_ns(timeout_ns=timeout_ns, used_ns=used_ns, passed_ns=passed_ns)
        if left and passed_ns > timeout_ns:
            went_on.append(passed_ns)
        return left

    room, left_ns = sys.modules[Guest.__module__], border.left_ns
    monkeypatch.setattr(room, "left_ns", watched)
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "10ms"}, isolation={"mode": "Pooled"})
    for _ in range(10):
        await runtime.call(Hook.CUSTOM, b"0")
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(4 * len(os.sched_getaffinity(0)))]  # noqa: ASYNC220 - at once
    try:

        async def innocent():
            for _ in range(100):
                assert "failure" not in await runtime.call(Hook.CUSTOM, b"0")
            return len(went_on) >= 2

        await until_true(innocent, "calls that had to wait for a core", pause=0)
        assert (await runtime.call(Hook.CUSTOM, b"2"))["failure"] == "timeout"
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _region(at: int, size: int) -> str:
    packed = (at & 0xFFFFFFFF) << 32 | (size & 0xFFFFFFFF)
    return f'(func (export "hookline_input") (result i64) (i64.const {packed}))'


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_an_input_that_fits_the_guests_own_region_goes_there(workshop, wat, mode):
    """Without a call of ``alloc``; a larger one goes where ``alloc`` says."""
    text = wat.module(
        _region(at=5000, size=16), hooks={"custom_hook": "(call $number (i64.extend_i32_u (local.get $p)))"}
    )
    runtime = await workshop.guest(text, isolation={"mode": mode})
    where = [(await runtime.call(Hook.CUSTOM, b"1" * size))["value"] for size in (1, 16, 17, 16)]
    if _ON_THE_FALLBACK:
        assert 5000 not in where
    else:
        assert (where[0], where[1], where[3]) == (5000, 5000, 5000)
        assert where[2] >= 65_536


@pytest.mark.skipif(_ON_THE_FALLBACK, reason="regions are the quick way's")
@pytest.mark.parametrize(("at", "size"), [(-16, 16), (2 * 65_536 - 8, 16), (4096, -1)])
async def test_a_region_outside_of_memory_is_refused_when_the_plugin_is_loaded(workshop, wat, at, size):
    """Not at the first call."""
    from hookline_runtime.runtime import PrepareError

    text = wat.module(_region(at=at, size=size), hooks={"route": wat.no_answer})
    with pytest.raises(PrepareError, match="input region is outside memory"):
        await workshop.guest(text)


@pytest.mark.skipif(_ON_THE_FALLBACK, reason="the other way keeps no addresses")
async def test_addresses_outlive_collections_and_instances(workshop, wat):
    """Blocks, views and callbacks have owners: nothing is collected that the library still points to."""
    import gc

    runtime = await workshop.guest(wat.switch(), isolation={"mode": "Pooled", "maxCalls": 3})
    per_call = await workshop.guest(wat.switch(), name="second")
    junk = []
    for number in range(300):
        for each in (runtime, per_call):
            assert "failure" not in await each.call(Hook.CUSTOM, b"0")
        junk.append(bytes(number * 100))
        if number % 50 == 0:
            gc.collect()
            junk.clear()


async def test_memory_that_grows_is_seen_at_once(workshop, wat):
    """A result, and the next input, may be where there was no memory when the call began."""
    grow = """
    (local.set $i (i32.mul (memory.grow (i32.const 3)) (i32.const 65536)))
    (i32.store8 (i32.add (local.get $i) (i32.const 190000)) (i32.const 55))
    (local.set $i (i32.add (local.get $i) (i32.const 190000)))
    (return (i64.or (i64.shl (i64.extend_i32_u (local.get $i)) (i64.const 32)) (i64.const 1)))
    """
    for mode in ("PerCall", "Pooled"):
        runtime = await workshop.guest(
            wat.module(hooks={"custom_hook": grow}), isolation={"mode": mode}, name=mode.lower()
        )
        for _ in range(5):
            assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 7


@pytest.mark.skipif(_ON_THE_FALLBACK, reason="the other way sets a deadline for each call")
async def test_a_deadline_that_was_set_for_an_earlier_call_is_not_charged_to_a_later_one(workshop, wat):
    """The clock stands still here, so that all calls share one deadline; the last is as long as it may be."""
    spin = """
    (local.set $w (i64.const 0))
    (block $end (loop $more
      (br_if $end (i64.ge_u (local.get $w) (i64.const 3000000)))
      (local.set $w (i64.add (local.get $w) (i64.const 1)))
      (br $more)))
    (return (i64.const 0))
    """
    entry = await workshop.plugin(wat.module(hooks={"custom_hook": spin}), limits={"timeout": "20ms"})
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={})
    instance = guest.instantiate()
    begin = time.thread_time_ns()
    count = 0
    while time.thread_time_ns() - begin < 200_000_000:  # ten time-outs of processor time in all
        instance.call("custom_hook", b"0", last=False)
        count += 1
    assert count > 10
    instance.close()


def test_a_container_without_address_space_has_no_pool_and_runs_plugins():
    """``ulimit -v`` leaves no room for the reservation; instances are made one by one."""
    script = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (40 * 2**30, 40 * 2**30))
import logging
logging.basicConfig(level="INFO", format="%(message)s")
import wasmtime
from hookline_runtime.guest import engine
from hookline_runtime.guest.calls import Guest
from hookline_api.resources import Limits
import tempfile, pathlib
wat = '(module (memory (export "memory") 2) (func (export "alloc") (param i32) (result i32) (i32.const 9000))' \\
      '(data (i32.const 100) "7")' \\
      '(func (export "custom_hook") (param i32 i32) (result i64) (i64.const %d)))' % (100 << 32 | 1)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "m"
    engine.compile_to(bytes(wasmtime.wat2wasm(wat)), path, fuel=False)
    guest = Guest(engine.load_compiled(path, fuel=False), limits=Limits(), host={})
    instances = [guest.instantiate() for _ in range(3)]
    print([instance.call("custom_hook", b"0", last=True) for instance in instances])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[b'7', b'7', b'7']", ended.stderr
    if not _ON_THE_FALLBACK:
        assert "one by one" in ended.stderr


@pytest.mark.skipif(_ON_THE_FALLBACK, reason="the other way has no pool of its own")
async def test_more_instances_than_the_pool_has_are_an_overload_and_not_a_crash(workshop, wat):
    """And when some are given back, there is room again."""
    from hookline_runtime.errors import OverloadError

    entry = await workshop.plugin(wat.module(hooks={"custom_hook": wat.no_answer}))
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={})
    instances = []

    def fill() -> None:
        while len(instances) < 5000:
            instances.append(guest.instantiate())

    with pytest.raises(OverloadError, match="no place"):
        fill()
    assert len(instances) > 1000
    for instance in instances[:10]:
        instance.close()
    guest.instantiate().close()
    for instance in instances[10:]:
        instance.close()


@pytest.mark.skipif(_ON_THE_FALLBACK, reason="the other way builds its own arguments")
async def test_two_threads_never_see_each_others_memory_in_host_functions(workshop, wat):
    """Which instance a host function serves is known per thread."""
    imports = '(import "env" "sha256_hex" (func $sha (param i32 i32 i32) (result i32)))'
    hook = """(drop (call $sha (local.get $p) (local.get $n) (i32.const 2049)))
    (i32.store8 (i32.const 2048) (i32.const 34)) (i32.store8 (i32.const 2113) (i32.const 34))
    (return (i64.or (i64.shl (i64.const 2048) (i64.const 32)) (i64.const 66)))"""
    import hashlib

    from hookline_runtime.host.context import HostContext
    from hookline_runtime.host.functions import PluginHost

    entry = await workshop.plugin(wat.module(hooks={"custom_hook": hook}, imports=imports), permissions=["crypto"])
    compiled = engine.load_compiled(workshop.find(entry), fuel=False)
    guest = Guest(compiled, limits=entry.limits, host=PluginHost(entry, HostContext()).functions())
    wrong = []

    def run(seed: int) -> None:
        for number in range(300):
            data = json.dumps([seed, number] * 50).encode()
            instance = guest.instantiate()
            found = instance.call("custom_hook", data, last=True)
            instance.close()
            if found != json.dumps(hashlib.sha256(data).hexdigest()).encode():
                wrong.append((seed, number))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_sizes_of_the_librarys_structs_are_checked_against_its_own_bindings():
    """What the block of an instance is laid out by."""
    from wasmtime import _bindings

    assert ctypes.sizeof(_bindings.wasmtime_extern_t) == capi.EXTERN
    assert ctypes.sizeof(_bindings.wasmtime_val_raw_t) == capi.VAL_RAW
