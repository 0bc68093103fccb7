"""A plugin, held against its cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hookline_api.cases import Case, Step, difference, unanswerable, written_out
from hookline_api.config import Config
from hookline_api.hooks import OBSERVERS
from hookline_runtime.errors import InputError
from hookline_runtime.host.kv import KvError
from hookline_runtime.trial.entries import case_entry, patient
from hookline_runtime.trial.trial import Called, as_json, on_trial

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.guest.sealed import Inherited
    from hookline_runtime.plugin.stats import StatsTable
    from hookline_runtime.trial.trial import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """What became of one case."""

    name: str
    problem: str | None
    """Why it does not hold, in one sentence; None where it does."""
    called: Called | None
    """The last call."""

    @property
    def holds(self) -> bool:
        """Whether the plugin answered as it says."""
        return self.problem is None


async def try_case(
    case: Case, entry: BundlePlugin, wasm: bytes, module: Path | Inherited, *, stats: StatsTable | None = None
) -> CaseResult:
    """Ask a fresh plugin what the case asks. Raises PrepareError where it does not load with the case's settings.

    Of the entry count limits, isolation and caches, and hooks and permissions for a case that names none. Its settings
    and keys are the case's. ``stats`` is as for ``on_trial``.
    """
    unasked = unanswerable([case], entry.hooks)
    if unasked is not None:
        return CaseResult(name=case.name, problem=unasked, called=None)
    fresh = case_entry(entry)
    update: dict[str, Any] = {"config": Config(written_out(case.config))}
    if case.limits is not None:
        update["limits"] = patient(case.limits)
    if case.permissions is not None:
        update["permissions"] = case.permissions
    answers = [
        each.model_copy(update={"when": written_out(each.when), "answer": written_out(each.answer)})
        for each in case.answers
    ]
    made = fresh.model_copy(update=update)
    try:
        return await _asked(case, on_trial(made, wasm, module, keys=case.kv, answers=answers, stats=stats))
    except KvError as error:  # as the keys are put in: what a guest asks for answers a code
        return CaseResult(name=case.name, problem=f"its keys cannot be stored: {error}", called=None)


async def _asked(case: Case, on: AbstractAsyncContextManager[Trial]) -> CaseResult:
    called: Called | None = None
    async with on as trial:
        for number, step in enumerate(case.steps, 1):
            where = f"step {number} ({step.hook.value}): " if len(case.steps) > 1 else ""
            data, expected = as_json(written_out(step.input)), written_out(step.expect)
            for _ in range(step.repeat):
                try:
                    called = await trial.call(step.hook, data)
                except InputError as error:
                    return CaseResult(name=case.name, problem=f"{where}the input is wrong: {error}", called=called)
                problem = _problem(step, expected, called)
                if problem is not None:
                    return CaseResult(name=case.name, problem=where + problem, called=called)
    return CaseResult(name=case.name, problem=None, called=called)


def _problem(step: Step, expected: Any, called: Called) -> str | None:
    if step.failure is not None:
        if called.cause == step.failure:
            return None
        how = f"fails with the cause '{called.cause}' ({called.message})" if called.cause else "does not fail"
        return f"the call should fail with the cause '{step.failure}', and {how}"
    if called.cause is not None and (step.hook in OBSERVERS or "failure" not in (expected or {})):
        return f"the call failed ({called.cause}): {called.message}"
    return difference(expected, called.decision)
