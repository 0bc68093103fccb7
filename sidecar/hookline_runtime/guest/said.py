"""What a guest says in one call: the last line that it wrote, and the one that says why it ends.

Whoever takes a line from a guest (``log``, standard output, standard error) tells it here, whether or not there is room
for it in the log. Two lines are kept, and the beginnings of two that are not ended yet, each as long as one of the log
may be; so a guest that writes without end costs no more than one that writes four lines.

A line says why a guest ends where it looks like a runtime's own last words (``_LAST_WORDS``); else the newest warning,
error or line of standard error does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hookline_api.abi import MAX_LOG_LINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.errors import CallError

MAX_KEPT: Final = 480
"""Bytes of a line that are looked at for a failure's sentence, and characters of it once it is escaped."""
_LAST_WORDS: Final = re.compile(
    rb"panicked at |\bpanic: |^fatal error: |^abort: |[Aa]ssertion failed|^Uncaught |terminating due to "
)
"""Rust, Go and Zig, Go's runtime, AssemblyScript, C, JavaScript, C++."""


class Said:
    """One call's."""

    __slots__ = ("_goes_on", "_is_last_words", "_last", "_unfinished", "_why", "call")

    def __init__(self, call: int = 0) -> None:
        self.call = call
        """Tells the calls of one instance apart: when it began."""
        self._last: bytes | None = None
        self._why: bytes | None = None
        self._is_last_words = self._goes_on = False
        self._unfinished: dict[int, tuple[bytes, Callable[[Said, int, bytes], None]]] | None = None

    def hear(self, line: bytes, *, loud: bool) -> None:
        """The guest wrote a line; ``loud``: as a warning, as an error, or to standard error."""
        if not line or line.isspace():
            return
        self._last = line
        if not loud:
            return
        if self._goes_on:  # Rust has where it was on one line, and what it was on the next
            self._why, self._goes_on = (self._why or b"") + b" " + line.strip(), False
        elif _LAST_WORDS.search(line, 0, MAX_KEPT):
            self._why, self._is_last_words, self._goes_on = line, True, line.endswith(b":")
        elif not self._is_last_words:
            self._why = line

    def unfinished(self, descriptor: int) -> bytes:
        """Take the beginning of a line whose end has not been written."""
        return self._unfinished.pop(descriptor, (b"",))[0] if self._unfinished else b""

    def keep(self, descriptor: int, data: bytes, end: Callable[[Said, int, bytes], None]) -> None:
        """Keep such a beginning; ``end`` takes it where nothing follows."""
        if self._unfinished is None:
            self._unfinished = {}
        self._unfinished[descriptor] = data[:MAX_LOG_LINE], end

    def finish(self) -> None:
        """The call is over: what it has not ended is a line too."""
        unfinished, self._unfinished = self._unfinished, None
        for descriptor, (data, end) in (unfinished or {}).items():
            end(self, descriptor, data)

    def tell(self, error: CallError) -> None:
        """Put what was said into the failure of the call, unless it is there already."""
        self.finish()
        if self._last is not None and error.line is None:
            error.line = error.why = one_line(self._last[:MAX_KEPT].strip(), MAX_KEPT)
            if self._why is not self._last:
                error.why = None if self._why is None else one_line(self._why[:MAX_KEPT].strip(), MAX_KEPT)


def one_line(data: bytes | str, most: int) -> str:
    """What a guest wrote as one line of printable ASCII: it writes no line of its own choosing where people read it."""
    text = data if isinstance(data, str) else data.decode(errors="replace")
    return text.encode("unicode_escape").decode("ascii")[:most]
