"""Cases: questions with the answers that a plugin has to give, as ``cases.json`` has them and a module may carry them.

One case is one fresh plugin with settings, keys and permissions of its own, so it says the same wherever it runs: at
an author's desk (``hookline test``), and in each sidecar before a version takes over (``spec.selfTest``). It reaches
nobody: what a host function would ask a database or a server is answered by the case itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from hookline_api.hooks import Hook, parse_hook
from hookline_api.resources import Limits

SECTION: Final = "hookline.cases"
"""The custom section of a module that holds its cases, as JSON."""
MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of all cases that a module carries."""
MAX_CASES: Final = 256
MAX_STEPS: Final = 64
MAX_REPEAT: Final = 10_000
MAX_TEXT: Final = 2**20
"""Characters that ``$repeat`` and ``$concat`` may make of one text."""

Failure = Literal["trap", "timeout", "result", "overload", "store"]


class _Part(BaseModel):
    # Written by hand: what is misspelt must be said, or a case would test nothing.
    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)


class HostAnswer(_Part):
    """What a function that would ask somebody else answers in a case."""

    function: Literal["http_fetch", "http_post", "query_execute", "query_prepare"]
    when: dict[str, Any] = {}
    """What has to be in the question. ``http_fetch``: the request; ``http_post``: ``url``, ``content_type``, ``body``;
    ``query_*``: ``source``, ``sql``, ``params``."""
    answer: Any
    """The JSON that the guest gets (``docs/host-functions.md``)."""


class Step(_Part):
    """One question."""

    hook: Hook
    input: Any
    """What the proxy sends. ``{"$repeat": [text, times]}`` and ``{"$concat": [part, …]}`` stand for long texts."""
    expect: dict[str, Any] | None = None
    """What the decision has to have; it may have more."""
    failure: Failure | None = None
    """The call has to fail, with this cause."""
    repeat: Annotated[int, Field(ge=1, le=MAX_REPEAT)] = 1
    """How often it is asked; each answer has to be the same."""

    @field_validator("hook", mode="before")
    @classmethod
    def _any_spelling(cls, value: object) -> Hook:
        return parse_hook(value)

    @model_validator(mode="after")
    def _asks_for_something(self) -> Step:
        if (self.expect is None) == (self.failure is None):
            raise ValueError("a case says either what is expected ('expect') or how it fails ('failure')")
        return self


class Case(_Part):
    """One fresh plugin, and what it is asked in turn."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    config: dict[str, Any] = {}
    permissions: list[str] | None = None
    """What is granted; all that the module asks for where nothing is said."""
    limits: Limits | None = None
    """Limits for this case, as in ``spec.limits``; those of the resource where nothing is said."""
    kv: dict[str, str] = {}
    """The plugin's keys at the beginning."""
    answers: list[HostAnswer] = []
    """For functions that would ask somebody else: the first that fits is given. Where none fits, they are away."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]

    @model_validator(mode="before")
    @classmethod
    def _one_step(cls, data: Any) -> Any:
        """A case with one question says it without ``steps``."""
        if isinstance(data, dict) and "steps" not in data:
            fields = Step.model_fields.keys() & data.keys()
            rest = {key: value for key, value in data.items() if key not in fields}
            return {**rest, "steps": [{key: data[key] for key in fields}]}
        return data


_CASES: Final = TypeAdapter(Annotated[list[Case], Field(max_length=MAX_CASES)])


def read_cases(document: bytes | str) -> list[Case]:
    """The cases of a ``cases.json``. Raises ValueError; pydantic's says where."""
    return _CASES.validate_python(json.loads(document))


def written_out(value: Any) -> Any:
    """A part of a case with its long texts written out. Raises ValueError where one is too long."""
    if isinstance(value, list):
        return [written_out(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$concat"}:
        return _bounded("".join(str(written_out(part)) for part in value["$concat"]))
    if value.keys() == {"$repeat"}:
        text, times = value["$repeat"]
        if len(text) * times > MAX_TEXT:
            raise ValueError(f"a $repeat makes more than {MAX_TEXT} characters")
        return str(text) * int(times)
    return {key: written_out(each) for key, each in value.items()}


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"a $concat makes more than {MAX_TEXT} characters")
    return text


def difference(expected: Any, found: Any, path: str = "") -> str | None:
    """What of the expected is not there, in one sentence; None where all is. More may be found than is expected."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return f"{path or 'the decision'} is {_shown(found)}, and should be an object"
        for key, value in expected.items():
            where = f"{path}.{key}" if path else key
            if key not in found:
                return f"{where} is missing, and should be {_shown(value)}"
            told = difference(value, found[key], where)
            if told is not None:
                return told
        return None
    if expected == found:
        return None
    return f"{path or 'the decision'} is {_shown(found)}, and should be {_shown(expected)}"


def _shown(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False):.200}"
