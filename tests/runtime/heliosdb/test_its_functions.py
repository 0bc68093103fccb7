"""docs/author/heliosdb.md, "Its host functions": behind each row is a guest that calls what the row promises."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from pathlib import Path

import pytest

from hookline_api.abi import E_ARGUMENT, HOST_FUNCTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "author" / "heliosdb.md").read_text()
ROWS = re.findall(r"^\| `(\w+\.\w+)\((.*?)\)` \| `(\w+\.\w+)` \| .+ \|$", PAGE, re.MULTILINE)
"""HeliosDB's name, its arguments, and ours."""

# Those that its HostFunctionRegistry::register_defaults registers.
# https://github.com/HeliosDatabase/HeliosDB-Proxy/blob/main/src/plugins/host_functions.rs
REGISTERED = [
    "helios.log", "helios.metric_inc", "helios.metric_gauge", "helios.get_config", "helios.get_time",
    "query.execute", "query.prepare", "query.get_tables", "query.normalize",
    "cache.get", "cache.set", "cache.delete", "cache.exists",
    "http.fetch", "http.post",
    "crypto.hash", "crypto.hmac", "crypto.random",
    "kv.get", "kv.set", "kv.delete", "kv.list",
]  # fmt: skip


async def log(guests, ours):
    """A line, with the plugin's name."""
    with guests.log.at_level(logging.INFO, logger="hookline.guest"):
        assert await guests.call(ours, 3, b"watch out") == 0
    lines = [each for each in guests.log.records if each.name == "hookline.guest"]
    assert [(each.levelname, each.getMessage()) for each in lines] == [("WARNING", "guest: watch out")]


async def metric_inc(guests, ours):
    """A counter."""
    assert await guests.call(ours, b"blocked_total", 2.5) == 0
    metric = guests.runtime.plugins["guest"].host.metrics["blocked_total"]
    assert (metric.kind, metric.value) == ("counter", 2.5)


async def metric_gauge(guests, ours):
    """A gauge."""
    assert await guests.call(ours, b"rules", -3.0) == 0
    metric = guests.runtime.plugins["guest"].host.metrics["rules"]
    assert (metric.kind, metric.value) == ("gauge", -3.0)


async def get_config(guests, ours):
    """A value by its path, and all of them."""
    assert await guests.call(ours, b"limits.per_minute") == 7
    assert await guests.call(ours, b"") == {"limits": {"per_minute": 7}}
    assert await guests.call(ours, b"limits.per_hour") is None


async def get_time(guests, ours):
    """Milliseconds."""
    before = time.time_ns() // 10**6
    assert before <= await guests.call(ours) <= time.time_ns() // 10**6


async def query_execute(guests, ours):
    """A row of a real database, found by a parameter."""
    found = await guests.call(ours, b"db", b"select note, price from orders where id = $1", b"[1]")
    assert (found["rows"], found["rowCount"]) == ([["first", "10.500"]], 1)


async def query_prepare(guests, ours):
    """Types, by the same database."""
    found = await guests.call(ours, b"db", b"select note from orders where id = $1")
    assert found == {"parameters": ["int4"], "columns": [{"name": "note", "type": "text"}]}


async def query_get_tables(guests, ours):
    """As the text writes them."""
    found = await guests.call(ours, b"with c as (select 1) select * from public.orders, items, c")
    assert found == ["public.orders", "items"]


async def query_normalize(guests, ours):
    """Without its constants."""
    found = await guests.call(ours, b"select * from orders where id = 7")
    assert found == {"sql": "select * from orders where id = $1"}


async def cache_get(guests, ours):
    """What was set, and nothing before."""
    assert await guests.call(ours, b"", b"k") is None
    await guests.call("hookline.cache_set", b"", b"k", b'"v"', 0)
    assert await guests.call(ours, b"", b"k") == "v"


async def cache_set(guests, ours):
    """By the cache's name too; a time is not negative."""
    assert await guests.call(ours, b"default", b"k", b'"v"', 60_000) == 0
    assert await guests.call("hookline.cache_get", b"", b"k") == "v"
    assert await guests.call(ours, b"default", b"k", b'"v"', -1) == E_ARGUMENT
    assert await guests.call(ours, b"another", b"k", b'"v"', 0) == E_ARGUMENT


async def cache_delete(guests, ours):
    """It says whether it was there."""
    await guests.call("hookline.cache_set", b"", b"k", b'"v"', 0)
    assert [await guests.call(ours, b"", b"k") for _ in range(2)] == [1, 0]


async def cache_exists(guests, ours):
    """Once it is set."""
    assert await guests.call(ours, b"", b"k") == 0
    await guests.call("hookline.cache_set", b"", b"k", b'"v"', 0)
    assert await guests.call(ours, b"", b"k") == 1


async def http_fetch(guests, ours):
    """An answer of a real server, over TLS."""
    guests.site.page("/keys", b"[1]", content_type="application/json")
    answer = await guests.call(ours, json.dumps({"url": guests.site.url("/keys")}).encode())
    assert (answer["status"], answer["body"], answer["headers"]["content-type"]) == (200, "[1]", "application/json")


async def http_post(guests, ours):
    """The server gets the body and its type."""
    guests.site.page("/audit", b"", status=201)
    answer = await guests.call(ours, guests.site.url("/audit").encode(), b"text/plain", b"who")
    method, path, headers, body = guests.site.requests[0]
    assert (answer["status"], method, path, headers["content-type"], body) == (
        201,
        "POST",
        "/audit",
        "text/plain",
        b"who",
    )


async def sha256_hex(guests, ours):
    """SHA-256."""
    assert await guests.call(ours, b"abc", ..., size=64) == 64
    assert guests.written == hashlib.sha256(b"abc").hexdigest().encode()


async def hmac_sha256(guests, ours):
    """With a key."""
    assert await guests.call(ours, b"key", b"abc", ..., size=32) == 32
    assert guests.written == hmac.digest(b"key", b"abc", "sha256")


async def random(guests, ours):
    """Other bytes each time."""
    found = set()
    for _ in range(2):
        assert await guests.call(ours, ..., 16, size=16) == 0
        found.add(guests.written)
    assert len(found) == 2
    assert bytes(16) not in found


async def kv_get(guests, ours):
    """Into the guest's buffer; -1 where there is none, -2 where it is too small."""
    assert await guests.call(ours, b"k", ..., 100, size=0) == -1
    await guests.call("env.kv_set", b"k", b"value")
    assert await guests.call(ours, b"k", ..., 4, size=0) == -2
    assert await guests.call(ours, b"k", ..., 5, size=5) == 5
    assert guests.written == b"value"


async def kv_set(guests, ours):
    """In the plugin's own store."""
    assert await guests.call(ours, b"k", b"value") == 0
    assert guests.workshop.kv.get("guest", b"k") == b"value"


async def kv_delete(guests, ours):
    """Also where there is none."""
    await guests.call("env.kv_set", b"k", b"value")
    assert [await guests.call(ours, b"k") for _ in range(2)] == [0, 0]
    assert guests.workshop.kv.get("guest", b"k") is None


async def kv_list(guests, ours):
    """By their prefix, in order."""
    for key in (b"b/2", b"a", b"b/1"):
        await guests.call("env.kv_set", key, b"")
    assert await guests.call(ours, b"b/") == ["b/1", "b/2"]


TRIED = {
    each.__name__: each
    for each in (
        log, metric_inc, metric_gauge, get_config, get_time, query_execute, query_prepare, query_get_tables,
        query_normalize, cache_get, cache_set, cache_delete, cache_exists, http_fetch, http_post, sha256_hex,
        hmac_sha256, random, kv_get, kv_set, kv_delete, kv_list,
    )
}  # fmt: skip
"""By the function that it tries."""


def test_the_table_has_each_function_that_heliosdb_registers():
    """All 22, once, in its order; each of ours exists, and is in one row."""
    assert len(REGISTERED) == 22
    assert [theirs for theirs, _, _ in ROWS] == REGISTERED
    ours = [ours for _, _, ours in ROWS]
    assert len(set(ours)) == len(ours)
    assert set(ours) <= {f"{module}.{name}" for module, name in HOST_FUNCTIONS}


@pytest.mark.parametrize("ours", [ours for _, _, ours in ROWS])
async def test_what_a_row_promises_a_guest_can_call(ours, guests):
    """A row without something here that tries it fails."""
    await TRIED[ours.partition(".")[2]](guests, ours)
