"""PostgreSQL's texts as JSON, and JSON as PostgreSQL's texts.

Values come in the server's text format, https://www.postgresql.org/docs/current/protocol-overview.html, and are never
made into Python's objects: a numeric keeps each digit, and a timestamp what Python has no date for. The session's
formats are ISO dates, UTC and hexadecimal bytea; a value that is written otherwise, as after a statement that changes
them, stays the text that it is.
"""

from __future__ import annotations

import binascii
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
from psycopg.postgres import types

from hookline_runtime.host.query_errors import BAD_PARAMETER, BAD_TEXT, QueryError

Encoder = Callable[[bytes], bytes]
"""From a value's text to JSON."""

NULL: Final = b"null"
MAX_PARAMETERS: Final = 1000
LARGE: Final = 64 * 1024
"""Bytes that are not read on the event loop's thread."""
_STEPS: Final = 128
"""Of reading an array: a fraction of a millisecond. A thread that is not asked for the interpreter keeps it for
5 ms, and several of them the longer: calls would wait for 30 ms and more, for seconds."""
_MAX_DEPTH: Final = 6
"""Dimensions of an array, as in the server (MAXDIM)."""

_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_MOMENT: Final = re.compile(
    rb"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})?(?P<gap> )?(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)?"
    rb"(?P<zone>[+-][0-9]{2}(?::[0-9]{2})?)?"
)
_BOUNDS: Final = re.compile(rb"(?:\[[-0-9]+:[-0-9]+\])+=")
_QUOTED: Final = rb'"((?:[^"\\]|\\.)*)"'
_ITEMS: Final = {
    b",": re.compile(_QUOTED + rb'|([^{},"\\]+)', re.DOTALL),
    b";": re.compile(_QUOTED + rb'|([^{};"\\]+)', re.DOTALL),
}
"""An item of an array, quoted or bare, by what stands between two."""
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def _text(value: bytes) -> bytes:
    return orjson.dumps(value.decode("utf-8", "replace"))


def _number(value: bytes) -> bytes:
    return value if _NUMBER.fullmatch(value) else _text(value)  # NaN and infinities


def _boolean(value: bytes) -> bytes:
    return b"true" if value == b"t" else b"false" if value == b"f" else _text(value)


def _bytea(value: bytes) -> bytes:
    if not value.startswith(b"\\x"):
        return _text(value)
    try:
        return b'"' + binascii.b2a_base64(binascii.unhexlify(value[2:]), newline=False) + b'"'
    except ValueError:  # it was no bytea of ours
        return _text(value)


def _moment(value: bytes) -> bytes:
    """RFC 3339: ``2026-11-29T18:30:00.5Z``; without a zone where the type has none."""
    found = _MOMENT.fullmatch(value)
    if found is None or (found["gap"] is None) != (found["date"] is None or found["time"] is None):
        return _text(value)  # infinity, BC, the years above 9999
    date, time, zone = found["date"] or b"", found["time"] or b"", found["zone"] or b""
    if zone:
        zone = b"Z" if zone == b"+00" else zone if b":" in zone else zone + b":00"
    return b'"' + date + (b"T" if date and time else b"") + time + zone + b'"'


def _json(value: bytes) -> bytes:
    return value if value.isascii() else value.decode("utf-8", "replace").encode()


_BY_NAME: Final[dict[str, Encoder]] = {
    "bool": _boolean, "int2": _number, "int4": _number, "int8": _number, "oid": _number, "float4": _number,
    "float8": _number, "bytea": _bytea, "json": _json, "jsonb": _json, "date": _moment, "time": _moment,
    "timetz": _moment, "timestamp": _moment, "timestamptz": _moment,
}  # fmt: skip
_SCALARS: Final[dict[int, Encoder]] = {each.oid: _BY_NAME.get(each.name, _text) for each in types}
_ARRAYS: Final[dict[int, tuple[Encoder, bytes]]] = {
    each.array_oid: (_SCALARS[each.oid], each.delimiter.encode()) for each in types if each.array_oid
}
_NAMES: Final = {each.oid: each.name for each in types} | {
    each.array_oid: f"{each.name}[]" for each in types if each.array_oid
}


class _Thread(threading.local):
    given_up: threading.Event | None = None


_READING: Final = _Thread()


@contextlib.contextmanager
def beside(given_up: threading.Event) -> Iterator[None]:
    """What is read on this thread is read beside the event loop's, until nobody wants it any more."""
    _READING.given_up = given_up
    try:
        yield
    finally:
        _READING.given_up = None


def breathe() -> None:
    """Let the event loop's thread have the interpreter, where this is another one. Raises QueryError if it is over."""
    if _READING.given_up is not None:
        if _READING.given_up.is_set():
            raise QueryError("timeout", "nobody waits for the result any more")
        time.sleep(0)


def type_name(oid: int) -> str:
    """The name of a type, ``int4`` or ``int4[]``; of a database's own one, its number."""
    return _NAMES.get(oid) or str(oid)


def encoder(oid: int) -> Encoder:
    """What makes JSON of a type's values."""
    found = _ARRAYS.get(oid)
    if found is None:
        return _SCALARS.get(oid, _text)
    each, delimiter = found
    return lambda value: _array(value, each, delimiter)


def _array(value: bytes, each: Encoder, delimiter: bytes) -> bytes:
    """``{1,2,NULL}``, ``{{1},{2}}`` or ``[0:1]={1,2}`` as arrays of JSON; what is none stays text.

    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    bounds = _BOUNDS.match(value)
    at, depth = bounds.end() if bounds else 0, 0
    steps = 0
    made: list[bytes] = []
    items = _ITEMS[delimiter]
    while at < len(value):
        steps += 1
        if not steps % _STEPS:
            breathe()
        byte = value[at : at + 1]
        if byte == b"{":
            depth += 1
            made.append(b"[")
        elif byte == b"}":
            depth -= 1
            made.append(b"]")
        elif byte == delimiter:
            made.append(b",")
        else:
            item = items.match(value, at)
            if item is None or not depth:
                return _text(value)
            quoted, bare = item.groups()
            if quoted is None and bare == b"NULL":
                made.append(NULL)
            else:
                made.append(each(_ESCAPED.sub(rb"\1", bare if quoted is None else quoted)))
            at = item.end()
            continue
        at += 1
        if depth < 0 or depth > _MAX_DEPTH:
            return _text(value)
    breathe()
    return b"".join(made) if made and not depth else _text(value)


def parameters(given: Any) -> list[bytes | None]:
    """A JSON array's values as the server's texts; which types they are, the statement says. Raises QueryError."""
    if not isinstance(given, list):
        raise QueryError("failed", "the parameters are no JSON array", BAD_PARAMETER)
    if len(given) > MAX_PARAMETERS:
        raise QueryError("limit", f"there are {len(given)} parameters; {MAX_PARAMETERS} is the most")
    return [_parameter(value) for value in given]


def _parameter(value: Any) -> bytes | None:
    if value is None:
        return None
    text = _array_text(value, 1) if isinstance(value, list) else _scalar_text(value)
    data = text.encode()
    if b"\0" in data:
        raise QueryError("failed", "a parameter has a NUL in it, which no text of PostgreSQL has", BAD_TEXT)
    return data


def _scalar_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    return repr(value)  # an int or a float


def _array_text(value: list[Any], depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise QueryError("failed", f"a parameter has more than {_MAX_DEPTH} dimensions", BAD_PARAMETER)
    return "{" + ",".join(_item_text(each, depth) for each in value) + "}"


def _item_text(value: Any, depth: int) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array_text(value, depth + 1)
    return '"' + _scalar_text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
