"""A module's own cases: whether they can be read, and whether a resource lets the module run without.

Nothing is asked here, because that takes an engine: sidecars ask them (``hookline_runtime.trial``). Operator and
sidecar judge here what can be told without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hookline_api.cases import SECTION, Case, CasesError, read_cases, unanswerable
from hookline_artifacts.errors import SelfTestError

if TYPE_CHECKING:
    from hookline_api.resources import SelfTest
    from hookline_artifacts.module.inspection import ModuleInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnCases:
    """What a module carries."""

    cases: tuple[Case, ...] = ()
    unreadable: str | None = None
    """Why the cases that are there cannot be read, in one sentence."""

    @property
    def count(self) -> int | None:
        """How many there are; None where there are none, or they cannot be read."""
        return len(self.cases) or None


def own_cases(info: ModuleInfo) -> OwnCases:
    """The cases of a module. Linear in their bytes, and not for an event loop."""
    if info.cases is None:
        return OwnCases()
    if info.case_sections > 1:
        return OwnCases(unreadable=f"the module has {info.case_sections} sections {SECTION}, and may have one")
    try:
        return OwnCases(cases=tuple(read_cases(info.cases)))
    except CasesError as error:
        return OwnCases(unreadable=f"the section {SECTION} cannot be read: {error}")


def judge_cases(own: OwnCases, info: ModuleInfo, self_test: SelfTest) -> list[str]:
    """What there is to tell of a module's cases, one sentence each. Raises SelfTestError where it may not run."""
    if self_test == "Off":
        return [f"the module carries {_number(len(own.cases))}, and spec.selfTest: Off asks none"] if own.cases else []
    if own.unreadable is not None:
        if self_test == "Required":
            raise SelfTestError(f"spec.selfTest: Required asks for cases that can be read, and {own.unreadable}")
        return [f"{own.unreadable}; it runs without a test of its own (spec.selfTest: IfPresent)"]
    if not own.cases and self_test == "Required":
        raise SelfTestError(
            f"spec.selfTest: Required asks for a module that carries its own cases, and this one has no section "
            f"{SECTION}: build it with its cases.json, or set spec.selfTest: IfPresent"
        )
    told = unanswerable(own.cases, info.hooks)
    if told is not None:
        raise SelfTestError(f"{told}; mend the case, or export the hook")
    return []


def _number(count: int) -> str:
    return "one case" if count == 1 else f"{count} cases"
