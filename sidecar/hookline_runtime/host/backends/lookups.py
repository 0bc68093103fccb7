"""Where a database or a server of keys is: the addresses of its name.

A tenant chose the name, and a silent name server blocks a thread for most of a minute. So it is looked up on the
threads that are for that (``hookline_artifacts.threads``), of which one plugin has half at the most: on the event
loop's own ones, a few such names would keep reloads and other plugins' keys waiting.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import Final

from hookline_artifacts.errors import FetchError
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.threads import look_up, on_behalf_of

MOST_ADDRESSES: Final = 4
_POLICY: Final = AddressPolicy()


class NeverAskedError(OSError):
    """An address may not be asked."""


async def addresses(host: str, port: int, *, owner: str) -> list[str]:
    """The first addresses of a host; ``owner`` is the plugin whose threads these are.

    Raises OSError, also where too many names are being looked up, UnicodeError where it can be no name, and
    NeverAskedError where one of them may not be asked. Whoever is cancelled leaves at once.
    """
    with on_behalf_of(owner):
        try:
            found = await look_up(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
        except FetchError:
            raise OSError(errno.EAGAIN, "too many names are being looked up") from None
    several = list(dict.fromkeys(str(address[0]) for *_, address in found))[:MOST_ADDRESSES]
    for each in several:
        refusal = _POLICY.refusal(each)
        if refusal is not None:
            raise NeverAskedError(errno.EACCES, refusal)
    return several
