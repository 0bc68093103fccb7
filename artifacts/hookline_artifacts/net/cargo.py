"""What is sent to a server: bytes of a known length, read anew for each time that they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from hookline_artifacts.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

OCTETS: Final = "application/octet-stream"
_CHUNK: Final = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Cargo:
    """Bytes to send."""

    size: int
    open: Callable[[], BinaryIO]
    """Gives them from the beginning. May block, and is closed after each use."""
    media_type: str = OCTETS
    sent: Callable[[int], None] | None = None
    """Is told of each number of bytes that is on its way."""

    @classmethod
    def of(cls, data: bytes, media_type: str = OCTETS) -> Cargo:
        """These bytes."""
        return cls(size=len(data), open=lambda: io.BytesIO(data), media_type=media_type)

    @classmethod
    def of_file(cls, path: Path, size: int, sent: Callable[[int], None] | None = None) -> Cargo:
        """What is in a file."""
        return cls(size=size, open=lambda: path.open("rb"), sent=sent)

    @contextlib.asynccontextmanager
    async def opened(self, watch: asyncio.Timeout, stall: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes in pieces; ``watch`` ends the request of a server that takes none for ``stall`` seconds.

        A server may answer before it has all: then what is left is read by nobody, and the file is closed with this.
        """
        file = await in_thread(self.open)
        try:
            yield self._pieces(file, watch, stall)
        finally:
            await in_thread(file.close)

    async def _pieces(self, file: BinaryIO, watch: asyncio.Timeout, stall: float) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time
        left = self.size
        while left and not file.closed and (chunk := await in_thread(file.read, min(_CHUNK, left))):
            left -= len(chunk)
            # Once there is an answer, nothing is watched any more.
            with contextlib.suppress(RuntimeError):
                watch.reschedule(now() + stall)
            yield chunk
            if self.sent is not None:
                self.sent(len(chunk))
        with contextlib.suppress(RuntimeError):
            watch.reschedule(None)
