"""Whatever comes from the other end, or does not come: each call ends once, with its own answer or one clear cause."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
from types import SimpleNamespace

import pytest
import uvloop

from hookline_api.hooks import Hook
from hookline_client import HookClient, HookError, LostError, Policy, connection, pool
from waiting import PATIENCE_S as DEADLINE
from waiting import until_true


def answer(body=None, *, status="200 OK", head="", length=None):
    """The bytes of an answer."""
    body = {"action": "continue"} if body is None else body
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {length or len(raw)}\r\n\r\n".encode() + raw


def echo(call):
    """The bytes of an answer that says what the call was."""
    return answer({"action": "answered", "value": json.loads(call)})


async def well(peer):
    """Go on as a sidecar would."""
    while True:
        await peer.send(echo(await peer.call()))


async def settled(condition):
    """Return once this is so."""
    await until_true(condition, "what this test waits for", pause=0.005)


MALFORMED = {
    "garbage": b"\x00\xff" * 40,
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/1.0": answer().replace(b"1.1", b"1.0"),
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(),
    "a status that is none": answer(status="20 OK"),
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "two lengths": answer(head="Content-Length: 2\r\n"),
    "a list of lengths": answer(length="22, 22"),
    "a negative length": answer(length="-1"),
    "a signed length": answer(length="+22"),
    "a length with a letter": answer(length="0x16"),
    "ten gigabytes": answer(length=10 * 2**30),
    "a length of a thousand digits": answer(length="9" * 1000),
    "chunked": answer(head="Transfer-Encoding: chunked\r\n"),
    "a folded line": answer(head="X: 1\r\n  Content-Length: 2\r\n"),
    "a space before the colon": answer(head="Content-Length : 2\r\n"),
    "a bare line feed": answer(head="X: 1\nContent-Length: 2\r\n"),
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000,
    "one long line": b"HTTP/1.1 200 " + b"K" * 20000,
    "no JSON": answer(b"{"),
    "not UTF-8": answer(b'{"action": "\xff"}'),
    "nothing": answer(b""),
    "no object": answer(["continue"]),
    "no action": answer({"decision": "continue"}),
    "another hook's action": answer({"action": "allow"}),
    "an action that is no string": answer({"action": ["continue"]}),
    "a rewrite without a statement": answer({"action": "rewrite"}),
    "a statement that is no string": answer({"action": "rewrite", "value": 5}),
    "bytes that are none": answer({"action": "cached", "data": [256]}),
    "base64 that is none": answer({"action": "cached", "data_base64": "="}),
    "no bytes at all": answer({"action": "cached"}),
    "a plugin that is no string": answer({"action": "continue", "plugin": 5}),
    "an answer to another request": answer({"action": "continue", "request_id": "r-2"}),
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_an_answer_that_is_none_is_malformed_and_closed(faulty, raw):
    """One cause for all of it; the next call has a connection that knows nothing of it."""

    async def behave(peer, number):
        if number:
            await well(peer)
        await peer.call()
        await peer.send(raw)
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        decision = await hooks.pre_query(query="q", hook_context={"request_id": "r-1"})
        assert (decision.action, decision.failure) == ("block", "malformed"), decision
        assert hooks.failures == {(Hook.PRE_QUERY, "malformed", Policy.CLOSED): 1}
        assert (await hooks.custom(1)).value == 1


STATUSES = {
    "204 No Content": "failed",
    "301 Moved Permanently": "failed",
    "404 Not Found": "failed",
    "408 Request Timeout": "failed",
    "415 Unsupported Media Type": "failed",
    "500 Internal Server Error": "failed",
    "503 Service Unavailable": "failed",
    "400 Bad Request": "refused",
    "413 Content Too Large": "refused",
}


@pytest.mark.parametrize("status", STATUSES)
async def test_another_status_than_200_is_no_decision(faulty, status):
    """Even with a decision in its body; what the problem says is for the proxy's log."""

    async def behave(peer, _):
        while True:
            await peer.call()
            await peer.send(answer({"action": "continue", "title": "T", "detail": "why"}, status=status))

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        decision = await hooks.pre_query(query="q")
        assert (decision.action, decision.failure) == ("block", STATUSES[status])
        assert decision.detail == f"{status[:3]}: why"
        assert "why" not in decision.reason


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", answer()[:-1], answer(length=10 * 2**20)],
    ids=["nothing", "half a head", "all but one byte", "a tenth of a body"],
)
async def test_a_connection_that_ends_before_the_answer_does_is_a_lost_call(faulty, raw):
    """It may have been processed, so it is not sent again."""

    async def behave(peer, _):
        await peer.call()
        await peer.send(raw)

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE, policy=Policy.RAISE) as hooks:
        for n in range(3):
            with pytest.raises(LostError, match="ended before the answer"):
                await hooks.custom(n)
        assert faulty.bodies == [b"0", b"1", b"2"]


async def test_an_answer_may_come_byte_by_byte_or_with_others_in_one_packet(faulty):
    """What a packet holds means nothing."""

    async def behave(peer, _):
        await peer.send(*(bytes([byte]) for byte in echo(await peer.call())))
        calls = [echo(await peer.call()) for _ in range(3)]
        raw = b"".join(calls)
        await peer.send(raw[:50], raw[50:-5])
        await peer.send(raw[-5:])
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE, connections=1) as hooks:
        assert (await hooks.custom("é" * 100)).value == "é" * 100
        decisions = await asyncio.gather(*(hooks.custom(n) for n in range(3)))
        assert [decision.value for decision in decisions] == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
async def test_answers_in_pieces_of_any_size_find_their_calls(faulty, seed):
    """Hundreds in flight, cut anywhere."""
    chance = random.Random(seed)

    async def behave(peer, _):
        raw = b"".join([echo(await peer.call()) for _ in range(300)])
        while raw:
            size = chance.choice([1, 2, 3, 50, 500, 5000])
            await peer.send(raw[:size])
            raw = raw[size:]
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE, connections=1, depth=300) as hooks:
        words = ["w" * chance.choice([0, 1, 10, 999]) + str(n) for n in range(300)]
        decisions = await asyncio.gather(*(hooks.custom(word) for word in words))
        assert [decision.value for decision in decisions] == words


async def test_a_call_goes_out_in_one_piece(faulty):
    """Head and body in one write: a server that takes its quick road for whole requests finds one."""
    pieces = []

    async def behave(peer, _):
        while data := await peer._reader.read(65536):
            pieces.append(data)
            await peer.send(answer())

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        for _ in range(5):
            await hooks.pre_query(query="q" * 1000)
    assert len(pieces) == 5
    assert all(piece.startswith(b"POST /v1/hooks/pre_query HTTP/1.1\r\n") for piece in pieces)


async def test_a_second_answer_is_not_taken_for_the_next_calls(faulty):
    """Whether it comes with the first or later, the connection ends, and the next call goes elsewhere."""

    async def behave(peer, number):
        if number > 1:
            await well(peer)
        one, other = echo(await peer.call()), answer({"action": "answered", "value": "old"})
        await peer.send(*([one + other] if number else [one, other]))
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE, connections=1) as hooks:
        for number in range(2):
            assert (await hooks.custom(number)).value == number
            await settled(lambda: not faulty.open)
            assert faulty.connections == number + 1
        assert (await hooks.custom("mine")).value == "mine"
        assert not hooks.failures


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


@pytest.mark.parametrize("seed", range(20))
def test_a_head_is_read_as_a_whole_or_not_at_all(seed):
    """One byte changed: the same length and status, another that is one, or an error; never a crash."""
    head = bytearray(answer(head="Server: x\r\nConnection: keep-alive\r\n").partition(b"\r\n\r\n")[0])
    assert connection.read_head(bytes(head)) == (200, 22, False)
    for at in range(len(head)):
        mutated = head.copy()
        mutated[at] = (mutated[at] + 1 + seed * 12) % 256
        try:
            status, length, _ = connection.read_head(bytes(mutated))
        except HookError:
            continue
        assert 200 <= status < 600
        assert 0 <= length < 10**19


@pytest.mark.parametrize(
    "test",
    [
        test_an_answer_may_come_byte_by_byte_or_with_others_in_one_packet,
        test_a_call_goes_out_in_one_piece,
        test_a_second_answer_is_not_taken_for_the_next_calls,
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
