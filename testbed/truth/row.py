"""What a row is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from truth.scene import Scene

SOON_S: Final = 5.0
"""Within which it has to be said."""
LEASE_S: Final = 30.0
"""The same, where only the end of a lease can tell."""

Look = Callable[["Scene"], str]
"""What a person reads with kubectl, word by word, where it is the truth that is looked for; else nothing."""
Act = Callable[["Scene"], None]


def nothing(scene: Scene) -> None:
    """Nothing is to be done."""
    del scene


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One breakage."""

    name: str
    what: str
    """For the table: what is broken, in a few words."""
    breaks: Act
    says: tuple[Look, ...]
    """All of them have to be seen. The first has the words with the next step."""
    next_step: str
    """A regular expression for the part of those words that says what to do."""
    mends: Act = nothing
    well: tuple[Look, ...]
    """Seen before the row begins and after it is mended."""
    bound_s: float = SOON_S
    refuses: frozenset[int] = frozenset()
    """The statuses with which policy refuses requests while it is broken."""
    quiet_s: float = 0.0
    """Nothing is broken for this long, and nothing else may be said than ``well``."""


@dataclass(slots=True)
class Figure:
    """What came of a row."""

    what: str
    words: list[str] = field(default_factory=list)
    next_step: str = ""
    asked_s: float = 0.0
    """0 where nothing is to be said."""
    measured_s: float = 0.0
    mended_s: float = 0.0
    requests: int = 0
    refused: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    """Why the row is false; empty where it is true."""

    def as_json(self) -> dict[str, Any]:
        """For the file of figures: without problems, of which a row in there has none."""
        return {key: value for key, value in asdict(self).items() if key != "problems"}
