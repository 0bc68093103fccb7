"""Guests that wait, and those whom they ask: a host function that the test holds in its hand."""

from __future__ import annotations

import asyncio
from typing import Any

from hookline_runtime.host.arguments import read
from waiting import until_true

FETCH = '(import "hookline" "http_fetch" (func $fetch (param i32 i32) (result i64)))'
SETTINGS: dict[str, Any] = {"permissions": ["http.fetch", "kv.read", "kv.write"]}
ASK = "(call $fetch (local.get $p) (local.get $n))"
"""A hook's body that answers what it fetches."""


class Others:
    """Those whom guests ask. Each question stays open until the test answers it, unless ``answer`` says what comes."""

    def __init__(self) -> None:
        self.open: list[tuple[bytes, asyncio.Future[int | bytes]]] = []
        self.asked = self.cancelled = self.most = 0
        self.answer: Any = None
        """Bytes, a number, an error, seconds to wait, or None: an open question."""

    async def fetch(self, memory: Any, request: int, length: int) -> int | bytes:
        """What stands for ``http_fetch``."""
        asked = read(memory, request, length)
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, float):
            await asyncio.sleep(self.answer)
            return asked
        if self.answer is not None:
            return self.answer
        question = asked, asyncio.get_running_loop().create_future()
        self.open.append(question)
        self.most = max(self.most, len(self.open))
        try:
            return await question[1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open.remove(question)

    async def until(self, count: int) -> None:
        """Wait until so many questions are open."""
        await until_true(lambda: len(self.open) >= count, f"{count} questions are open")

    def answer_all(self, answer: int | bytes | None = None) -> None:
        """Answer what is open; by default with what was asked."""
        for asked, question in tuple(self.open):
            if not question.done():
                question.set_result(asked if answer is None else answer)
