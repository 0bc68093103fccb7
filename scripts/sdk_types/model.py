"""The contract's inputs and answers, as plainly as every language can say them.

It is read from the models of ``hookline_api.hooks``: what is written twice is wrong once.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from hookline_api.abi import HOST_FUNCTIONS, HostFunction
from hookline_api.described import describe
from hookline_api.hooks import DEFAULTS, INPUTS, OBSERVERS, RESULTS, Hook, Outcome

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Kind(StrEnum):
    """What a field holds."""

    TEXT = "text"
    FLAG = "flag"
    INTEGER = "integer"
    """Of 64 bits."""
    TEXTS = "texts"
    """A list of texts."""
    MAP = "map"
    """Texts by text."""
    JSON = "json"
    """Any JSON."""
    OBJECT = "object"
    """Another of the structures, ``Field.of``."""
    BYTES = "bytes"
    """Of an answer: base64 in JSON, under the name ``<field>_base64``."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a structure or of an answer."""

    name: str
    kind: Kind
    of: str | None
    """The name of the structure, where it holds one."""
    required: bool
    """An input without it is malformed. One that is not required and not there is empty: "", 0, false, {}, []."""
    nullable: bool
    """Its being null or absent means something of its own. Where it is not nullable, null is as if it were absent."""
    text: str
    """What it is, in Markdown; may be empty."""


@dataclass(frozen=True, kw_only=True)
class Struct:
    """An object of inputs. What an input has beyond its fields is ignored: a newer host may say more."""

    name: str
    text: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One of the answers to a hook: the value of ``action``, and the fields beside it."""

    action: str
    text: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class HookShape:
    """One hook: what it is called with and what it may answer."""

    hook: Hook
    inputs: tuple[str, ...]
    """Names of structures: one, or the elements of an array (``post_query``), or none: any JSON (``custom_hook``)."""
    answers: tuple[Answer, ...]
    """None where it observes, and of ``custom_hook``, which answers any JSON as it is, or nothing."""
    default: str
    """The action that no answer (0) means."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """All that a language's types are made from."""

    structs: tuple[Struct, ...]
    """Each behind those that it holds."""
    hooks: tuple[HookShape, ...]
    functions: dict[tuple[str, str], HostFunction]
    """What the host offers, by module and name."""


_PLAIN: Final = {str: Kind.TEXT, bool: Kind.FLAG, int: Kind.INTEGER, Any: Kind.JSON}
_DECIDED_BY: Final = {"action", "plugin", "request_id", "bundle", "failure"}
"""What of a decision is not the guest's to say, and ``action``, which ``Answer.action`` says."""


def _field(name: str, info: FieldInfo) -> Field:
    kind, of, nullable = _kind(info.annotation)
    if kind is Kind.BYTES:  # either they or the same in base64: one of both has to be there
        return Field(name=name, kind=kind, of=None, required=True, nullable=False, text="")
    text = " ".join((info.description or "").split())
    return Field(name=name, kind=kind, of=of, required=info.is_required(), nullable=nullable, text=text)


def _kind(annotation: Any) -> tuple[Kind, str | None, bool]:
    """The kind, the structure's name, and whether it is nullable."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in {Union, types.UnionType}:
        (inner,) = (each for each in arguments if each is not type(None))
        kind, of, _ = _kind(inner)
        return kind, of, True
    if origin is list:
        item = _kind(arguments[0])[0]
        return {Kind.TEXT: Kind.TEXTS, Kind.INTEGER: Kind.BYTES}[item], None, False
    if origin is dict:
        return (Kind.MAP if arguments[1] is str else Kind.JSON), None, False
    if annotation in _PLAIN:
        return _PLAIN[annotation], None, False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Kind.OBJECT, annotation.__name__, False
    raise TypeError(f"{annotation} is a type that no language's writer knows; say in scripts/sdk_types what it becomes")


def _struct(model: type[BaseModel]) -> Struct:
    describe(model)
    fields = tuple(_field(name, info) for name, info in model.model_fields.items())
    return Struct(name=model.__name__, text=" ".join((model.__doc__ or "").split()), fields=fields)


def _structs() -> tuple[Struct, ...]:
    found: dict[str, Struct] = {}

    def add(model: type[BaseModel]) -> None:
        for info in model.model_fields.values():
            for each in (info.annotation, *get_args(info.annotation)):
                if isinstance(each, type) and issubclass(each, BaseModel):
                    add(each)
        found.setdefault(model.__name__, _struct(model))

    for model in (*INPUTS.values(), Outcome):
        if model is not None:
            add(model)
    return tuple(found.values())


def _answers(hook: Hook) -> tuple[Answer, ...]:
    if hook in OBSERVERS or hook is Hook.CUSTOM:
        return ()
    found = []
    for model in RESULTS[hook]:
        describe(model)
        own = [_field(name, info) for name, info in model.model_fields.items() if name not in _DECIDED_BY]
        fields = tuple(each for each in own if each.name != "data_base64")  # the same bytes as ``data``
        literal = model.model_fields["action"].annotation
        if get_origin(literal) is not Literal:
            raise TypeError(f"{model.__name__}.action is no Literal")
        text = " ".join((model.__doc__ or "").split())
        found += [Answer(action=action, text=text, fields=fields) for action in get_args(literal)]
    return tuple(found)


def read() -> Contract:
    """The contract as it is now."""
    shapes = []
    for hook in Hook:
        model = INPUTS[hook]
        names = () if model is None else (model.__name__,)
        if hook is Hook.POST_QUERY:
            names = (*names, Outcome.__name__)
        shapes.append(HookShape(hook=hook, inputs=names, answers=_answers(hook), default=DEFAULTS[hook]))
    return Contract(structs=_structs(), hooks=tuple(shapes), functions=dict(HOST_FUNCTIONS))
