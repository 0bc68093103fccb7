"""``cache_get`` and its kind on the pod's memory: what a guest is answered, whatever it asks, and what is counted."""

from __future__ import annotations

import os

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_calls import BOTH, Guest
from hookline_api.abi import E_ARGUMENT, E_CAP, E_DENIED, E_MEMORY, E_SIZE, E_UNAVAILABLE
from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.guest.border import Waiting
from hookline_runtime.host import kv_file
from hookline_runtime.host.cache import wanted_sizes
from hookline_runtime.host.cache_store import MAX_KEY, CacheKey
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost

TWO = [{"name": "first", "memory": {}}, {"name": "second", "memory": {"size": "64Ki"}, "ttl": "1ms"}]


@pytest.fixture
def host(store):
    """Makes a plugin's host on the store."""

    def make(name="guest", **fields):
        plugin = BundlePlugin.model_validate({"name": name, "permissions": BOTH, **fields})
        store.allot(wanted_sizes([plugin]))
        return PluginHost(plugin, HostContext(cache=store))

    return make


def test_what_is_stored_is_found_until_it_is_deleted(host):
    """Values of any bytes; an empty one is a hit too, and is told from a miss."""
    guest = Guest(host())
    for value in (b"value", b"", b"\0" * 20_000):
        assert guest.set(b"k", value) == 0
        assert guest.get(b"k") == value
        assert guest.exists(b"k") == 1
    assert guest.delete(b"k") == 1
    assert guest.delete(b"k") == 0
    assert guest.exists(b"k") == 0
    assert guest.get(b"k") is None


def test_a_cache_is_named_or_the_first(host):
    """Without any in the spec there is one named ``default``; an unknown name is an argument's error."""
    guest = Guest(host(caches=TWO))
    guest.set(b"k", b"1", cache=b"first")
    guest.set(b"k", b"2", 60_000, cache=b"second")
    assert [guest.get(b"k", name) for name in (b"", b"first", b"second")] == [b"1", b"1", b"2"]
    default = Guest(host("other"))
    default.set(b"k", b"3")
    assert default.get(b"k", b"default") == b"3"
    for name in (b"default", b"firs", b"first\0", b"\xff", b"f" * 64, b"f" * 900):
        assert guest.functions["cache_get"](guest.memory, *guest.where(name, b"k")) == -E_ARGUMENT
        assert guest.exists(b"k", name) == guest.delete(b"k", name) == guest.set(b"k", b"", cache=name) == E_ARGUMENT


def test_an_entry_lives_as_long_as_the_guest_says_or_the_cache_does(host):
    """0 is the cache's own time, and less is an argument's error."""
    guest = Guest(host(caches=TWO))
    assert guest.set(b"short", b"v", cache=b"second") == 0
    assert guest.set(b"long", b"v", 2**62, cache=b"second") == 0
    while guest.exists(b"short", b"second"):
        pass
    assert guest.exists(b"long", b"second") == 1
    assert guest.set(b"k", b"v", -1) == E_ARGUMENT
    assert guest.set(b"k", b"v", -(2**63)) == E_ARGUMENT


def test_what_is_too_large_has_its_code(host):
    """A key of more than 64 KiB, a value of more than a quarter of its cache, an entry that its share does not hold."""
    guest = Guest(host(caches=[{"name": "small", "memory": {"size": "64Ki"}}]))
    assert guest.set(b"k", bytes(16 * 1024)) == 0
    assert guest.set(b"k", bytes(16 * 1024 + 1)) == E_SIZE
    assert guest.set(bytes(MAX_KEY), b"v") == E_CAP
    assert guest.exists(bytes(MAX_KEY)) == 0
    assert guest.exists(bytes(MAX_KEY + 1)) == E_SIZE
    assert guest.functions["cache_get"](guest.memory, 0, 0, 0, MAX_KEY + 1) == -E_SIZE
    assert guest.host.refused == {"cache_set": 2, "cache_exists": 1, "cache_get": 1}


def test_looks_are_counted_by_cache_and_result(host):
    """Hits and misses, of ``cache_get`` and ``cache_exists``."""
    guest = Guest(host(caches=TWO))
    guest.set(b"k", b"v")
    guest.get(b"k"), guest.exists(b"k"), guest.get(b"none"), guest.get(b"k", b"second"), guest.exists(b"x", b"second")
    assert guest.host.caches == {
        "first": {"hit": 2, "miss": 1, "away": 0}, "second": {"hit": 0, "miss": 2, "away": 0},
    }  # fmt: skip
    assert guest.host.refused == {}


def test_a_store_that_fails_is_a_miss_and_is_counted(host, monkeypatch):
    """The guest goes on; what it wanted to keep is not kept, and it is told so."""
    guest = Guest(host())
    guest.set(b"k", b"v")

    def fail(*_, **__):
        raise lmdb.CorruptedError("damaged")

    cache = guest.host._families[2]._pods[b""]._pod
    for name in ("get", "exists", "set", "delete"):
        monkeypatch.setattr(cache, name, fail)
    assert guest.get(b"k") is None
    assert guest.exists(b"k") == 0
    assert guest.set(b"k", b"v") == E_UNAVAILABLE
    assert guest.delete(b"k") == E_UNAVAILABLE
    assert guest.host.caches == {"default": {"hit": 0, "miss": 0, "away": 4}}
    assert guest.host.refused == dict.fromkeys(("cache_get", "cache_exists", "cache_set", "cache_delete"), 1)


def test_a_write_waits_for_others_for_a_moment_alone(host, store):
    """No longer than its plugin's calls may take, and 50 ms at the most: it is a cache."""
    other = kv_file.WriterLock(store.folder)
    other.take(1)
    guest = Guest(host())
    assert guest.set(b"k", b"v") == E_UNAVAILABLE
    assert guest.get(b"k") is None
    assert guest.host.caches == {"default": {"hit": 0, "miss": 1, "away": 1}}
    other.give()
    other.close()
    assert guest.set(b"k", b"v") == 0


def test_without_a_store_there_is_none():
    """As in a program that embeds the runtime and gives it none."""
    plugin = BundlePlugin.model_validate({"name": "guest", "permissions": BOTH})
    guest = Guest(PluginHost(plugin, HostContext()))
    assert guest.get(b"k") is None
    assert guest.exists(b"k") == 0
    assert guest.set(b"k", b"v") == E_UNAVAILABLE
    assert guest.delete(b"k") == E_UNAVAILABLE
    assert guest.host.caches == {"default": {"hit": 0, "miss": 0, "away": 4}}


def test_reading_and_writing_have_permissions_of_their_own(host):
    """And a plugin with neither has no cache at all."""
    reader, writer, neither = (
        Guest(host(permissions=given)) for given in (["cache.read"], ["cache.write"], ["kv.read"])
    )
    assert reader.set(b"k", b"v") == reader.delete(b"k") == E_DENIED
    assert reader.get(b"k") is None
    assert writer.set(b"k", b"v") == 0
    assert writer.exists(b"k") == E_DENIED
    assert neither.exists(b"k") == E_DENIED
    assert neither.host.caches == {}


def test_only_caches_that_may_be_written_get_a_share():
    """Of a server's, or of who may only read, the pod keeps nothing."""
    server = {"name": "server", "valkey": {"url": "redis://localhost"}}
    plugins = [
        BundlePlugin.model_validate({"name": name, "permissions": permissions, "caches": caches})
        for name, permissions, caches in (
            ("a", BOTH, []), ("b", ["cache.read"], []), ("c", BOTH, [server, *TWO]), ("d", [], TWO),
        )
    ]  # fmt: skip
    assert wanted_sizes(plugins) == {
        CacheKey("a", "default"): 16 * 2**20, CacheKey("c", "first"): 16 * 2**20, CacheKey("c", "second"): 65_536,
    }  # fmt: skip


def test_no_function_waits_where_all_caches_are_in_the_pod(host):
    """So that the guest needs no fiber."""
    functions = host(caches=TWO).functions().values()
    assert not any(isinstance(function, Waiting) for function in functions)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    numbers=st.lists(
        st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(0, 400_000), st.just(0)), min_size=6, max_size=6
    ),
    ttl=st.integers(-(2**63), 2**63 - 1),
)
def test_any_numbers_have_an_answer(host, numbers, ttl):
    """Pointers and lengths of anything: a code, an answer, never an error of ours."""
    guest = Guest(host())
    codes = {E_MEMORY, E_SIZE, E_ARGUMENT, E_CAP}
    assert guest.functions["cache_exists"](guest.memory, *numbers[:4]) in {0, 1} | codes
    assert guest.functions["cache_set"](guest.memory, *numbers, ttl) in {0} | codes
    packed = guest.functions["cache_get"](guest.memory, *numbers[:4])
    assert packed >> 32 or -packed in {0} | codes
    assert guest.functions["cache_delete"](guest.memory, *numbers[:4]) in {0, 1} | codes


async def test_a_guest_that_stores_without_end_ends_at_its_time_out_and_leaves_a_bounded_cache(workshop, wat, store):
    """A new key each time: the cache has its size, its neighbour what it had, and the worker runs on."""
    flood = """
    (loop $ever
      (i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
      (drop (call $cache_set (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 4)
                             (i32.const 0) (i32.const 1000) (i64.const 0)))
      (br $ever)) unreachable"""
    text = wat.module(
        imports=wat.host("hookline", "cache_set", "i32 i32 i32 i32 i32 i32 i64", "i32"), hooks={"custom_hook": flood}
    )
    caches = [{"name": "small", "memory": {"size": "64Ki"}}]
    flooding = await workshop.plugin(text, name="flood", permissions=BOTH, caches=caches, limits={"timeout": "300ms"})
    runtime = await workshop.run(flooding, cache=store)
    neighbour = store.cache("other", "default", 2**20)
    neighbour.set(b"k", os.urandom(100), 3_600_000)
    decision = await runtime.call(Hook.CUSTOM, b"0")
    assert decision["failure"] == "timeout"
    usage = store.usage()
    assert 0 < usage["flood", "small"].size <= 65_536
    assert usage["other", "default"].entries == 1
    assert neighbour.exists(b"k")


async def test_a_guest_finds_what_another_instance_has_stored(workshop, wat, store):
    """In the guest's own memory, where its ``alloc`` says; and a new version of the plugin finds it as well."""
    body = """
    (local.set $w (call $cache_get (i32.const 1028) (i32.const 5) (i32.const 1024) (i32.const 1)))
    (if (i64.eqz (local.get $w)) (then
      (drop (call $cache_set (i32.const 1028) (i32.const 5) (i32.const 1024) (i32.const 1)
                             (local.get $p) (local.get $n) (i64.const 60000)))
      (return (i64.const 0))))
    (local.get $w)"""
    text = wat.module(
        imports=wat.host("hookline", "cache_get", "i32 i32 i32 i32", "i64")
        + wat.host("hookline", "cache_set", "i32 i32 i32 i32 i32 i32 i64", "i32"),
        hooks={"custom_hook": body},
        data={1024: b"k", 1028: b"first"},
    )
    settings_ = {"permissions": BOTH, "caches": [{"name": "first", "memory": {}}]}
    runtime = await workshop.run(await workshop.plugin(text, **settings_), cache=store)
    assert "value" not in await runtime.call(Hook.CUSTOM, b'"one"')
    assert (await runtime.call(Hook.CUSTOM, b'"two"'))["value"] == "one"
    assert runtime.plugins["guest"].host.caches == {"first": {"hit": 1, "miss": 1, "away": 0}}
    again = await workshop.run(await workshop.plugin(text, priority=7, **settings_), cache=store)
    assert (await again.call(Hook.CUSTOM, b'"three"'))["value"] == "one"
