"""WASI preview 1: a clock and random numbers, and nothing of the machine."""

from __future__ import annotations

import time

import pytest

from hookline_api.hooks import Hook

_ERRNO_BADF = 8


def _wasi(wat, name, params, result="i32"):
    return wat.host("wasi_snapshot_preview1", name, params, result)


def _answer(code):
    return f"(call $number (i64.extend_i32_u {code}))"


@pytest.mark.parametrize("sizes", ["environ_sizes_get", "args_sizes_get"])
async def test_a_guest_sees_no_environment_and_no_arguments(workshop, wat, monkeypatch, sizes):
    """Both are empty, whatever our own process has."""
    monkeypatch.setenv("HOOKLINE_SECRET", "s3cret")
    text = wat.module(
        imports=_wasi(wat, sizes, "i32 i32"),
        data={1024: b"\xff" * 8},
        hooks={
            "custom_hook": f"""(drop (call ${sizes} (i32.const 1024) (i32.const 1028)))
            {_answer("(i32.or (i32.load (i32.const 1024)) (i32.load (i32.const 1028)))")}"""
        },
    )
    assert (await workshop.ask(text))["value"] == 0


async def test_a_guest_can_open_no_file(workshop, wat):
    """No directory is open, under any descriptor."""
    opened = """(call $path_open (local.get $i) (i32.const 0) (i32.const 1024) (i32.const 10) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 2048))"""
    text = wat.module(
        imports=_wasi(wat, "path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        data={1024: b"etc/passwd"},
        hooks={
            "custom_hook": f"""(local.set $j (i32.const {_ERRNO_BADF}))
            (loop $next
              (if (i32.and (i32.ge_u (local.get $i) (i32.const 3)) (i32.ne {opened} (i32.const {_ERRNO_BADF})))
                (then (local.set $j (local.get $i))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $i) (i32.const 50))))
            {_answer("(local.get $j)")}"""
        },
    )
    assert (await workshop.ask(text))["value"] == _ERRNO_BADF


@pytest.mark.parametrize("descriptor", [1, 2])
async def test_what_a_guest_prints_is_in_its_log_and_not_on_our_own_streams(workshop, wat, capfd, caplog, descriptor):
    """A guest that writes without end fills no disk: its log is bounded."""
    caplog.set_level("INFO", logger="hookline.guest")
    text = wat.module(
        imports=_wasi(wat, "fd_write", "i32 i32 i32 i32"),
        data={1024: b"\x00\x08\x00\x00\x05\x00\x00\x00", 2048: b"HELLO"},
        hooks={
            "custom_hook": _answer(
                f"(call $fd_write (i32.const {descriptor}) (i32.const 1024) (i32.const 1) (i32.const 3000))"
            )
        },
    )
    assert (await workshop.ask(text))["value"] == 0
    out, err = capfd.readouterr()
    assert "HELLO" not in out + err
    assert [record.getMessage() for record in caplog.records if record.name == "hookline.guest"] == ["guest: HELLO"]


async def test_standard_input_is_at_its_end(workshop, wat):
    """A guest that reads from it does not wait for anybody."""
    text = wat.module(
        imports=_wasi(wat, "fd_read", "i32 i32 i32 i32"),
        data={1024: b"\x00\x08\x00\x00\x05\x00\x00\x00", 3000: b"\xff\xff\xff\xff"},
        hooks={
            "custom_hook": f"""(drop (call $fd_read (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 3000)))
            {_answer("(i32.load (i32.const 3000))")}"""
        },
    )
    assert (await workshop.ask(text))["value"] in {0, 2**32 - 1}


async def test_there_is_a_clock_and_a_source_of_random_numbers(workshop, wat):
    """What Go's runtime needs to come up."""
    text = wat.module(
        imports=_wasi(wat, "clock_time_get", "i32 i64 i32") + _wasi(wat, "random_get", "i32 i32"),
        hooks={
            "custom_hook": """(drop (call $random_get (i32.const 2000) (i32.const 8)))
            (if (i64.eqz (i64.load (i32.const 2000))) (then unreachable))
            (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 1024)))
            (call $number (i64.load (i32.const 1024)))"""
        },
    )
    answer = (await workshop.ask(text))["value"]
    assert abs(answer / 1e9 - time.time()) < 60


async def test_a_guest_that_sleeps_is_told_that_it_slept(workshop, wat):
    """``poll_oneoff`` for an hour returns at once, with the event of each subscription."""
    subscription = (7).to_bytes(8, "little") + bytes(16) + (3_600 * 10**9).to_bytes(8, "little") + bytes(16)
    text = wat.module(
        imports=_wasi(wat, "poll_oneoff", "i32 i32 i32 i32"),
        data={1024: subscription * 2},
        hooks={
            "custom_hook": f"""
            (if (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 2) (i32.const 3000))
              (then unreachable))
            (if (i64.ne (i64.load (i32.const 2080)) (i64.const 7)) (then unreachable))
            {_answer("(i32.load (i32.const 3000))")}"""
        },
    )
    decision = await workshop.ask(text, limits={"timeout": "5s"})
    assert decision["value"] == 2


async def test_a_guest_that_sleeps_in_a_loop_is_cut_by_its_deadline(workshop, wat):
    """And not by our patience."""
    text = wat.module(
        imports=_wasi(wat, "poll_oneoff", "i32 i32 i32 i32"),
        hooks={
            "custom_hook": """(loop $again
            (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 3000)))
            (br $again)) (i64.const 0)"""
        },
    )
    assert (await workshop.ask(text, limits={"timeout": "20ms"}))["failure"] == "timeout"


@pytest.mark.parametrize(
    ("arguments", "errno"),
    [
        ("(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)", 28),
        ("(i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)", 28),
        ("(i32.const 0) (i32.const 0) (i32.const 1025) (i32.const 0)", 28),
        ("(i32.const -1) (i32.const 0) (i32.const 1) (i32.const 0)", 21),
        ("(i32.const 0) (i32.const -1) (i32.const 1) (i32.const 0)", 21),
        ("(i32.const 0) (i32.const 0) (i32.const 1) (i32.const -1)", 21),
    ],
)
async def test_poll_oneoff_checks_its_pointers_and_its_count(workshop, wat, arguments, errno):
    """It is our own, so its bounds are ours to keep."""
    text = wat.module(
        imports=_wasi(wat, "poll_oneoff", "i32 i32 i32 i32"),
        hooks={"custom_hook": _answer(f"(call $poll_oneoff {arguments})")},
    )
    assert (await workshop.ask(text))["value"] == errno


@pytest.mark.parametrize(
    ("arguments", "errno"),
    [
        ("(i32.const 131071) (i32.const 1)", 0),
        ("(i32.const 0) (i32.const 0)", 0),
        ("(i32.const 131071) (i32.const 2)", 21),
        ("(i32.const -1) (i32.const 1)", 21),
        ("(i32.const 0) (i32.const 1048577)", 28),
        ("(i32.const 0) (i32.const -1)", 28),
    ],
)
async def test_random_get_fills_no_memory_that_takes_longer_than_a_deadline(workshop, wat, arguments, errno):
    """Nothing cuts it in the middle, so a mebibyte is the most."""
    text = wat.module(
        imports=_wasi(wat, "random_get", "i32 i32"),
        hooks={"custom_hook": _answer(f"(call $random_get {arguments})")},
    )
    assert (await workshop.ask(text))["value"] == errno


@pytest.mark.parametrize("code", [0, 3])
async def test_a_guest_that_exits_ends_its_call_and_not_the_process(workshop, wat, code):
    """``proc_exit`` is a trap, also with success: there is no answer."""
    text = wat.module(
        imports='(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))',
        hooks={"custom_hook": f"(call $proc_exit (i32.const {code})) (i64.const 0)"},
    )
    runtime = await workshop.guest(text)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    assert f"exit code {code}" in runtime.plugins["guest"].last_failure.message


async def test_a_reactor_is_initialized_once_per_instance(workshop, wat):
    """PerCall: each call sees a guest that was initialized exactly once."""
    counted = """(global $n (mut i32) (i32.const 0))
    (func (export "_initialize") (global.set $n (i32.add (global.get $n) (i32.const 1))))"""
    for mode in ("PerCall", "Pooled"):
        runtime = await workshop.guest(
            wat.module(counted, hooks={"custom_hook": _answer("(global.get $n)")}), isolation={"mode": mode}
        )
        assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(3)] == [1, 1, 1]
