"""What a proxy sends: checked, completed, and handed to guests byte for byte where nothing was missing.

The checks come from the contract's models, compiled once into tables of field names and types. A full
validation by the models would cost more than most plugins; the hook road needs no more than the certainty that
a guest finds every field of ``docs/hooks.md``, with its type, whatever the proxy left out.
"""

from __future__ import annotations

import itertools
import operator
import os
import types
import typing
from typing import Any, Final

import orjson
from pydantic import BaseModel

from hookline_api.hooks import INPUTS, Hook, HookContext, Outcome
from hookline_runtime import accelerator
from hookline_runtime.errors import InputError

_Fields = tuple[tuple[str, tuple[type, ...], Any], ...]
_REQUIRED: Final = object()
_REWRITTEN_BY: Final = "hookline.rewritten_by"
_MAX_REQUEST_ID: Final = 256
_ALWAYS_WRITABLE: Final = 200
"""Brackets that cannot be nested deeper than orjson writes (254)."""


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
        """A call whose data says all that is to be known of it; else ``know`` is told the rest."""
        self.hook = hook
        self.data = data
        """What a guest gets."""
        self.quoted_id = quoted_id
        """The request id as JSON."""

    def __getattr__(self, name: str) -> Any:
        """Look into the data when somebody asks for the first time: few do."""
        if name not in _FOUND_OUT:
            raise AttributeError(name)
        document = orjson.loads(self.data)
        self.know(document, document, document.get("hook_context", {}))
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
        """From the hook context, or from an authentication."""
        return _string(self._context.get("database") or self._fields.get("database"))

    @property
    def user(self) -> str | None:
        """From the hook context, or from an authentication."""
        return _string(self._context.get("identity") or self._fields.get("username"))

    @property
    def application(self) -> str | None:
        """The attribute ``application_name``."""
        return _string((self._context.get("attributes") or {}).get("application_name"))

    @property
    def ttl_ms(self) -> int | None:
        """Of ``cache_set``: what is asked for now."""
        found: int | None = self._fields.get("ttl_ms")
        return found

    def rewrite(self, query: str, by: str) -> None:
        """Go on with another query.

        What the proxy said about the old one is withdrawn: ``normalized`` is null, ``is_read_only`` is false
        (unknown counts as writing). ``tables`` stays, since an empty list would hide tables from a guard; the
        attribute ``hookline.rewritten_by`` says that it may be out of date.
        """
        self._fields["query"] = query
        self._fields["normalized"] = None
        self._fields["is_read_only"] = False
        self._context.setdefault("attributes", {})[_REWRITTEN_BY] = by
        self.data = orjson.dumps(self._document)
        self.rewritten = True

    def change_ttl(self, ttl_ms: int) -> None:
        """Go on with another time to live."""
        self._fields["ttl_ms"] = ttl_ms
        self.data = orjson.dumps(self._document)


def read_call(hook: Hook, body: bytes) -> Call:
    """A proxy's call; raises InputError where it is no JSON or a field has a wrong type."""
    told = LOOKS.get(hook)
    if told is not None and (found := accelerator.scan(told, body)) is not None:
        return Call(hook, body, found[0])
    return read_document(hook, read_json(body), body)


def read_json(body: bytes) -> Any:
    """What the body says; raises InputError where it is no JSON, or too deep to be written again."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is no JSON: {error}") from None
    if len(body) > 2 * _ALWAYS_WRITABLE and body.count(b"[") + body.count(b"{") > _ALWAYS_WRITABLE:
        _check_depth(document)
    return document


def read_document(hook: Hook, document: Any, body: bytes | None = None) -> Call:
    """As ``read_call``, from what ``read_json`` gave; without ``body`` the guests' bytes are written anew."""
    if (
        type(document) is dict
        and (shape := _SHAPES.get(hook)) is not None
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
    missing = _complete(head, _TABLES[hook], "")
    unsaid = frozenset(missing)
    if hook is Hook.POST_QUERY:
        if not isinstance(document[1], dict):
            raise InputError("the outcome is not a JSON object", field="[1]")
        missing += _complete(document[1], _OUTCOME, "[1].")
    for field in _STRINGS[hook]:
        _check_strings(head[field], field)
    if "hook_context" in _NAMES[hook]:
        context = head["hook_context"]
        missing += _complete(context, _CONTEXT, "hook_context.")
        _check_attributes(context["attributes"])
        request_id = context["request_id"]
        if not request_id:
            context["request_id"] = request_id = request_id_of(None)
            missing.append("request_id")
        elif len(request_id) > _MAX_REQUEST_ID:
            raise InputError(f"longer than {_MAX_REQUEST_ID} characters", field="hook_context.request_id")
    else:
        context = {}
        request_id = request_id_of(head["headers"].get("x-request-id"))
    data = orjson.dumps(document) if missing or body is None else body
    call = Call(hook, data, orjson.dumps(request_id))
    call.know(document, head, context, unsaid=unsaid)
    return call


class _Shape:
    """The calls that need nothing done: every field is there, with one of its types.

    Types are compared all at once: those of a whole object, in the order of its fields, are one of a few tuples.
    """

    __slots__ = ("_contexts", "_fields", "_has_tables", "_shapes")

    def __init__(self, fields: _Fields) -> None:
        names = [name for name, _, _ in fields]
        self._fields = operator.itemgetter(*names)
        self._shapes = frozenset(itertools.product(*(kinds for _, kinds, _ in fields)))
        self._has_tables = "tables" in names

    def fits(self, document: dict[str, Any]) -> str | None:
        """The call's request id, where it is complete; None where it has to be looked at field by field."""
        try:
            if (*map(type, self._fields(document)),) not in self._shapes:
                return None
            values = _CONTEXT_FIELDS(document["hook_context"])
        except KeyError:
            return None
        if (*map(type, values),) not in _CONTEXT_SHAPES:
            return None
        request_id: str | None = values[_REQUEST_ID_AT]
        attributes = values[_ATTRIBUTES_AT]
        if not request_id or len(request_id) > _MAX_REQUEST_ID:
            return None
        if attributes and not _ONLY_STRINGS.issuperset(map(type, attributes.values())):
            return None
        if self._has_tables and not _ONLY_STRINGS.issuperset(map(type, document["tables"])):
            return None
        return request_id


def request_id_of(given: object) -> str:
    """The request id that was given, where it can be one; else a new one."""
    return given if isinstance(given, str) and 0 < len(given) <= _MAX_REQUEST_ID else os.urandom(8).hex()


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _check_depth(document: Any) -> None:
    # What is read may be nested four times as deep as what can be written, which a rewrite will want to do.
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise InputError("the body is nested too deeply") from None


def _check_strings(found: list[Any] | dict[str, Any], field: str) -> None:
    """An array's elements, or an object's values, are strings."""
    for value in found.values() if isinstance(found, dict) else found:
        if type(value) is not str:
            raise InputError("holds something that is not a string", field=field)


def _check_attributes(attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if type(value) is not str:
            raise InputError("is not a string", field=f"hook_context.attributes.{name:.60}")


def _complete(target: dict[str, Any], fields: _Fields, where: str) -> list[str]:
    """Fill in what is missing, and check the types of the rest; the names that were missing."""
    missing = []
    for name, kinds, default in fields:
        if name not in target:
            if default is _REQUIRED:
                raise InputError("is missing", field=where + name)
            target[name] = default() if callable(default) else default
            missing.append(name)
        elif type(target[name]) not in kinds:
            raise InputError(f"is not {_named(kinds)}", field=where + name)
    return missing


def _named(kinds: tuple[type, ...]) -> str:
    names = {
        str: "a string", bool: "true or false", int: "an integer", list: "an array", dict: "an object",
        types.NoneType: "null",
    }  # fmt: skip
    return " or ".join(names[kind] for kind in kinds)


def _table(model: type[BaseModel]) -> _Fields:
    fields = []
    for name, info in model.model_fields.items():
        default: Any = _REQUIRED
        if not info.is_required():
            default = info.default_factory or info.default
            if isinstance(default, type) and issubclass(default, BaseModel):
                default = dict
        fields.append((name, _kinds(info.annotation), default))
    return tuple(fields)


def _kinds(annotation: Any) -> tuple[type, ...]:
    options = typing.get_args(annotation) if typing.get_origin(annotation) is types.UnionType else (annotation,)
    return tuple(_kind(option) for option in options)


def _kind(option: Any) -> type:
    if isinstance(option, type) and issubclass(option, BaseModel):
        return dict
    found: type = typing.get_origin(option) or option
    return found


_TABLES: Final = {hook: _table(model) for hook, model in INPUTS.items() if model is not None}
_NAMES: Final = {hook: frozenset(name for name, _, _ in table) for hook, table in _TABLES.items()}
_STRINGS: Final = {hook: sorted(names & {"tables", "headers"}) for hook, names in _NAMES.items()}
_CONTEXT: Final = _table(HookContext)
_OUTCOME: Final = _table(Outcome)
_ONLY_STRINGS: Final = frozenset({str})
_CONTEXT_NAMES: Final = [name for name, _, _ in _CONTEXT]
_CONTEXT_FIELDS: Final = operator.itemgetter(*_CONTEXT_NAMES)
_CONTEXT_SHAPES: Final = frozenset(itertools.product(*(kinds for _, kinds, _ in _CONTEXT)))
_REQUEST_ID_AT: Final = _CONTEXT_NAMES.index("request_id")
_ATTRIBUTES_AT: Final = _CONTEXT_NAMES.index("attributes")
_SHAPES: Final[dict[Hook, _Shape]] = {
    hook: _Shape(table)
    for hook, table in _TABLES.items()
    if "hook_context" in _NAMES[hook] and hook is not Hook.POST_QUERY
}


def look(hook: Hook, facts: frozenset[str] = frozenset()) -> bytes | None:
    """What ``accelerator.scan`` is told of a hook: what a ``_Shape`` wants, and which facts of ``Call`` are asked for.

    None where the accelerator does not look at such calls, or is not there.
    """
    if accelerator.scan is None or hook not in _SHAPES:
        return None
    places = {place: mark for mark, place in enumerate(_PLACES, _FIRST_MARK) if _PLACES[place] in facts}
    packed = []
    for where, fields in ("", _TABLES[hook]), ("hook_context", _CONTEXT), ("attributes", ()):
        wanted = [
            (name, sum(_KIND_BITS[kind] for kind in kinds), _ROLES.get(name, 0), places.pop((where, name), 0))
            for name, kinds, _ in fields
        ]
        more = [(name, _ANY_KIND, 0, mark) for (inside, name), mark in places.items() if inside == where]
        packed.append(accelerator.shape(wanted + more, len(wanted)))
    return b"".join(packed)


_FOUND_OUT: Final = frozenset({"_context", "_document", "_fields", "rewritten", "unsaid"})
_KIND_BITS: Final[dict[type, int]] = {
    types.NoneType: 1, bool: 2, int: 4, float: 8, str: 16, list: 32, dict: 64,
}  # fmt: skip
_ANY_KIND: Final = 0x7F
_FIRST_MARK: Final = 0x10
"""From here on to 0x1f, no byte is in JSON."""
_ROLES: Final = {"hook_context": 1, "attributes": 2, "tables": 3, "request_id": 4, "query": 5}
"""What is more to a field than its kind, in the numbers of ``accelerator.c``."""
_PLACES: Final = {
    ("hook_context", "database"): "database", ("", "database"): "database",
    ("hook_context", "identity"): "user", ("", "username"): "user",
    ("attributes", "application_name"): "application",
    ("", "tables"): "tables",
    ("", "is_read_only"): "classes", ("", "query"): "classes",
}  # fmt: skip
"""Where a ``Call`` finds what ``match`` reads of it: the object's name, empty for the document, and the field's."""
LOOKS: Final = {hook: told for hook in _SHAPES if (told := look(hook)) is not None}
"""For ``accelerator.scan``: which inputs are complete. Empty without the accelerator."""
ANY_OBJECT: Final = accelerator.shape([], 0) * 3
"""As a look: any object, of which nothing is asked."""
