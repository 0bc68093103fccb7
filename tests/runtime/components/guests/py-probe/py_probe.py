"""For tests: does what the statement says, and answers what came of it."""

from __future__ import annotations

import random
import time
from typing import Any

import hookline
from hookline import host

CALLS = [0]
KEPT: list[bytes] = []


def tried(work: Any, *given: Any) -> Any:
    try:
        return work(*given)
    except Exception as error:
        return {"error": hookline.error_text(error)}


def count(_: Any) -> int:
    CALLS[0] += 1
    return CALLS[0]


def throw(_: Any) -> None:
    raise TypeError("what a pity")


def loop(_: Any) -> None:
    while True:
        pass


def memory(_: Any) -> None:
    while True:
        KEPT.append(bytes(100_000))


ACTS = {
    "echo": lambda given: given,
    "count": count,
    "throw": throw,
    "loop": loop,
    "memory": memory,
    "large": lambda _: "x" * 3_000_000,
    "print": lambda _: print("a line"),
    "clock": lambda _: [time.time() > 1_700_000_000, host.get_time() > 1_700_000_000_000],
    "random": lambda _: [len(host.random(8)), random.random() != random.random()],
    "config": lambda _: [hookline.config("a.b"), hookline.config("nothing", "else")],
    "digests": lambda _: [host.sha256_hex("abc"), host.hmac_sha256("key", "text")],
    "metrics": lambda _: [tried(host.metric_inc, "asked", 2), tried(host.metric_inc, "Wrong Name", 1)],
    "keys": lambda _: [
        tried(host.kv_get, "k"),
        tried(host.kv_set, "k", "grüße"),
        tried(host.kv_get, "k"),
        tried(host.kv_incr, "n", 3),
        tried(host.kv_list, ""),
        tried(host.kv_compare_and_set, "k", "wrong", "x"),
        tried(host.kv_compare_and_set, "new", None, "x"),
        tried(host.kv_set_ttl, "new", 1000),
        tried(host.kv_delete, "k"),
    ],
    "bytes": lambda _: tried(host.kv_get, "bytes"),
    "cache": lambda _: [
        tried(host.cache_set, "default", "k", "v", 1000),
        tried(host.cache_get, "default", "k"),
        tried(host.cache_exists, "default", "k"),
        tried(host.cache_delete, "default", "k"),
        tried(host.cache_get, "default", "k"),
    ],
    "fetch": lambda _: hookline.fetch({"url": "https://example.com/"}),
    "fail": lambda _: host.fail("this is why"),
    "folder": lambda _: tried(open, "/etc/passwd"),
    "sleep": lambda _: time.sleep(60),
}


def pre_query(query: hookline.Query) -> hookline.Answer:
    return hookline.block("no") if "drop" in query["query"] else hookline.rewrite(f"{query['query']} -- seen")


def custom_hook(given: Any) -> Any:
    return {"value": ACTS[given["act"]](given)}


WitWorld = hookline.plugin(pre_query=pre_query, custom_hook=custom_hook)
