"""A server that does what none should: nobody gets another's answer, nothing grows, and it ends by the time-out."""

from __future__ import annotations

import asyncio

import pytest

from faulty_valkey import FaultyValkey
from hookline_api.outbound import ValkeyServer
from hookline_runtime.host.backends import resp
from hookline_runtime.host.backends import valkey as valkey_module
from hookline_runtime.host.backends.valkey import ValkeyAwayError, ValkeyReplyError
from waiting import until_true


async def _reset(writer):
    writer.write(b"$10\r\nabc")
    await writer.drain()
    writer.transport.abort()


async def _cut(writer):
    writer.write(b"$10\r\nabc")
    await writer.drain()
    writer.close()


async def _endless_arrays(writer):
    for _ in range(10_000):
        writer.write(b"*1\r\n" * 100)
        await writer.drain()


async def _endless_string(writer):
    writer.write(b"$4294967295\r\n")
    for _ in range(10_000):
        writer.write(bytes(65_536))
        await writer.drain()


async def _endless_line(writer):
    writer.write(b"+")
    for _ in range(10_000):
        writer.write(b"a" * 65_536)
        await writer.drain()


async def _drip(writer):
    writer.write(b"$100000\r\n")
    for _ in range(100_000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "does not answer within 0.2 s"), (_drip, "does not answer within 0.2 s"),
        (b"*3\r\n:1\r\n", "does not answer within 0.2 s"),
        (_reset, "has closed the connection in mid-answer"), (_cut, "has closed the connection in mid-answer"),
        (_endless_arrays, "sends a reply of more than 8192 elements, or deeper than 8"),
        (_endless_string, "sends a reply of more than 4194304 bytes"),
        (_endless_line, "sends a line of more than 1024 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "sends bytes that are not RESP2"),
        (b"+first\r\n+to nobody\r\n", None),
    ],
    ids=["silent", "dripping", "half", "reset", "cut", "arrays", "huge", "line", "garbage", "unasked"],
)  # fmt: skip
async def test_a_fault_ends_the_connection_with_a_sentence_and_the_next_one_is_sound(client, answer, sentence):
    """Whoever waits is told, and the server is asked again by itself."""
    unavailable: dict[str, str] = {}
    async with FaultyValkey(answer) as server:
        asked = client(server.settings(), unavailable=unavailable)
        if sentence is None:
            assert await asked.command(b"GET", b"k") == b"first"
        else:
            with pytest.raises(ValkeyAwayError, match=sentence) as failed:
                await asked.command(b"GET", b"k")
            assert not failed.value.not_sent  # it may have been done
        await until_true(lambda: server.connections == 2 and not unavailable, "another connection")
        assert await asked.command(b"ECHO", b"sound") == b"sound"
        assert [each[-1] for each in server.asked] == [b"k", b"sound"]  # and nothing was sent twice


async def test_an_answer_after_the_time_out_is_nobodys(client):
    """It comes on a connection that is closed."""
    late = asyncio.Event()

    async def answer_late(writer):
        await late.wait()
        writer.write(b"$4\r\nlate\r\n")

    async with FaultyValkey(answer_late) as server:
        asked = client(server.settings())
        with pytest.raises(ValkeyAwayError):
            await asked.command(b"GET", b"slow")
        late.set()
        await until_true(lambda: server.connections == 2 and asked._why is None, "another connection")
        assert await asked.command(b"ECHO", b"own") == b"own"


async def test_who_is_cancelled_leaves_a_place_that_the_late_answer_fills(client):
    """On the same connection: the others' answers are theirs."""
    held = asyncio.Event()

    async def hold(writer):
        await held.wait()
        writer.write(b"$4\r\nmine\r\n")

    async with FaultyValkey(hold) as server:
        asked = client(server.settings("10s"))
        first = asyncio.ensure_future(asked.command(b"GET", b"mine"))
        await until_true(lambda: server.asked, "the first command")
        others = [asyncio.ensure_future(asked.command(b"ECHO", b"%d" % number)) for number in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        held.set()
        assert await asyncio.gather(*others) == [b"%d" % number for number in range(5)]
        assert server.connections == 1


async def test_a_server_that_never_answers_costs_calls_less_and_less(client, monkeypatch):
    """After the first, calls fail at once; what tries again is one task, after pauses that grow."""
    pauses = []
    monkeypatch.setattr(valkey_module.random, "uniform", lambda *_: pauses.append(1) or 1)
    async with FaultyValkey(*[None] * 1000) as server:
        asked = client(server.settings("20ms"))
        failed_at_once = 0
        while len(pauses) < 4:
            try:
                await asked.command(b"GET", b"k")
            except ValkeyAwayError as error:
                failed_at_once += error.not_sent
            await asyncio.sleep(0.001)
        assert len(server.asked) <= len(pauses) + 1
        assert failed_at_once > 4 * len(server.asked)


@pytest.mark.parametrize("code", ["LOADING", "READONLY", "MASTERDOWN"])
async def test_a_server_that_is_not_the_one_to_ask_is_looked_up_anew(client, code):
    """After a failover its name leads to another; the command has failed, and is not sent again."""
    async with FaultyValkey(f"-{code} some words\r\n".encode()) as server:
        asked = client(server.settings())
        with pytest.raises(ValkeyReplyError) as refused:
            await asked.command(b"SET", b"k", b"v")
        assert refused.value.code == code
        await until_true(lambda: server.connections == 2 and asked._why is None, "another connection")
        assert await asked.command(b"ECHO", b"x") == b"x"


async def test_no_word_of_the_servers_comes_into_a_sentence(client):
    """It may quote what it was sent."""
    async with FaultyValkey(b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n") as server:
        with pytest.raises(ValkeyReplyError) as refused:
            await client(server.settings()).command(b"AUTH", b"secret")
        assert "secret" not in str(refused.value)


async def test_a_connection_that_is_refused_or_leads_nowhere_is_said(client):
    """Each in its words; a name that there is not, as well."""
    for url, sentence in (
        ("redis://127.0.0.1:1", "cannot be reached: Connection refused"),
        ("redis://no-such-name.invalid:6379", "the name of the server at no-such-name.invalid:6379 is not known"),
    ):
        with pytest.raises(ValkeyAwayError, match=sentence):
            await client(ValkeyServer(url=url, timeout=10_000)).command(b"PING")


async def test_a_large_answer_is_bounded_by_whoever_asks(client):
    """A smaller bound than the protocol's."""
    async with FaultyValkey(b"$2000\r\n") as server:
        with pytest.raises(ValkeyAwayError, match="more than 1000 bytes"):
            await client(server.settings(), max_reply=1000).command(b"GET", b"k")
    assert resp.MAX_REPLY > 1000


async def test_a_flood_of_answers_to_nobody_is_not_read_to_its_end(client, monkeypatch):
    """The server may be a tenant's own, and what it sends is read on everybody's event loop."""
    fed, real = [], resp.Parser.feed

    def feed(parser, data):
        fed.append(len(data))
        return real(parser, data)

    monkeypatch.setattr(resp.Parser, "feed", feed)
    async with FaultyValkey(b":1\r\n" * 60_000) as server:
        unavailable = {}
        asked = client(server.settings(), unavailable=unavailable)
        assert await asked.command(b"GET", b"a") == 1
        await until_true(lambda: "keys" in unavailable, "the end of the connection")
        assert "sends an answer to nobody" in unavailable["keys"]
    assert sum(fed) <= 2 * valkey_module._PIECE
