"""A pod has as many connections to a source as its resource says, however many workers it has."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import postgres
from hookline_api.bundle import BundlePlugin
from hookline_artifacts.errors import ConfigError
from hookline_runtime.host.backends.postgres import Share
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from waiting import until_true

_COUNT = f"select count(*) from pg_stat_activity where usename = '{postgres.USER}'"


@pytest.mark.parametrize("pool_size", [1, 2, 3, 4, 5, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_the_workers_together_have_the_pods_connections(tmp_path, pool_size, workers):
    """Divided, the rest to the first ones; where they are too few, all share all of them."""
    shares = [
        Share.of(pool_size, worker=worker, workers=workers, locks=tmp_path / "locks", key="k")
        for worker in range(workers)
    ]
    if pool_size < workers:
        assert all(share.size == pool_size and share.locks is not None for share in shares)
    else:
        assert sum(share.size for share in shares) == pool_size
        assert all(share.locks is None for share in shares)
        assert max(share.size for share in shares) - min(share.size for share in shares) <= 1


async def test_workers_with_too_few_connections_share_them(make, tmp_path):
    """Never more than two at a time among four; each is answered."""
    locks = tmp_path / "locks"
    workers = [
        make(poolSize=2, context=HostContext(worker=number, workers=4, locks=locks), wait="60s") for number in range(4)
    ]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(worker.database.connections for worker in workers))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())

    async def ask(worker) -> list[int]:
        return [await worker.one("select $1::int from pg_sleep(0.01)", [number]) for number in range(8)]

    answers = await asyncio.gather(*map(ask, workers))
    watching.cancel()
    await asyncio.wait([watching])
    assert answers == [list(range(8))] * 4
    assert 1 <= most <= 2
    for worker in workers:
        await worker.idle()
        assert worker.database.connections == 0


async def test_a_worker_that_is_gone_leaves_its_connections_to_the_others(make, tmp_path):
    """Closed with calls under way, or killed: the kernel gives back what it had locked."""
    context = HostContext(worker=0, workers=2, locks=tmp_path / "locks")
    one, other = make(poolSize=1, context=context), make(poolSize=1, context=context, wait="60s")
    held = asyncio.create_task(one.ask("select pg_sleep(30)"))
    await until_true(lambda: one.database.connections == 1, "a call that runs")
    asked = asyncio.create_task(other.one("select 1"))
    held.cancel()
    one.family.close()
    assert await asked == 1


async def test_others_hold_all_connections_is_a_limit_and_the_source_is_not_away(make, tmp_path):
    """It says so, within the call's time."""
    context = HostContext(worker=0, workers=2, locks=tmp_path / "locks")
    one, other = make(poolSize=1, context=context), make(poolSize=1, context=context, wait="2s")
    held = asyncio.create_task(one.ask("select pg_sleep(30)"))
    await until_true(lambda: one.database.connections == 1, "a call that runs")
    assert await other.error("select 1") == ("limit", None)
    assert other.unavailable == {}
    held.cancel()
    await asyncio.wait([held])


async def test_a_connection_is_opened_by_the_first_call(make, server):
    """A plugin that is only loaded costs the server nothing."""
    source = make()
    assert source.database.connections == 0
    assert await source.one("select 1") == 1
    assert source.database.connections == 1
    for _ in range(20):
        assert await source.one("select 1") == 1
    assert server.psql(_COUNT) == "1"


def test_a_source_without_its_secret_is_refused_when_it_is_loaded():
    """With the name of the key, in one sentence."""
    source = {"host": "h", "database": "d", "user": "u", "passwordFrom": {"name": "db", "key": "password"}}
    plugin = BundlePlugin.model_validate({
        "name": "guest", "permissions": ["query.execute"], "dataSources": [{"name": "db", "postgres": source}],
    })  # fmt: skip
    with pytest.raises(ConfigError, match="'db' needs the key db/password of a Secret"):
        PluginHost(plugin, HostContext())


_WITHOUT = """
import sys
for name in ("psycopg", "psycopg_pool", "pglast"):
    sys.modules[name] = None
import asyncio, json
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.host.query import QueryFunctions
from host_calls import Memory
plain = BundlePlugin.model_validate({"name": "p", "permissions": ["query.execute"]})
family = QueryFunctions(plain, HostContext(), unavailable={})
print(asyncio.run(family.functions()["query_normalize"](Memory(), 0, 0)).decode())
source = {"host": "h", "database": "d", "user": "u"}
try:
    PluginHost(plain.model_validate({**plain.model_dump(by_alias=True), "dataSources": [
        {"name": "db", "postgres": source}]}), HostContext())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_the_extra_it_is_said_in_one_sentence():
    """When a plugin with a source is loaded; and by the functions that need none, when they are called."""
    support = Path(__file__).parents[2] / "support"
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(support)}
    )
    first, second = ran.stdout.splitlines()
    assert "needs the extra hookline[query]" in first
    assert second.startswith("ConfigError spec.dataSources needs the extra hookline[query]")


_LOADED = """
import sys
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
PluginHost(BundlePlugin(name="p", permissions=["kv.read"]), HostContext())
print(*({"psycopg", "psycopg_pool", "pglast"} & sys.modules.keys()))
"""


def test_a_plugin_without_the_permission_loads_none_of_it():
    """A worker pays for what its plugins use."""
    ran = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


_UVLOOP = """
import asyncio, json, sys, uvloop
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.query import QueryFunctions
from host_calls import Memory

async def main():
    family = QueryFunctions(BundlePlugin.model_validate(json.load(sys.stdin)), HostContext(), unavailable={})
    async def ask(sql):
        memory = Memory()
        return await family.functions()["query_execute"](memory, *memory.put(0, b"db"), *memory.put(10, sql), 0, 0)
    slow = asyncio.create_task(ask(b"select pg_sleep(20)"))
    await asyncio.sleep(0.1)
    slow.cancel()
    await asyncio.wait([slow])
    print(slow.cancelled(), *[json.loads(await ask(b"select 41 + 1"))["rows"] for _ in range(3)])
    print(json.loads(await ask(b"select repeat('x', 100000000)"))["error"]["cause"])
    family.close()
    from hookline_runtime.host.backends import postgres
    await asyncio.wait(postgres._closing)

uvloop.run(main())
"""


async def test_it_runs_on_uvloop_too(make):
    """The sidecar's loop: an answer, a cancellation, and a result that is too large."""
    plugin = make(statementTimeout="60s").plugin.model_dump_json(by_alias=True)
    support = Path(__file__).parents[2] / "support"
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", _UVLOOP], input=plugin, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(support)},
    )  # fmt: skip
    assert ran.stdout.split() == ["True", "[[42]]", "[[42]]", "[[42]]", "limit"], ran.stderr
    assert ran.stderr == ""
