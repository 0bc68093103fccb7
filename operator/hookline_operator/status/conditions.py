"""What each condition says, from what was counted: pure functions.

``Ready`` is the sum of the others, and has the sentence that people act on. Each other condition says its own part, or
names the condition that says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_api.sentences import first_load_choice
from hookline_operator.status.reasons import (
    FETCH_FAILED,
    GRANTED,
    NO_PODS,
    NOT_GRANTED,
    OF_CAUSE,
    PENDING,
    PERMISSIONS_INCREASED,
    PODS_FAILED,
    POLICY_FORBIDS,
    PROGRAMMED,
    PROGRESSING,
    READY,
    RECONCILING,
    RESOLVED,
    ROLLED_BACK,
    SETTLED,
    STALLED,
    UNGUARDED,
    VERIFIED,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.status import ConditionType, PodCounts, RollbackStatus
    from hookline_operator.status.health import Verdict
    from hookline_operator.status.observation import Resolution, UnguardedPod

MAX_MESSAGE: Final = 1024
_KEY: Final = 19
"""Characters of a key's digest that a sentence shows: ``sha256:`` and twelve digits."""
_NAMED: Final = 3
"""Pods without a sidecar that a sentence names."""

ConditionText = tuple[bool | None, str, str]
"""A condition: whether it holds (None: not known), the reason, and the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the conditions are made of."""

    resolution: Resolution
    counts: PodCounts
    older: int
    """Pods that run something of the plugin, and not what the resource asks for."""
    waiting: int
    """Pods that do not start, or get no traffic, for want of this plugin."""
    sentence: str
    """How many pods run it, and about one that does not."""
    health: Verdict
    health_of_new: Verdict
    """The verdict over the pods that run what the resource asks for. The revision before it is on its way out."""
    sources: ConditionText | None
    """Of what it asks outside the pods; None where it asks nothing."""
    offered: bool
    """Whether pods are offered any version of it."""
    held: RollbackStatus | None
    can_go_back: bool
    """Whether there is a version that all pods can go back to."""
    unguarded: Sequence[UnguardedPod]
    needs_pods: bool


def conditions(evidence: Evidence) -> dict[ConditionType, ConditionText]:
    """All conditions, in the order in which they are shown."""
    ready = _ready(evidence)
    resolved, verified, granted = _module(evidence.resolution)
    health, sources = evidence.health, evidence.sources
    stalled = _stalled(evidence, ready)
    under_way = not stalled and ready[0] is False
    return {
        "Ready": ready,
        "Healthy": (health.truth, _health_reason(evidence), cut(health.message)),
        "Resolved": resolved,
        "Verified": verified,
        "PermissionsGranted": granted,
        **({} if sources is None else {"SourcesAvailable": sources}),
        "Programmed": _programmed(evidence),
        "Reconciling": _way(under_way, ready, RECONCILING),
        "Stalled": _way(stalled, ready, STALLED),
    }


def cut(text: str, limit: int = MAX_MESSAGE) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def rolled_back(held: RollbackStatus) -> str:
    """Which revision failed on probation, where and why, in one sentence."""
    why = f"{held.cause}: {held.message}" if held.message else held.cause
    return (
        f"revision {held.revision} failed {held.failures} of its first {held.calls} calls in pod '{held.pod}' ({why})"
    )


def _ready(evidence: Evidence) -> ConditionText:
    """The first thing that is wrong, in the order in which a person would want to hear of them."""
    resolution, counts = evidence.resolution, evidence.counts
    if resolution.state == "Failed":
        return False, _reason(resolution), _with_last_good(evidence)
    if resolution.state == "Pending":
        return False, PENDING, _waits(resolution)
    if evidence.held is not None:
        goes_back = "all pods go back to the version before it, and the rollout is held until the resource changes"
        runs_on = "pods that have the version before it run that, all others this one: change the resource"
        means = f"; {goes_back if evidence.can_go_back else runs_on}"
        return False, ROLLED_BACK, cut(rolled_back(evidence.held), MAX_MESSAGE - len(means)) + means
    if counts.failed:
        return False, PODS_FAILED, evidence.sentence
    if evidence.health_of_new.truth is False:
        return False, evidence.health_of_new.reason, cut(evidence.health_of_new.message)
    if counts.unguarded:
        return False, UNGUARDED, _unguarded(evidence)
    if counts.loaded < counts.matched:
        return False, PROGRESSING, evidence.sentence
    if counts.matched == 0:
        return _no_pods(evidence)
    waits = f"; an update waits ({resolution.waits}): {resolution.message}" if resolution.waits else ""
    return True, READY, cut(evidence.sentence + waits)


def _no_pods(evidence: Evidence) -> ConditionText:
    return (None, NO_PODS, evidence.sentence) if evidence.needs_pods else (True, NO_PODS, evidence.sentence)


def _programmed(evidence: Evidence) -> ConditionText:
    resolution, counts = evidence.resolution, evidence.counts
    if resolution.state == "Failed":
        return False, _reason(resolution), _last_good(evidence) or "no pod runs it"
    if resolution.state == "Pending":
        return False, PENDING, "pods get nothing new before it is resolved"
    if evidence.held is not None:
        return False, ROLLED_BACK, "see Ready"
    if counts.failed:
        return False, PODS_FAILED, evidence.sentence
    if counts.loaded < counts.matched:
        return False, PROGRESSING, evidence.sentence
    return _no_pods(evidence) if counts.matched == 0 else (True, PROGRAMMED, evidence.sentence)


def _module(resolution: Resolution) -> tuple[ConditionText, ConditionText, ConditionText]:
    """Resolved, Verified and PermissionsGranted."""
    if resolution.state == "Good":
        return (True, RESOLVED, _resolved(resolution)), (True, VERIFIED, verified(resolution)), _granted(resolution)
    if resolution.state == "Pending":
        other: ConditionText = (None, PENDING, "see Resolved")
        return (None, PENDING, _waits(resolution)), other, other
    reason = _reason(resolution)
    if resolution.cause == "verify":
        resolved: ConditionText = (True, RESOLVED, "the module was found; see Verified")
        return (
            (None, reason, "see Verified") if reason == POLICY_FORBIDS else resolved,
            (False, reason, resolution.message),
            (None, reason, "see Verified"),
        )
    # ``Plugin.failure`` reads the sentence here: it is what pods are told where nothing else runs.
    resolved = (False if reason == FETCH_FAILED else None, reason, resolution.message)
    granted: ConditionText = (
        (False, reason if reason == PERMISSIONS_INCREASED else NOT_GRANTED, "see Resolved")
        if resolution.ungranted
        else (None, reason, "see Resolved")
    )
    return resolved, (None, reason, "see Resolved"), granted


def _resolved(resolution: Resolution) -> str:
    assert resolution.artifact is not None  # noqa: S101 - what is good has one
    again = f"; asking for the tag again failed: {resolution.message}" if resolution.message else ""
    return f"the source is {resolution.artifact.digest}{again}"


def verified(resolution: Resolution) -> str:
    """What was verified, by whom it is signed, and what there is to know of it."""
    may = "; see PermissionsGranted" if resolution.warnings else ", and may be loaded"
    told = [f"the module is what the resource asks for{may}", *signed(resolution)]
    return "; ".join([*told, *resolution.audits, *resolution.notes])


def signed(resolution: Resolution) -> list[str]:
    """Who has signed the artifact, as far as somebody asked for it, one phrase each."""
    found = []
    for each in resolution.artifact.signatures if resolution.artifact is not None else ():
        key = f" (key {each.key[:_KEY]}…)" if each.key is not None and not each.signer.startswith("sha256:") else ""
        entry = f", log entry {each.log_index}" if each.log_index is not None else ""
        found.append(f"signed by {each.signer}{key}{entry}, as {each.asked_by} asks")
    return found


def _granted(resolution: Resolution) -> ConditionText:
    if resolution.waits == PERMISSIONS_INCREASED:
        return False, PERMISSIONS_INCREASED, f"an update waits: {resolution.message}"
    if resolution.warnings:
        return False, NOT_GRANTED, f"{'; '.join(resolution.warnings)}; add what it needs to spec.permissions"
    return True, GRANTED, "every permission that its imports need is granted"


def _health_reason(evidence: Evidence) -> str:
    unknown = evidence.health.truth is None and evidence.resolution.state == "Pending"
    return PENDING if unknown else evidence.health.reason


def _stalled(evidence: Evidence, ready: ConditionText) -> bool:
    """Whether it takes a person."""
    if evidence.resolution.state == "Failed":
        return not evidence.resolution.transient
    if ready[1] == ROLLED_BACK:
        return True
    return ready[0] is False and ready[1] in STALLED and evidence.counts.updating == 0


def _way(holds: bool, ready: ConditionText, says: dict[str, str]) -> ConditionText:  # noqa: FBT001
    if not holds:
        return False, SETTLED, ""
    return True, ready[1], f"{says.get(ready[1], RECONCILING[PROGRESSING])}; see Ready"


def _reason(resolution: Resolution) -> str:
    return resolution.reason or OF_CAUSE[resolution.cause] if resolution.cause else PENDING


def _waits(resolution: Resolution) -> str:
    return resolution.message or "the source is being resolved"


def _last_good(evidence: Evidence) -> str:
    """What a failed resolution means for the pods; it may be of this very generation that something is missing."""
    if not evidence.older:
        return ""
    pods = "pod" if evidence.older == 1 else "pods"
    if not evidence.offered:
        return f"it is being taken out of {evidence.older} {pods}"
    return f"the last good version goes on in {evidence.older} {pods}"


def _with_last_good(evidence: Evidence) -> str:
    means = "".join(f"; {each}" for each in (_last_good(evidence), *_waiting(evidence)) if each)
    return cut(evidence.resolution.message, MAX_MESSAGE - len(means)) + means


def _waiting(evidence: Evidence) -> list[str]:
    """What a plugin that was never loaded keeps from starting, and what its author may choose."""
    if not evidence.waiting:
        return []
    pods = "1 new pod waits for it" if evidence.waiting == 1 else f"{evidence.waiting} new pods wait for it"
    cause = evidence.resolution.cause
    return [pods, first_load_choice(cause) if cause is not None else ""]


def _unguarded(evidence: Evidence) -> str:
    number = evidence.counts.unguarded
    told = "; ".join(f"pod '{each.name}': {each.why}" for each in evidence.unguarded[:_NAMED])
    pods = "1 pod that should be guarded has" if number == 1 else f"{number} pods that should be guarded have"
    return cut(f"{pods} no sidecar{f': {told}' if told else ''}")
