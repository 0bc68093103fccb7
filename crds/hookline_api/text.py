"""What strangers wrote, where people read it: on one line, visible, and not long.

An artifact's names, a registry's answers and a guest's words end in logs, Events and statuses. A line break forges a
line there, an escape sequence commands the terminal, and a character that turns the direction of writing makes one word
look like another.
"""

from __future__ import annotations

from typing import Any, Final

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


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
