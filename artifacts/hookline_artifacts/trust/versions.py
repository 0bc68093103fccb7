"""Versions, in the order of semver.org (2.0.0, 11)."""

from __future__ import annotations

import re
from typing import Final

_VERSION: Final = re.compile(
    r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){0,3})(?:-([0-9A-Za-z.-]{1,64}))?(?:\+[0-9A-Za-z.-]{1,64})?"
)

_Key = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def is_below(version: str, other: str) -> bool:
    """Whether a version comes before another; one that cannot be read comes before all."""
    first, second = _key(version), _key(other)
    if first is None or second is None:
        return first is None and second is not None
    return first < second


def _key(version: str) -> _Key | None:
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    numbers = tuple(map(int, match[1].split(".")))
    before = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in (match[2] or "").split(".") if part
    )
    return numbers + (0,) * (4 - len(numbers)), match[2] is None, before
