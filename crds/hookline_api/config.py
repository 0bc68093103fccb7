"""``config``: a plugin's own settings, any JSON object, kept as its bytes.

A megabyte of JSON is twenty and more once it is parsed, and the settings of each plugin are kept in many places: by the
operator for every plugin of a cluster, by the sidecar's supervisor and by each of its workers. Nobody there reads them
but the guest, which gets bytes. So they are parsed where somebody looks into them, and let go.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import core_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

MAX_CONFIG: Final = 2**20
"""Bytes of one plugin's ``config`` as JSON, with what ``configFrom`` lays over it: an object of the API has 1.5 MiB."""
MAX_CONFIG_VALUES: Final = 2**18
"""Values and names in one ``config``: 32 MiB of memory while it is looked into. A mebibyte has so many where each takes
four bytes."""


class Config:
    """A JSON object as its bytes. Immutable; equal to an object or a dictionary that says the same."""

    __slots__ = ("data",)

    data: bytes
    """Compact JSON, in the order in which it was written."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for what JSON cannot say."""
        self.data = _written(settings) if settings else b"{}"

    def parsed(self) -> dict[str, Any]:
        """What it says, made anew each time: up to ``MAX_CONFIG_VALUES`` of objects, for the caller to let go."""
        found: dict[str, Any] = json.loads(self.data)
        return found

    def __bool__(self) -> bool:
        return self.data != b"{}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, dict):
            return self.parsed() == other
        if not isinstance(other, Config):
            return NotImplemented
        # Another order of names has as many bytes.
        return self.data == other.data or (len(self.data) == len(other.data) and self.parsed() == other.parsed())

    __hash__ = None  # type: ignore[assignment]  # as of a dictionary

    def __repr__(self) -> str:
        return f"<config of {len(self.data)} bytes>"  # it may hold values of Secrets

    @classmethod
    def _validated(cls, value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Config:
        return value if isinstance(value, Config) else cls(handler(value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            cls._validated,
            handler.generate_schema(dict[str, Any]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.parsed),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))


def _written(settings: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error!s:.200}") from None
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates: told by whoever has a word for it
        return json.dumps(settings, separators=(",", ":")).encode()
