"""Patterns of repositories and of names, matched in linear steps of text times pattern: either may be a stranger's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def matches(pattern: str, text: str) -> bool:
    """Whether a text is of a pattern, where ``*`` stands for any characters."""
    return _matches(pattern, text)


def matches_path(pattern: str, path: str) -> bool:
    """The same of parts between slashes: ``*`` stands for any characters of a part, ``**`` for any parts, or none."""
    return _matches([("**" if part == "**" else part) for part in pattern.split("/")], path.split("/"), parts=True)


def matches_any(patterns: Iterable[str], path: str) -> bool:
    """Whether one of these fits a path. An empty one is no path, and fits none: not even ``**``."""
    return bool(path) and any(matches_path(each, path) for each in patterns)


def _matches(pattern: Sequence[str], text: Sequence[str], *, parts: bool = False) -> bool:
    """With two positions and one to go back to: the last wildcard takes one more, and no earlier one is tried again."""
    if not parts and "*" not in pattern:
        return pattern == text
    wildcard = "**" if parts else "*"
    at = here = 0
    star, mark = -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == wildcard:
            star, mark = at, here
            at += 1
        elif at < len(pattern) and (_matches(pattern[at], text[here]) if parts else pattern[at] == text[here]):
            at += 1
            here += 1
        elif star >= 0:
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return all(each == wildcard for each in pattern[at:])
