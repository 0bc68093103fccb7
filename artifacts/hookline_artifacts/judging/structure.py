"""What the API server has against a document that its definition describes: names, types, nulls, lists, metadata.

It does what the API server does with ``fieldValidation: Strict``, as kubectl asks. What the models say in better
sentences (ranges, patterns, choices, the rules in CEL) is theirs: ``plugins`` and ``policies``.

Structural schemas: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ .
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hookline_api.text import found, readable

Json = dict[str, Any]

_MAX: Final = 200
"""Sentences about one document."""
_METADATA: Final = (
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid",
    "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink",
    "managedFields",
)  # fmt: skip
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/"""
_TOP: Final = ("apiVersion", "kind", "metadata", "spec", "status")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MAX_NAME: Final = 253
_MAX_ANNOTATIONS: Final = 256 * 1024
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}
_ASKED: Final = {
    "string": "must be text: put it in quotes",
    "integer": "must be a whole number, without quotes",
    "number": "must be a number, without quotes",
    "boolean": "must be true or false, without quotes",
    "object": "must be a mapping",
    "array": "must be a list",
}


def against_schema(document: Json, schema: Json) -> list[str]:
    """What is wrong with a document, by its definition's ``openAPIV3Schema``: sentences that begin with a path."""
    unknown = (f"{readable(name, 80)}: {_unknown(name, _TOP)}" for name in document if name not in _TOP)
    wrong = _walk(document.get("spec"), schema["properties"]["spec"], "spec")
    return list(itertools.islice(itertools.chain(unknown, wrong, _metadata(document)), _MAX))


def without_nulls(value: Any, schema: Json, where: str = "spec") -> tuple[Any, list[str]]:
    """A spec as the API server reads it, without the fields that are null, and their paths."""
    dropped: list[str] = []

    def kept(node: Any, of: Json, at: str) -> Any:
        if isinstance(node, list):
            return [kept(each, of.get("items", {}), f"{at}[{index}]") for index, each in enumerate(node)]
        if not isinstance(node, dict) or of.get("x-kubernetes-preserve-unknown-fields"):
            return node
        fields, more, found = of.get("properties", {}), of.get("additionalProperties"), {}
        for name, part in node.items():
            known = fields.get(name, more if isinstance(more, dict) else None)
            if part is None and known is not None and not known.get("nullable"):
                dropped.append(f"{at}.{name}")
            else:
                found[name] = part if known is None else kept(part, known, f"{at}.{name}")
        return found

    return kept(value, schema, where), dropped


def meant(name: str, known: list[str]) -> str:
    """The end of a sentence about a name that is unknown: the one that may be meant, or all."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    # Of fields that differ only in their case or their lines, the nearest is not the first by likeness.
    plain = {re.sub("[-_]", "", each).lower(): each for each in known}
    same = plain.get(re.sub("[-_]", "", name).lower())
    if same is not None or near:
        return f"; did you mean {same or near[0]}?"
    return f"; there are {', '.join(sorted(known)[:12])}" if known else ""


def _unknown(name: str, known: tuple[str, ...] | list[str]) -> str:
    return f"there is no such field{meant(readable(name, 80), list(known))}"


def _walk(value: Any, schema: Json, where: str) -> Iterator[str]:
    if value is None:
        if where == "spec":
            yield "spec: is missing"
        elif not schema.get("nullable"):
            yield f"{where}: is null; leave it out, or write a value"
        return
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{where}: must be text or a whole number, found {found(value)}"
        return
    if kind in _TYPES and not _is(value, str(kind)):
        yield f"{where}: {_ASKED[str(kind)]}, found {'text' if isinstance(value, str) else found(value)}"
        return
    if isinstance(value, dict):
        yield from _mapping(value, schema, where)
    elif isinstance(value, list):
        yield from _list(value, schema, where)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _mapping(value: Json, schema: Json, where: str) -> Iterator[str]:
    fields, more = schema.get("properties", {}), schema.get("additionalProperties")
    for name, part in value.items():
        at = f"{where}.{name}"
        if name in fields:
            yield from _walk(part, fields[name], at)
        elif isinstance(more, dict):
            yield from _walk(part, more, at)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{where}.{readable(name, 80)}: {_unknown(name, list(fields))}"
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}.{name}: is missing"


def _list(value: list[Any], schema: Json, where: str) -> Iterator[str]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", ())
    seen: set[str] = set()
    for index, each in enumerate(value):
        at = f"{where}[{index}]"
        yield from _walk(each, schema.get("items", {}), at)
        if kind == "set" or (kind == "map" and isinstance(each, dict)):
            same = repr(each) if kind == "set" else repr([each.get(key) for key in keys])
            if same in seen:
                yield f"{at}: is there twice" + ("" if kind == "set" else f": {', '.join(keys)} must differ")
            seen.add(same)


def _metadata(document: Json) -> Iterator[str]:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        yield "metadata: " + ("is missing: a document needs a name" if metadata is None else "must be a mapping")
        return
    for name in metadata:
        if name not in _METADATA:
            yield f"metadata.{readable(name, 80)}: {_unknown(name, _METADATA)}"
    yield from _names(metadata)
    labels = metadata.get("labels")
    for field, given in (("labels", labels), ("annotations", metadata.get("annotations"))):
        if given is not None and not isinstance(given, dict):
            yield f"metadata.{field}: must be a mapping"
            continue
        for key, value in (given or {}).items():
            yield from _entry(f"metadata.{field}", key, value, is_label=field == "labels")
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        total = sum(len(str(part).encode(errors="replace")) for pair in annotations.items() for part in pair)
        if total > _MAX_ANNOTATIONS:
            yield f"metadata.annotations: have {total} bytes together, more than {_MAX_ANNOTATIONS}"


def _names(metadata: Json) -> Iterator[str]:
    name, prefix, namespace = metadata.get("name"), metadata.get("generateName"), metadata.get("namespace")
    if name is None and prefix is None:
        yield "metadata.name: is missing"
    elif name is not None and (
        not isinstance(name, str) or len(name) > _MAX_NAME or _SUBDOMAIN.fullmatch(name) is None
    ):
        yield (
            "metadata.name: must consist of at most 253 lower-case letters, digits, '-' and '.', and each part between "
            f"dots must begin and end with a letter or digit, found {found(name)}"
        )
    if namespace is not None and (not isinstance(namespace, str) or _LABEL.fullmatch(namespace) is None):
        yield (
            "metadata.namespace: must consist of at most 63 lower-case letters, digits and '-', and begin and end "
            f"without '-', found {found(namespace)}"
        )


def _entry(where: str, key: Any, value: Any, *, is_label: bool) -> Iterator[str]:
    prefix, slash, name = str(key).rpartition("/")
    if _NAME.fullmatch(name) is None or (
        slash and (len(prefix) > _MAX_NAME or _SUBDOMAIN.fullmatch(prefix.lower()) is None)
    ):
        yield f"{where}: {readable(repr(key), 80)} is not a {'label' if is_label else 'annotation'} key"
    if not isinstance(value, str):
        yield f"{where}.{readable(str(key), 80)}: must be text: put it in quotes, found {found(value)}"
    elif is_label and value and _NAME.fullmatch(value) is None:
        yield (
            f"{where}.{readable(str(key), 80)}: must be at most 63 letters, digits, '-', '_' and '.', and begin and "
            f"end with a letter or digit, found {found(value)}"
        )
