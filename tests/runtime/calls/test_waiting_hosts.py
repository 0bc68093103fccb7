"""What a host function waits for is its guest's time: it counts for the deadline, and for who is slow."""

from __future__ import annotations

import json
import time

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.guest.border import spent_ns
from hookline_runtime.host import kv_file

_SET = "(drop (call $kv_set (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1)))"


class Stuck:
    """A lock for writers that nobody gets: who wants it waits for as long as it has patience."""

    def __init__(self) -> None:
        self.patience: list[float] = []

    def take(self, patience):
        """As the real one, that never comes free."""
        self.patience.append(patience)
        time.sleep(patience)
        raise kv_file.BusyError

    def close(self) -> None:
        """As the real one."""


@pytest.fixture
def stuck(kv):
    """The store of a pod where a process is stopped while it writes."""
    real, kv._writer = kv._writer, Stuck()
    yield kv._writer
    real.close()


def writer(wat, body):
    """A guest that writes to the store."""
    return wat.module(
        imports=wat.host("env", "kv_set", "i32 i32 i32 i32", "i32"), data={1024: b"k"}, hooks={"custom_hook": body}
    )


async def test_a_guest_that_waits_in_host_calls_ends_at_its_time_out(workshop, wat, stuck):
    """Not at ten times as much, as one does that waits for a core; and each wait ends by then, too."""
    guest = await workshop.guest(
        writer(wat, f"(loop $ever {_SET} (br $ever)) unreachable"),
        limits={"timeout": "40ms"},
        permissions=["kv.write"],
    )
    decision = await guest.call(Hook.CUSTOM, b"1")
    assert decision["failure"] == "timeout"
    assert stuck.patience[0] == 0.04
    assert len(stuck.patience) <= 2


async def test_a_plugin_whose_host_calls_wait_leaves_the_event_loop(workshop, wat, stuck, unhurried):
    """It uses no processor, and is slow all the same; one that writes nothing stays."""
    del unhurried
    switch = f"(if (i32.eq (i32.load8_u (local.get $p)) (i32.const 49)) (then {_SET})) {wat.echo}"
    guest = await workshop.guest(writer(wat, switch), limits={"timeout": "200ms"}, permissions=["kv.write"])
    plugin = guest.plugins["guest"]
    for _ in range(8):
        await guest.call(Hook.CUSTOM, b"0")
    assert plugin.inline
    assert (await guest.call(Hook.CUSTOM, b"1"))["value"] == 1
    assert not plugin.inline
    for _ in range(32):
        await guest.call(Hook.CUSTOM, b"1" if not stuck.patience else json.dumps(0).encode())
    assert len(stuck.patience) == 1


async def test_a_plugin_that_waits_on_threads_stays_there(workshop, wat, stuck, unhurried):
    """Its probation is for calls that are quick by the clock of host calls too."""
    del unhurried
    guest = await workshop.guest(
        writer(wat, f"{_SET} {wat.echo}"), limits={"timeout": "150ms"}, permissions=["kv.write"]
    )
    for _ in range(9):
        await guest.call(Hook.CUSTOM, b"1")
    assert len(stuck.patience) == 9
    assert not guest.plugins["guest"].inline


@pytest.mark.parametrize(
    ("work", "passed", "host", "spent"),
    [(5, 5, 0, 5), (5, 25, 0, 5), (5, 25, 20, 25), (5, 25, 3, 8), (5, 5, 5, 5), (20, 21, 20, 21), (5, 4, 9, 5)],
)
def test_what_is_spent_is_work_and_what_host_calls_waited(work, passed, host, spent):
    """Waiting for a core is not, and what a host function computes is not counted twice on a free one."""
    assert spent_ns(work_ns=work, passed_ns=passed, host_ns=host) == spent
