"""Cases: questions with the answers that a plugin has to give, as ``cases.json`` has them and a module may carry them.

One case is one fresh plugin with settings, keys and permissions of its own, so it says the same wherever it runs: at
an author's desk (``hookline test``), and in each sidecar before a version takes over (``spec.selfTest``). It reaches
nobody: what a host function would ask a database or a server is answered by the case itself.

A module's cases are an artifact's, and nobody's friend: their bytes, values, depth, questions and texts are bounded
here, all in time linear in the bytes, before anything is made of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from hookline_api import json_cost, sentences
from hookline_api.hooks import Hook, parse_hook
from hookline_api.resources import Limits
from hookline_api.text import found as kind_of
from hookline_api.text import readable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SECTION: Final = "hookline.cases"
"""The custom section of a module that holds its cases, as JSON."""
MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of all cases that a module carries."""
MAX_VALUES: Final = 50_000
"""Values and names in them; a document of that size that people wrote has a fifth."""
MAX_DEPTH: Final = 64
MAX_CASES: Final = 256
MAX_STEPS: Final = 64
MAX_REPEAT: Final = 10_000
MAX_CALLS: Final = 100_000
"""Questions of all cases, repetitions among them."""
MAX_TEXT: Final = 2**20
"""Characters that ``$repeat`` and ``$concat`` may make of one text."""
MAX_WRITTEN: Final = 32 * 2**20
"""Characters that they may make in the whole document."""
_MOST_NUMBER: Final = 2**63
_MAX_PROBLEMS: Final = 3
_SHOWN: Final = 200
_NAME: Final = 64
_REPEAT: Final = "$repeat"
_CONCAT: Final = "$concat"

Failure = Literal["trap", "timeout", "result", "overload", "store"]


class CasesError(ValueError):
    """Cases that cannot be read. The text is one sentence, with the place where it is wrong."""


class _Part(BaseModel):
    # Written by hand: what is misspelt must be said, or a case would test nothing.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


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
        if self.expect == {}:
            raise ValueError("'expect' is empty, which any answer meets: say what the decision has to have")
        return self


class Case(_Part):
    """One fresh plugin, and what it is asked in turn."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    config: dict[str, Any] = {}
    permissions: list[str] | None = None
    """What is granted; all that the module asks for where nothing is said."""
    limits: Limits | None = None
    """Limits for this case, as in ``spec.limits``; 1 s, 64 MiB of memory and 16 MiB of input
    and output where nothing is said, or those of the resource where they are larger."""
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


_CASES: Final = TypeAdapter(
    Annotated[list[Case], Field(min_length=1, max_length=MAX_CASES)], config=ConfigDict(defer_build=True)
)


def read_cases(document: bytes | str) -> list[Case]:
    """The cases of a ``cases.json``. Raises CasesError, a ValueError."""
    size = len(document)
    if size > MAX_DOCUMENT:
        raise CasesError(f"the cases have more than {MAX_DOCUMENT} bytes: leave some out, or say them shorter")
    try:
        text = document.decode() if isinstance(document, bytes) else document
        json_cost.check(text, what="the list of cases", max_values=MAX_VALUES, max_depth=MAX_DEPTH)
        data = json.loads(text, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise CasesError(f"the cases are not text in UTF-8: byte {error.start} is none of it") from None
    except json.JSONDecodeError as error:
        raise CasesError(f"the cases are not JSON: {error.msg} in line {error.lineno}") from None
    except ValueError as error:
        raise CasesError(str(error)) from None
    written = _Written()
    written.check(data)
    if isinstance(data, list) and len(data) > MAX_CASES:  # before each is looked at
        raise CasesError(f"there are {len(data)} cases, and a plugin may have {MAX_CASES}")
    if not isinstance(data, list):
        raise CasesError(f'the cases are {kind_of(data)}, and have to be a list of them: [{{"name": …}}, …]')
    if not data:
        raise CasesError("the list of cases is empty: write one, or leave the cases out")
    try:
        cases = _CASES.validate_python(data)
    except ValidationError as error:
        told = [_placed(each, data) for each in sentences.problems(error, most=_MAX_PROBLEMS)]
        raise CasesError("; ".join(told)) from None
    names: set[str] = set()
    for case in cases:
        if case.name in names:
            raise CasesError(f"two cases have the name {case.name!r}: give each one of its own")
        names.add(case.name)
    calls = sum(step.repeat for case in cases for step in case.steps)
    if calls > MAX_CALLS:
        raise CasesError(f"the cases ask {calls} questions with their repetitions, and may ask {MAX_CALLS}")
    return cases


def unanswerable(cases: Iterable[Case], hooks: Collection[Hook]) -> str | None:
    """Why these cases cannot hold of a plugin with these hooks, in one sentence; None where nothing speaks against."""
    for case in cases:
        for step in case.steps:
            if step.hook not in hooks:
                return (
                    f"its own case {case.name!r} asks {step.hook.value}, which the module does not export: it exports "
                    f"{', '.join(hook.value for hook in hooks)}"
                )
    return None


def written_out(value: Any) -> Any:
    """A part of a case with its long texts written out. Raises CasesError where one is none, or too long.

    Its depth is the caller's to bound, as ``read_cases`` does.
    """
    if isinstance(value, list):
        return [written_out(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_CONCAT}:
        _Written().text(value)
        return "".join(part if isinstance(part, str) else written_out(part) for part in value[_CONCAT])
    if value.keys() == {_REPEAT}:
        _Written().text(value)
        text, times = value[_REPEAT]
        return text * times
    return {key: written_out(each) for key, each in value.items()}


class _Written:
    """How much ``$repeat`` and ``$concat`` make in a document, found without making it. Linear in the document."""

    def __init__(self) -> None:
        self._total = 0

    def check(self, value: Any) -> None:
        """Raises CasesError where a part makes too much, or cannot be sent as JSON."""
        if isinstance(value, list):
            for each in value:
                self.check(each)
        elif isinstance(value, dict):
            if len(value) == 1 and (_CONCAT in value or _REPEAT in value):
                self._total += self.text(value)
                if self._total > MAX_WRITTEN:
                    raise CasesError(f"$repeat and $concat make more than {MAX_WRITTEN} characters in all cases")
                return
            for key, each in value.items():
                self._sendable(key)
                self.check(each)
        else:
            self._sendable(value)

    def text(self, value: dict[str, Any]) -> int:
        """How many characters one text will have. Raises CasesError where it is none, or too long."""
        size = self._repeated(value[_REPEAT]) if _REPEAT in value else self._joined(value[_CONCAT])
        if size > MAX_TEXT:
            raise CasesError(f"a {next(iter(value))} makes more than {MAX_TEXT} characters")
        return size

    def _repeated(self, given: Any) -> int:
        is_pair = isinstance(given, list) and len(given) == 2  # noqa: PLR2004 - a text and a number
        if not is_pair or not isinstance(given[0], str) or type(given[1]) is not int or given[1] < 0:
            raise CasesError('$repeat takes a text and how often it stands there: {"$repeat": ["x", 1000]}')
        self._sendable(given[0])
        return len(given[0]) * given[1]

    def _joined(self, given: Any) -> int:
        if not isinstance(given, list):
            raise CasesError("$concat takes a list of texts")
        size = 0
        for part in given:
            if isinstance(part, str):
                self._sendable(part)
                size += len(part)
            elif isinstance(part, dict) and len(part) == 1 and (_CONCAT in part or _REPEAT in part):
                size += self.text(part)
            else:
                raise CasesError("the parts of $concat are texts, $repeat and $concat, and nothing else")
        return size

    def _sendable(self, value: Any) -> None:
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise CasesError("a text holds half of a surrogate pair (\\ud800 to \\udfff by itself)") from None
        elif isinstance(value, int) and not -_MOST_NUMBER <= value < 2 * _MOST_NUMBER:
            raise CasesError("a number has more than 64 bits")


def difference(expected: Any, found: Any, path: str = "") -> str | None:
    """What of the expected is not there, in one sentence; None where all is. More may be found than is expected."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return f"{path or 'the decision'} is {_shown(found)}, and should be an object"
        for key, value in expected.items():
            # A name is a stranger's too, and as long as the document: each sentence has the end of where it is.
            where = f"{path}.{readable(key, _NAME)}"[-_SHOWN:] if path else readable(key, _NAME)
            if key not in found:
                return f"{where} is missing, and should be {_shown(value)}"
            told = difference(value, found[key], where)
            if told is not None:
                return told
        return None
    # 1 is not true in JSON, as it is in Python; 1 and 1.0 are the same number.
    if expected == found and isinstance(expected, bool) == isinstance(found, bool):
        return None
    return f"{path or 'the decision'} is {_shown(found)}, and should be {_shown(expected)}"


def _shown(value: Any) -> str:
    # Cut before it is written: both may be as long as an answer.
    if isinstance(value, str) and len(value) > _SHOWN:
        value = value[:_SHOWN]
    return readable(f"{json.dumps(value, ensure_ascii=False):.{_SHOWN}}")


def _placed(problem: sentences.Problem, data: Any) -> str:
    """A problem with the case's name, where it has one, in place of its number."""
    number, _, rest = problem.path.removeprefix("[").partition("]")
    case = data[int(number)] if isinstance(data, list) and number.isdecimal() and int(number) < len(data) else None
    name = case.get("name") if isinstance(case, dict) else None
    if not isinstance(name, str):
        return str(problem) if problem.path else f"a list of cases: {problem.text}"
    where = f"case {name[:_SHOWN]!r}"
    return f"{where}, {rest.removeprefix('.')}: {problem.text}" if rest else f"{where}: {problem.text}"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"the cases are not JSON: {name} is no number there")
