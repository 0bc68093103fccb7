"""One hook of one plugin: everything that a call of it needs, found once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_runtime.call.decisions import read_answer
from hookline_runtime.errors import ResultError
from hookline_runtime.plugin.breaker import Breaker

if TYPE_CHECKING:
    from hookline_api.hooks import Hook
    from hookline_runtime.call.decisions import Answer
    from hookline_runtime.plugin.stats import Row

_MAX_KNOWN: Final = 128
_MAX_KNOWN_BYTES: Final = 256
_MAX_REJECTED: Final = 256


class PluginHook:
    """One hook of one plugin, with its breaker and its counters."""

    __slots__ = ("breaker", "export", "known", "memory", "name", "rejected", "row")

    def __init__(self, name: Hook, row: Row) -> None:
        self.name = name
        self.export = name.value
        self.row = row
        self.breaker = Breaker()
        self.memory = 0
        self.known: dict[bytes | None, Answer | None] = {}
        """Answers that were read before: most plugins say few different things."""
        self.rejected = b""
        """The beginning of the last one that was none of the hook's, for who works on the plugin."""

    def apart(self, row: Row) -> PluginHook:
        """The same hook, with the same breaker, whose calls are counted in another row."""
        made = PluginHook(self.name, row)
        made.breaker, made.known = self.breaker, self.known
        return made

    def read(self, raw: bytes | None) -> Answer | None:
        """A guest's answer; raises ResultError. Short ones are known afterwards."""
        known = self.known
        if raw in known:
            return known[raw]
        answer = self.read_anew(raw)
        if raw is None or len(raw) <= _MAX_KNOWN_BYTES:
            if len(known) >= _MAX_KNOWN:
                known.clear()
            known[raw] = answer
        return answer

    def read_anew(self, raw: bytes | None) -> Answer | None:
        """As ``read``, whatever is known; on any thread."""
        try:
            return read_answer(self.name, raw)
        except ResultError:
            self.rejected = (raw or b"")[:_MAX_REJECTED]
            raise
