"""What a component's host functions and its WASI see of the instance that calls them, and how they end its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hookline_runtime.errors import TrapError
    from hookline_runtime.guest.said import Said


class Caller(Protocol):
    """An instance, while it calls."""

    in_hook: bool
    """Whether the guest is in its hook, and not being made."""
    host_ns: int
    """What host functions that may wait took of the call's time."""
    streams: int
    """Handles of streams that it has."""
    context: Any
    """The store's."""

    said: Said
    """What the guest says in its call."""

    def say(self, descriptor: int, data: bytes) -> None:
        """The guest writes to standard output (1) or standard error (2)."""


class EndedError(Exception):
    """The guest ends its call from within a host function."""

    def __init__(self, error: TrapError) -> None:
        super().__init__(str(error))
        self.error = error
