"""What stands for databases and servers while a plugin is on trial: answers that somebody wrote down before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.cases import difference
from hookline_runtime.host.arguments import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hookline_api.cases import HostAnswer
    from hookline_runtime.guest.border import GuestMemory

_ASKED: Final = {
    "http_fetch": ("request",),
    "http_post": ("url", "content_type", "body"),
    "query_execute": ("source", "sql", "params"),
    "query_prepare": ("source", "sql"),
}
"""The texts that each function takes, in order."""
_JSON: Final = frozenset({"request", "params"})
_MAX_TEXT: Final = 2**20
_MAX_VALUES: Final = 10_000


class StandIn:
    """Host functions as a plugin on trial finds them: each call is counted, and none leaves the process."""

    def __init__(self, answers: Sequence[HostAnswer] = ()) -> None:
        self._answers = answers
        self.calls: dict[str, int] = {}
        """By function."""
        self.unanswered: dict[str, Any] | None = None
        """The last question that none of the answers fits."""

    def __call__(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """What takes the place of a host function's method."""
        if name in _ASKED:

            async def given(memory: GuestMemory, *numbers: int) -> bytes:
                self._count(name)
                return self._given(name, memory, numbers)

            return given

        if asyncio.iscoroutinefunction(method):

            async def awaited(memory: GuestMemory, *numbers: Any) -> Any:
                self._count(name)
                return await method(memory, *numbers)

            return awaited

        def counted(memory: GuestMemory, *numbers: Any) -> Any:
            self._count(name)
            return method(memory, *numbers)

        return counted

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def _given(self, name: str, memory: GuestMemory, numbers: Sequence[int]) -> bytes:
        asked: dict[str, Any] = {}
        for at, part in enumerate(_ASKED[name]):
            raw = read(memory, numbers[2 * at], numbers[2 * at + 1], _MAX_TEXT)
            text = raw.decode(errors="replace")
            asked[part] = _parsed(text) if part in _JSON else text
        question = asked["request"] if name == "http_fetch" else asked
        for each in self._answers:
            if each.function == name and difference(each.when, question) is None:
                return orjson.dumps(each.answer)
        self.unanswered = {"function": name, "question": question}
        why = f"the case has no answer for this {name}; give it one in its 'answers'"
        return orjson.dumps({"error": {"cause": "unavailable", "message": why}})


def _parsed(text: str) -> Any:
    try:
        json_cost.check(text, what="the question", max_values=_MAX_VALUES)
        return orjson.loads(text) if text else None
    except ValueError:  # it is no JSON, or costs more than any question that is meant
        return text
