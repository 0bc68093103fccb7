"""A real server, and clients of it that are closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from hookline_runtime.host.backends.valkey import Valkey
from valkey import PACKAGE, PROGRAM, RedisServer, redis_server

if TYPE_CHECKING:
    from hookline_api.outbound import ValkeyServer


@pytest.fixture(scope="session")
def redis_program(need) -> str:
    """The path of Debian's redis-server."""
    return need(PROGRAM, PACKAGE)


@pytest.fixture(scope="module")
def server(redis_program, tmp_path_factory) -> Iterator[RedisServer]:
    """One for all tests of a file."""
    with redis_server(redis_program, tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
async def client() -> Any:
    """Makes clients; ``unavailable`` is theirs unless it is given."""
    made: list[Valkey] = []

    def make(server: ValkeyServer, credentials: dict[str, str] | None = None, **fields: Any) -> Valkey:
        unavailable = fields.pop("unavailable", {})
        made.append(Valkey(server, credentials or {}, unavailable, "keys", **fields))
        return made[-1]

    yield make
    for each in made:
        each.close()


Client = Callable[..., Valkey]
