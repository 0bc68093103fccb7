"""How many steps a backtracking matcher takes for a regular expression and a text: counted, not timed.

Python's matcher counts nothing. This one walks the same tree (``re``'s own parser makes it) in the same order, and
counts the places that it tries: where those grow faster than the text, Python's time does. It knows what this project
writes; groups are not remembered, so there are no references to them.
"""

from __future__ import annotations

import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import sys
from collections.abc import Callable
from typing import Any, Final

from steps import TooMuchError

MOST_STEPS: Final = 30_000
_FRAMES: Final = 10_000
"""Of the interpreter: some for each character."""
Then = Callable[[int], bool]

_CATEGORIES: Final[dict[Any, Callable[[str], bool]]] = {
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    op.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    op.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    op.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


class _Matcher:
    def __init__(self, text: str, flags: int) -> None:
        self.text = text
        self.flags = flags
        self.steps = 0

    def follow(self, items: Any, index: int, at: int, then: Then) -> bool:
        """Whether what is left of ``items`` matches there, and what comes then as well."""
        if index == len(items):
            return then(at)
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooMuchError(f"more than {MOST_STEPS} steps of a regular expression")
        kind, what = items[index]

        def go_on(end: int) -> bool:
            return self.follow(items, index + 1, end, then)

        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            return at < len(self.text) and self._is(kind, what, self.text[at]) and go_on(at + 1)
        if kind is op.BRANCH:
            return any(self.follow(each, 0, at, go_on) for each in what[1])
        if kind is op.SUBPATTERN:
            return self.follow(what[3], 0, at, go_on)
        if kind is op.AT:
            return self._stands(what, at) and go_on(at)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            direction, inner = what
            begin = at if direction > 0 else at - inner.getwidth()[0]
            found = begin >= 0 and self.end_of(inner, begin) is not None
            return found == (kind is op.ASSERT) and go_on(at)
        if kind is op.ATOMIC_GROUP:
            end = self.end_of(what, at)
            return end is not None and go_on(end)
        if kind is op.POSSESSIVE_REPEAT:
            return self._possessive(what, at, go_on)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(what, at, go_on, greedy=kind is op.MAX_REPEAT)
        raise ValueError(f"a part of a pattern that is not counted: {kind}")

    def end_of(self, items: Any, at: int) -> int | None:
        """Where the first match of all of them ends."""
        ends: list[int] = []

        def stop(end: int) -> bool:
            ends.append(end)
            return True

        return ends[0] if self.follow(items, 0, at, stop) else None

    def _possessive(self, what: Any, at: int, go_on: Then) -> bool:
        least, most, inner = what
        count = 0
        while count < most and (end := self.end_of(inner, at)) is not None:
            count += 1
            if end == at:
                break
            at = end
        return count >= least and go_on(at)

    def _repeat(self, what: Any, at: int, go_on: Then, *, greedy: bool) -> bool:
        least, most, inner = what

        def again(count: int, here: int) -> bool:
            def more() -> bool:
                return count < most and self.follow(
                    inner, 0, here, lambda end: (end != here or count < least) and again(count + 1, end)
                )

            def enough() -> bool:
                return count >= least and go_on(here)

            return more() or enough() if greedy else enough() or more()

        return again(0, at)

    def _is(self, kind: Any, what: Any, char: str) -> bool:
        if kind is op.ANY:
            return char != "\n" or bool(self.flags & re.DOTALL)
        chars = {char, char.lower(), char.upper()} if self.flags & re.IGNORECASE else {char}
        if kind is op.LITERAL:
            return chr(what) in chars
        if kind is op.NOT_LITERAL:
            return chr(what) not in chars
        negated = what[0][0] is op.NEGATE
        return negated != any(self._in(each, value, one) for each, value in what for one in chars)

    @staticmethod
    def _in(kind: Any, value: Any, char: str) -> bool:
        if kind is op.LITERAL:
            return bool(value == ord(char))
        if kind is op.RANGE:
            return bool(value[0] <= ord(char) <= value[1])
        return kind is op.CATEGORY and _CATEGORIES[value](char)

    def _stands(self, where: Any, at: int) -> bool:
        text, lines = self.text, bool(self.flags & re.MULTILINE)
        if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            return at == 0 or (lines and text[at - 1] == "\n")
        if where in (op.AT_END, op.AT_END_STRING):
            return at == len(text) or (where is op.AT_END and text[at:] == "\n") or (lines and text[at] == "\n")
        word = _CATEGORIES[op.CATEGORY_WORD]
        before, behind = at > 0 and word(text[at - 1]), at < len(text) and word(text[at])
        return (before != behind) == (where is op.AT_BOUNDARY)


def matching_steps(pattern: re.Pattern[Any], text: str, method: str) -> int:
    """The steps of ``pattern.method(text)``: match, fullmatch, or one that looks everywhere. Raises TooMuchError."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(_FRAMES)
    try:
        return _steps(pattern, text, method)
    finally:
        sys.setrecursionlimit(before)


def _steps(pattern: re.Pattern[Any], text: str, method: str) -> int:
    tree = parser.parse(pattern.pattern, pattern.flags)
    matcher = _Matcher(text, pattern.flags)
    if method == "fullmatch":
        matcher.follow(tree, 0, 0, lambda end: end == len(text))
    elif method == "match":
        matcher.follow(tree, 0, 0, lambda _: True)
    elif method == "search":
        any(matcher.end_of(tree, at) is not None for at in range(len(text) + 1))
    else:
        at = 0
        while at <= len(text):
            end = matcher.end_of(tree, at)
            at = end if end is not None and end > at else at + 1
    return matcher.steps


def letters(pattern: re.Pattern[Any]) -> list[str]:
    """Some characters that the pattern tells from others, those that stand by themselves first."""
    singles: list[str] = []
    ranges: list[str] = []

    def look(items: Any) -> None:
        for kind, what in items:
            if kind in (op.LITERAL, op.NOT_LITERAL):
                singles.append(chr(what))
            elif kind is op.RANGE:
                ranges.append(chr(what[0]))
            elif kind is op.CATEGORY:
                ranges.append({op.CATEGORY_SPACE: " ", op.CATEGORY_DIGIT: "1"}.get(what, "a"))
            elif kind is op.IN:
                look(what)
            elif kind is op.BRANCH:
                for each in what[1]:
                    look(each)
            elif kind is op.SUBPATTERN:
                look(what[3])
            elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
                look(what[2])
            elif kind in (op.ASSERT, op.ASSERT_NOT):
                look(what[1])
            elif kind is op.ATOMIC_GROUP:
                look(what)

    look(parser.parse(pattern.pattern, pattern.flags))
    return list(dict.fromkeys([*ranges[:3], *singles, *ranges]))
