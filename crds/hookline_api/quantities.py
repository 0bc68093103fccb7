"""Durations and sizes as people write them in manifests, held as plain integers.

``Duration`` is Go's notation restricted to whole units (``50ms``, ``2s``, ``5m``, ``1h30m``), held in
milliseconds. ``Size`` is a Kubernetes quantity (``16Mi``, ``1G``, ``512``), held in bytes. Both write
themselves back in the shortest exact notation, so a model that was read and written reads the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,8})m(?!s))?(?:([0-9]{1,9})s)?(?:([0-9]{1,12})ms)?")
_DURATION_PATTERN: Final = r"^([0-9]{1,6}h)?([0-9]{1,8}m)?([0-9]{1,9}s)?([0-9]{1,12}ms)?$"
_DURATION_UNITS: Final = ((3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))

_SIZE: Final = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi|Ti|k|M|G|T)?")
_SIZE_PATTERN: Final = r"^[0-9]{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SIZE_UNITS: Final = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
}  # fmt: skip
_SIZE_MAX: Final = 2**53


def parse_duration(text: object) -> int:
    """Milliseconds of a duration such as ``1m30s``; raises ValueError with an example for anything else.

    A plain number is taken as milliseconds, for models built in Python.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text  # already milliseconds: a model built in Python
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(f"{text!r:.60} is not a duration; write one such as 50ms, 2s or 5m")
    hours, minutes, seconds, millis = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis


def format_duration(millis: int) -> str:
    """The shortest exact notation, for example ``1m30s`` of 90000."""
    if millis == 0:
        return "0s"
    parts = []
    for unit, suffix in _DURATION_UNITS:
        count, millis = divmod(millis, unit)
        if count:
            parts.append(f"{count}{suffix}")
    return "".join(parts)


def parse_size(text: object) -> int:
    """Bytes of a quantity such as ``16Mi``; raises ValueError with an example for anything else."""
    if isinstance(text, int) and not isinstance(text, bool):
        value = text
    else:
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r:.60} is not a size; write one such as 512Ki, 16Mi or 1000000")
        value = int(match[1]) * _SIZE_UNITS.get(match[2], 1)
    if not 0 <= value <= _SIZE_MAX:
        raise ValueError(f"{text!r:.60} is out of range")
    return value


def format_size(size: int) -> str:
    """The shortest exact notation, for example ``16Mi`` of 16777216."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        count, rest = divmod(size, _SIZE_UNITS[suffix])
        if count and not rest:
            return f"{count}{suffix}"
    return str(size)


def _read_duration(value: object, info: ValidationInfo) -> int:
    # In a document a bare 5 may mean seconds to one reader and milliseconds to another; the CRD refuses it too.
    if info.mode == "json" and not isinstance(value, str):
        raise ValueError(f"{value!r:.60} has no unit; write for example 50ms, 2s or 5m")
    return parse_duration(value)


Duration = Annotated[
    int,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "maxLength": 40}),
]
"""Milliseconds; written like ``50ms``, ``2s``, ``5m``."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    # Kubernetes' own way to say "an integer or a quantity"; a plain number is accepted as bytes.
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True,
                    "pattern": _SIZE_PATTERN}),
]  # fmt: skip
"""Bytes; written like ``16Mi`` or ``1000000``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Bounds of a duration or a size, for pydantic and in the CRD."""

    at_least: int
    at_most: int
    written: Callable[[int], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        low, high = self.written(self.at_least), self.written(self.at_most)
        if self.written is format_duration:
            rule = f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')"
        else:
            # A plain number is a size too; then self is not a string. Each reading of one costs: it may be as long as a
            # request, so that no rule of a list may have a third.
            rule = (
                "type(self) == string ? isQuantity(self) && [quantity(self)].all(q, "
                f"q.compareTo(quantity('{low}')) >= 0 && q.compareTo(quantity('{high}')) <= 0)"
                f" : int(self) >= {self.at_least} && int(self) <= {self.at_most}"
            )
        message = f"is not between {low} and {high}"
        check = {"rule": rule, "message": message}
        if self.written is format_duration:  # writing out a number costs more than the API server allows
            check["messageExpression"] = f"self + ' {message}'"
        return {**handler(schema), "x-kubernetes-validations": [check]}

    def _check(self, value: int) -> int:
        if not self.at_least <= value <= self.at_most:
            low, high = self.written(self.at_least), self.written(self.at_most)
            raise ValueError(f"{self.written(value)} is not between {low} and {high}")
        return value


def bounded(at_least: int, at_most: int, written: Callable[[int], str]) -> Bounds:
    """Bounds of a duration or a size, with both ends; ``written`` writes a bound as people do."""
    return Bounds(at_least=at_least, at_most=at_most, written=written)
