"""What a request says that its body is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNSAID: Final = "application/octet-stream"
"""RFC 9110, 8.3."""


def media_type(headers: Mapping[str, str]) -> str:
    """The media type of ``Content-Type`` in lower case, without its parameters, which nobody here needs.

    aiohttp has ``content_type`` for this, which reads them as those of a mail: in quadratic time (half a second for 8
    KiB of semicolons, on the event loop), and with one call inside another for each bracket, until Python has no more.
    """
    return headers.get("Content-Type", _UNSAID).partition(";")[0].strip(" \t").lower()
