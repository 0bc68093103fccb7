"""What an SQL text says, without a database: its tables, and its form without literals.

The grammar is PostgreSQL's own (libpg_query, by pglast), and of pglast two functions are used: ``parse_sql_json`` and
``normalize``. Its classes cost thirty times as much. What is inside of strings is not read: neither the body of a
``DO`` or a function, nor ``'orders'::regclass``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson
from pglast.parser import ParseError, normalize, parse_sql_json

from hookline_runtime.host.query_errors import BAD_TEXT, SYNTAX, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT: Final = 256 * 1024
"""Bytes of a text; a statement makes up to 54 bytes of JSON of each of its own."""
_SHORT_TEXT: Final = 4096
_SHORT_WEIGHT: Final = 128
_MAX_WEIGHT: Final = 8192
"""Places where a column or a statement may begin: for each of them ``normalize`` takes 8 KiB and up to 70 µs."""
_MAX_TABLES: Final = 4096
_SHORT_READING: Final = 2**16
_MAX_READING: Final = 2**22
"""Characters that the scanner reads again at the most, 7 ns each. It reads a run of operators to its end, takes one
``+``, ``-`` or beginning of a comment of it, and reads the rest anew: 256 KiB of ``+-`` would keep it busy for minutes,
and nobody can stop it."""

_WEIGHTS: Final = re.compile(r"[,;]|\bselect\b", re.IGNORECASE)
_RUN: Final = re.compile(r"(?<![~!@#^&|`?+\-*/%<>=])[~!@#^&|`?+\-*/%<>=]{16,}")
"""Of characters of operators: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-OPERATORS"""
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TOKEN: Final = re.compile(rb'("(?:[^"\\]|\\.)*(?:"|\\?\Z))(:)?|[{}\[\]]', re.DOTALL)
"""Of JSON. A string without an end, which the parser never writes, goes to the end of the text: so it is linear."""
_STRUCTURED: Final = (b'"withClause":', b'"lockedRels":', b'"DropStmt":', b'"object":{"List":')
_TABLE_KINDS: Final = {
    b'"OBJECT_TABLE"': 0, b'"OBJECT_VIEW"': 0, b'"OBJECT_MATVIEW"': 0, b'"OBJECT_FOREIGN_TABLE"': 0,
    b'"OBJECT_SEQUENCE"': 0, b'"OBJECT_INDEX"': 0, b'"OBJECT_TRIGGER"': 1, b'"OBJECT_RULE"': 1,
    b'"OBJECT_POLICY"': 1, b'"OBJECT_COLUMN"': 1, b'"OBJECT_TABCONSTRAINT"': 1,
}  # fmt: skip
"""Kinds of objects that are named by a list, and how many names follow the table's."""


def is_short(sql: str) -> bool:
    """Whether the functions below take few milliseconds, whatever it says."""
    return len(sql) <= _SHORT_TEXT and _weight(sql) <= _SHORT_WEIGHT and _reading(sql) <= _SHORT_READING


def _weight(sql: str) -> int:
    return sum(1 for _ in _WEIGHTS.finditer(sql))


def _reading(sql: str) -> int:
    """Characters that are read again, about. What stands behind ``--`` is a comment, which is read once."""
    runs = (found[0] for found in _RUN.finditer(sql))
    return sum(len(run) * (run.count("/*") + run.count("+") + run.replace("--", "").count("-")) for run in runs)


def check(sql: str) -> None:
    """Raises QueryError where a text is too long to be read, or has a NUL: for the parser it would end there."""
    if "\0" in sql:
        raise QueryError("failed", "the statement has a NUL in it", BAD_TEXT)
    if len(sql.encode()) > MAX_TEXT:
        raise QueryError("limit", f"the statement has more than {MAX_TEXT} bytes")
    if _reading(sql) > _MAX_READING:
        raise QueryError("limit", "the statement has thousands of operators or comments with nothing between them")


def normalized(sql: str) -> str:
    """The statement with each literal replaced by a parameter, ``select $1``. Raises QueryError."""
    check(sql)
    if _weight(sql) > _MAX_WEIGHT:
        raise QueryError("limit", f"the statement has more than {_MAX_WEIGHT} columns, values or statements")
    try:
        return str(normalize(sql))
    except ParseError as error:
        raise _syntax(error) from None


def tables(sql: str) -> list[str]:
    """The tables, views and sequences that a text names, each once, in the order of the text. Raises QueryError.

    A schema stands in front where the text says one: ``public.orders``. A part that has a dot or a quotation mark in it
    is quoted. A name that ``WITH`` defines is no table where it is seen.
    """
    check(sql)
    try:
        parsed = parse_sql_json(sql).encode()
    except ParseError as error:
        raise _syntax(error) from None
    found: dict[str, None] = {}
    names = _structured(parsed) if any(mark in parsed for mark in _STRUCTURED) else _plain(parsed)
    for name in names:
        found[name] = None
        if len(found) > _MAX_TABLES:
            raise QueryError("limit", f"the statement names more than {_MAX_TABLES} tables")
    return list(found)


def _syntax(error: ParseError) -> QueryError:
    message = str(error.args[0]) if error.args else "the statement cannot be parsed"
    return QueryError("failed", f"the statement cannot be parsed: {message}", SYNTAX)


def _joined(parts: list[bytes]) -> str:
    """Names that stand in JSON, as one."""
    names = [orjson.loads(part) for part in parts]
    return ".".join('"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name for name in names)


def _plain(parsed: bytes) -> Iterator[str]:
    """Each ``RangeVar``: its names stand side by side in the JSON, and such bytes are in no string's inside."""
    end = 0
    while (at := parsed.find(b'"relname":', end)) >= 0:
        begin = at
        parts: list[bytes] = []
        for key in (b'"schemaname":', b'"catalogname":'):
            # What stands right before it, and never in another object: the search goes back to the last find.
            before = parsed.rfind(key, end, begin)
            string = _STRING.match(parsed, before + len(key)) if before >= 0 else None
            if string is None or string.end() + 1 != begin:
                break
            parts.insert(0, string[0])
            begin = before
        string = _STRING.match(parsed, at + len(b'"relname":'))
        assert string is not None  # noqa: S101 - the parser wrote it
        end = string.end()
        yield _joined([*parts, string[0]])


class _Frame:
    """An object of the JSON that is open, or an array."""

    __slots__ = ("begin", "key", "kind", "lists", "names", "parts", "withs")

    def __init__(self, key: bytes, begin: int) -> None:
        self.key = key
        """Under which it stands, of the nearest object."""
        self.begin = begin
        self.parts: dict[bytes, bytes] = {}
        """Names of a ``RangeVar``, by their keys."""
        self.names: list[bytes] = []
        """Texts of a ``List``."""
        self.lists: list[list[bytes]] = []
        """Of a statement about objects: the lists in it."""
        self.kind = b""
        """What they are."""
        self.withs: _With | None = None


class _With:
    """The names that one ``WITH`` defines."""

    __slots__ = ("names", "recursive", "seen")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.recursive = False
        self.seen = 0
        """How many of them were passed, on the second walk."""


_WITH_KEYS: Final = frozenset({b'"withClause"'})
_RANGE_KEYS: Final = frozenset({b'"catalogname"', b'"schemaname"', b'"relname"'})
_KIND_KEYS: Final = frozenset({b'"removeType"', b'"objtype"', b'"renameType"', b'"objectType"'})


def _with_clauses(parsed: bytes) -> dict[int, _With]:
    """The ``WITH`` of each object that has one, by where the object begins: the names stand behind their uses."""
    found: dict[int, _With] = {}
    opened: list[tuple[int, _With | None]] = []
    key = b""
    for token in _TOKEN.finditer(parsed):
        string, colon = token.groups()
        if colon:
            key = string
            if key == b'"recursive"' and opened and opened[-1][1] is not None:
                opened[-1][1].recursive = parsed.startswith(b"true", token.end())
            continue
        if string is not None:
            if key == b'"ctename"':
                # CommonTableExpr, its wrapper, the list and the clause
                clause = opened[-4][1]
                assert clause is not None  # noqa: S101 - the parser wrote it
                clause.names.append(string)
        elif token[0] in {b"{", b"["}:
            clause = None
            if token[0] == b"{" and key == b'"withClause"':
                clause = found[opened[-1][0]] = _With()
            opened.append((token.start(), clause))
            key = b""
        else:
            opened.pop()
    return found


def _structured(parsed: bytes) -> Iterator[str]:
    """The same as ``_plain``, with what is no table left out, and with tables that are named by lists."""
    clauses = _with_clauses(parsed) if b'"withClause":' in parsed else {}
    seen: dict[bytes, int] = {}
    """How many ``WITH`` that are open here define a name."""
    frames: list[_Frame] = [_Frame(b"", -1)]
    key, locked = b"", 0
    for token in _TOKEN.finditer(parsed):
        string, colon = token.groups()
        if colon:
            key = string
        elif string is not None:
            _take_string(frames, key, string)
        elif token[0] in {b"{", b"["}:
            frame = _Frame(key or frames[-1].key, token.start())
            frames.append(frame)
            locked += frame.key == b'"lockedRels"' and token[0] == b"["
            _open(frames, clauses.get(frame.begin), seen, is_clause=key in _WITH_KEYS)
            key = b""
        else:
            frame = frames.pop()
            yield from _close(frames, frame, seen, locked=bool(locked))
            locked -= frame.key == b'"lockedRels"' and token[0] == b"]"
            key = b""


def _take_string(frames: list[_Frame], key: bytes, string: bytes) -> None:
    frame = frames[-1]
    if key in _RANGE_KEYS:
        frame.parts[key] = string
    elif key in _KIND_KEYS:
        frame.kind = string
    elif key == b'"sval"' and len(frames) > 4 and frames[-4].key == b'"List"':  # noqa: PLR2004 - as below
        # The text, its wrapper, the list's items, the list
        frames[-4].names.append(string)


def _open(frames: list[_Frame], clause: _With | None, seen: dict[bytes, int], *, is_clause: bool) -> None:
    frame = frames[-1]
    if clause is not None:
        frame.withs = clause
        _see(seen, clause.names, 1)
    elif is_clause and (own := frames[-2].withs) is not None and not own.recursive:
        _see(seen, own.names, -1)  # none of them is seen in the first, and each by those behind it


def _close(frames: list[_Frame], frame: _Frame, seen: dict[bytes, int], *, locked: bool) -> Iterator[str]:
    if frame.withs is not None:
        _see(seen, frame.withs.names, -1)
    elif frame.key == b'"CommonTableExpr"' and len(frames) > 4:  # noqa: PLR2004 - the wrapper, the list, the clause
        own = frames[-4].withs
        if own is not None and not own.recursive and own.seen < len(own.names):
            _see(seen, own.names[own.seen : own.seen + 1], 1)
            own.seen += 1
    if frame.names and frame.key == b'"List"':
        for outer in reversed(frames[-5:]):
            if outer.key in {b'"DropStmt"', b'"CommentStmt"', b'"SecLabelStmt"', b'"AlterExtensionContentsStmt"'}:
                outer.lists.append(frame.names)
                break
    for names in frame.lists:
        behind = _TABLE_KINDS.get(frame.kind)
        table = names[: len(names) - behind] if behind is not None else []
        if table:
            yield _joined(table)
    name = frame.parts.get(b'"relname"')
    if name is None or locked:
        return
    schema = [frame.parts[key] for key in (b'"catalogname"', b'"schemaname"') if key in frame.parts]
    # The target of a statement is never a name of WITH, and has no wrapper.
    if schema or frame.key != b'"RangeVar"' or not seen.get(name):
        yield _joined([*schema, name])


def _see(seen: dict[bytes, int], names: list[bytes], by: int) -> None:
    for name in names:
        seen[name] = seen.get(name, 0) + by
