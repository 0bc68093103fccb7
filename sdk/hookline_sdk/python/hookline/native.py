"""The host for tests: keys, settings and permissions that a test gives, and what the plugin did with them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any


class HostError(Exception):
    """A host function says no, with the text as its ``value``."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class Failure(Exception):
    """The call fails: ``fail`` was called."""

    ended = True


@dataclass
class State:
    """What there is, and what was done."""

    config: Any = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    caches: dict[str, dict[str, str]] = field(default_factory=dict)
    permissions: list[str] | None = None
    """All are granted where this is None."""
    answers: dict[str, Any] = field(default_factory=dict)
    """By function, such as ``http-fetch``: what it answers, or a function of what it is asked."""
    now: int = 0
    log: list[tuple[str, str]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)


state = State()


def reset(**given: Any) -> State:
    """Begin anew with this."""
    state.__dict__.update(State(**given).__dict__)
    return state


def _need(permission: str, name: str) -> None:
    if state.permissions is not None and permission not in state.permissions:
        raise HostError(f"{name}: denied: the permission {permission} is not granted")


def _answered(name: str, permission: str, *question: Any) -> str:
    _need(permission, name)
    if name not in state.answers:
        raise HostError(f"{name}: the test has no answer: reset(answers={{'{name}': …}})")
    found = state.answers[name]
    return json.dumps(found(*question) if callable(found) else found)


def log(level: str, text: str) -> None:
    state.log.append((level, text))


def fail(message: str) -> None:
    raise Failure(message)


def get_time() -> int:
    return state.now or time.time_ns() // 1_000_000


def random(bytes: int) -> str:  # noqa: A002 - the world's name for it
    return os.urandom(bytes).hex()


def get_config(path: str) -> str | None:
    _need("config.read", "get-config")
    found = state.config
    for part in path.split(".") if path else ():
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return json.dumps(found)


def metric_inc(name: str, by: float) -> None:
    _need("metrics", "metric-inc")
    state.metrics[name] = state.metrics.get(name, 0) + by


def metric_gauge(name: str, value: float) -> None:
    _need("metrics", "metric-gauge")
    state.metrics[name] = value


def metric_observe(name: str, value: float) -> None:
    _need("metrics", "metric-observe")
    state.metrics.setdefault(name, []).append(value)


def sha256_hex(text: str) -> str:
    _need("crypto", "sha256-hex")
    return hashlib.sha256(text.encode()).hexdigest()


def hmac_sha256(key: str, text: str) -> str:
    _need("crypto", "hmac-sha256")
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()


def kv_get(key: str) -> str | None:
    _need("kv.read", "kv-get")
    return state.keys.get(key)


def kv_set(key: str, value: str) -> None:
    _need("kv.write", "kv-set")
    state.keys[key] = value


def kv_delete(key: str) -> None:
    _need("kv.write", "kv-delete")
    state.keys.pop(key, None)


def kv_list(prefix: str) -> list[str]:
    _need("kv.read", "kv-list")
    return sorted(key for key in state.keys if key.startswith(prefix))


def kv_incr(key: str, by: int) -> int:
    _need("kv.write", "kv-incr")
    total = int(state.keys.get(key, "0")) + by
    state.keys[key] = str(total)
    return total


def kv_compare_and_set(key: str, old: str | None, new: str) -> bool:
    _need("kv.write", "kv-compare-and-set")
    if state.keys.get(key) != old:
        return False
    state.keys[key] = new
    return True


def kv_set_ttl(key: str, ttl_ms: int) -> bool:
    _need("kv.write", "kv-set-ttl")
    if ttl_ms < 0:
        raise HostError("kv-set-ttl: an argument is not what the function takes")
    return key in state.keys


def cache_get(cache: str, key: str) -> str | None:
    _need("cache.read", "cache-get")
    return state.caches.get(cache, {}).get(key)


def cache_exists(cache: str, key: str) -> bool:
    _need("cache.read", "cache-exists")
    return key in state.caches.get(cache, {})


def cache_set(cache: str, key: str, value: str, ttl_ms: int) -> None:
    _need("cache.write", "cache-set")
    if ttl_ms < 0:
        raise HostError("cache-set: an argument is not what the function takes")
    state.caches.setdefault(cache, {})[key] = value


def cache_delete(cache: str, key: str) -> bool:
    _need("cache.write", "cache-delete")
    return state.caches.get(cache, {}).pop(key, None) is not None


def query_execute(source: str, sql: str, parameters: str) -> str:
    return _answered("query-execute", "query.execute", source, sql, json.loads(parameters))


def query_prepare(source: str, sql: str) -> str:
    return _answered("query-prepare", "query.execute", source, sql)


def query_get_tables(sql: str) -> str:
    return _answered("query-get-tables", "query.execute", sql)


def query_normalize(sql: str) -> str:
    return _answered("query-normalize", "query.execute", sql)


def http_fetch(request: str) -> str:
    return _answered("http-fetch", "http.fetch", json.loads(request))


def http_post(url: str, content_type: str, body: str) -> str:
    return _answered("http-post", "http.fetch", url, content_type, body)
