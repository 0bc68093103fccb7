"""Ports of 127.0.0.1 for servers that tests start."""

from __future__ import annotations

import atexit
import collections
import socket
from typing import Final

_MOST: Final = 200
"""Ports that are held at a time: a process may have few files open, and whoever asked for older ones is long done."""
_held: Final[collections.deque[socket.socket]] = collections.deque()


@atexit.register
def _release() -> None:
    while _held:
        _held.popleft().close()


def reserve_ports(count: int) -> list[int]:
    """So many ports that are this process's for long: nobody else is given one, and no connection leaves from it.

    A port that was only looked for may be another's by the time its server binds it, or while that restarts. So each
    stays bound here, without being listened on: on Linux a server that sets SO_REUSEADDR, as all of ours do, may bind
    it all the same, and who connects while there is none is refused. See socket(7) and ``inet_csk_bind_conflict``.
    """
    return [hold(0) for _ in range(count)]


def hold(port: int) -> int:
    """This port in the same way; 0 is any. Raises OSError where somebody else has it."""
    holder = socket.socket()
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        raise
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # afterwards: so it is given no port of another
    _held.append(holder)
    if len(_held) > _MOST:
        _held.popleft().close()
    return int(holder.getsockname()[1])


def reserve_port() -> int:
    """One of them."""
    return reserve_ports(1)[0]
