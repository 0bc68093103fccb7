"""A server that takes no new connection, and answers on those that it has."""

from __future__ import annotations

import asyncio

import pytest

import postgres
from waiting import until_true

_REFUSALS = {
    "another password": (f"alter role {postgres.USER} password 'another'", "password authentication failed"),
    "no more connections": (f"alter role {postgres.USER} connection limit 1", "too many connections"),
}
_AGAIN = f"alter role {postgres.USER} connection limit -1 password '{postgres.PASSWORD}'"


@pytest.fixture
def usual(server):
    """The role is afterwards as it was."""
    yield
    server.psql(_AGAIN)


@pytest.mark.parametrize("refusal", _REFUSALS)
@pytest.mark.usefixtures("usual")
async def test_open_connections_go_on_while_new_ones_are_refused(make, server, refusal):
    """More calls than connections are all answered; it is told meanwhile, and passes by itself."""
    change, words = _REFUSALS[refusal]
    source = make(poolSize=3, wait="60s")
    assert await source.one("select 1") == 1
    server.psql(change)
    asked = [source.one("select $1::int from pg_sleep(0.02)", [number]) for number in range(30)]
    assert await asyncio.gather(*asked) == list(range(30))
    assert words in source.unavailable["data source 'db'"]
    assert source.database.connections == 1
    server.psql(_AGAIN)
    await until_true(lambda: not source.unavailable, "new connections are taken again")
    await asyncio.gather(*(source.one("select 1 from pg_sleep(0.1)") for _ in range(9)))
    assert source.database.connections == 3


@pytest.mark.usefixtures("usual")
async def test_without_an_open_connection_each_call_is_told_at_once(make, server):
    """The last one ends while calls wait for it: none of them waits any longer."""
    source = make(poolSize=2, wait="60s")
    held = asyncio.create_task(source.ask("select pg_sleep(60)"))
    await until_true(lambda: source.database.connections == 1, "a call that runs")
    server.psql(f"alter role {postgres.USER} password 'another'")
    waiting = asyncio.create_task(source.error("select 1"))
    await until_true(lambda: source.unavailable, "it is told that new ones are refused")
    assert not waiting.done()
    held.cancel()
    assert (await waiting)[0] == "failed"
    assert (await source.error("select 1"))[0] == "failed"
    await asyncio.wait([held])
