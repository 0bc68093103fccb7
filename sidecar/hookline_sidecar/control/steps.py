"""How long each step of a plugin took on its way to the workers, and when: for whoever asks why it is not there yet."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

StepName = Literal["fetch", "compile", "self-test", "prepare", "switch"]
"""``fetch``: its module is fetched and verified. ``compile``: it is compiled, and its settings are checked by its own
schema. ``prepare``: every worker has it beside what runs. ``switch``: every worker runs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The last time that a step was taken."""

    name: StepName
    at: float
    """When it began, in seconds since 1970."""
    seconds: float | None = None
    """None while it is under way."""
    ok: bool | None = None
    """Whether it succeeded; None while it is under way."""


class Steps(dict[StepName, Step]):
    """Those of one plugin, in order."""

    @contextlib.contextmanager
    def taken(self, name: StepName) -> Iterator[None]:
        """Take down what happens inside."""
        at, begun = time.time(), time.monotonic()
        self.pop(name, None)  # so that it comes last
        self[name] = Step(name=name, at=at)
        ok = False
        try:
            yield
            ok = True
        finally:
            self[name] = Step(name=name, at=at, seconds=time.monotonic() - begun, ok=ok)
