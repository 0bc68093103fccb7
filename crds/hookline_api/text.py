"""What strangers wrote, where people read it: on one line, visible, and not long.

An artifact's names, a registry's answers and a guest's words end in logs, Events and statuses. A line break forges a
line there, an escape sequence commands the terminal, and a character that turns the direction of writing makes one word
look like another.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME: Final = 64
"""Characters of a name that is shown among others, or compared with others."""
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
MOST: Final = 2000
"""Characters of an error's sentence: more than any of ours has, and less than an Event or a condition may."""


def readable(text: str, most: int = MOST) -> str:
    """The text with all that is not printable escaped as Python would, cut to ``most`` characters; it costs no more."""
    cut = text[: most + 1]
    if not cut.isprintable():
        cut = "".join(each if each.isprintable() else _escaped(each) for each in cut)
    return cut if len(cut) <= most else f"{cut[:most]}…"


def found(value: Any, most: int = 60) -> str:
    """What somebody wrote, as a sentence shows it: ``"many"``, ``30``, ``an object``. Never for a value of a Secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{readable(value, most)}"'
    if isinstance(value, int | float):
        return readable(repr(value) if not isinstance(value, int) or abs(value) < 2**63 else "a huge number", most)
    return "a list" if isinstance(value, list | tuple) else "an object"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names that somebody chose, in order: ``a, b and 3 more``; the empty text for none."""
    some = sorted(names)
    more = f" and {len(some) - most} more" if len(some) > most else ""
    return ", ".join(readable(each, _NAME) for each in some[:most]) + more


def did_you_mean(word: Any, choices: Iterable[str]) -> str:
    """``(did you mean kv.read?)`` with a space in front, where the word is nearly one of the choices; else nothing."""
    if not isinstance(word, str) or not 0 < len(word) <= _NAME:
        return ""
    plain = {_SEPARATORS.sub("", each.lower()): each for each in choices}
    near = difflib.get_close_matches(_SEPARATORS.sub("", word.lower()), plain, n=1, cutoff=0.75)
    return f" (did you mean {plain[near[0]]}?)" if near else ""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
