"""A source that is away, slow or cut costs no call its time, and comes back by itself."""

from __future__ import annotations

import asyncio
import time

import pytest

import postgres
from fault_proxy import FaultProxy
from waiting import PATIENCE_S, until_true


@pytest.fixture
async def proxy(server):
    """Between the sources and the server."""
    async with FaultProxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def away(make, proxy):
    """A source behind the proxy."""
    return make(port=proxy.port)


async def _back(source):
    await until_true(lambda: not source.unavailable, lambda: f"a source that is back, {source.unavailable}")
    await source.idle()
    assert await source.one("select 1") == 1


async def test_a_source_that_refuses_is_said_and_comes_back(away, proxy):
    """The calls meanwhile are told at once; nobody has to do anything when it is there again."""
    await proxy.refuse()
    cause, sqlstate = await away.error("select 1")
    assert (cause, sqlstate) == ("failed", "08001")
    assert "refused" in away.unavailable["data source 'db'"]
    await proxy.accept()
    await _back(away)


async def test_calls_to_a_source_that_hangs_do_not_each_wait(make, proxy):
    """The first ones wait within their time, and those after them not at all."""
    proxy.silent = True
    source = make(port=proxy.port, wait="400ms")
    assert (await source.error("select 1"))[0] == "failed"
    assert source.unavailable
    begin = time.monotonic()
    for _ in range(1000):
        assert (await source.error("select 1"))[0] == "failed"
    assert time.monotonic() - begin < 1000 * 0.2 / 2  # each of them would have waited 0.2 s
    proxy.heal()
    await _back(source)


async def test_a_server_that_restarts_costs_no_call(make, server):
    """A connection that it ended is found before a statement is sent on it; the next one is new."""
    source = make(poolSize=2)
    assert await source.one("select 1") == 1
    server.stop()
    assert (await source.error("select 1"))[0] == "failed"
    server.start()
    await _back(source)
    assert source.database.connections <= 2


async def test_connections_that_were_reset_while_idle_are_replaced_at_once(away, proxy):
    """Nobody is told of them."""
    await asyncio.gather(*(away.one("select 1 from pg_sleep(0.05)") for _ in range(4)))
    await away.idle()
    await until_true(lambda: not away.database._pool._growing, "that no connection is being made")
    proxy.reset()
    await until_true(lambda: proxy.open == 0, "that the proxy has reset all")
    assert await away.one("select 1") == 1
    assert away.unavailable == {}


@pytest.mark.parametrize("after", [0, 1, 5, 60, 100, 150, 200, 1000])
@pytest.mark.parametrize("fault", ["cut_after", "reset_after"])
async def test_an_answer_that_is_cut_is_an_error_at_each_place(make, proxy, fault, after):
    """The connection is closed and counts no longer; the source is there again afterwards."""
    source = make(port=proxy.port, access="ReadWrite", tls={"mode": "Disable"})
    assert await source.one("select 1") == 1
    passed = proxy.answered
    setattr(proxy, fault, passed + after)
    answer = await source.ask("select repeat('x', 5000)")
    assert answer["error"]["cause"] == "failed"
    assert answer["error"]["sqlstate"] in {"08006", "08001"}
    proxy.heal()
    await _back(source)
    assert source.database.used == 0
    assert 1 <= source.database.connections <= 4


async def test_a_slow_answer_is_only_slow(away, proxy):
    """It is read as it comes."""
    assert await away.one("select 1") == 1
    proxy.delay = 0.02
    assert len(await away.one("select repeat('x', 500000)")) == 500_000


async def test_a_server_that_keeps_no_time_out_is_left(make, proxy):
    """Its answer never comes; the call ends a second after the statement's own time."""
    source = make(port=proxy.port, statementTimeout="50ms")
    assert await source.one("select 1") == 1
    proxy.silent = True
    assert await source.error("select 1") == ("timeout", "57014")
    assert source.database.used == 1  # the cancellation is under way
    proxy.heal()
    await _back(source)


async def test_a_call_that_is_cancelled_leaves_at_once_and_ends_its_query(make, server):
    """The caller does not wait for the server; there the query ends, and the connection is free again."""
    source = make(poolSize=1, statementTimeout="60s", wait="60s")
    running = f"select count(*) from pg_stat_activity where usename = '{postgres.USER}' and query ~ 'pg_sleep'"
    for _ in range(5):
        call = asyncio.create_task(source.ask("select pg_sleep(50)"))
        await until_true(lambda: server.psql(f"{running} and state = 'active'") == "1", "a query that runs")
        call.cancel()
        begin = time.monotonic()
        await asyncio.wait([call])
        assert call.cancelled()
        assert time.monotonic() - begin < PATIENCE_S / 100
        assert source.database.used == 1  # until it is closed
        await source.idle()
        await until_true(lambda: server.psql(f"{running} and state = 'active'") == "0", "that the query ended")
    assert await source.one("select 1") == 1
    assert source.database.connections == 1
    assert source.unavailable == {}


@pytest.mark.parametrize("steps", range(14))
async def test_a_call_may_be_cancelled_at_each_step(make, steps):
    """After so many turns of the event loop: nothing is left used, and the source works."""
    source = make(poolSize=2)
    for warm in (False, True):
        if warm:
            assert await source.one("select 1") == 1
        call = asyncio.create_task(source.ask("select 1"))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await source.idle()
    assert await source.one("select 1") == 1
    assert source.database.connections <= 2


async def test_a_cancellation_that_nobody_hears_is_given_up(make, proxy):
    """The server is silent: the connection is closed without it, and the pool is whole again."""
    source = make(port=proxy.port, poolSize=1)
    assert await source.one("select 1") == 1
    proxy.silent = True
    call = asyncio.create_task(source.ask("select 1"))
    await until_true(lambda: source.database.used == 1, "a call that waits")
    call.cancel()
    await asyncio.wait([call])
    await source.idle()
    proxy.heal()
    await _back(source)


async def test_a_pool_that_is_used_up_is_a_limit(make):
    """After half of the time that the call may wait; who waited less long gets the next connection."""
    source = make(poolSize=1, wait="6s", statementTimeout="60s")
    held = asyncio.create_task(source.ask("select pg_sleep(30)"))
    await until_true(lambda: source.database.used == 1, "a call that runs")
    assert await source.error("select 1") == ("limit", None)
    held.cancel()
    await asyncio.wait([held])
    await source.idle()
    assert await source.one("select 1") == 1
    assert source.unavailable == {}


async def test_a_wrong_password_is_said_and_a_secret_is_not(make):
    """In the server's words, without the value of any Secret."""
    source = make(credentials={"db/password": "quite-wrong-and-secret"})
    answer = await source.ask("select 1")
    assert answer["error"]["cause"] == "failed"
    assert "password authentication failed" in answer["error"]["message"]
    assert "quite-wrong" not in str(answer) + str(source.unavailable)


async def test_a_source_that_is_closed_while_calls_run_leaves_nothing(make, server):
    """They end, and so do its connections."""
    source = make(poolSize=3, statementTimeout="60s")
    calls = [asyncio.create_task(source.ask("select pg_sleep(50)")) for _ in range(3)]
    await until_true(lambda: source.database.connections == 3, "three calls that run")
    for call in calls:
        call.cancel()
    source.family.close()
    await asyncio.wait(calls)
    count = f"select count(*) from pg_stat_activity where usename = '{postgres.USER}'"
    await until_true(lambda: server.psql(f"{count} and state <> 'active'") == "0", "no idle connection")
    assert (await source.ask("select 1"))["error"]["cause"] == "failed"
