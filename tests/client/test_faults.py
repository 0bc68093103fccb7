"""Whatever does not come from the other end: each call ends once, and what it took is given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from types import SimpleNamespace

import pytest
import uvloop

from faulty_answers import echo, settled, well
from hookline_api.hooks import Hook
from hookline_client import HookClient, Policy, pool
from waiting import PATIENCE_S as DEADLINE


async def test_the_late_answer_of_a_call_that_timed_out_is_nobody_elses(faulty):
    """The call behind it on the same connection gets its own answer, and new calls go elsewhere."""
    go_on = asyncio.Event()

    async def behave(peer, number):
        if number:
            await well(peer)
        first, second = await peer.call(), await peer.call()
        await go_on.wait()
        await peer.send(echo(first), echo(second))
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, connections=1, timeout=DEADLINE) as hooks:
        slow = asyncio.create_task(hooks.custom("slow", timeout=1))
        behind = asyncio.create_task(hooks.custom("behind"))
        assert (await slow).failure == "timeout"
        assert (await hooks.custom("new")).value == "new"
        assert faulty.open == 2
        go_on.set()
        assert (await behind).value == "behind"
        await settled(lambda: faulty.open == 1)
        assert hooks.failures == {(Hook.CUSTOM, "timeout", Policy.CLOSED): 1}


async def test_the_answer_of_a_cancelled_call_is_skipped(faulty):
    """Cancelling one call costs the others nothing, not even their connection."""
    go_on = asyncio.Event()

    async def behave(peer, _):
        calls = [await peer.call() for _ in range(3)]
        await go_on.wait()
        await peer.send(b"".join(map(echo, calls)))
        await well(peer)

    async with faulty.behaving(behave), HookClient(faulty.path, connections=1, timeout=DEADLINE) as hooks:
        tasks = [asyncio.create_task(hooks.custom(n)) for n in range(3)]
        await faulty.calls(3)
        tasks[1].cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert [(await tasks[n]).value for n in (0, 2)] == [0, 2]
        assert (await hooks.custom(3)).value == 3
        assert faulty.connections == 1
        assert not hooks.failures


async def test_a_cancelled_call_still_ends_a_connection_that_never_answers(faulty):
    """At the deadline that it had: or all connections could be taken by calls that nobody waits for."""

    async def behave(peer, number):
        if number:
            await well(peer)
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, connections=1, depth=1, timeout=1) as hooks:
        task = asyncio.create_task(hooks.custom(0))
        await settled(lambda: faulty.open)
        task.cancel()
        assert (await hooks.custom(1, timeout=DEADLINE)).value == 1


async def test_the_deadline_counts_while_a_call_waits_for_a_connection(faulty):
    """A call that was not sent by then is not sent at all."""

    async def behave(peer, _):
        await peer.call()
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, connections=1, depth=1, timeout=DEADLINE) as hooks:
        first = asyncio.create_task(hooks.custom(1))
        await faulty.calls(1)
        assert (await hooks.custom(2, timeout=0.05)).failure == "timeout"
        first.cancel()
        assert faulty.bodies == [b"1"]


async def test_the_queue_is_bounded_and_a_cancelled_call_gives_its_place_back(faulty):
    """One call too many is answered at once, as an overload of the client's own."""
    go_on = asyncio.Event()

    async def behave(peer, _):
        await go_on.wait()
        await well(peer)

    bounds = {"connections": 2, "depth": 2, "queue": 3, "timeout": DEADLINE}
    async with faulty.behaving(behave), HookClient(faulty.path, **bounds) as hooks:
        calls = []
        for n in range(7):  # four in flight, three wait
            calls.append(asyncio.create_task(hooks.custom(n)))
            await settled(lambda: hooks.calls == len(calls) and not hooks._pool._opening)
        assert (await hooks.custom("too many")).failure == "overload"
        calls.pop(5).cancel()
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(hooks.custom(5)))
        go_on.set()
        decisions = [await call for call in calls]
        assert [decision.value for decision in decisions] == [0, 1, 2, 3, 4, 6, 5]
        assert faulty.most_open == 2


async def test_a_sidecar_that_does_not_read_is_not_written_to_without_end(faulty):
    """What waits in memory is one call for each connection, and what the queue holds."""

    async def behave(peer, _):
        await peer.frozen()

    given = "x" * 2**20
    async with faulty.behaving(behave), HookClient(faulty.path, connections=1, depth=9, timeout=1) as hooks:
        calls = [asyncio.create_task(hooks.custom(given)) for _ in range(8)]
        await settled(lambda: hooks._pool._connections and hooks._pool._connections[0].calls)
        assert len(hooks._pool._connections[0].calls) == 1
        assert {(await call).failure for call in calls} == {"timeout"}


async def test_connections_that_time_out_one_after_the_other_do_not_pile_up(faulty):
    """Those that others still wait on are as many as there may be connections, and no more."""

    async def behave(peer, _):
        while True:
            await peer.call()

    async with faulty.behaving(behave), HookClient(faulty.path, connections=2, timeout=DEADLINE) as hooks:
        patient = []
        for _ in range(6):
            patient.append(asyncio.create_task(hooks.custom("patient", timeout=3 * DEADLINE)))
            assert (await hooks.custom("hasty", timeout=0.5)).failure == "timeout"
        await settled(lambda: faulty.open <= 4)
        assert faulty.connections > 4
        for each in patient:
            each.cancel()


async def test_a_closed_client_leaves_no_call_behind(faulty):
    """Calls in flight and calls that wait end, as the policy says; the connections are gone."""

    async def behave(peer, _):
        while True:
            await peer.call()

    async with faulty.behaving(behave):
        async with HookClient(faulty.path, connections=1, depth=1, timeout=DEADLINE) as hooks:
            calls = [asyncio.create_task(hooks.pre_query(query="q")) for _ in range(3)]
            await faulty.calls(1)
        decisions = [await call for call in calls]
        assert {decision.action for decision in decisions} == {"block"}
        assert sorted(decision.failure for decision in decisions) == ["lost", "unreachable", "unreachable"]
        await settled(lambda: not faulty.open)


async def test_a_connection_that_was_closed_while_it_was_idle_costs_no_call(faulty):
    """The next call has a new one."""

    async def behave(peer, _):
        await peer.send(echo(await peer.call()))

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        for n in range(5):
            assert (await hooks.custom(n)).value == n
            await settled(lambda: not hooks._pool._connections)
        assert faulty.connections == 5
        assert not hooks.failures


async def test_a_refused_connection_is_tried_once_more_unless_the_sidecar_is_known_to_be_down(faulty, monkeypatch):
    """A sidecar that is just being replaced costs no call; one that is gone costs no waiting."""
    monkeypatch.setattr(pool, "_PAUSE_S", 0.02)
    async with HookClient(faulty.path, timeout=DEADLINE) as hooks:
        assert (await hooks.custom(0)).failure == "unreachable"
        monkeypatch.setattr(pool, "_PAUSE_S", 3600)
        assert (await hooks.custom(0)).failure == "unreachable"
    pausing, over = asyncio.Event(), asyncio.Event()

    async def pause(_seconds):
        pausing.set()
        await over.wait()

    monkeypatch.setattr(pool, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": pause}))
    async with HookClient(faulty.path, timeout=DEADLINE) as hooks:
        calls = [asyncio.create_task(hooks.custom(n)) for n in range(20)]
        await pausing.wait()
        async with faulty.behaving(lambda peer, _: well(peer)):
            over.set()
            assert [(await call).value for call in calls] == list(range(20))


async def test_a_server_that_closes_at_once_is_asked_again(faulty):
    """Not without end while it does, and as before when it does not any longer."""

    async def behave(peer, number):
        if number >= 20:
            await well(peer)

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE, connections=1) as hooks:
        failures = []
        while (decision := await hooks.custom(1)).failure:
            failures.append(decision.failure)
        assert set(failures) <= {"lost", "unreachable"}
        assert faulty.connections == 21


async def test_nobody_at_the_port_is_unreachable(ports):
    """As is nobody at the socket."""
    async with HookClient(f"http://127.0.0.1:{ports(1)[0]}", timeout=DEADLINE) as hooks:
        assert (await hooks.custom(1)).failure == "unreachable"


async def test_a_socket_whose_backlog_is_full_is_unreachable(tmp_path):
    """And not a connection that is none, on which a call would be lost."""
    path = str(tmp_path / "full.sock")
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening := socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                stack.enter_context(waiting := socket.socket(socket.AF_UNIX))
                waiting.settimeout(0)
                waiting.connect(path)
        async with HookClient(path, timeout=DEADLINE) as hooks:
            assert (await hooks.custom(1)).failure == "unreachable"


async def test_a_change_of_state_is_one_line(faulty, caplog):
    """One when the sidecar stops to answer, one when it does again; each failure is counted."""
    broken = True

    async def behave(peer, _):
        while True:
            call = await peer.call()
            await peer.send(b"garbage\r\n\r\n" if broken else echo(call))

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        with caplog.at_level(logging.INFO, "hookline.client"):
            for n in range(20):
                assert (await hooks.custom(n)).failure == "malformed"
            broken = False
            async with asyncio.timeout(DEADLINE):
                while len(caplog.messages) < 2:
                    await hooks.custom(1)
        assert "answers no hooks (malformed" in caplog.messages[0]
        assert "answers hooks again; 20 calls" in caplog.messages[1]
        assert hooks.failures == {(Hook.CUSTOM, "malformed", Policy.CLOSED): 20}


@pytest.mark.parametrize(
    "test",
    [
        test_the_late_answer_of_a_call_that_timed_out_is_nobody_elses,
        test_the_answer_of_a_cancelled_call_is_skipped,
        test_a_cancelled_call_still_ends_a_connection_that_never_answers,
        test_the_deadline_counts_while_a_call_waits_for_a_connection,
        test_the_queue_is_bounded_and_a_cancelled_call_gives_its_place_back,
        test_a_sidecar_that_does_not_read_is_not_written_to_without_end,
        test_connections_that_time_out_one_after_the_other_do_not_pile_up,
        test_a_closed_client_leaves_no_call_behind,
        test_a_connection_that_was_closed_while_it_was_idle_costs_no_call,
        test_a_server_that_closes_at_once_is_asked_again,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_on_uvloop_too(faulty, test):
    """Its transports write, pause and end in ways of their own."""
    uvloop.run(test(faulty))
