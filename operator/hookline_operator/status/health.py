"""Whether what the pods run also works: one judgement over what their sidecars report of its calls. Pure functions.

A sidecar judges its own hooks, and reports those that are in trouble. Here the worst trouble of all pods becomes one
sentence, and each such hook of each pod a failure in the status. Figures move with every call; ``without_figures``
leaves them out, so that a status is not written for them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hookline_api.status import Failure
from hookline_api.text import readable
from hookline_operator.status.reasons import HEALTHY, NO_REPORTS, SOURCES_AVAILABLE, TROUBLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.distribution import HookHealth
    from hookline_operator.status.observation import PodObservation

_MAX_MESSAGE: Final = 256
_HAPPENED: Final = {
    "FailingCalls": "failed",
    "Paused": "were answered by the circuit breaker in its place",
    "StoreUnavailable": "ended because the server with its keys was away",
    "Slow": "came near spec.limits.timeout",
    "Overloaded": "were over spec.limits.input, or found its queue full",
}
_STEP: Final = {
    "StoreUnavailable": "bring back what spec.kv.valkey names, or choose spec.failurePolicy.store",
    "Slow": "have it do less in a call, or raise spec.limits.timeout",
    "Overloaded": "raise spec.limits.concurrency or spec.limits.input, or run more pods",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is true of a plugin's calls in some pods."""

    truth: bool | None
    """None where nobody has reported."""
    reason: str
    message: str
    failures: list[Failure] = field(default_factory=list)
    """One for each hook of each pod that is not well, the worst first."""


def judge(pods: Sequence[PodObservation]) -> Verdict:
    """The verdict over the pods that run the plugin: the worst trouble of any hook."""
    running = sorted((pod for pod in pods if pod.runs != "Nothing"), key=lambda pod: pod.name)
    if not running:
        return Verdict(None, NO_REPORTS, "no pod that runs it has reported")
    found = [(pod.name, each) for pod in running for each in pod.health]
    if not found:
        where = "1 pod" if len(running) == 1 else f"{len(running)} pods"
        return Verdict(True, HEALTHY, f"no trouble with its calls in {where}")  # noqa: FBT003
    # Not by figures, which would change the order, and so the status, with every report.
    found.sort(key=lambda each: (TROUBLES.index(each[1].trouble), each[0], each[1].hook))
    worst = found[0][1].trouble
    by_hook: dict[str, list[tuple[str, HookHealth]]] = {}
    for name, each in found:
        if each.trouble == worst:
            by_hook.setdefault(each.hook, []).append((name, each))
    hook = max(sorted(by_hook), key=lambda hook: len(by_hook[hook]))
    there = by_hook[hook]
    where = f"pod '{running[0].name}'" if len(running) == 1 else f"{len(there)} of {len(running)} pods"
    where = f" of {hook} in {where}"
    step = _STEP.get(worst, f"kubectl logs {there[0][0]} -c hookline-sidecar says more")
    message = f"{_figures([each for _, each in there], where)}{_newest(there[0][1])}; {step}"
    failures = [_failure(name, each) for name, each in found]
    return Verdict(False, worst, message, failures)  # noqa: FBT003


def without_figures(status: dict[str, Any]) -> dict[str, Any]:
    """A status as the API stores it, without what moves with a plugin's calls or with time."""
    conditions = [
        each | {"message": ""}
        if each.get("type") in {HEALTHY, SOURCES_AVAILABLE} or each.get("reason") in TROUBLES
        else each
        for each in status.get("conditions") or ()
        if each.get("type") != "Observed"
    ]
    failures = [
        {name: each.get(name) for name in ("pod", "hook")} if each.get("hook") else each
        for each in status.get("failures") or ()
    ]
    return status | {"conditions": conditions, "failures": failures}


def _failure(pod: str, found: HookHealth) -> Failure:
    message = f"{_figures([found])}{_newest(found)}"
    return Failure(pod=pod, hook=found.hook, cause=found.cause or found.trouble, message=message)


def _figures(found: Sequence[HookHealth], where: str = "") -> str:
    """How many of how many calls had this trouble, and in how long."""
    calls, bad = sum(each.calls for each in found), sum(each.bad for each in found)
    calls = max(calls, bad)  # a sidecar's word
    seconds = f"{max(1.0, *(each.seconds for each in found)):.0f} s"
    percent = round(bad * 100 / calls) if calls else 100
    share = "under 1 %" if percent == 0 else f"{percent} %"
    return f"{share} of {calls} calls{where} {_HAPPENED[found[0].trouble]} in the last {seconds}"


def _newest(found: HookHealth) -> str:
    """The newest failure, as the sidecar tells it."""
    message = readable(found.message, _MAX_MESSAGE)
    if found.cause and not message.startswith(found.cause):
        message = f"{found.cause}: {message}" if message else found.cause
    return f": {message}" if message else ""
