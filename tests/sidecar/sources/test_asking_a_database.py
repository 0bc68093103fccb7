"""A plugin of a folder asks a real PostgreSQL: its password rotates without a lost call, and an outage is seen."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import postgres
from operator_reports import metric
from waiting import PATIENCE_S

QUERY = '(import "hookline" "query_execute" (func $query (param i32 i32 i32 i32 i32 i32) (result i64)))'
SQL = b"select current_user::text"
ASK = (
    f"(call $query (i32.const 1024) (i32.const 6) (i32.const 2048) (i32.const {len(SQL)}) (i32.const 0) (i32.const 0))"
)
SECOND = "the password of the second role"
NAME = "data source 'grants'"


@pytest.fixture(scope="module")
def database():
    """A server with two roles, of which the second is to follow the first."""
    if postgres.program("initdb") is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing (Debian: apt-get install postgresql)")
        pytest.skip("PostgreSQL is missing (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hookline-pg-"))  # short: a socket's path has 107 characters
    try:
        with postgres.Server(folder / "server") as started:
            started.psql(f"create role second login password '{SECOND}'")
            yield started
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def asking(new_sidecar, guests, database):
    """A sidecar with a plugin that answers as whom it asks; ``asks_as`` changes user and key in its manifest."""
    sidecar = new_sidecar()
    module = guests.module({"custom_hook": ASK}, imports=QUERY, data={1024: b"grants", 2048: SQL})
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"},
        "stringData": {"first": postgres.PASSWORD, "second": SECOND, "ca.crt": database.authority.pem},
    }  # fmt: skip
    sidecar.folder.write("s.yaml", secret)

    def asks_as(user, key):
        source = {
            "host": database.host, "port": database.port, "database": postgres.DATABASE, "user": user,
            "passwordFrom": {"name": "db", "key": key}, "tls": {"caFrom": {"name": "db", "key": "ca.crt"}},
        }  # fmt: skip
        spec = {"permissions": ["query.execute:grants"], "dataSources": [{"name": "grants", "postgres": source}]}
        sidecar.folder.plugin("p", module, limits={"wait": "20s"}, **spec)

    sidecar.asks_as = asks_as
    asks_as(postgres.USER, "first")
    return sidecar.start()


async def test_a_password_rotates_while_calls_go_on_and_none_is_lost(asking):
    """Each call is answered by the one role or by the other, and in the end by the other alone."""
    (first,) = (await asking.says())["rows"]
    assert first == [postgres.USER]
    asking.asks_as("second", "second")
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while not found or found[-1] != [["second"]]:
            found.append((await asking.says()).get("rows"))
    assert set(map(str, found)) <= {str([[postgres.USER]]), str([["second"]])}
    assert [(await asking.says())["rows"] for _ in range(20)] == [[["second"]]] * 20
    shown = str([asking.get(path) for path in ("/v1/bundle", "/v1/plugins", "/metrics")]) + asking.log
    assert postgres.PASSWORD not in shown
    assert SECOND not in shown


async def test_a_database_that_is_away_is_told_until_it_is_back_and_the_plugin_runs_on(asking, database, eventually):
    """In ``/v1/plugins`` and by the gauge; the guest gets an error that it can decide by, and the pod stays ready."""

    def gauge():
        return metric(asking, f'hookline_source_available{{plugin="p",source="{NAME}"}}')

    assert (await asking.says())["rows"] == [[postgres.USER]]
    assert gauge() == 1
    database.stop()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while "error" not in (answer := await asking.says()):
                pass
        assert answer["error"]["cause"] in {"failed", "timeout"}
        eventually(lambda: gauge() == 0, "the gauge")
        plugin = asking.wait_plugin("p", state="Running", unavailable=bool)
        assert list(plugin["unavailable"]) == [NAME]
        assert postgres.PASSWORD not in str(plugin)
        assert asking.get("/readyz")[0] == 200
    finally:
        database.start()
    async with asyncio.timeout(PATIENCE_S):
        while (await asking.says()).get("rows") != [[postgres.USER]]:
            pass
    eventually(lambda: gauge() == 1, "the gauge")
    asking.wait_plugin("p", unavailable=lambda told: not told)
