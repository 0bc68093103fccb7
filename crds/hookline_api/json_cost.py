"""What JSON costs once it is parsed, found from its bytes before anybody parses it.

A byte of JSON is cheap and what it makes is not: ``{},`` is three bytes, and a dictionary of a hundred. So whoever
takes JSON from others bounds not only its bytes but the values and names in it, and its depth, before a parser sees it.

Everything here takes time linear in the bytes, at the speed of C, and memory of at most three times the bytes. First
brackets, commas and colons are counted wherever they stand, which is never too few. Only where that is too many,
strings are taken out, so that an SQL text full of commas is one value, and what is left is counted. The second look
stops as soon as it has seen too many, and what it takes for the inside of a string is what any parser takes for it, up
to the first mistake in the text, after which a parser makes nothing more.

What it does not look at, because the parsers in use bound it: numbers with a million digits (Python's ``json`` and
pydantic end at 4,300, orjson makes none of more than 64 bits), and invalid UTF-8.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_BYTES: Final = 128
"""Bytes that a value or a name takes in memory at the most, without its text: an entry of a dictionary that just grew
takes 100, an empty dictionary with its place in a list 72."""
WIDEST: Final = 4
"""Bytes that each character of a string takes where one of them is beyond U+FFFF, as an emoji is."""

_OUTSIDE: Final = b'"[]{},:'
_DROPPED: Final = bytes(set(range(256)) - set(_OUTSIDE))
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = tuple(1 if byte in b"[{" else -1 for byte in range(256))
_WINDOW: Final = 64 * 1024
"""Bytes whose strings are cut out at a time: each piece is an object for a moment."""


class CostError(ValueError):
    """Parsing it would cost more than it may. The text is one sentence."""


def check(raw: bytes | str, *, what: str, max_values: int, max_depth: int | None = None) -> None:
    """Whether parsing ``raw`` makes at most so many values and names, at most so deep in each other.

    Nothing is looked at where ``raw`` has no more bytes than ``max_values`` (and no depth is asked for), because each
    value takes one. ``what`` begins the sentence: "the body". Raises CostError.
    """
    if max_depth is None and len(raw) < max_values:
        return
    data = _bytes(raw)
    if values(data, at_most=max_values) > max_values:
        raise CostError(
            f"{what} has {len(data)} bytes with more than {max_values} values and names in them, and is not parsed: "
            "each of them takes far more memory than its bytes; send fewer"
        )
    if max_depth is not None and depth(data, at_most=max_depth) > max_depth:
        raise CostError(f"{what} is nested deeper than {max_depth}, and is not parsed")


def values(raw: bytes, *, at_most: int | None = None) -> int:
    """An upper bound of the values and names that parsing makes, without regard to what strings hold.

    ``at_most`` says from where on the caller does not care: nothing is counted more closely than that takes.
    """
    found = 1 + _marks(raw)
    if (at_most is not None and found <= at_most) or not _can_be_cut(raw):
        return found
    found = 1
    for part in _outside(raw):
        found += _marks(part)
        if at_most is not None and found > at_most:
            break
    return found


def names(raw: bytes, *, at_most: int) -> int:
    """How many names stand in it; where there are no more than ``at_most`` colons, their number."""
    found = raw.count(b":")
    if found <= at_most or not _can_be_cut(raw):
        return found
    return sum(part.count(b":") for part in _outside(raw))


def depth(raw: bytes, *, at_most: int) -> int:
    """How deep values are in each other; where there are no more than ``at_most`` brackets, their number."""
    found = raw.count(b"[") + raw.count(b"{")
    if found <= at_most or not _can_be_cut(raw):
        return found
    level = found = 0
    for part in _outside(raw):
        steps = map(_STEPS.__getitem__, part.translate(None, _NO_BRACKET))
        levels = list(itertools.accumulate(steps, initial=level))
        level, highest = levels[-1], max(levels)
        found = max(found, highest)
        if found > at_most:
            break
    return found


def memory(raw: bytes | str) -> int:
    """An upper bound of the bytes of memory that parsing takes: its values and names, and their text."""
    data = _bytes(raw)
    # One character that is wide makes all of its string wide, and an escape may stand for one.
    width = 1 if data.isascii() and b"\\u" not in data else WIDEST
    return values(data) * OBJECT_BYTES + len(data) * width


def yaml_values(raw: bytes | str) -> int:
    """An upper bound of the nodes that parsing YAML without aliases makes; strings are counted as if they were none."""
    data = _bytes(raw)
    # A node begins behind an indicator or a break of lines: - ? : , [ { and LF, CR, NEL, LS, PS. Two, since each pair
    # of a mapping may have an empty name and an empty value.
    ends = data.count(b"\xc2\x85") + data.count(b"\xe2\x80\xa8") + data.count(b"\xe2\x80\xa9")
    return 2 * (1 + ends + sum(data.count(mark) for mark in (b"-", b"?", b":", b",", b"[", b"{", b"\n", b"\r")))


def _marks(raw: bytes) -> int:
    """What begins a value or a name: a container of n values has n - 1 commas and a bracket, each name a colon."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{") + raw.count(b":")


def _bytes(raw: bytes | str) -> bytes:
    return raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw


def _can_be_cut(raw: bytes) -> bool:
    """Whether a quotation mark's byte is one: in UTF-16 and UTF-32, which ``json.loads`` takes too, it may be half."""
    return b"\0" not in raw


def _outside(raw: bytes) -> Iterator[bytes]:
    """Brackets, commas and colons that are outside of strings, in pieces."""
    if b"\\" in raw:  # which is in strings alone: of a row of them, the last escapes if their number is odd
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    raw = raw.translate(None, _DROPPED)
    inside = 0
    for at in range(0, len(raw), _WINDOW):
        pieces = raw[at : at + _WINDOW].split(b'"')
        yield b"".join(pieces[inside::2])
        inside ^= (len(pieces) - 1) & 1
