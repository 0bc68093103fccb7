"""A store of caches, and a real server beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hookline_runtime.host.cache_store import CacheStore
from valkey import PACKAGE, PROGRAM, RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(tmp_path) -> Iterator[CacheStore]:
    """A store of the test's own."""
    made = CacheStore(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def redis(need, tmp_path) -> Iterator[RedisServer]:
    """A real server of the test's own."""
    with redis_server(need(PROGRAM, PACKAGE), tmp_path / "redis") as started:
        yield started
