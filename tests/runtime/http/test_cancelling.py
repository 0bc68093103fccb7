"""Whenever a caller leaves, in whatever its request was, nothing of it is left."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from hookline_runtime.host.backends import http as backend
from hookline_runtime.host.http_client import CONCURRENCY
from hookline_runtime.host.http_message import REPLACED
from http_guests import HttpGuest, body, served
from waiting import until_true


async def _turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


def _nothing_is_left(asks):
    client = asks.client
    assert client._flights == {}
    assert client._waiting == 0
    assert client._permits._value == CONCURRENCY
    return not any(session.connector._acquired for session in client._backend._sessions.values())


async def _cut_everywhere(site, ca, method):
    """Each request is cut a turn of the loop later than the one before, until one is answered."""
    site.page("/", "x" * 100_000)
    before = asyncio.all_tasks()
    asks = HttpGuest([site.rule(methods=["GET", "POST"])], credentials={"tls/ca": ca})
    for turns in range(2000):
        if turns % 4 == 0:  # a new connection, and its handshake
            asks.host.close()
            await asyncio.gather(*backend._ending)
            asks = HttpGuest([site.rule(methods=["GET", "POST"])], credentials={"tls/ca": ca})
        call = asyncio.create_task(asks.fetch(site.url(), method=method))
        await _turns(turns)
        if call.done():
            break
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert _nothing_is_left(asks)
    assert len(body(await call)) == 100_000
    assert len(body(await asks.fetch(site.url(), method=method))) == 100_000
    asks.host.close()
    await asyncio.gather(*backend._ending)
    await until_true(lambda: len(site.requests) >= 2, "the server has seen some")
    ours = {task for task in asyncio.all_tasks() - before if "hookline_runtime" in repr(task)}
    assert ours == set()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_call_may_be_cut_at_any_point(loop, method, certificate, authority):
    """A lookup, a handshake, a head, a body: after each turn of either event loop."""

    async def run():
        async with served(certificate) as site:
            await _cut_everywhere(site, authority.pem, method)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_a_plugin_that_is_replaced_ends_what_is_on_its_way(plain):
    """Its connections are closed, and its time is not waited for; later requests fail."""
    here = asyncio.Event()

    async def silent(_):
        here.set()
        await asyncio.Event().wait()

    plain.pages["/"] = silent
    asks = HttpGuest([plain.rule()])
    calls = [asyncio.create_task(asks.fetch(plain.url(), **each)) for each in ({}, {}, {"body": "a"})]
    await here.wait()
    asks.host.close()
    answers = [*await asyncio.gather(*calls), await asks.fetch(plain.url())]
    await asyncio.gather(*backend._ending)
    assert {answer["error"]["message"] for answer in answers} == {REPLACED}
