"""Equal requests at the same time are one, and nobody's end is another's."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from http_guests import body, cause
from waiting import until_true


class Gate:
    """A page that answers when it is opened."""

    def __init__(self, **headers):
        self.asked = self.ended = 0
        self.open = asyncio.Event()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    async def __call__(self, _):
        """Answer a request."""
        self.asked += 1
        try:
            await self.open.wait()
            return web.Response(text=str(self.asked), headers=self.headers)
        finally:
            self.ended += 1


async def waiting(asks, count):
    """Once so many wait for one flight."""

    def how_many():
        return sum(len(flight.waiting) for flight in asks.client._flights.values()) == count

    await until_true(how_many, "all of them wait", pause=0)


async def test_a_hundred_callers_of_one_url_are_one_request(site, guest):
    """And all get its answer."""
    gate = site.pages["/"] = Gate()
    asks = guest(site.rule())
    calls = [asyncio.create_task(asks.fetch(site.url())) for _ in range(100)]
    await waiting(asks, 100)
    gate.open.set()
    assert {body(answer) for answer in await asyncio.gather(*calls)} == {b"1"}
    assert len(site.requests) == 1
    assert asks.client._flights == {}


@pytest.mark.parametrize("headers", [{"Cache_Control": "no-store"}, {"Vary": "*"}])
async def test_an_answer_that_is_for_one_alone_is_not_shared(site, guest, headers):
    """The others ask for themselves then."""
    gate = site.pages["/"] = Gate(**headers)
    asks = guest(site.rule())
    calls = [asyncio.create_task(asks.fetch(site.url())) for _ in range(5)]
    await waiting(asks, 5)
    gate.open.set()
    assert sorted(body(answer) for answer in await asyncio.gather(*calls)) == [b"1", b"2", b"3", b"4", b"5"]


async def test_requests_that_differ_are_not_one(site, guest):
    """In a header, a query or a method; and what is written is never shared."""
    gate = site.pages["/"] = Gate()
    asks = guest(site.rule(methods=["GET", "POST"]))
    calls = [asyncio.create_task(asks.fetch(site.url("/?a"), **each)) for each in (
        {}, {"headers": {"X": "1"}}, {"method": "POST"}, {"method": "POST"}, {"headers": {"Cache-Control": "no-store"}},
        {"headers": {"Cache-Control": "no-store"}}, {"headers": {"Range": "bytes=0-1"}}, {"body": "x"}, {"body": "x"},
    )]  # fmt: skip
    await until_true(lambda: gate.asked == len(calls), "each has come")
    gate.open.set()
    await asyncio.gather(*calls)


async def test_whoever_is_cancelled_takes_nobody_along(site, guest):
    """Neither the first, who began, nor the last to come."""
    gate = site.pages["/"] = Gate()
    asks = guest(site.rule())
    calls = [asyncio.create_task(asks.fetch(site.url())) for _ in range(4)]
    await waiting(asks, 4)
    calls[0].cancel()
    calls[3].cancel()
    await waiting(asks, 2)
    gate.open.set()
    assert [body(await call) for call in calls[1:3]] == [b"1", b"1"]
    assert gate.asked == 1


async def test_when_all_are_cancelled_the_request_ends(site, guest):
    """And the next one is a new one."""
    gate = site.pages["/"] = Gate()
    asks = guest(site.rule())
    calls = [asyncio.create_task(asks.fetch(site.url())) for _ in range(3)]
    await until_true(lambda: gate.asked, "it has come")
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert asks.client._flights == {}
    assert asks.client._waiting == 0
    gate.open.set()
    assert body(await asks.fetch(site.url())) == b"2"


async def test_one_callers_time_is_not_anothers(site, guest):
    """The first has little, and the second gets what the first asked for."""
    gate = site.pages["/"] = Gate()
    asks = guest(site.rule())
    hasty = asyncio.create_task(asks.fetch(site.url(), timeoutMs=50))
    patient = asyncio.create_task(asks.fetch(site.url()))
    assert cause(await hasty) == "timeout"
    assert asks.host.unavailable == {}
    gate.open.set()
    assert body(await patient) == b"1"
    assert gate.asked == 1


async def test_an_error_is_that_of_those_who_waited(plain, guest):
    """And of nobody later."""
    cutting = asyncio.Event()

    async def cut(request):
        await cutting.wait()
        request.transport.abort()

    plain.pages["/"] = cut
    asks = guest(plain.rule())
    calls = [asyncio.create_task(asks.fetch(plain.url())) for _ in range(3)]
    await waiting(asks, 3)
    cutting.set()
    assert [cause(answer) for answer in await asyncio.gather(*calls)] == ["failed"] * 3
    plain.page("/", "now")
    assert body(await asks.fetch(plain.url())) == b"now"


async def test_a_plugin_has_so_many_requests_on_their_way(plain, guest):
    """The others wait for their turn, within their time, and no more than can be waited for."""
    gate = plain.pages["/"] = Gate()
    asks = guest(plain.rule())
    calls = [asyncio.create_task(asks.fetch(plain.url(f"/?{n}"))) for n in range(40)]
    await until_true(lambda: gate.asked == 32, "as many as may be are there")
    late = await asks.fetch(plain.url("/?late"), timeoutMs=50)
    assert cause(late) == "timeout"
    assert "was not asked within" in late["error"]["message"]
    assert gate.asked == 32
    gate.open.set()
    assert {answer["status"] for answer in await asyncio.gather(*calls)} == {200}
    asks.client._waiting = 1024
    assert cause(await asks.fetch(plain.url("/?more"))) == "limit"
    asks.client._waiting = 0
