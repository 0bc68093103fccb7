"""What the contract's models say of a hook's fields, as tables; and calls that fit one at a glance.

A full validation by the models would cost more than most plugins, so they are compiled once, into names and types.
"""

from __future__ import annotations

import itertools
import operator
import types
import typing
from typing import Any, Final

from pydantic import BaseModel

from hookline_api.hooks import INPUTS, Hook, HookContext, Identity, Outcome

Fields = tuple[tuple[str, tuple[type, ...], Any], ...]
"""Of an object's fields: the name, the types that its values have, and what stands for one that is left out."""
TEXT: Final = (str,)
REQUIRED: Final = object()
"""In place of a default: the field may not be left out."""
MAX_REQUEST_ID: Final = 256
"""Characters."""


def _table(model: type[BaseModel]) -> Fields:
    fields = []
    for name, info in model.model_fields.items():
        default: Any = REQUIRED
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


TABLES: Final = {hook: _table(model) for hook, model in INPUTS.items() if model is not None}
NAMES: Final = {hook: frozenset(name for name, _, _ in table) for hook, table in TABLES.items()}
STRINGS: Final = {hook: sorted(names & {"tables", "headers"}) for hook, names in NAMES.items()}
CONTEXT: Final = _table(HookContext)
OUTCOME: Final = _table(Outcome)
IDENTITY: Final = _table(Identity)
_ONLY_STRINGS: Final = frozenset({str})
_CONTEXT_NAMES: Final = [name for name, _, _ in CONTEXT]
_CONTEXT_FIELDS: Final = operator.itemgetter(*_CONTEXT_NAMES)
_CONTEXT_SHAPES: Final = frozenset(itertools.product(*(kinds for _, kinds, _ in CONTEXT)))
_REQUEST_ID_AT: Final = _CONTEXT_NAMES.index("request_id")
_ATTRIBUTES_AT: Final = _CONTEXT_NAMES.index("attributes")
AT_ONCE: Final[dict[Hook, Fields]] = {
    # An identity has fields of its own to be looked at.
    hook: tuple((name, (types.NoneType,) if name == "identity" else kinds, default) for name, kinds, default in table)
    for hook, table in TABLES.items()
    if "hook_context" in NAMES[hook] and hook not in (Hook.POST_QUERY, Hook.AUTHENTICATE)
}
"""What the fields have to be of calls that are looked at all at once."""


class Shape:
    """The calls that need nothing done: every field is there, with one of its types.

    Types are compared all at once: those of a whole object, in the order of its fields, are one of a few tuples.
    """

    __slots__ = ("_fields", "_is_query", "_numbers", "_shapes")

    def __init__(self, fields: Fields) -> None:
        names = [name for name, _, _ in fields]
        self._fields = operator.itemgetter(*names)
        self._shapes = frozenset(itertools.product(*(kinds for _, kinds, _ in fields)))
        self._is_query = "query" in names
        self._numbers = [name for name, kinds, _ in fields if int in kinds]

    def fits(self, document: dict[str, Any]) -> str | None:
        """The call's request id, where it is complete; None where it has to be looked at field by field."""
        try:
            if (*map(type, self._fields(document)),) not in self._shapes:
                return None
            values = _CONTEXT_FIELDS(document["hook_context"])
        except KeyError:
            return None
        for name in self._numbers:
            if (document[name] or 0) < 0:
                return None
        if (*map(type, values),) not in _CONTEXT_SHAPES:
            return None
        request_id: str | None = values[_REQUEST_ID_AT]
        attributes = values[_ATTRIBUTES_AT]
        if not request_id or len(request_id) > MAX_REQUEST_ID:
            return None
        if attributes and not _ONLY_STRINGS.issuperset(map(type, attributes.values())):
            return None
        if self._is_query and not (document["normalized"] and _ONLY_STRINGS.issuperset(map(type, document["tables"]))):
            return None
        return request_id


SHAPES: Final = {hook: Shape(fields) for hook, fields in AT_ONCE.items()}
"""By hook, where it has a context."""
