"""A guest asks a database: its call waits, and no other does."""

from __future__ import annotations

import asyncio
import json

import pytest

from hookline_api.hooks import Hook
from hookline_runtime.guest import calls
from waiting import until_true

_DATA = {1024: b"db", 1100: b"select $1::int + 1", 1200: b"[41]", 1300: b"select pg_sleep(50)"}
_IMPORT = '(import "hookline" "query_execute" (func $ask (param i32 i32 i32 i32 i32 i32) (result i64)))'
_ASK = "(call $ask (i32.const 1024) (i32.const 2) (i32.const {at}) (i32.const {n}) (i32.const 1200) (i32.const {p}))"
_QUICK = _ASK.format(at=1100, n=18, p=4)
_SLOW = _ASK.format(at=1300, n=19, p=0)


@pytest.fixture(params=["fibers", "threads"])
def way(request, monkeypatch):
    """How calls wait."""
    if request.param == "threads":
        monkeypatch.setattr(calls, "_fibers_unfit", "this test is about the other way")
    elif calls._fibers_unfit is not None:
        pytest.skip(f"there are no fibers: {calls._fibers_unfit}")


@pytest.fixture
def guest(workshop, wat, make):
    """Runs a module whose hook ``custom_hook`` asks one thing and ``route`` another."""

    async def run(**limits):
        settings = make().plugin.model_dump(mode="json", by_alias=True, include={"data_sources", "credentials"})
        text = wat.module(imports=_IMPORT, data=_DATA, hooks={"custom_hook": _QUICK, "rewrite": _SLOW})
        limits = {"timeout": "900ms", "wait": "20s", **limits}
        return await workshop.guest(text, permissions=["query.execute"], limits=limits, **settings)

    return run


@pytest.mark.usefixtures("way")
async def test_a_guest_is_answered_in_its_own_memory(guest):
    """And again, on the same connection."""
    runtime = await guest()
    for _ in range(3):
        answer = await runtime.call(Hook.CUSTOM, b"{}")
        assert answer["value"] == {"columns": [{"name": "?column?", "type": "int4"}], "rows": [[42]], "rowCount": 1}
    assert _source(runtime).connections == 1


@pytest.mark.usefixtures("way")
async def test_a_call_whose_time_is_over_ends_its_query(guest, server):
    """By its failurePolicy; the connection is closed, and the next call has a new one."""
    runtime = await guest(wait="4s")
    answer = await runtime.call(Hook.REWRITE, json.dumps({"query": "select 1"}).encode())
    assert answer["failure"] == "timeout"
    await until_true(lambda: _source(runtime).used == 0, "an idle source")
    running = (
        "select count(*) from pg_stat_activity where query ~ 'pg_sleep' and state = 'active' and usename = 'reader'"
    )
    await until_true(lambda: server.psql(running) == "0", "that the query ended")
    assert (await runtime.call(Hook.CUSTOM, b"{}"))["value"]["rows"] == [[42]]


@pytest.mark.usefixtures("way")
async def test_many_guests_share_the_connections_and_all_are_answered(guest):
    """A hundred at once on four connections."""
    runtime = await guest(concurrency=100)
    answers = await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"{}") for _ in range(100)))
    assert [answer["value"]["rows"] for answer in answers] == [[[42]]] * 100
    assert _source(runtime).connections <= 4


async def test_a_source_that_is_away_is_told_with_the_plugin(guest, server):
    """Under its name, in one sentence, until it is back; the plugin goes on."""
    runtime = await guest()
    host = runtime.plugins["guest"].host
    server.stop()
    try:
        assert (await runtime.call(Hook.CUSTOM, b"{}"))["value"]["error"]["cause"] == "failed"
        assert set(host.told_unavailable()) == {"data source 'db'"}
    finally:
        server.start()
    await until_true(lambda: not host.told_unavailable(), "that it is back")
    assert (await runtime.call(Hook.CUSTOM, b"{}"))["value"]["rows"] == [[42]]
    assert host.refused == {"query_execute": 1}


def _source(runtime):
    [family] = [each for each in runtime.plugins["guest"].host._families if hasattr(each, "_sources")]
    return family._sources["db"]
