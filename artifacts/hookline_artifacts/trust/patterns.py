"""Patterns of repositories and of names. Both the pattern and the text may be a stranger's.

A text is compared in steps of at most its length times that of the pattern, and one that is longer than any name fits
no pattern. Who compares many of them has a ``Comparison``, which ends at so many steps.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT: Final = 2048
"""Characters of what is compared: a repository has 512 at the most, a URL may have some more."""
MAX_STEPS: Final = 20_000_000
"""Characters of patterns times characters of texts, for one requirement: a second. Hundreds of signers and signatures
are compared in a hundredth of that."""


def matches(pattern: str, text: str) -> bool:
    """Whether a text is of a pattern, where ``*`` stands for any characters."""
    if "*" not in pattern:
        return pattern == text
    if len(text) > MAX_TEXT:
        return False
    first, *between, last = pattern.split("*")
    end = len(text) - len(last)
    if not text.startswith(first) or not text.endswith(last) or end < len(first):
        return False
    at = len(first)
    for piece in between:  # each as far to the left as it can be: that leaves most for the next
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def matches_path(pattern: str, path: str) -> bool:
    """The same of parts between slashes: ``*`` stands for any characters of a part, ``**`` for any parts, or none."""
    if "*" not in pattern:
        return pattern == path
    return len(path) <= MAX_TEXT and _matches_parts(pattern, path)


def matches_any(patterns: Iterable[str], path: str) -> bool:
    """Whether one of these fits a path. An empty one is no path, and fits none: not even ``**``."""
    return bool(path) and any(matches_path(each, path) for each in patterns)


class Comparison:
    """Compares paths with patterns for one requirement, as long as it has steps left. Then nothing fits."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    @property
    def exhausted(self) -> bool:
        """Whether there was more than may be compared."""
        return self._left < 0

    def fits(self, pattern: str, path: str) -> bool:
        """Whether a path is of a pattern."""
        if "*" in pattern and len(path) <= MAX_TEXT:
            self._left -= (len(pattern) + 1) * (len(path) + 1)
        return not self.exhausted and matches_path(pattern, path)

    def fits_any(self, patterns: Iterable[str], path: str) -> bool:
        """Whether it is of one of these; an empty one is of none."""
        return bool(path) and any(self.fits(each, path) for each in patterns)


@functools.lru_cache(1024)  # thousands of plugins are of a few repositories
def _matches_parts(wanted: str, whole: str) -> bool:
    """With two positions and one to go back to: the last ``**`` takes one more, and no earlier one is tried again."""
    pattern, path = wanted.split("/"), whole.split("/")
    at = here = 0
    wild, mark = -1, 0
    while here < len(path):
        if at < len(pattern) and pattern[at] == "**":
            wild, mark = at, here
            at += 1
        elif at < len(pattern) and matches(pattern[at], path[here]):
            at += 1
            here += 1
        elif wild >= 0:
            mark += 1
            at, here = wild + 1, mark
        else:
            return False
    return all(each == "**" for each in pattern[at:])
