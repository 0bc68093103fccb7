"""YAML and JSON as Kubernetes reads them, so that a file means here what it means to ``kubectl create``.

kubectl cuts a file at its lines of ``---``, turns each part into JSON with sigs.k8s.io/yaml (on go.yaml.in/yaml/v2,
a port of libyaml), and numbers end as Go writes them. That is neither YAML 1.1 nor 1.2, and not what PyYAML makes of
it: ``22:30`` is text, ``010`` is 8, ``1.0`` is 1, a ``<<`` overrides what stands before it, and keys are sorted. Here
PyYAML's parser gives the events, and this module alone says what they mean.

Refused where kubectl would guess or drop something: a key that is there twice (it takes the last), a number as a key
whose digits it cuts, what follows the end of a document without a line of ``---`` (it is not read), and a ``!!binary``
that is not text (it is mangled). Refused to stay bounded: nesting deeper than 100, more than 1,000 documents, aliases
that name something with aliases in it, and aliases that stand for more than a file may hold. Without libyaml, PyYAML's
own parser refuses a few tabs that Kubernetes takes, and takes one at the beginning of a block scalar.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from hookline_api import json_cost
from hookline_artifacts.documents import kubernetes_scalars as scalars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_FILE: Final = 4 * 2**20
"""Bytes of a file, and characters of what its aliases stand for."""
MAX_VALUES: Final = 2**19
"""Values and names in a file: 64 MiB of memory. A file of 4 MiB has so many where each takes eight bytes."""
MAX_DEPTH: Final = 100
_MAX_PLACED: Final = 24
"""How deep places are told: no field of ours is deeper."""
MAX_DOCUMENTS: Final = 1000
"""In a file."""

# DANGER: only its events are used. libyaml's composer is recursive C without a limit; some ten thousand brackets crash
# the process. Its parser is a loop.
_Parser: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SEPARATOR: Final = re.compile(r"^---(?P<rest>.*)$", re.MULTILINE)
_AFTER_SEPARATOR: Final = re.compile(r"[ \t\r]*(#.*)?")
_LATE_MARK: Final = re.compile("(?:^|[\r\n\x85\u2028\u2029])\ufeff")
_ESCAPED_SLASH: Final = re.compile(r"(?:^|[^\\])(?:\\\\)*\\/")
# Go's unicode.IsSpace is Python's without four control characters.
_SPACE: Final = re.compile(r"[^\S\x1c-\x1f]*")
_SPACE_IN_LINE: Final = re.compile(r"[^\S\n\x1c-\x1f]*")
_JSON_SPACE: Final = re.compile(r"[ \t\r\n]*")
_HALF: Final = "a \\u escape is half of a pair of surrogates, which is not a character"
_NOT_READ: Final = (
    "kubectl would not read this, since the document ends before it: mend the indentation, or begin a document with ---"
)
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


_ADVICE: Final = {
    "cannot start any token": "indent with spaces, not with tabs, and put a text that begins so in quotes",
    "mapping values are not allowed": "put a text with ': ' in it in quotes, or indent the line as its neighbours are",
    "did not find expected": "see whether a bracket or a quote is left open, or the line is indented unlike others",
    "could not find expected ':'": "write a space behind the colon, and each key in a line of its own",
    "unexpected end of stream": "a quote is left open",
}
"""What to do, by words of the parser's own."""


class UnreadableError(ValueError):
    """The file is not what Kubernetes reads, or more than is read here. The text is the reason."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line
        """From 1; None where no line is to blame."""


Place = tuple[int, int]
"""A line and a column, from 1."""
Path = tuple[str | int, ...]
"""Where in a document: keys of mappings, and indices of lists."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A document, and where in the file its fields are."""

    value: Any
    places: Mapping[Path, Place]
    """Of each field its key, of each item its first character, of the document itself its beginning; what an alias or a
    ``<<`` stands for has none."""

    def place(self, path: Path) -> Place | None:
        """Of what is at a path, or else of the nearest thing that it is in."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)


def read_placed(raw: bytes) -> list[Placed]:
    """The documents as ``read`` has them, each with its places; it takes a few times the memory."""
    placed: list[dict[Path, Place]] = []
    values = read(raw, placed)
    if len(placed) != len(values):  # JSON that is no YAML: tabs, or one document after another
        placed = [{} for _ in values]
    return [Placed(value, places) for value, places in zip(values, placed, strict=True)]


def read(raw: bytes, placed: list[dict[Path, Place]] | None = None) -> list[Any]:
    """The documents of a file as the API server would hand them out; those that are null are left out.

    The values are those of JSON. Numbers are ints of 64 bits or finite floats. The time is linear in the file's size.
    ``placed`` gets the places of each document's fields.

    Raises:
        UnreadableError: The file says nothing that counts; no part of it is returned.
    """
    if len(raw) > MAX_FILE:
        raise UnreadableError(f"it has more than {MAX_FILE} bytes")
    if raw.startswith(_UTF_16):
        raise UnreadableError("it is UTF-16: save it as UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(str(error)) from None
    try:
        if text.startswith("{", _skip(_SPACE, text, 0)):
            json_cost.check(raw, what="it", max_values=MAX_VALUES)
    except json_cost.CostError as error:
        raise UnreadableError(str(error)) from None
    documents, at = _read_json(text)
    nodes = itertools.count()
    if documents and placed is not None:
        _place_json(text[:at], placed)
    for line, chunk in _chunks(text[at:].replace("\r\n", "\n"), 1 + text.count("\n", 0, at)):
        if chunk.strip(" \n"):
            documents += _read_chunk(chunk, line, nodes, placed)
            _check_count(documents)
    return documents


def _place_json(text: str, placed: list[dict[Path, Place]]) -> None:
    """Where the fields of one JSON document are: it is YAML, too."""
    with contextlib.suppress(UnreadableError):
        list(_read_chunk(text, 1, itertools.count(), placed))


def _check_count(documents: list[Any]) -> None:
    if len(documents) > MAX_DOCUMENTS:
        raise UnreadableError(f"it has more than {MAX_DOCUMENTS} documents")


# ---- JSON ----


def _read_json(text: str) -> tuple[list[Any], int]:
    """The JSON that a file begins with, and where YAML begins after it.

    As apimachinery's YAMLOrJSONDecoder: after two JSON documents all of the file has to be JSON.
    """
    documents: list[Any] = []
    end, at = 0, _skip(_JSON_SPACE, text, 0)
    if not text.startswith("{", _skip(_SPACE, text, 0)):
        return documents, 0
    count = 0
    while at < len(text):
        try:
            value, end = _JSON.raw_decode(text, at)
        except RecursionError:
            raise UnreadableError(f"it is nested deeper than {MAX_DEPTH}") from None
        except json.JSONDecodeError as error:
            after = _skip(_SPACE_IN_LINE, text, end)
            # kubectl looks four bytes ahead, and ends where there are fewer.
            if count > 1 or len(text[after : after + 4].encode()) < 4:  # noqa: PLR2004
                raise UnreadableError(f"as JSON: {error.msg}", error.lineno) from None
            return documents, after + text.startswith("\n", after)
        _check_json(value)
        count += 1
        documents += [] if value is None else [value]
        _check_count(documents)
        at = _skip(_JSON_SPACE, text, end)
    return documents, len(text)


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found is not None else at


def _check_json(value: Any) -> None:
    """Raises UnreadableError for JSON that is too deep, or has text that is none."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        parts: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                parts += each
                parts += each.values()
            elif isinstance(each, list):
                parts += each
            elif isinstance(each, str) and not _is_unicode(each):
                raise UnreadableError(_HALF)
        level = parts
        if not level:
            return
    raise UnreadableError(f"it is nested deeper than {MAX_DEPTH}")


def _is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, which nothing could write as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(sorted(pairs, key=lambda pair: pair[0]))
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UnreadableError(f"the key {key!r:.60} is there twice: leave one of them")
            seen.add(key)
    return made


def _json_number(text: str) -> Any:
    try:
        return scalars.number(float(text) if text.strip("-0123456789") else scalars.decimal(text))
    except scalars.ScalarError as error:
        raise UnreadableError(str(error)) from None


def _json_constant(text: str) -> Any:
    raise json.JSONDecodeError(f"{text} is JSON in Python alone", text, 0)


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_json_object, parse_int=_json_number, parse_float=_json_number, parse_constant=_json_constant
)


# ---- YAML ----


def _chunks(text: str, line: int) -> Iterator[tuple[int, str]]:
    """What stands between lines of ``---``, as apimachinery's YAMLReader cuts it, each with the number of its line."""
    start = 0
    for found in _SEPARATOR.finditer(text):
        rest = found["rest"]
        if not _AFTER_SEPARATOR.fullmatch(rest):
            at = line + text.count("\n", start, found.start())
            raise UnreadableError("after --- only a comment may follow on the line: kubectl refuses the rest", at)
        if found.start() > start:  # else it is the first line of a chunk
            yield line, text[start : found.start()]
            line += text.count("\n", start, found.end()) + 1
            start = found.end() + 1
    last = text[start:]
    yield line, last if last.endswith("\n") else last + "\n"


def _read_chunk(
    text: str, line: int, nodes: Iterator[int], placed: list[dict[Path, Place]] | None = None
) -> Iterator[Any]:
    """The one document of a chunk, unless it is null. ``line`` is the number of the chunk's first line.

    ``nodes`` counts what the file's documents have.
    """
    text = text.removeprefix("\ufeff")
    if (late := _LATE_MARK.search(text)) is not None:
        at = line + text.count("\n", 0, late.end())
        raise UnreadableError("there is a byte order mark in front of a line, and only a file may begin with one", at)
    places: dict[Path, Place] | None = None if placed is None else {}
    reader = _Reader(text, line, places)
    try:
        for event in yaml.parse(text, Loader=_Parser):
            if next(nodes) > MAX_VALUES:
                raise UnreadableError(f"it has more than {MAX_VALUES} values and names")
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = _advised(" ".join((error.problem or str(error)).split()))
        if reader.ended:
            reason = f"{_NOT_READ} ({reason})"
        raise UnreadableError(reason, line + mark.line if mark is not None else None) from None
    except yaml.YAMLError as error:
        raise UnreadableError(" ".join(str(error).split())) from None
    if reader.document is not None:
        if placed is not None and places is not None:
            placed.append(places)
        yield reader.document


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    flow: bool
    """It is written with brackets."""
    nodes: int = 1
    """How many nodes it is so far, with itself."""
    size: int = 2
    """How many characters of JSON it is about."""
    aliased: bool = False
    """There is an alias in it."""
    key: str | None = None
    """Of the value that comes next."""
    merging: bool = False
    """What comes next is the value of a ``<<``."""
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True, frozen=True)
class _Anchored:
    value: Any
    nodes: int
    size: int
    aliased: bool


class _Reader:
    """Makes the value of one document from the parser's events."""

    def __init__(self, text: str, line: int, places: dict[Path, Place] | None = None) -> None:
        self.document: Any = None
        self._text = text
        self.ended = False
        self._line = line
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored | None] = {}
        """None where the anchored collection has not ended."""
        self._nodes = 1
        self._alias_nodes = 0
        self._alias_size = 0
        self._places = places

    def take(self, event: yaml.Event) -> None:
        try:
            self._take(event)
        except scalars.ScalarError as error:
            mark = event.start_mark
            raise UnreadableError(str(error), self._line + mark.line if mark is not None else None) from None

    def _take(self, event: yaml.Event) -> None:
        if self._places is not None and isinstance(event, yaml.NodeEvent):
            self._note(event, self._places)
        match event:
            case yaml.ScalarEvent():
                self._nodes += 1
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event.anchor or "")
            case yaml.CollectionStartEvent():
                self._nodes += 1
                if len(self._open) >= MAX_DEPTH:
                    raise scalars.ScalarError(f"it is nested deeper than {MAX_DEPTH}")
                if event.anchor is not None:
                    self._anchors[event.anchor] = None
                empty: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._open.append(_Open(empty, event.anchor, bool(event.flow_style)))
            case yaml.CollectionEndEvent():
                self._end()
            case yaml.DocumentStartEvent() if self.ended:
                raise scalars.ScalarError(_NOT_READ)
            case yaml.DocumentEndEvent():
                self.ended = True

    def _note(self, event: yaml.NodeEvent, places: dict[Path, Place]) -> None:
        """Take down where a field's key, an item, or the document itself is."""
        path: list[str | int] = []
        if len(self._open) > _MAX_PLACED:
            return
        for each in self._open[:-1]:
            if each.merging:
                return
            path.append(each.key if isinstance(each.value, dict) and each.key is not None else len(each.value))
        inside = self._open[-1] if self._open else None
        if inside is not None and isinstance(inside.value, dict):
            if inside.key is not None or inside.merging or not isinstance(event, yaml.ScalarEvent):
                return  # the key has been here
            path.append(event.value)
        elif inside is not None:
            path.append(len(inside.value))
        mark = event.start_mark
        if mark is not None:
            places[tuple(path)] = (self._line + mark.line, mark.column + 1)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._check_form(event)
        plain = bool(event.implicit[0])
        inside = self._open[-1] if self._open else None
        if (
            inside is not None
            and isinstance(inside.value, dict)
            and inside.key is None
            and not inside.merging
            and event.value == "<<"
            and (plain or event.tag == scalars.MERGE)
        ):
            inside.merging = True
            return
        value = scalars.resolve(event.value, tag=event.tag, plain=plain)
        size = len(event.value) + 2
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, 1, size, aliased=False)
        self._add(value, 1, size)

    def _check_form(self, event: yaml.ScalarEvent) -> None:
        """What PyYAML's parsers take and Go's does not."""
        if not _is_unicode(event.value):
            raise scalars.ScalarError(_HALF)
        if not event.style and "?" in event.value and any(each.flow for each in self._open):
            raise scalars.ScalarError(f"put {event.value!r:.60} in quotes: there is a ? in it, inside of [] or {{}}")
        start, end = event.start_mark, event.end_mark
        if event.style != '"' or "/" not in event.value or start is None or end is None:
            return
        if _ESCAPED_SLASH.search(self._text[start.index : end.index]):
            raise scalars.ScalarError("\\/ is an escape of JSON, not of Kubernetes' YAML: write /")

    def _alias(self, anchor: str) -> None:
        if anchor not in self._anchors:
            raise scalars.ScalarError(f"the alias *{anchor:.60} names an anchor that is not there")
        named = self._anchors[anchor]
        if named is None:
            raise scalars.ScalarError(f"the alias *{anchor:.60} names something that it is part of")
        if named.aliased:
            raise scalars.ScalarError(
                f"the alias *{anchor:.60} names something that has an alias itself: write one of them out"
            )
        self._nodes += 1
        self._alias_nodes += named.nodes
        self._alias_size += named.size
        # Go's "excessive aliasing": more than 99 of 100 nodes, or about 400,000.
        most = min(396_000, max(100, 999 - self._nodes, 99 * self._nodes))
        if self._alias_nodes > most or self._alias_size > MAX_FILE:
            raise scalars.ScalarError("its aliases stand for too much: write out what they name")
        for each in self._open:
            each.aliased = True
        self._add(named.value, named.nodes, named.size, alias=True)

    def _end(self) -> None:
        done = self._open.pop()
        value: Any = done.value
        if isinstance(value, dict):
            value = dict(sorted(value.items()))
        if done.anchor is not None and self._anchors[done.anchor] is None:  # else its own inside took the name
            self._anchors[done.anchor] = _Anchored(value, done.nodes, done.size, done.aliased)
        self._add(value, done.nodes, done.size)

    def _add(self, value: Any, nodes: int, size: int, *, alias: bool = False) -> None:
        if not self._open:
            self.document = scalars.number(value)
            return
        inside = self._open[-1]
        inside.nodes += nodes
        inside.size += size
        if isinstance(inside.value, list):
            inside.value.append(scalars.number(value))
        elif inside.merging:
            inside.merging = False
            _merge(value, inside.value, alias=alias)
        elif inside.key is None:
            inside.key = scalars.key(value)
            if inside.key in inside.seen:
                raise scalars.ScalarError(f"the key {inside.key!r:.60} is there twice: leave one of them")
            inside.seen.add(inside.key)
        else:
            inside.value[inside.key] = scalars.number(value)
            inside.key = None


def _merge(value: Any, into: dict[str, Any], *, alias: bool) -> None:
    """What ``<<`` does: it overrides what stands before it, and is overridden by what follows."""
    parts = [value] if isinstance(value, dict) else value if isinstance(value, list) and not alias else [None]
    for part in reversed(parts):
        if not isinstance(part, dict):
            raise scalars.ScalarError("<< takes a mapping, or a list of mappings")
        into.update(part)


def _advised(reason: str) -> str:
    """The parser's words, with what to do where that is known."""
    advice = next((advice for words, advice in _ADVICE.items() if words in reason), None)
    return reason if advice is None else f"{reason}: {advice}"
