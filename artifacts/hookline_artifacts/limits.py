"""Limits: what one fetch may take of time, bytes and patience, whoever answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from hookline_api import json_cost

MAX_VALUES: Final = 2**16
"""Values and names in a document of a registry's, a Secret's or a helper's: 8 MiB of memory. An index of a thousand
platforms has 20,000, and the logins of a thousand registries 5,000."""


def parse_foreign(document: bytes) -> Any:
    """JSON that somebody else wrote, whose bytes are bounded. Raises ValueError, also where it has too many values."""
    json_cost.check(document, what="the document", max_values=MAX_VALUES)
    return orjson.loads(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchLimits:
    """What one fetch may take. Sizes are in bytes, times in seconds."""

    module: int = 64 << 20
    """Of a module."""
    download: int = 64 << 20
    """Of what is downloaded, packed as it is."""
    unpacked: int = 256 << 20
    """Of everything that a packed artifact holds."""
    entries: int = 10_000
    """Files in a packed artifact."""
    manifest: int = 4 << 20
    """Of a manifest or an index."""
    total: float = 300.0
    """For a whole fetch, with every retry."""
    connect: float = 10.0
    """For a connection and its TLS handshake."""
    stall: float = 20.0
    """Within this time there must be an answer, and then ``progress`` more bytes each time."""
    progress: int = 4096
    """Bytes that have to arrive in each ``stall``."""
    attempts: int = 5
    """Of each request."""
    backoff: float = 0.5
    """Before the second attempt; doubles from there on."""
    max_pause: float = 30.0
    """The longest pause. A server that asks for a longer one is left to the caller (``retry_after``)."""
    redirects: int = 5
    helper: float = 20.0
    """For a credential helper."""
    parallel: int = 16
    """Fetches at the same time."""
    of_one_host: int = 8
    """… from one host: one that is slow keeps those that ask others not waiting."""
    of_one_owner: int = 4
    """… for one owner (a namespace), who so has half of a host that others ask too."""
