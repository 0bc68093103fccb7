"""The deadline counts what a call computes, not how long it waits for its turn; and it ends, whatever happens."""

from __future__ import annotations

import logging
import time

import pytest

from hookline_api.hooks import Hook


@pytest.fixture
def waiting():
    """Makes each line that a guest logs wait, without computing, as a call waits that is not given a core."""
    handlers = []

    def wait(seconds):
        handler = logging.Handler()
        handler.emit = lambda _: time.sleep(seconds)
        handlers.append(handler)
        logging.getLogger("hookline.guest").addHandler(handler)

    yield wait
    for handler in handlers:
        logging.getLogger("hookline.guest").removeHandler(handler)


async def _logging_guest(workshop, wat, body, **limits):
    text = wat.module(
        imports=wat.host("hookline", "log", "i32 i32 i32", "i32"),
        hooks={"custom_hook": body.replace("LOG", "(drop (call $log (i32.const 4) (i32.const 8) (i32.const 1)))")},
    )
    return await workshop.guest(text, limits=limits)


async def test_a_call_that_waits_for_a_core_is_not_cut(workshop, wat, waiting):
    """It has used none of its 500 ms when the clock says that they are over; the cap is ten times as long."""
    guest = await _logging_guest(workshop, wat, f"LOG {wat.echo}", timeout="500ms")
    waiting(0.6)
    assert (await guest.call(Hook.CUSTOM, b"1"))["action"] == "answered"
    assert guest.plugins["guest"].last_failure is None


async def test_what_it_computes_after_the_wait_is_counted(workshop, wat, waiting):
    """An endless loop behind a wait ends."""
    guest = await _logging_guest(workshop, wat, "LOG (loop $ever (br $ever)) unreachable", timeout="20ms")
    waiting(0.05)
    assert (await guest.call(Hook.CUSTOM, b"1"))["failure"] == "timeout"


async def test_a_call_that_only_waits_ends_at_the_cap(workshop, wat, waiting):
    """Ten times its time-out on the clock is enough, whatever it computed."""
    guest = await _logging_guest(workshop, wat, "(loop $ever LOG (br $ever)) unreachable", timeout="5ms")
    waiting(0.02)
    begin = time.monotonic()
    assert (await guest.call(Hook.CUSTOM, b"1"))["failure"] == "timeout"
    assert time.monotonic() - begin >= 0.05


async def test_a_call_that_came_back_in_spite_of_its_deadline_leaves_none_to_the_next(workshop, wat):
    """The ``alloc`` for a host's answer is cut, the hook answers all the same, and the next call fails by itself."""
    text = wat.module(
        "(global $spin (mut i32) (i32.const 0))",
        imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
        alloc="""(func (export "alloc") (param i32) (result i32)
          (if (global.get $spin) (then (loop $ever (br $ever)))) (i32.const 4096))""",
        dealloc="",
        hooks={
            "custom_hook": f"""
            (if (i32.eq (i32.load8_u (local.get $p)) (i32.const {ord("2")})) (then unreachable))
            (global.set $spin (i32.const 1))
            (drop (call $get_config (i32.const 0) (i32.const 0)))
            (global.set $spin (i32.const 0))
            {wat.echo}"""
        },
    )
    runtime = await workshop.guest(
        text, isolation={"mode": "Pooled"}, limits={"timeout": "20ms"}, config={"a": 1}, permissions=["config.read"]
    )
    assert (await runtime.call(Hook.CUSTOM, b"1"))["value"] == 1
    assert (await runtime.call(Hook.CUSTOM, b"2"))["failure"] == "trap"
