"""Why a request got no answer, as words for a sentence.

What libraries say of their own errors is not for people: aiohttp names its objects (``<ssl.SSLContext object …>``), a
TLS error the line of C that it is from, and either may quote a URL with what is signed into it.
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import Final

import aiohttp

from hookline_artifacts.net.certificates import distrust

_BROKEN: Final = (ConnectionError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
_MAX: Final = 200
NO_REASON: Final = "Connect call failed"
"""asyncio's own words, which name the address and not the reason."""


def why(error: BaseException, *, trust: str, plain: str = "check the address", late: str = "") -> str:
    """Why it failed, and what to do where that is known, without a full stop: ``connection refused``.

    ``trust`` is what to do where its certificate is not trusted, ``plain`` where it speaks no TLS, and ``late`` what a
    time-out is called, where its seconds are known.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return distrust(error, remedy=trust)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        said = getattr(error, "reason", None)
        alert = f" ({said.replace('_', ' ').lower():.{_MAX}})" if isinstance(said, str) else ""
        return f"it does not speak TLS as expected{alert}; {plain}"
    if isinstance(error, aiohttp.WSServerHandshakeError | aiohttp.ClientResponseError):
        return f"it answered {error.status}" if error.status else "what it answered cannot be read"
    if isinstance(error, TimeoutError):
        return late or "it did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError) and error.errno != errno.ETIMEDOUT:
        return f"its host's name is not known ({error.strerror or 'it has no address':.{_MAX}}); check the address"
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror
        if error.errno and said.startswith(NO_REASON):
            said = f"{os.strerror(error.errno)}; check the address, and whether it runs there"
        return f"{said:.{_MAX}}"
    if isinstance(error, _BROKEN):
        return "the connection was cut off"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return "what it sent, or its address, cannot be read"
    return f"the connection failed ({type(error).__name__})"
