"""A server that is slow, broken or hostile costs its caller a sentence, and nobody a connection or much memory."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib

import pytest
from aiohttp import web

from hookline_runtime.host.http_message import MAX_BODY
from http_guests import LOOPBACK, body, cause, served, spoken
from own_authorities import new_authority
from waiting import until_true

HEAD = b"HTTP/1.1 200 OK\r\n"


def rule(port):
    """One for a server that is asked in the clear."""
    return {"scheme": "http", "host": "127.0.0.1", "port": port, "addresses": LOOPBACK}


def held(asks):
    """How many connections a plugin has, in use and idle."""
    sessions = asks.client._backend._sessions.values()
    used = sum(len(each.connector._acquired) for each in sessions)
    return used, sum(len(kept) for each in sessions for kept in each.connector._conns.values())


async def said(guest, answer, **request):
    """What comes of a server that answers these bytes, and then says nothing more."""

    async def speak(_, writer):
        writer.write(answer)
        await writer.drain()
        await asyncio.Event().wait()

    async with spoken(speak) as port:
        asks = guest(rule(port))
        came = await asks.fetch(f"http://127.0.0.1:{port}/", **request)
        assert held(asks)[0] == 0
        asks.host.close()
    return came


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "bare"], ids=["gzip", "deflate", "deflate without its head"]
)  # fmt: skip
async def test_a_compressed_body_is_undone(plain, guest, coding):
    """Whichever of the two that `deflate` means."""
    packed = {"gzip": gzip.compress(b"x" * 5000), "deflate": zlib.compress(b"x" * 5000)}
    bare = zlib.compressobj(wbits=-15)
    packed["bare"] = bare.compress(b"x" * 5000) + bare.flush()
    plain.page("/", packed[coding], Content_Encoding="gzip" if coding == "gzip" else "deflate")
    answer = await guest(plain.rule()).fetch(plain.url())
    assert body(answer) == b"x" * 5000
    assert "content-encoding" not in answer["headers"]
    assert "content-length" not in answer["headers"]


async def test_headers_of_the_connection_are_not_of_the_response(guest):
    """RFC 9110, 7.6.1: also those that `Connection` names."""
    head = HEAD + b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 2\r\n"
    assert (await said(guest, head + b"Content-Length: 1\r\n\r\nx"))["headers"] == {"x-end": "2"}


async def test_several_members_of_gzip_are_one_body_and_many_are_none(plain, guest):
    """Each costs a copy of what follows it."""
    plain.page("/two", gzip.compress(b"a") + gzip.compress(b"b"), Content_Encoding="gzip")
    plain.page("/many", gzip.compress(b"a") * 1000, Content_Encoding="gzip")
    asks = guest(plain.rule())
    assert body(await asks.fetch(plain.url("/two"))) == b"ab"
    assert cause(await asks.fetch(plain.url("/many"))) == "failed"


async def test_a_bomb_goes_off_nowhere(plain, guest):
    """A hundred mebibytes in a tenth of one are refused after one mebibyte of them."""
    squeezed = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeezed.compress(bytes(2**20)) for _ in range(100)) + squeezed.flush()
    assert len(bomb) < MAX_BODY
    plain.page("/", bomb, Content_Encoding="gzip")
    asks = guest(plain.rule())
    tracemalloc.start()
    try:
        assert cause(await asks.fetch(plain.url())) == "limit"
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    assert held(asks)[0] == 0


@pytest.mark.parametrize(
    ("headers", "raw"),
    [
        ({"Content_Encoding": "br"}, b"x"),
        ({"Content_Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(b"x", mtime=0), mtime=0)),
        ({"Content_Encoding": "gzip"}, b"not gzip"),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"x" * 1000, mtime=0)[:-5]),
    ],
)
async def test_a_body_in_another_coding_than_was_asked_for_is_none(plain, guest, headers, raw):
    """Nor one that is cut off, though the server says that it was all."""
    plain.page("/", raw, **headers)
    assert cause(await guest(plain.rule()).fetch(plain.url())) == "failed"


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
async def test_a_body_has_an_end(plain, guest, size):
    """At a mebibyte, and not a byte later."""
    plain.page("/", bytes(size))
    answer = await guest(plain.rule()).fetch(plain.url())
    assert (len(body(answer)) if size == MAX_BODY else cause(answer)) in {MAX_BODY, "limit"}


async def test_a_body_without_end_is_cut(plain, guest):
    """Without a length, and quicker than anybody could take it."""
    ended = asyncio.Event()

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
        finally:
            ended.set()

    plain.pages["/"] = endless
    asks = guest(plain.rule())
    assert cause(await asks.fetch(plain.url())) == "limit"
    assert held(asks) == (0, 0)
    await ended.wait()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HEAD + b"X: " + b"y" * 40_000 + b"\r\n\r\n", "limit"),
        (HEAD + b"".join(b"A%d: %s\r\n" % (n, b"y" * 7000) for n in range(9)) + b"\r\n", "limit"),
        (HEAD + b"".join(b"A%d: b\r\n" % n for n in range(101)) + b"\r\n", "limit"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "limit"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000, "limit"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "failed"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "failed"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx", "failed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "failed"),
    ],
    ids=["a long header", "long headers", "many headers", "1xx without end", "chunks of a byte", "another protocol",
         "no status", "two lengths", "no chunk"],
)  # fmt: skip
async def test_an_answer_that_is_none_is_told(guest, answer, why):
    """And its connection is closed."""
    assert cause(await said(guest, answer, timeoutMs=50_000)) == why


@pytest.mark.parametrize(
    "answer",
    [b"", HEAD, HEAD + b"Content-Length: 10\r\n\r\n", HEAD + b"Content-Length: 10\r\n\r\nabc"],
    ids=["nothing", "half a head", "a head", "half a body"],
)
async def test_a_server_that_falls_silent_is_given_up(guest, answer):
    """After the request's own time."""
    came = await said(guest, answer, timeoutMs=500)
    assert cause(came) == "timeout"
    assert "did not answer within 500 ms" in came["error"]["message"]


async def test_a_server_that_drips_is_given_up(guest):
    """A byte now and then does not make a request longer."""

    async def drip(_, writer):
        writer.write(HEAD + b"Content-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with spoken(drip) as port:
        asks = guest(rule(port))
        assert cause(await asks.fetch(f"http://127.0.0.1:{port}/", timeoutMs=150)) == "timeout"
        assert held(asks) == (0, 0)


async def test_no_request_is_longer_than_nine_tenths_of_the_calls_wait(guest):
    """So that a guest that is told of it can still decide."""

    async def silent(_, __):
        await asyncio.Event().wait()

    async with spoken(silent) as port:
        asks = guest(rule(port), limits={"wait": "600ms"})
        for request in ({}, {"timeoutMs": 60_000}):
            came = await asks.fetch(f"http://127.0.0.1:{port}/", **request)
            assert came["error"]["message"] == f"http://127.0.0.1:{port} did not answer within 540 ms"


async def test_a_connection_that_is_reset_is_told(guest):
    """Before the head, and in the middle of the body."""
    for answer in (b"", HEAD + b"Content-Length: 10\r\n\r\nabc"):

        async def reset(_, writer, answer=answer):
            writer.write(answer)
            await writer.drain()
            writer.transport.abort()

        async with spoken(reset) as port:
            asks = guest(rule(port))
            came = await asks.fetch(f"http://127.0.0.1:{port}/")
            assert cause(came) == "failed"
            assert held(asks) == (0, 0)


async def test_a_port_where_nobody_listens_is_told(guest):
    """At once."""
    async with spoken(None) as port:
        pass
    assert cause(await guest(rule(port)).fetch(f"http://127.0.0.1:{port}/")) == "failed"


async def test_a_certificate_is_always_checked(site, guest, tmp_path):
    """Its authority, and the name that it is for; `caFrom` is the only one that is believed then."""
    site.page("/", "secret")
    answer = await guest(site.rule(caFrom=None)).fetch(site.url())
    assert cause(answer) == "failed"
    assert "certificate is not trusted" in answer["error"]["message"]
    assert "caFrom" in answer["error"]["message"]
    stranger = new_authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*stranger.issue(tmp_path))
    async with served(context) as other:
        assert cause(await guest(other.rule()).fetch(other.url())) == "failed"
        assert other.requests == []
    assert site.requests == []
    assert body(await guest(site.rule()).fetch(site.url())) == b"secret"


async def test_a_certificate_for_another_name_is_not_that_ones(site, guest, names):
    """Though it is at the same address, and of the same authority."""
    names["unnamed.test"] = [["127.0.0.1"]]
    answer = await guest(site.rule(host="unnamed.test")).fetch(site.url(host="unnamed.test"))
    assert cause(answer) == "failed"
    assert "certificate is not trusted" in answer["error"]["message"]


async def test_a_server_without_tls_is_not_asked_in_the_clear(plain, guest):
    """What is asked for over TLS is not asked without it."""
    asks = guest(plain.rule(scheme="https", caFrom={"name": "tls", "key": "ca"}))
    answer = await asks.fetch(plain.url().replace("http://", "https://"))
    assert cause(answer) == "failed"
    assert plain.requests == []


async def test_whoever_gives_up_leaves_no_connection(plain, guest):
    """In whatever it was: on the way, in a head, in a body; and others go on."""
    begun = asyncio.Event()

    async def slow(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        begun.set()
        await asyncio.Event().wait()

    plain.pages["/slow"] = slow
    plain.page("/quick", "x")
    asks = guest(plain.rule(methods=["GET", "POST"]))
    for method in ("GET", "POST"):
        begun.clear()
        call = asyncio.create_task(asks.fetch(plain.url("/slow"), method=method))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_true(lambda: held(asks) == (0, 0), "no connection")
        assert asks.client._waiting == 0
        assert asks.client._flights == {}
    assert body(await asks.fetch(plain.url("/quick"))) == b"x"


async def test_idle_connections_are_used_again_and_bounded(plain, guest):
    """A keep-alive is worth a handshake, and a thousand are worth nothing."""
    plain.page("/", "x")
    asks = guest(plain.rule())
    for _ in range(3):
        await asks.fetch(plain.url())
    assert held(asks) == (0, 1)
    session = next(iter(asks.client._backend._sessions.values()))
    session.connector._most_idle = 1
    await asyncio.gather(*(asks.fetch(plain.url(f"/?{n}")) for n in range(20)))
    assert held(asks) == (0, 1)
