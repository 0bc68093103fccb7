"""Tables and ages, as kubectl prints them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from hookline_api.text import readable

if TYPE_CHECKING:
    from collections.abc import Sequence

_CELL: Final = 400
_STEPS: Final = ((86_400, "d", 172_800), (3600, "h", 10_800), (60, "m", 180), (1, "s", 0))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as what is in them; a cell is one line, and the last column has no end."""
    shown = [[readable(" ".join(cell.split()), _CELL) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (head, *shown)) for column in range(len(head))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *shown)
    ]  # fmt: skip


def age(text: str | None, now: dt.datetime | None = None) -> str:
    """How long ago a time of the API was: ``20s``, ``5m``, ``12d``."""
    try:
        then = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    if then.tzinfo is None:
        return ""
    seconds = max(0, int(((now or dt.datetime.now(dt.UTC)) - then).total_seconds()))
    size, unit = next((size, unit) for size, unit, least in _STEPS if seconds >= least)
    return f"{seconds // size}{unit}"


def lasted(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"
