"""``cache_get`` and its kind on a real server: answers as from memory, shared by pods; one that is away is a miss."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cache_calls import BOTH, WaitingGuest
from hookline_api.abi import E_ARGUMENT, E_MEMORY, E_SIZE, E_UNAVAILABLE
from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_artifacts.errors import ConfigError
from hookline_runtime.host.cache import wanted_sizes
from hookline_runtime.host.cache_store import MAX_KEY, MAX_VALUE
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from local_ports import reserve_port
from waiting import until_true


def server(url: str, name: str = "shared", **fields: object) -> dict[str, object]:
    """A cache on a server, as a resource has it."""
    return {"name": name, "valkey": {"url": url, "timeout": "10s"}, **fields}


@pytest.fixture
def url(redis):
    """Where the server is."""
    return f"redis://127.0.0.1:{redis.port}"


@pytest.fixture
async def guest(store):
    """Makes guests of plugins whose caches are these."""
    made = []

    def make(*caches, name="guest", **fields):
        plugin = BundlePlugin.model_validate({"name": name, "permissions": BOTH, "caches": list(caches), **fields})
        store.allot(wanted_sizes([plugin]))
        made.append(PluginHost(plugin, HostContext(cache=store)))
        return WaitingGuest(made[-1])

    yield make
    for host in made:
        host.close()


async def test_a_server_answers_as_the_pods_memory_does(guest, url):
    """Values of any bytes, empty ones too; what is not there; what was deleted."""
    asking = guest(server(url))
    for value in (b"value", b"", b"\r\n\0" * 7000):
        assert await asking.set(b"k\r\n\xff", value) == 0
        assert await asking.get(b"k\r\n\xff") == value
        assert await asking.exists(b"k\r\n\xff") == 1
    assert await asking.delete(b"k\r\n\xff") == 1
    assert await asking.delete(b"k\r\n\xff") == 0
    assert await asking.exists(b"k\r\n\xff") == 0
    assert await asking.get(b"k\r\n\xff") == 0
    assert asking.host.caches == {"shared": {"hit": 6, "miss": 2, "away": 0}}
    assert asking.host.refused == asking.host.unavailable == {}


async def test_each_cache_of_each_plugin_has_keys_of_its_own(guest, url, redis):
    """By namespace, plugin and cache; and the pods of one plugin share it."""
    first = guest(server(url), server(url, "other"), namespace="prod")
    again = guest(server(url), namespace="prod")
    strangers = [
        guest(server(url), namespace="test"),
        guest(server(url), namespace="prod", name="guest2"),
        guest(server(url)),
    ]
    assert await first.set(b"k", b"v") == 0
    assert await again.get(b"k") == b"v"
    assert await first.get(b"k", b"other") == 0
    assert [await each.get(b"k") for each in strangers] == [0, 0, 0]
    assert redis.ask("--raw", "keys", "*") == b"hookline/cache/prod/guest/shared/k\n"


async def test_entries_end_on_the_server(guest, url, redis):
    """With the time that the guest says, or the cache's own; never without."""
    asking = guest(server(url, ttl="90s"))
    await asking.set(b"own", b"v")
    await asking.set(b"given", b"v", 5_000_000)
    await asking.set(b"endless", b"v", 2**62)
    await asking.set(b"short", b"v", 1)
    prefix = "hookline/cache//guest/shared/"
    left = {key: int(redis.ask("pttl", f"{prefix}{key}")) for key in ("own", "given", "endless")}
    assert 0 < left["own"] <= 90_000 < left["given"] <= 5_000_000
    assert 5_000_000 < left["endless"] <= 30 * 86_400_000
    await until_true(lambda: _is(asking.exists(b"short"), 0), "its time is over")
    assert await asking.set(b"k", b"v", -1) == E_ARGUMENT


async def _is(answer, wanted):
    return await answer == wanted


async def test_caches_in_the_pod_and_on_a_server_may_stand_beside_each_other(guest, url, store):
    """Each function answers for both; the first is the one without a name."""
    asking = guest({"name": "near", "memory": {}}, server(url))
    assert await asking.set(b"k", b"near") == 0
    assert await asking.set(b"k", b"far", cache=b"shared") == 0
    assert [await asking.get(b"k", name) for name in (b"", b"near", b"shared")] == [b"near", b"near", b"far"]
    assert await asking.delete(b"k") == 1
    assert await asking.exists(b"k") == 0
    assert await asking.exists(b"k", b"shared") == 1
    assert store.usage() == {}
    assert asking.host.caches == {
        "near": {"hit": 2, "miss": 1, "away": 0}, "shared": {"hit": 2, "miss": 0, "away": 0},
    }  # fmt: skip


async def test_bad_arguments_have_their_codes_and_reach_no_server(guest):
    """Sizes, ranges and names are looked at first."""
    asking = guest(server(f"redis://127.0.0.1:{reserve_port()}"))
    assert await asking.exists(b"k", b"unknown") == E_ARGUMENT
    assert await asking.functions["cache_exists"](asking.memory, 0, 0, 0, MAX_KEY + 1) == E_SIZE
    assert await asking.functions["cache_get"](asking.memory, 0, 0, 299_999, 10) == -E_MEMORY
    assert await asking.functions["cache_set"](asking.memory, 0, 0, 0, 1, 0, MAX_VALUE + 1, 0) == E_SIZE
    assert await asking.functions["cache_set"](asking.memory, 0, 0, 0, 1, 299_999, 10, 0) == E_MEMORY
    assert asking.host.caches == {"shared": {"hit": 0, "miss": 0, "away": 0}}


async def test_a_server_that_is_away_is_a_miss_and_comes_back(guest, url, redis):
    """It is counted and said; once the client knows, nobody waits for it; and later it is found again."""
    asking = guest(server(url))
    assert await asking.set(b"k", b"v") == 0
    redis.kill()
    await until_true(lambda: _is(asking.get(b"k"), 0), "it is away")
    await until_true(lambda: asking.host.unavailable, "that is said")
    assert list(asking.host.unavailable) == ["cache 'shared'"]
    before = asking.host.caches["shared"]["away"]
    refused = dict(asking.host.refused)
    assert await asking.get(b"k") == 0
    assert await asking.exists(b"k") == 0
    assert await asking.set(b"k", b"v") == E_UNAVAILABLE
    assert await asking.delete(b"k") == E_UNAVAILABLE
    assert asking.host.caches["shared"]["away"] == before + 4
    assert asking.host.refused == {
        "cache_get": refused["cache_get"] + 1, "cache_exists": 1, "cache_set": 1, "cache_delete": 1,
    }  # fmt: skip
    redis.start()
    await until_true(lambda: _is(asking.set(b"k", b"again"), 0), "it is back")
    assert await asking.get(b"k") == b"again"
    assert asking.host.unavailable == {}


async def test_a_key_of_another_kind_is_a_miss(guest, url, redis):
    """Whoever else writes to the server may have put anything there."""
    asking = guest(server(url))
    redis.ask("rpush", "hookline/cache//guest/shared/list", "a")
    redis.ask("setrange", "hookline/cache//guest/shared/large", str(MAX_VALUE), "x")
    assert await asking.get(b"list") == 0
    assert await asking.get(b"large") == 0
    assert asking.host.caches == {"shared": {"hit": 0, "miss": 1, "away": 1}}
    assert await asking.set(b"list", b"v") == 0
    assert await asking.get(b"list") == b"v"


async def test_a_server_that_is_full_refuses_writes_alone(guest, url, redis):
    """With a code; what is there is found."""
    asking = guest(server(url))
    assert await asking.set(b"k", b"v") == 0
    redis.ask("config", "set", "maxmemory", "1")
    assert await asking.set(b"k2", b"v") == E_UNAVAILABLE
    assert await asking.get(b"k") == b"v"


async def test_many_calls_at_once_share_a_connection_of_their_cache(guest, url, redis):
    """Two caches, two connections; and a call that is cancelled disturbs no other."""
    asking = guest(server(url), server(url, "other"))
    await asking.set(b"k", b"1")
    await asking.set(b"k", b"2", cache=b"other")
    wanted = [asking.get(b"k", name) for name in (b"shared", b"other") * 200]
    tasks = [asyncio.ensure_future(each) for each in wanted]
    await asyncio.sleep(0)
    tasks[5].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(5), asyncio.CancelledError)
    assert answers.count(b"1") == 200
    assert answers.count(b"2") == 199
    assert redis.ask("info", "clients").count(b"connected_clients:3") == 1  # redis-cli's is the third


async def test_a_closed_host_has_no_connection(guest, url, redis):
    """Whoever still asks is answered as if the server were away."""
    asking = guest(server(url))
    await asking.set(b"k", b"v")
    asking.host.close()
    assert await asking.get(b"k") == 0
    await until_true(lambda: b"connected_clients:1" in redis.ask("info", "clients"), "the connection has ended")


def test_settings_that_cannot_be_used_are_told_when_the_plugin_is_loaded():
    """In one sentence with their path, and no word of a Secret."""
    cache = {"name": "c", "valkey": {"urlFrom": {"name": "s", "key": "url"}}}
    fields = {"name": "guest", "permissions": BOTH, "caches": [cache]}
    for credentials in ({}, {"s/url": "http://user:geheim@host"}):
        plugin = BundlePlugin.model_validate({**fields, "credentials": credentials})
        with pytest.raises(ConfigError, match=r"^spec\.caches\.c\.valkey\.urlFrom ") as refused:
            PluginHost(plugin, HostContext())
        assert "geheim" not in str(refused.value)


async def test_a_real_guest_waits_for_a_server_and_gets_its_bytes(workshop, wat, url, store):
    """Where its ``alloc`` says; a miss, a hit and an empty hit look to it as from the pod's memory."""
    body = """
    (local.set $w (call $cache_get (i32.const 0) (i32.const 0) (local.get $p) (local.get $n)))
    (if (i64.eqz (local.get $w)) (then
      (drop (call $cache_set (i32.const 0) (i32.const 0) (local.get $p) (local.get $n)
                             (i32.const 1024) (i32.const 5) (i64.const 60000)))
      (return (i64.const 0))))
    (local.get $w)"""
    text = wat.module(
        imports=wat.host("hookline", "cache_get", "i32 i32 i32 i32", "i64")
        + wat.host("hookline", "cache_set", "i32 i32 i32 i32 i32 i32 i64", "i32"),
        hooks={"custom_hook": body},
        data={1024: b'"got"'},
    )
    entry = await workshop.plugin(text, permissions=BOTH, caches=[server(url)])
    runtime = await workshop.run(entry, cache=store)
    assert "value" not in await runtime.call(Hook.CUSTOM, b'"k"')
    assert (await runtime.call(Hook.CUSTOM, b'"k"'))["value"] == "got"
    assert runtime.plugins["guest"].host.caches == {"shared": {"hit": 1, "miss": 1, "away": 0}}
    assert store.usage() == {}


async def test_a_write_into_the_pod_does_not_wait_on_the_event_loop(guest, url, store, monkeypatch):
    """A plugin may have caches of both kinds; one that waits for other writers keeps nobody else waiting."""
    where, real = [], store.writer.take

    def take(patience):
        where.append(threading.current_thread())
        return real(patience)

    monkeypatch.setattr(store.writer, "take", take)
    asking = guest(server(url), {"name": "pod", "memory": {}})
    assert await asking.set(b"k", b"v", cache=b"pod") == 0
    assert await asking.get(b"k", cache=b"pod") == b"v"
    assert await asking.delete(b"k", cache=b"pod") == 1
    assert len(where) == 2
    assert threading.main_thread() not in where
