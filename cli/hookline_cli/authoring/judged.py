"""A plugin held against its cases: what holds, what does not, and both for people, programs and build servers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hookline_api.cases import Case, written_out
from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_cli.authoring import kept, shown
from hookline_cli.authoring.desk import of_loading, quiet
from hookline_cli.authoring.subject import check_config
from hookline_runtime.runtime import PrepareError
from hookline_runtime.trial.cases import CaseResult, try_case

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.bundle import BundlePlugin
    from hookline_cli.authoring.subject import Subject

_MOST: Final = 2000
_NO_CASE: Final = (LoadError, ValueError, TypeError, KeyError)
"""What is raised where a case cannot be tried as it is."""
_XML: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One case, tried."""

    case: Case
    result: CaseResult
    seconds: float


async def judge(subject: Subject, entry: BundlePlugin, cases: Sequence[Case]) -> list[Tried]:
    """Try each in turn. What is wrong with a case, or loads not, does not hold; nothing is raised for it."""
    found = []
    wrong = await _wrong_settings(subject, cases)
    for case in cases:
        begun = time.monotonic()
        result = await _try(subject, entry, case, wrong[_written(case)])
        found.append(Tried(case=case, result=result, seconds=time.monotonic() - begun))
    return found


def _written(case: Case) -> str:
    return json.dumps(case.config, sort_keys=True)


async def _wrong_settings(subject: Subject, cases: Sequence[Case]) -> dict[str, Exception | None]:
    """What the schema says of each case's settings: once for equal ones, and before an engine has threads."""
    found: dict[str, Exception | None] = {}
    for case in cases:
        written = _written(case)
        if written in found:
            continue
        found[written] = None
        try:
            await check_config(subject, written_out(case.config))
        except _NO_CASE as error:
            found[written] = error
    return found


async def _try(subject: Subject, entry: BundlePlugin, case: Case, wrong: Exception | None) -> CaseResult:
    limits = case.limits or entry.limits
    try:
        for step in case.steps:
            if step.hook not in entry.hooks:
                raise ConfigError(
                    f"{step.hook.value} is not called: {subject.path.name} has {', '.join(entry.hooks)} alone"
                )
        if wrong is not None:
            raise wrong
        with quiet():
            module = await kept.module(subject.wasm, fuel=limits.fuel is not None)
            return await try_case(case, entry, subject.wasm, module)
    except PrepareError as error:
        problem = f"it does not load: {of_loading(error)}"
    except _NO_CASE as error:
        problem = str(error)
    return CaseResult(name=case.name, problem=problem, called=None)


def lines_of(tried: Tried, *, verbose: bool) -> list[str]:
    """One case for people: a line where it holds, and else what was expected, what came, and what it logged."""
    result = tried.result
    name = readable(result.name, 200)
    if result.holds and not verbose:
        return [f"{shown.colored('ok', 'green')}    {name}"]
    lines = [f"{shown.colored('ok', 'green')}    {name}"]
    if not result.holds:
        lines = [f"{shown.colored('FAIL', 'red', bold=True)}  {name}", f"      {readable(result.problem or '', _MOST)}"]
        lines += [f"      expected: {_text(each)}" for each in _expected(tried.case)]
        if result.called is not None:
            lines.append(f"      got:      {_text(_without_marks(result.called.decision))}")
    if result.called is not None:
        lines += [f"    {each}" for each in shown.log_lines(result.called)]
    if verbose:
        for step in tried.case.steps:
            lines.append(f"      asked:    {step.hook.value} {_text(step.input)}")
        if tried.case.config:
            lines.append(f"      config:   {_text(tried.case.config)}")
        if result.called is not None:
            lines.append(f"      {shown.numbers(result.called)}")
    return lines


def _expected(case: Case) -> list[Any]:
    """What the last step wants, where there is one alone; of several, the sentence says which."""
    if len(case.steps) > 1:
        return []
    step = case.steps[0]
    return [step.expect if step.expect is not None else f"a failure with the cause '{step.failure}'"]


def _without_marks(decision: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in decision.items() if key not in {"request_id", "bundle", "plugin"}}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return readable(text, _MOST)


def data_of(tried: Tried) -> dict[str, Any]:
    """One case for programs."""
    result = tried.result
    return {
        "name": result.name,
        "holds": result.holds,
        "problem": result.problem,
        "seconds": round(tried.seconds, 4),
        "called": shown.called_data(result.called) if result.called is not None else None,
    }


def junit(name: str, all_tried: Sequence[Tried]) -> str:
    """JUnit's XML, as build servers read it: https://github.com/testmoapp/junitxml."""
    failed = sum(not each.result.holds for each in all_tried)
    whole = sum(each.seconds for each in all_tried)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites tests="{len(all_tried)}" failures="{failed}" time="{whole:.3f}">',
        f'<testsuite name="{_xml(name)}" tests="{len(all_tried)}" failures="{failed}" time="{whole:.3f}">',
    ]
    for each in all_tried:
        head = f'<testcase classname="{_xml(name)}" name="{_xml(each.result.name)}" time="{each.seconds:.3f}"'
        if each.result.holds:
            parts.append(f"{head}/>")
            continue
        detail = "\n".join(lines_of(each, verbose=True)[1:])
        message = _xml(each.result.problem or "")
        parts.append(f'{head}><failure message="{message}">{_xml(detail)}</failure></testcase>')
    return "\n".join([*parts, "</testsuite>", "</testsuites>", ""])


def _xml(text: str) -> str:
    """As XML has it, which has no control characters."""
    return "".join(_XML.get(each, each) for each in text if each.isprintable() or each in "\n\t")
