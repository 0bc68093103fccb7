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

    async def watched(self, watch: asyncio.Timeout, stall: float) -> AsyncIterator[bytes]:
        """The bytes in pieces; ``watch`` ends the request of a server that takes none for ``stall`` seconds."""
        now = asyncio.get_running_loop().time
        file = await in_thread(self.open)
        left = self.size
        try:
            while left and (chunk := await in_thread(file.read, min(_CHUNK, left))):
                left -= len(chunk)
                # A server that has answered already, before it had all, is no longer watched.
                with contextlib.suppress(RuntimeError):
                    watch.reschedule(now() + stall)
                yield chunk
                if self.sent is not None:
                    self.sent(len(chunk))
        finally:
            await in_thread(file.close)
            with contextlib.suppress(RuntimeError):
                watch.reschedule(None)
