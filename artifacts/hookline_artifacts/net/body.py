"""What a server sends, taken in pieces and within bounds."""

from __future__ import annotations

import asyncio
import hashlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, Final

from hookline_artifacts.errors import FetchError, WrongBytesError

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from hookline_artifacts.limits import FetchLimits

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-\d{1,15}/(?:\d{1,15}|\*)")


class Body:
    """What arrives, hashed as it comes; at most ``cap`` bytes, and exactly ``expected`` where that is known.

    DANGER: no sentence shows what a server answered. Its length or its digest, in an error, would let a tenant compare
    a page that we can reach and the tenant cannot with what it may be.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        what: str,
        cap: int,
        expected: int | None = None,
        received: Callable[[int], None] | None = None,
    ) -> None:
        self.file = file
        self.what = what
        self.length = 0
        self._received = received
        self._cap = cap
        self._expected = expected
        self._hash = hashlib.sha256()
        if expected is not None:
            self.expect(expected)

    @property
    def digest(self) -> str:
        """Of everything so far, ``sha256:…``."""
        return f"sha256:{self._hash.hexdigest()}"

    def expect(self, length: int) -> None:
        """Refuse a body of this length before it comes, where it is too long."""
        if self._expected is not None and length > self._expected:
            raise WrongBytesError(f"{self.what} is longer than the {self._expected} bytes that its manifest says")
        if length > self._cap:
            raise FetchError(
                f"{self.what} is too large, and only {self._cap} are allowed; make it smaller or raise the limit",
                transient=False,
            )

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        length = self.length + len(chunk)
        self.expect(length)
        try:
            self.file.write(chunk)
        except OSError as error:
            raise FetchError(f"{self.what} cannot be written to the store: {error.strerror}") from None
        self._hash.update(chunk)
        self.length = length
        if self._received is not None:
            self._received(len(chunk))

    async def receive(self, response: aiohttp.ClientResponse, *, sender: str, limits: FetchLimits) -> None:
        """Take one answer to the end, after what came before it: as the range that was asked for, or from the start.

        Whoever drips is given up: ``limits.progress`` more bytes have to come within each ``limits.stall``. What came
        until then stays, for a request that goes on there. Raises FetchError, WrongBytesError, and what aiohttp raises.
        """
        if response.status == HTTPStatus.OK:
            if self.length:
                self.restart()
        else:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self.length:
                self.restart()
                raise FetchError(f"{self.what} came from {sender} as a part that was not asked for")
        if response.content_length is not None:
            self.expect(self.length + response.content_length)
        clock = asyncio.get_running_loop().time
        got, deadline = 0, clock() + limits.stall
        while True:
            async with asyncio.timeout_at(deadline):
                chunk = await response.content.readany()
            if not chunk:
                break
            self.write(chunk)
            got += len(chunk)
            if got >= limits.progress:
                got, deadline = 0, clock() + limits.stall
        self.finish()

    def restart(self) -> None:
        """Forget everything: the next bytes are the first."""
        self.file.seek(0)
        self.file.truncate()
        self.length = 0
        self._hash = hashlib.sha256()

    def finish(self) -> None:
        """The server says that this was all; raises FetchError where bytes are missing."""
        if self._expected is not None and self.length < self._expected:
            raise FetchError(
                f"{self.what} was cut off after {self.length} of {self._expected} bytes; try again, and push it again "
                "where that stays so"
            )

    def verify(self, digest: str, *, is_named: bool = True) -> None:
        """Raise WrongBytesError unless it has that digest.

        ``is_named``: somebody wrote that digest, so it may be shown.
        """
        if self.digest != digest:
            wanted = digest if is_named else "the one that was found for its tag"
            raise WrongBytesError(
                f"{self.what} is not what was asked for: it has another digest than {wanted}; "
                "the source or a proxy on the way serves other bytes"
            )
