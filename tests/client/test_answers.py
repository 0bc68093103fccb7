"""Whatever bytes come from the other end, each call has its own answer or one clear cause."""

from __future__ import annotations

import asyncio
import random

import pytest
import uvloop

from faulty_answers import answer, echo, settled, well
from hookline_api.hooks import Hook
from hookline_client import HookClient, HookError, LostError, Policy, connection
from waiting import PATIENCE_S as DEADLINE

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
    "an action that is not a string": answer({"action": ["continue"]}),
    "a rewrite without a statement": answer({"action": "rewrite"}),
    "a statement that is not a string": answer({"action": "rewrite", "value": 5}),
    "bytes that are none": answer({"action": "cached", "data": [256]}),
    "base64 that is none": answer({"action": "cached", "data_base64": "="}),
    "no bytes at all": answer({"action": "cached"}),
    "a plugin that is not a string": answer({"action": "continue", "plugin": 5}),
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
    """Head and body in one write: a server that takes its quick way for whole requests finds one."""
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
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_on_uvloop_too(faulty, test):
    """Its transports write, pause and end in ways of their own."""
    uvloop.run(test(faulty))
