"""``--log-decisions``: a line of JSON on stderr for each decision, for whoever works on a plugin.

DANGER: it blocks where nobody reads stderr, and decisions hold what plugins answered: it is for a desk, and off by
default. What was asked is only in it with ``inputs``.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from hookline_api.hooks import Hook

_MAX_LINE: Final = 4096
"""Bytes: what a pipe takes in one piece (PIPE_BUF), so that the lines of two workers do not mix."""
_MAX_INPUT: Final = 1024
_MAX_A_SECOND: Final = 200
_STDERR: Final = 2


class DecisionLog:
    """Of one worker."""

    def __init__(self, *, inputs: bool) -> None:
        self._inputs = inputs
        self._second = 0
        self._written = 0
        self._left_out = 0

    def __call__(self, hook: Hook, body: bytes, decision: bytes, nanoseconds: int) -> None:
        """Write a line, but for those beyond so many in a second: the next one says how many."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= _MAX_A_SECOND:
            self._left_out += 1
            return
        self._written += 1
        told: dict[str, Any] = {"hook": hook.value, "us": nanoseconds // 1000, "decision": orjson.Fragment(decision)}
        if self._left_out:
            told["leftOut"] = self._left_out
            self._left_out = 0
        if self._inputs:
            told["input"] = body[:_MAX_INPUT].decode(errors="replace")
        line = orjson.dumps({"hookline.decision": told})
        if len(line) >= _MAX_LINE:
            told["decision"] = {"action": _action(decision), "cut": len(decision)}
            told.pop("input", None)
            line = orjson.dumps({"hookline.decision": told})
        os.write(_STDERR, line + b"\n")


def _action(decision: bytes) -> str:
    return str(orjson.loads(decision).get("action"))[:_MAX_INPUT]
