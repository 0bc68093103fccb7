"""What a server of Hookline's grants its clients, each with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

HEAD_S: Final = 5.0
"""Seconds for a head, from its first byte; for a connection's first one from the connection's start, TLS included. An
honest client sends a head in one packet; over a slow network with TLS that is a few round trips."""
IDLE_S: Final = 120.0
"""Seconds of silence between two requests: more than the 90 that Go's clients, the API server among them, keep an
idle connection. Whoever closes first must not be the one that is asked next."""
UNREAD_S: Final = 60.0
"""Seconds for the client to take what waits for it: 64 KiB mostly. A pod without processor time is slow, not dead."""
MAX_HEADERS: Final = 32
"""Of one request. API servers, kubelets, Prometheus, curl and sidecars send fewer than ten."""
MAX_HEADER: Final = 4 * 1024 + 128
"""Bytes of one header: a value of 4 KiB beside its name. A service account's token has 1 to 2 KiB."""
MAX_LINE: Final = 4 * 1024
"""Bytes of a request's first line: our own paths are short."""
MAX_HEAD: Final = MAX_LINE + MAX_HEADERS * (MAX_HEADER + 4) + 2
"""Bytes of a whole head that has as much as it may of everything."""
MAX_HELD: Final = 4 * 2**20
"""Bytes of all unfinished heads of one server: thirty of them at their longest."""
MAX_UNREAD: Final = 8 * 2**20
"""Bytes of all answers that wait for their readers, of one server, where nobody vouches for them."""
TLS_BUFFER: Final = 8 * 1024
"""Bytes. Each TLS connection keeps a buffer of this size, and takes another for each read: asyncio's 256 KiB are 1 GiB
for two thousand sidecars. What they and the API server send is small, and a module comes from a registry once."""

ARRIVING_OF_ONE: Final = 256 * 1024
"""Bytes of one request that count as arriving: what is larger is bounded by whoever reads it."""

Reason = Literal["head", "crowd", "full", "address", "unread", "malformed"]
"""Why a connection was closed: ``head`` (it did not come in time, or is too large), ``crowd`` (too many had not
completed a request), ``full`` (too many in all), ``address`` (too many of one), ``unread`` (the answer was not taken),
``malformed`` (it was not HTTP). Silence is an end in order, and counts as nothing."""
REASONS: Final[tuple[Reason, ...]] = ("head", "crowd", "full", "address", "unread", "malformed")

Closed = Counter[Reason]
"""How many connections were closed, by why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Of one server. Connections that somebody vouches for (``vouch``) are in none of the counts but the first."""

    fresh: int = 1024
    """Connections whose first bytes may be on their way (``census.FRESH_S``), beside all others: as many as can be
    taken in that time. A probe that comes with a crowd is read before it is judged; a few lost ones end a pod.
    As many requests may be under way beyond the bounds, where each connection has one: that is soon over."""
    unproven: int = 64
    """Connections that have not completed a request, or are in the middle of a head."""
    unproven_of_one: int = 32
    """… of one address: there is always room for another one's."""
    every: int = 128
    """Connections in all: probes, a few Prometheis, an administrator."""
    of_one: int = 64
    """… of one address."""
    queueing: int = 32
    """Connections on which further requests wait behind one that is not answered. Each may have a quarter of a mebibyte
    of them, and nobody who probes, scrapes or reviews sends a request before the last one's answer."""
    idle: float = IDLE_S
    unread: float = UNREAD_S
    line: int = MAX_LINE
    headers: int = MAX_HEADERS
    header: int = MAX_HEADER
    head: int = MAX_HEAD
    unread_bytes: int = MAX_UNREAD
    arriving: int = 8 * 2**20
    """Bytes of requests that are here and not answered. The loop reads from all sockets before anybody looks at what
    came: where there is more, it is dropped as it comes, and its connection ended."""
