"""Rows about what calls come to: traps, time-outs, slow calls, leaks, overload; and versions that are rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from truth import guests
from truth.looks import answers, condition, event, ready, settled, status, step
from truth.row import Look, Row

if TYPE_CHECKING:
    from truth.scene import Scene

WELL: Final = (ready(), answers("good"), settled())
REFUSED: Final = frozenset({401, 403, 500, 503})
"""What nginx makes of a chain that refuses."""
MEND: Final = r"mend the plugin[^;]*|kubectl logs [^ ]+ -c hookline-sidecar[^;]*"
CHANGE: Final = r"change the resource[^;]*"
_NO_PROBATION: Final = {"probation": {"calls": 0}}
_TIMEOUT: Final = "20ms"
_SLOW: Final = {"timeout": "40ms"}
_SLOW_MS: Final = 23


def prepare(scene: Scene) -> None:
    """One good version, and many that fail."""
    scene.push("good")
    scene.push("traps", guests.traps())
    scene.push("some", guests.traps_sometimes("good", 4))
    scene.push("loops", guests.loops("loops"))
    scene.push("slow", guests.loops("good", guests.rounds_in(_SLOW_MS / 1000)))
    scene.push("greedy", guests.grows("good", 32))
    scene.push("nonsense", guests.says_nonsense())
    scene.push("at-start", guests.trap_at_start("good"))
    _mend(scene)


def _mend(scene: Scene) -> None:
    """Twenty calls prove it: the next row finds a version that pods can go back to."""
    scene.guard(rollout={"probation": {"calls": 20}})


def _applied(tag: str, **spec: Any) -> Any:
    """Apply a version without probation: as the first version of a plugin would be."""
    return lambda scene: scene.guard(tag, rollout=_NO_PROBATION, **spec)


def _unwell(reason: str, words: str = "") -> tuple[Look, ...]:
    return (
        condition("Ready", "False", reason, words),
        step(),
        event(reason),
    )


OF_CALLS: Final = [
    Row(
        name="traps", what="a module that traps on each call, without a version before it",
        breaks=_applied("traps"),
        says=_unwell("FailingCalls|Paused", "authenticate"), next_step=MEND,
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="paused", what="the same for longer: the circuit breaker answers for it",
        breaks=_applied("traps", failurePolicy={"trap": "Closed"}),
        says=_unwell("Paused", "authenticate"), next_step=MEND,
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="traps-sometimes", what="a module that traps on one call in four",
        breaks=_applied("some"),
        says=_unwell("FailingCalls|Paused", "authenticate"), next_step=MEND,
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="loops", what="a module that loops for ever",
        breaks=_applied("loops", limits={"timeout": _TIMEOUT}),
        says=_unwell("FailingCalls|Paused", "time"), next_step=MEND,
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="slow", what="calls that take most of `limits.timeout`",
        breaks=_applied("slow", limits=_SLOW),
        says=_unwell("Slow|FailingCalls|Paused", "time"), next_step=rf"raise spec\.limits\.timeout|{MEND}",
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="nonsense", what="answers that are not decisions",
        breaks=_applied("nonsense"),
        says=_unwell("FailingCalls|Paused", "decision|result"), next_step=MEND,
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="memory", what="a module that wants more memory than `limits.memory`, and traps",
        breaks=_applied("greedy", limits={"memory": "1Mi"}),
        says=_unwell("FailingCalls|Paused", "trap"), next_step=MEND, mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="overload", what="inputs larger than `limits.input`",
        breaks=_applied("good", limits={"input": 16}),
        says=_unwell("Overloaded|Paused", "input"), next_step=r"raise spec\.limits[^;]*",
        mends=_mend, well=WELL, refuses=REFUSED,
    ),
    Row(
        name="at-start", what="a module that traps when it is instantiated",
        breaks=lambda scene: scene.guard("at-start"),
        says=(
            condition("Ready", "False", "PodsFailed", "proxy-"), step(), event("PodsFailed"), status("pods.failed", 2)
        ),
        next_step=r"kubectl logs \S+ -c hookline-sidecar says more", mends=_mend, well=WELL,
    ),
    Row(
        name="rolled-back-trap", what="a new version that traps on each call, after a good one",
        breaks=lambda scene: scene.guard("traps"),
        says=(condition("Ready", "False", "RolledBack", "trap"), step(), event("RolledBack"), answers("good")),
        next_step=CHANGE, mends=_mend, well=WELL,
    ),
    Row(
        name="rolled-back-loop", what="a new version that loops for ever, after a good one",
        breaks=lambda scene: scene.guard("loops", limits={"timeout": _TIMEOUT}),
        says=(condition("Ready", "False", "RolledBack", "time"), step(), event("RolledBack"), answers("good")),
        next_step=CHANGE, mends=_mend, well=WELL,
    ),
    Row(
        name="rolled-back-nonsense", what="a new version whose answers are not decisions, after a good one",
        breaks=lambda scene: scene.guard("nonsense"),
        says=(condition("Ready", "False", "RolledBack"), step(), event("RolledBack"), answers("good")),
        next_step=CHANGE, mends=_mend, well=WELL,
    ),
]  # fmt: skip
