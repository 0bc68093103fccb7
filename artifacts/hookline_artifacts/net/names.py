"""Looking up the names of hosts that tenants and registries chose.

The system's resolver blocks a thread for as long as a name server keeps it waiting, which may be most of a minute, and
nobody can call it back: whoever gives up leaves the thread behind. On the event loop's own threads, six names of a
silent name server would keep everybody waiting. So foreign names have threads of their own (``threads``), of which a
namespace has half at the most.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from hookline_artifacts.threads import look_up


class Names(AbstractResolver):
    """A resolver for aiohttp. ``seconds`` is how long one name is waited for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError, and FetchError where too many names are being looked up."""
        ask = partial(
            socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        try:
            async with asyncio.timeout(self._seconds):
                found = await look_up(ask)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"its name was not found within {self._seconds:g} s") from None
        return [
            # A link-local address has a zone, and is never asked: the zone is left out.
            ResolveResult(hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol,
                          flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
            for kind, _, protocol, _, address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""
