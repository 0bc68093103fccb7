"""Clients of a server, closed after the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hookline_runtime.host.backends.valkey import Valkey

if TYPE_CHECKING:
    from hookline_api.outbound import ValkeyServer


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
