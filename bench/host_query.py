"""``select 1`` from a guest, against psycopg alone.

Alone is psycopg's own pool and one statement, in a transaction as its pool makes one: a round trip to begin, one for
the statement and one to end. Ours is the whole hook call: a guest on its fiber, its statement in a read-only
transaction of its own, capped, ``DISCARD ALL``, and rows as JSON in the guest's memory, in one round trip. The barest
that psycopg can do, one connection that commits by itself and is never tidied, is there for information. All of them
ask the same server over the same TLS, in turn, in this process.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
import wasmtime
from psycopg_pool import AsyncConnectionPool

import postgres
from bench.inprocess import runtime
from bench.machine import BrokenError, open_folder
from bench.report import Figure, Options, Result, at_most, say, spread
from hookline_api.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_SQL: Final = b"select 1"
_ROWS: Final = json.dumps({"columns": [{"name": "?column?", "type": "int4"}], "rows": [[1]], "rowCount": 1})
_GUEST: Final = f"""
(module
  (import "hookline" "query_execute"
    (func $execute (param i32 i32 i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 3)
  (data (i32.const 1024) "db{_SQL.decode()}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "custom_hook") (param i32 i32) (result i64)
    (call $execute (i32.const 1024) (i32.const 2) (i32.const 1026) (i32.const {len(_SQL)})
                   (i32.const 0) (i32.const 0))))
"""


async def measure(options: Options) -> Result:
    """One after the other, as a guest asks."""
    if postgres.program("initdb") is None:
        raise BrokenError("PostgreSQL is missing: sh scripts/debian-packages.sh postgresql")
    result = Result(name="host-query", idea="One query from a guest, against psycopg alone.")
    with open_folder() as folder, postgres.Server(folder / "server") as server:
        await _select(server, options, result)
    return result


async def _select(server: postgres.Server, options: Options, result: Result) -> None:
    with open_folder() as folder:
        authority = folder / "ca.pem"
        authority.write_text(server.authority.pem)
        conninfo = psycopg.conninfo.make_conninfo(
            host=server.host, port=server.port, dbname=postgres.DATABASE, user=postgres.USER,
            password=postgres.PASSWORD, sslmode="verify-full", sslrootcert=str(authority),
        )  # fmt: skip
        async with (
            AsyncConnectionPool(conninfo, min_size=1, max_size=1, open=False) as pool,
            await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as bare,
            runtime(("guest", bytes(wasmtime.wat2wasm(_GUEST)), _settings(server))) as ours,
        ):

            async def alone() -> None:
                async with pool.connection() as connection:
                    await (await connection.execute("select 1")).fetchall()

            async def barest() -> None:
                await (await bare.execute("select 1")).fetchall()

            async def from_a_guest() -> None:
                answer = await ours.call(Hook.CUSTOM, b"{}")
                if answer.get("value") != json.loads(_ROWS):
                    raise BrokenError(f"the guest was answered {answer!r}")

            ways: dict[str, Callable[[], Awaitable[None]]] = {
                "alone": alone, "barest": barest, "ours": from_a_guest,
            }  # fmt: skip
            took: dict[str, list[float]] = {name: [] for name in ways}
            used: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(options.rounds):
                say(f"host-query: round {number + 1} of {options.rounds}")
                for name, ask in ways.items():
                    passed, work = await _microseconds(ask, options.pick(1_000, 5_000))
                    took[name].append(passed)
                    used[name].append(work)
    ratios = [mine / theirs for mine, theirs in zip(took["ours"], took["alone"], strict=True)]
    of_work = [mine / theirs for mine, theirs in zip(used["ours"], used["alone"], strict=True)]
    against_barest = [mine / theirs for mine, theirs in zip(took["ours"], took["barest"], strict=True)]
    result.figures += [
        at_most(2.0, "time of a guest's query_execute of `select 1`, against psycopg's pool alone", ratios),
        Figure(what="the same, as this process's processor time", measured=spread(of_work)),
        Figure(what="the same time, against one connection that is never tidied", measured=spread(against_barest)),
        *(
            Figure(what=what, measured=spread(took[name], unit=" µs", digits=0))
            for name, what in (
                ("alone", "`select 1` by psycopg's pool"),
                ("barest", "`select 1` on one connection"),
                ("ours", "`select 1` from a guest"),
            )
        ),
    ]


def _settings(server: postgres.Server) -> dict[str, Any]:
    source = {
        "host": server.host, "port": server.port, "database": postgres.DATABASE, "user": postgres.USER,
        "passwordFrom": {"name": "db", "key": "password"}, "tls": {"caFrom": {"name": "db", "key": "ca"}},
        "poolSize": 1,
    }  # fmt: skip
    return {
        "permissions": ["query.execute"],
        "dataSources": [{"name": "db", "postgres": source}],
        "credentials": {"db/password": postgres.PASSWORD, "db/ca": server.authority.pem},
        "limits": {"timeout": "1s", "wait": "5s"},
    }


async def _microseconds(ask: Callable[[], Awaitable[None]], times: int) -> tuple[float, float]:
    """One of so many, by the clock and by the processor."""
    for _ in range(50):
        await ask()
    await asyncio.sleep(0)
    begin, work = time.perf_counter(), time.process_time()
    for _ in range(times):
        await ask()
    return (time.perf_counter() - begin) / times * 1e6, (time.process_time() - work) / times * 1e6
