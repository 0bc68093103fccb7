"""What a registry asks for: the challenges of ``WWW-Authenticate`` (RFC 9110, 11.6.1). Pure.

Challenges and their parameters share the comma; a parameter has a "=" and a scheme has none. Each expression takes what
it matches for good (``++``), and what is read is not read again.
"""

from __future__ import annotations

import re
from typing import Final

_MAX_CHALLENGE: Final = 16_384
"""Characters of all challenges of one answer."""
_MAX_PARTS: Final = 256
"""Challenges and parameters of one answer that are read."""
_WORD: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]++")
_EQUALS: Final = re.compile(r"[ \t]*+=[ \t]*+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)("?)', re.DOTALL)
_BARE: Final = re.compile(r'[^\s,"]++')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

Challenge = tuple[str, dict[str, str]]
"""A scheme and its parameters, their names in lower case."""


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of ``WWW-Authenticate``: schemes with parameters, in lower case. Skips what is neither."""
    found: list[Challenge] = []
    text = text[:_MAX_CHALLENGE]
    position = parts = 0
    while parts < _MAX_PARTS and (word := _WORD.search(text, position)) is not None:
        parts += 1
        position = word.end()
        equals = _EQUALS.match(text, position)
        value, end = _value(text, equals.end()) if equals is not None else (None, position)
        if value is None:
            found.append((word[0].lower(), {}))
        elif found:
            found[-1][1].setdefault(word[0].lower(), value)
        position = end
    return found


def _value(text: str, start: int) -> tuple[str | None, int]:
    """The value of a parameter that begins there, and where it ends; None where none begins."""
    quoted = _QUOTED.match(text, start)
    if quoted is not None:
        # One that never ends takes the rest along, and is none.
        return (_ESCAPED.sub(r"\1", quoted[1]), quoted.end()) if quoted[2] else (None, len(text))
    bare = _BARE.match(text, start)
    return (bare[0], bare.end()) if bare is not None else (None, start)
