"""What a proxy sends: checked, completed, and handed to guests byte for byte where nothing was missing.

The checks come from the contract's models, as tables (``shapes``). Afterwards a guest finds every field of
``docs/reference/hooks.md``, with its type, whatever the proxy left out.

Two things would let a guest and this module read one body differently, and so are settled here. A null where guests
read a string is taken as left out. A name that stands twice in one object is refused, because some readers take the
first and some the last.
"""

from __future__ import annotations

import json
import os
import types
from typing import Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.hooks import NORMALIZED, REWRITTEN_BY, VERBATIM, Hook
from hookline_runtime.call.looks import LOOKS
from hookline_runtime.call.shapes import (
    CONTEXT,
    IDENTITY,
    MAX_REQUEST_ID,
    NAMES,
    OUTCOME,
    REQUIRED,
    SHAPES,
    STRINGS,
    TABLES,
    TEXT,
    Fields,
)
from hookline_runtime.errors import InputError
from hookline_runtime.guest import accelerator

_MAX_MARKED: Final = 2**20
"""Bytes of a body in which a name that stands twice is looked for."""


MAX_VALUES: Final = 2**18
"""Values and names in a body, a batch's too: up to 32 MiB of memory while it is looked into. No body of 256 KiB, the
default of ``limits.input``, has more, and a batch of 1,024 calls may have 256 in each."""
_KEPT_PARSED: Final = 16 * 1024
"""Bytes of a call whose values are kept while it waits for plugins; those of a larger one are read again if need be."""
_FOUND_OUT: Final = frozenset({"_context", "_document", "_fields", "rewritten", "unsaid"})
"""What a ``Call`` reads in its data when somebody asks for the first time."""


class Call:
    """One hook call on its way through the chain."""

    __slots__ = ("_context", "_document", "_fields", "data", "hook", "quoted_id", "rewritten", "unsaid")

    rewritten: bool
    """Whether a plugin changed the query, so that what the proxy said of it holds no longer."""
    unsaid: frozenset[str]
    """Fields that the proxy left out and that have their default now."""
    _document: Any
    _fields: dict[str, Any]
    _context: dict[str, Any]

    def __init__(self, hook: Hook, data: bytes, quoted_id: bytes) -> None:
        """A call that is read from its data when somebody asks; ``know`` sets what was read already."""
        self.hook = hook
        self.data = data
        """What a guest gets."""
        self.quoted_id = quoted_id
        """The request id as JSON."""

    def __getattr__(self, name: str) -> Any:
        """Look into the data when somebody asks for the first time: few do."""
        if name not in _FOUND_OUT:
            raise AttributeError(name)
        found = read_document(self.hook, orjson.loads(self.data), self.data)
        self.know(found._document, found._fields, found._context)  # noqa: SLF001 - a call like this one
        return getattr(self, name)

    def know(
        self, document: Any, fields: dict[str, Any], context: dict[str, Any], *, unsaid: frozenset[str] = frozenset()
    ) -> None:
        """What the data says, and where in there the hook's fields and its context are."""
        self._document = document
        self._fields = fields
        self._context = context
        self.unsaid = unsaid
        self.rewritten = False

    def forget(self) -> None:
        """Let go of what was found in a large call, where it can be found again: many may wait at the same time."""
        here = object.__getattribute__  # which finds nothing out
        try:
            is_needed = len(self.data) <= _KEPT_PARSED or here(self, "rewritten") or here(self, "unsaid")
        except AttributeError:
            return
        if not is_needed:
            del self._document, self._fields, self._context, self.unsaid, self.rewritten

    @property
    def request_id(self) -> str:
        """What the proxy and its log call this statement."""
        return str(orjson.loads(self.quoted_id))

    @property
    def query(self) -> str | None:
        """The statement as it is now."""
        return _string(self._fields.get("query"))

    @property
    def tables(self) -> list[str]:
        """The tables as the proxy named them."""
        found = self._fields.get("tables")
        return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

    @property
    def is_read_only(self) -> bool | None:
        """What the proxy said; None where it did not."""
        found = None if "is_read_only" in self.unsaid else self._fields.get("is_read_only")
        return found if isinstance(found, bool) else None

    @property
    def database(self) -> str | None:
        """From the hook context, or from an authentication. An empty one says nothing."""
        return _string(self._said("database", "database"))

    @property
    def user(self) -> str | None:
        """From the hook context, or from an authentication. An empty one says nothing."""
        return _string(self._said("identity", "username"))

    def _said(self, in_context: str, in_fields: str) -> Any:
        """A field of the context or one beside it; of an authentication, what the client claims comes first."""
        context, field = self._context.get(in_context), self._fields.get(in_fields)
        return (field or context if self.hook is Hook.AUTHENTICATE else context or field) or None

    @property
    def application(self) -> str | None:
        """The attribute ``application_name``. An empty one says nothing."""
        return _string((self._context.get("attributes") or {}).get("application_name") or None)

    @property
    def ttl_ms(self) -> int | None:
        """Of ``cache_set``: what is asked for now."""
        found: int | None = self._fields.get("ttl_ms")
        return found

    def rewrite(self, query: str, by: str) -> None:
        """Go on with another query.

        What the proxy said about the old one is withdrawn: ``normalized`` is the new query's text, so that a guard
        that reads either sees it, and ``is_read_only`` is false (unknown counts as writing). ``tables`` stays, since
        an empty list would hide tables from a guard; the attribute ``hookline.rewritten_by`` says that it may be out
        of date.
        """
        self._fields["query"] = query
        self._fields["is_read_only"] = False
        attributes = self._context.setdefault("attributes", {})
        attributes[REWRITTEN_BY] = by
        _normalize(self._fields, attributes)
        self.data = orjson.dumps(self._document)
        self.rewritten = True

    def change_ttl(self, ttl_ms: int) -> None:
        """Go on with another time to live."""
        self._fields["ttl_ms"] = ttl_ms
        self.data = orjson.dumps(self._document)


def request_id_of(given: object) -> str:
    """The request id that was given, where it can be one; else a new one."""
    return given if isinstance(given, str) and 0 < len(given) <= MAX_REQUEST_ID else os.urandom(8).hex()


def read_call(hook: Hook, body: bytes) -> Call:
    """A proxy's call; raises InputError where it is not JSON, says a name twice, or a field has a wrong type."""
    check_cost(body)
    look = LOOKS.get(hook)
    if look is not None and (found := accelerator.scan(look, body)) is not None:
        return Call(hook, body, found[0])
    return read_document(hook, read_json(body), body)


def read_json(body: bytes) -> Any:
    """What the body says.

    Raises InputError where it is not JSON, has a name twice in one object, or is too deep to be written again.
    """
    document, twice = parse_json(body)
    if twice:
        raise InputError(twice_sentence(read_marked(body)))
    return document


def check_cost(body: bytes) -> None:
    """Raises InputError where parsing the body would make more than ``MAX_VALUES``. Nothing is done for small ones."""
    if len(body) >= MAX_VALUES:
        try:
            json_cost.check(body, what="the body", max_values=MAX_VALUES)
        except json_cost.CostError as error:
            raise InputError(str(error)) from None


def parse_json(body: bytes) -> tuple[Any, bool]:
    """What the body says, and whether a name stands twice in any object of it, so that readers differ about it.

    Raises InputError where it is not JSON, has too many values, or is too deep to be written again.
    """
    check_cost(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from None
    try:
        return document, _says_twice(body, document)
    except orjson.JSONEncodeError:  # four times as deep can be read as can be written, which a rewrite will want to do
        raise InputError("the body is nested too deeply") from None


class Repeated(str):
    """A name that stands twice in an object; in ``read_marked`` it is in that object's place."""

    __slots__ = ()


def read_marked(body: bytes) -> Any:
    """What ``parse_json`` took, with a ``Repeated`` in place of each object that says a name twice.

    Of numbers it has the lengths. None for a body over a mebibyte: this is slow, and takes an object for each member.
    """

    def mark(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        seen: set[str] = set()
        return Repeated(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]

    if len(body) > _MAX_MARKED:
        return None
    return json.loads(body.decode(), object_pairs_hook=mark, parse_int=len, parse_float=len)


def repeated_in(marked: Any) -> Repeated | None:
    """The first ``Repeated`` of what ``read_marked`` gave; None where there is none."""
    left = [marked]
    while left:
        each = left.pop()
        if type(each) is Repeated:
            return each
        if isinstance(each, list | dict):
            left.extend(reversed(each if isinstance(each, list) else each.values()))
    return None


def twice_sentence(marked: Any) -> str:
    """What is wrong with what ``read_marked`` gave, for people."""
    name = repeated_in(marked)
    what = "a name" if name is None else f"the name {str(name)!r:.60}"
    return f"{what} stands twice in one object, and readers differ in which one they take"


def _says_twice(raw: bytes, document: Any) -> bool:
    """Whether a name stands twice in any object of ``raw``, JSON that ``document`` was read from.

    Each member has a colon, and a reader drops one of two members with the same name. So the text has more colons
    than what is written of the document, and the same number where no name stands twice: what strings hold of them is
    in both, though perhaps escaped in the text. Raises orjson.JSONEncodeError where the document is too deep.
    """
    colons = raw.count(b":")
    if b"\\u003" in raw:
        plain = raw.replace(b"\\\\", b"")  # of a row of backslashes, the last one escapes if their number is odd
        colons += plain.count(b"\\u003a") + plain.count(b"\\u003A")
    return colons != orjson.dumps(document).count(b":")


def read_document(hook: Hook, document: Any, body: bytes | None = None) -> Call:
    """As ``read_call``, from what ``read_json`` gave; without ``body`` the guests' bytes are written anew."""
    if (
        type(document) is dict
        and (shape := SHAPES.get(hook)) is not None
        and (request_id := shape.fits(document)) is not None
    ):
        data = orjson.dumps(document) if body is None else body
        call = Call(hook, data, orjson.dumps(request_id))
        call.know(document, document, document["hook_context"])
        return call
    if hook is Hook.CUSTOM:
        fields = document if isinstance(document, dict) else {}
        context = fields.get("hook_context")
        request_id = context.get("request_id") if isinstance(context, dict) else None
        data = orjson.dumps(document) if body is None else body
        call = Call(hook, data, orjson.dumps(request_id_of(request_id)))
        call.know(document, fields, {})
        return call
    head = document
    if hook is Hook.POST_QUERY:
        if not isinstance(document, list) or len(document) != 2:  # noqa: PLR2004 - [context, outcome]
            raise InputError("the body is not an array of two elements, [context, outcome]")
        head = document[0]
    if not isinstance(head, dict):
        raise InputError("the body is not a JSON object")
    missing = _complete(head, TABLES[hook], "")
    unsaid = frozenset(missing)
    if hook is Hook.POST_QUERY:
        if not isinstance(document[1], dict):
            raise InputError("the outcome is not a JSON object", field="[1]")
        missing += _complete(document[1], OUTCOME, "[1].")
    for field in STRINGS[hook]:
        _check_strings(head[field], field)
    if hook is Hook.AUTHORIZE and head["identity"] is not None:
        missing += _complete(head["identity"], IDENTITY, "identity.")
        _check_strings(head["identity"]["roles"], "identity.roles")
    context = head["hook_context"]
    missing += _complete(context, CONTEXT, "hook_context.")
    _check_attributes(context["attributes"])
    request_id = context["request_id"]
    if not request_id:
        in_headers = head["headers"].get("x-request-id") if hook is Hook.AUTHENTICATE else None
        context["request_id"] = request_id = request_id_of(in_headers)
        missing.append("request_id")
    elif len(request_id) > MAX_REQUEST_ID:
        raise InputError(f"longer than {MAX_REQUEST_ID} characters", field="hook_context.request_id")
    if "normalized" in NAMES[hook] and head["query"] and not head["normalized"]:
        _normalize(head, context["attributes"])
        missing.append("normalized")
    data = orjson.dumps(document) if missing or body is None else body
    call = Call(hook, data, orjson.dumps(request_id))
    call.know(document, head, context, unsaid=unsaid)
    return call


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _normalize(fields: dict[str, Any], attributes: dict[str, str]) -> None:
    """What stands for a normalized query that nobody made: the query itself, as HeliosDB's own host has it."""
    fields["normalized"] = fields["query"]
    attributes[NORMALIZED] = VERBATIM


def _check_strings(found: list[Any] | dict[str, Any], field: str) -> None:
    """An array's elements, or an object's values, are strings."""
    for value in found.values() if isinstance(found, dict) else found:
        if type(value) is not str:
            raise InputError("holds something that is not a string", field=field)


def _check_attributes(attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if type(value) is not str:
            raise InputError("is not a string", field=f"hook_context.attributes.{name:.60}")


def _complete(target: dict[str, Any], fields: Fields, where: str) -> list[str]:
    """Fill in what is missing, and check the types of the rest; the names that were missing.

    A null is as good as missing where a string may be left out. Numbers count something: HeliosDB's SDK reads them into
    types without a sign, and a negative one would fail a guest's whole input.
    """
    missing = []
    for name, kinds, default in fields:
        if name not in target or (target[name] is None and kinds == TEXT and default is not REQUIRED):
            if default is REQUIRED:
                raise InputError("is missing", field=where + name)
            target[name] = default() if callable(default) else default
            missing.append(name)
        elif type(target[name]) not in kinds:
            raise InputError(f"is not {_named(kinds)}", field=where + name)
        elif int in kinds and (target[name] or 0) < 0:
            raise InputError("is below 0", field=where + name)
    return missing


def _named(kinds: tuple[type, ...]) -> str:
    names = {
        str: "a string", bool: "true or false", int: "an integer", list: "an array", dict: "an object",
        types.NoneType: "null",
    }  # fmt: skip
    return " or ".join(names[kind] for kind in kinds)
