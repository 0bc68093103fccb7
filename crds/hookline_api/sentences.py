"""Sentences that operator and sidecars both say, so that a person meets one wording everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hookline_api.permissions import Permission
from hookline_api.text import did_you_mean, found

if TYPE_CHECKING:
    from pydantic import ValidationError

    from hookline_api.bundle import LoadCause

_PRIVATE: Final = frozenset({"config", "url", "kv", "egress", "data", "stringData"})
"""Fields whose values may be nobody else's business: settings, and what may hold a password."""
_FROM: Final = "From"
"""How a field ends that names a Secret's key. Who takes it for the value itself writes a password there."""
_SHAPES: Final = frozenset({"model_type", "model_attributes_type", "dict_type", "list_type"})
"""Errors about text and numbers where fields or items belong: a whole URL with its password, perhaps."""
_OF_NAMES: Final = frozenset({"missing", "extra_forbidden"})
"""Errors that are not about a value."""
_MOST: Final = 40
_MESSAGES: Final = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "string_type": "is not text: put it in quotes if it is a number, or a word such as yes and null",
    "int_type": "is not a whole number of 64 bits: write it in digits, without quotes",
    "bool_type": "is neither true nor false: write one of them, without quotes",
    "model_type": "is not a mapping: write its fields below it",
    "dict_type": "is not a mapping: write its fields below it",
    "list_type": "is not a list: write each of its items with - in front",
}
"""By pydantic's type of the error."""
_LABEL: Final = "must consist of at most 63 lower-case letters, digits and '-', and begin and end without '-'"
_PATTERNS: Final = {
    "name": "must consist of lower-case letters, digits, '-' and '.', and begin and end with a letter or digit",
    "sha256": "must be a SHA-256 of 64 hex digits in lower case, with nothing in front",
    "url": "must be a URL that begins with http:// or https://, in lower case",
    "valkey.url": "must be redis://HOST:PORT/NUMBER, or rediss:// for TLS; user and password have fields of their own",
    "path": "must be a path such as upstream.token",
    "dataSources.name": _LABEL,
    "caches.name": _LABEL,
    "host": "must be the name or the address of a host, with nothing around it",
    "egress.host": "must be a name, an address, or *. and a domain, with nothing around it",
    "paths": "must begin with /",
    "addresses": "must be an address or a network, such as 10.1.0.0/16",
    "header": "must be a header's name: letters, digits and '-', at most 64",
    "prefix": "must be printable ASCII",
}
"""By the field, or the field within another one, for a text that does not match its pattern."""
_PERMISSIONS: Final = ", ".join(Permission) + ", query.execute:SOURCE, custom.NAME"
_OF_PERMISSIONS: Final = frozenset({"string_pattern_mismatch", "string_too_long", "string_type"})
_RULE: Final = "must be a mapping with a host, or scheme://host:port with http or https"


class Problem(NamedTuple):
    """One thing that is wrong with a document."""

    path: str
    """Of the field, such as ``spec.hooks[0]``."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def problems(error: ValidationError, *, most: int | None = None) -> list[Problem]:
    """What is wrong with a document, for whoever wrote it: with what was found there, where that may be said."""
    return [_problem(each) for each in error.errors(include_url=False)[:most]]


def first(error: ValidationError, *, most: int = 500) -> str:
    """The first of ``problems`` in one sentence."""
    return str(_problem(error.errors(include_url=False)[0]))[:most]


def without_values(error: ValidationError) -> str:
    """Where a message or a kept file is wrong, without anything that it holds: that may be the value of a Secret."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{path_of(wrong['loc']):.200}: {wrong['msg'].removeprefix('Value error, '):.200}"


def unknown_fields(error: ValidationError) -> list[str]:
    """The paths of fields that the model does not have."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    return [path_of(each["loc"]) for each in wrong if each["type"] == "extra_forbidden"]


def path_of(location: tuple[int | str, ...]) -> str:
    """A path into a document as kubectl writes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _problem(error: Any) -> Problem:
    text = _MESSAGES.get(error["type"], error["msg"]).removeprefix("Value error, ")
    fields = [part for part in error["loc"] if isinstance(part, str)]
    if fields[-1:] == ["permissions"] and error["type"] in _OF_PERMISSIONS:
        return Problem(path_of(error["loc"]), _permission(error["input"]))
    if error["type"] == "string_pattern_mismatch":
        text = _PATTERNS.get(".".join(fields[-2:])) or _PATTERNS.get(fields[-1] if fields else "", text)
    elif error["type"] == "model_type" and fields[-1:] == ["egress"]:
        text = _RULE
    return Problem(path_of(error["loc"]), text + found_in(error))


def _permission(written: Any) -> str:
    meant = did_you_mean(written, Permission)
    return f"{found(written)} is not a permission{meant}; the permissions are {_PERMISSIONS}"


def found_in(error: Any) -> str:
    """``, found "many"`` for one of a ValidationError's ``errors()``; empty where that may not be said."""
    value = error.get("input")
    if error["type"] in _OF_NAMES or any(map(_is_private, error["loc"])):
        return ""
    if error["type"] in _SHAPES and isinstance(value, str):
        return ", found text"
    if error["type"].endswith("_type") and isinstance(value, list | dict | None):
        return f", found {found(value)}"
    if isinstance(value, str | bool | int | float) and str(value) not in error["msg"]:
        return f", found {found(value, _MOST)}"
    return ""


def _is_private(part: int | str) -> bool:
    return isinstance(part, str) and (part in _PRIVATE or (part.endswith(_FROM) and part != "configFrom"))


def first_load_choice(cause: LoadCause) -> str:
    """What its author may choose for a plugin that has never been loaded and keeps pods from starting.

    Empty for ``verify``: what is not the module that was asked for never opens anything.
    """
    return "" if cause == "verify" else f"spec.failurePolicy.{cause}: Open lets pods start without it"
