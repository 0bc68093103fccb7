"""Chains of which somebody is told each decision, for whoever works on a plugin. Others have plain ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hookline_runtime.chain.pipeline import Chains, Later, Link

if TYPE_CHECKING:
    from hookline_api.hooks import Hook
    from hookline_runtime.plugin.backlog import Asker

Witness = Callable[["Hook", bytes, bytes, int], None]
"""Is told the hook, what was asked, the decision as JSON, and the nanoseconds until it was there."""


class WatchedChains(Chains):
    """The chains of one bundle, watched."""

    def __init__(self, version: str, links: list[Link], *, witness: Witness) -> None:
        super().__init__(version, links)
        self._witness = witness

    def answer(
        self, hook: Hook, body: bytes, found: tuple[bytes, bytes] | None = None, unread: int = 0
    ) -> bytes | Later:
        """As of ``Chains``."""
        begun = time.perf_counter_ns()
        return self._watched(super().answer(hook, body, found, unread), hook, body, begun, b"")

    def decide(self, hook: Hook, data: bytes, request_id: str) -> bytes | Later:
        """As of ``Chains``."""
        begun = time.perf_counter_ns()
        return self._watched(super().decide(hook, data, request_id), hook, data, begun, b"}")

    def _watched(self, answer: bytes | Later, hook: Hook, body: bytes, begun: int, end: bytes) -> bytes | Later:
        if isinstance(answer, bytes):
            self._witness(hook, body, answer + end, time.perf_counter_ns() - begun)
            return answer

        async def later(asker: Asker) -> bytes:
            found = await answer(asker)
            self._witness(hook, body, found + end, time.perf_counter_ns() - begun)
            return found

        return later
