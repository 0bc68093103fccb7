"""What is true of one plugin, from what was observed: a pure function, data in, data out.

``reconcile`` gets the resource, how far its resolution is, and what the matching pods said; it gives the status and
the Events that are due. It is level-triggered: the same observation gives the same status, whatever came before,
but for the times of the conditions, which move only when a condition changes.

Conditions are those of the Kubernetes API conventions, and of kstatus for whoever waits: ``Reconciling`` is True
while something is under way that can end by itself, ``Stalled`` where it takes a person.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from hookline_api.bundle import LoadCause
from hookline_api.distribution import HookHealth, RolledBack
from hookline_api.resources import (
    ArtifactStatus,
    Condition,
    ConditionType,
    Failure,
    PodCounts,
    Resource,
    RevisionStatus,
    RollbackStatus,
    WasmPluginStatus,
)

# Reasons: what scripts compare with. One word each, never changed.
READY: Final = "Ready"
RESOLVED: Final = "Resolved"
VERIFIED: Final = "Verified"
PROGRAMMED: Final = "Programmed"
NO_PODS: Final = "NoMatchingPods"
PENDING: Final = "Pending"
PROGRESSING: Final = "Progressing"
FETCH_FAILED: Final = "FetchFailed"
VERIFY_FAILED: Final = "VerifyFailed"
CONFIG_INVALID: Final = "ConfigInvalid"
PODS_FAILED: Final = "PodsFailed"
SETTLED: Final = "Settled"
NOT_GRANTED: Final = "PermissionNotGranted"
"""Of an Event: the module is loaded without a permission that it needs."""

_REASONS: Final[dict[LoadCause, str]] = {
    "fetch": FETCH_FAILED,
    "verify": VERIFY_FAILED,
    "config": CONFIG_INVALID,
}
CAUSES: Final[dict[str, LoadCause]] = {reason: cause for cause, reason in _REASONS.items()}
"""The cause behind a reason, where a reason is about a failure to load."""
_MAX_FAILURES: Final = 5
_MAX_REVISIONS: Final = 10
_MAX_MESSAGE: Final = 1024


class PodObservation(Resource):
    """One matching pod."""

    name: str
    ready: bool
    """Whether Kubernetes says so."""
    connected: bool = False
    """Whether its sidecar has reported."""
    runs: Literal["Current", "Older", "Nothing"] = "Nothing"
    """What its sidecar runs of this plugin: what it is to run, something else, or nothing."""
    failure: Failure | None = None
    health: list[HookHealth] = []
    """The hooks of what it runs that are not well."""
    rolled_back: RolledBack | None = None
    """What it has gone back from, where that is the revision that the resource asks for."""
    waits_for: list[str] = []
    """The other plugins that keep its sidecar, and so the pod, from being ready."""


class UnguardedPod(Resource):
    """A pod that is meant to be guarded, by its labels, and has no sidecar."""

    name: str
    why: Annotated[str, Field(max_length=256)]
    """In one sentence, with what to do."""


class Resolution(Resource):
    """How far the way from the resource's spec to a module is."""

    state: Literal["Pending", "Failed", "Good"] = "Pending"
    cause: LoadCause | None = None
    message: str = ""
    """One sentence: why it failed, what is waited for, or, where it is good, why its tag could not be asked again."""
    transient: bool = False
    """Whether trying again may help by itself."""
    artifact: ArtifactStatus | None = None
    """Of what the pods are to run: also after a failure, then the last good one."""
    revision: str | None = None
    """The name of what the pods are to run."""
    warnings: list[str] = []
    """Of what is good: what may not work as it should, one sentence each."""
    notes: list[str] = []
    """Of what is good: what may not be what was meant, one sentence each."""


class Observation(Resource):
    """Everything that the status depends on."""

    generation: int
    previous: WasmPluginStatus = WasmPluginStatus()
    resolution: Resolution
    pods: list[PodObservation] = []
    unguarded: list[UnguardedPod] = []
    """At most some of those, by name; ``unguarded_count`` is all of them."""
    unguarded_count: int = 0
    needs_pods: bool = True
    """``spec.selector.required``."""
    held: RollbackStatus | None = None
    """The rollback that holds, where this generation's revision was rolled back."""
    now: str
    """RFC 3339, whole seconds."""


class Event(Resource):
    """One line for ``kubectl describe``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: Annotated[str, Field(max_length=_MAX_MESSAGE)]


class Outcome(Resource):
    """What is to be written."""

    status: WasmPluginStatus
    events: list[Event] = []


def reconcile(observed: Observation) -> Outcome:
    """The status of a plugin, and the Events of what changed."""
    resolution = observed.resolution
    counts, failures, sentence = _count(observed)
    failed = resolution.state == "Failed"
    good = resolution.state == "Good"
    running = good and counts.loaded == counts.matched
    reason = _REASONS[resolution.cause] if failed and resolution.cause else PENDING

    conditions: dict[ConditionType, tuple[bool | None, str, str]] = {}
    if good:
        conditions["Resolved"] = (True, RESOLVED, _resolved(resolution))
        conditions["Verified"] = (True, VERIFIED, _verified(resolution))
    elif failed:
        conditions["Resolved"] = (resolution.cause == "verify" or None, reason, resolution.message)
        if resolution.cause == "fetch":
            conditions["Resolved"] = (False, reason, resolution.message)
        conditions["Verified"] = (False if resolution.cause == "verify" else None, reason, resolution.message)
    else:
        waits = resolution.message or "the source is being resolved"
        conditions["Resolved"] = conditions["Verified"] = (None, PENDING, waits)

    if running and counts.matched == 0:
        conditions["Programmed"] = (True, NO_PODS, sentence)
    elif running:
        conditions["Programmed"] = (True, PROGRAMMED, sentence)
    elif good:
        conditions["Programmed"] = (False, PODS_FAILED if counts.failed else PROGRESSING, sentence)
    elif failed:
        conditions["Programmed"] = (False, reason, _with_last_good(observed))
    else:
        conditions["Programmed"] = (False, PENDING, "the pods go on with what they run")

    if running:
        conditions["Ready"] = (True, NO_PODS if counts.matched == 0 else READY, sentence)
    elif good:
        conditions["Ready"] = (False, conditions["Programmed"][1], sentence)
    elif failed:
        conditions["Ready"] = (False, reason, _with_last_good(observed))
    else:
        conditions["Ready"] = (False, PENDING, conditions["Resolved"][2])

    stalled = (failed and not resolution.transient) or (good and counts.failed > 0 and counts.updating == 0)
    under_way = not running and not stalled
    ready = conditions["Ready"]
    conditions["Reconciling"] = (under_way, ready[1] if under_way else SETTLED, ready[2] if under_way else "")
    conditions["Stalled"] = (stalled, ready[1] if stalled else SETTLED, ready[2] if stalled else "")

    artifact = resolution.artifact
    status = WasmPluginStatus(
        observed_generation=observed.generation,
        conditions=[_condition(kind, told, observed) for kind, told in _in_order(conditions)],
        artifact=artifact,
        pods=counts,
        failures=failures[:_MAX_FAILURES],
        revisions=_revisions(observed),
        hooks=",".join(artifact.hooks) if artifact else None,
        digest=artifact.digest.removeprefix("sha256:")[:12] if artifact else None,
        loaded=f"{counts.loaded}/{counts.matched}",
    )
    return Outcome(status=status, events=_events(observed, status))


def _resolved(resolution: Resolution) -> str:
    assert resolution.artifact is not None  # noqa: S101 - what is good has one
    again = f"; asking for the tag again failed: {resolution.message}" if resolution.message else ""
    return f"the source is {resolution.artifact.digest}{again}"


def _verified(resolution: Resolution) -> str:
    more = [*resolution.warnings, *resolution.notes]
    return "; ".join(["the module is what the resource asks for, and may be loaded", *more])


def _in_order(
    conditions: dict[ConditionType, tuple[bool | None, str, str]],
) -> list[tuple[ConditionType, tuple[bool | None, str, str]]]:
    order: tuple[ConditionType, ...] = ("Ready", "Resolved", "Verified", "Programmed", "Reconciling", "Stalled")
    return [(kind, conditions[kind]) for kind in order]


def _with_last_good(observed: Observation) -> str:
    """Why it failed, and what that means for the pods."""
    resolution = observed.resolution
    runs = sum(pod.runs != "Nothing" for pod in observed.pods)
    means = f"; the version before it goes on in {runs} {'pod' if runs == 1 else 'pods'}" if runs else ""
    return _cut(resolution.message, _MAX_MESSAGE - len(means)) + means


def _count(observed: Observation) -> tuple[PodCounts, list[Failure], str]:
    """How many pods do what, the failures (the worst first), and one sentence."""
    resolution, pods = observed.resolution, sorted(observed.pods, key=lambda pod: pod.name)
    failures: list[Failure] = []
    loaded, waiting = 0, []
    for pod in pods:
        if resolution.state != "Good":
            continue  # what they run is another generation
        runs = pod.runs == "Current"
        if runs and pod.ready:
            loaded += 1
        elif runs:
            waiting.append(f"pod '{pod.name}' runs it and is not ready")
        elif pod.failure is not None:
            failures.append(pod.failure.model_copy(update={"pod": pod.name}))
        elif not pod.connected:
            waiting.append(f"the sidecar of pod '{pod.name}' is not connected")
        else:
            waiting.append(f"pod '{pod.name}' is loading it")
    failed = len(pods) if resolution.state == "Failed" else len(failures)
    counts = PodCounts(matched=len(pods), loaded=loaded, updating=len(pods) - loaded - failed, failed=failed)
    if not pods:
        sentence = "no pod with a sidecar matches spec.selector"
    elif resolution.state != "Good":
        sentence = ""
    elif loaded == len(pods):
        sentence = f"{loaded} of {loaded} pods run it"
    else:
        first = f"pod '{failures[0].pod}' cannot load it: {failures[0].message}" if failures else waiting[0]
        sentence = _cut(f"{loaded} of {len(pods)} pods run it; {first}")
    if resolution.state == "Failed" and resolution.cause is not None:
        failures.insert(0, Failure(cause=resolution.cause, message=_cut(resolution.message)))
    return counts, _since(failures, observed), sentence


def _since(failures: list[Failure], observed: Observation) -> list[Failure]:
    """Each failure with the time since when it is there."""
    known = {(each.pod, each.cause, each.message): each.since for each in observed.previous.failures}
    return [
        each.model_copy(update={"since": known.get((each.pod, each.cause, each.message)) or observed.now})
        for each in failures
    ]


def _condition(kind: ConditionType, told: tuple[bool | None, str, str], observed: Observation) -> Condition:
    truth, reason, message = told
    status: Literal["True", "False", "Unknown"] = "Unknown" if truth is None else "True" if truth else "False"
    before = next((each for each in observed.previous.conditions if each.type == kind), None)
    return Condition(
        type=kind,
        status=status,
        observed_generation=observed.generation,
        last_transition_time=before.last_transition_time if before and before.status == status else observed.now,
        reason=reason,
        message=_cut(message, 32_768),
    )


def _revisions(observed: Observation) -> list[RevisionStatus]:
    known, resolution = observed.previous.revisions, observed.resolution
    if resolution.state != "Good" or resolution.revision is None or resolution.artifact is None:
        return known
    if known and known[0].revision == resolution.revision:
        return known
    new = RevisionStatus(revision=resolution.revision, digest=resolution.artifact.digest, since=observed.now)
    return [new, *known][:_MAX_REVISIONS]


def _events(observed: Observation, status: WasmPluginStatus) -> list[Event]:
    """What a person should hear of: a new revision, and each change of Ready's status or reason."""
    events = []
    before = observed.previous.conditions
    if status.artifact and status.revisions and status.revisions != observed.previous.revisions:
        message = f"revision {status.revisions[0].revision} is {status.artifact.digest}"
        events.append(Event(type="Normal", reason=RESOLVED, message=message))
        events += [Event(type="Warning", reason=NOT_GRANTED, message=_cut(each))
                   for each in observed.resolution.warnings]  # fmt: skip
    now, then = status.conditions[0], next((each for each in before if each.type == "Ready"), None)
    if (then is None or (now.status, now.reason) != (then.status, then.reason)) and now.reason not in {
        PENDING,
        PROGRESSING,
    }:
        kind: Literal["Normal", "Warning"] = "Normal" if now.status == "True" else "Warning"
        events.append(Event(type=kind, reason=now.reason, message=_cut(now.message)))
    return events


def _cut(text: str, limit: int = _MAX_MESSAGE) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def as_json(status: WasmPluginStatus) -> dict[str, Any]:
    """The status as the API server stores it: without what is not set."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
