"""The status of one plugin, from what was observed: a pure function, data in, data out.

``reconcile`` gets the resource, how far its resolution is, and what the matching pods report. It returns the status and
the Events that are due. It is level-triggered: the same observation gives the same status, whatever came before. Only
the conditions' times depend on the status before, and move when a condition changes.

The conditions are those of the Kubernetes API conventions and of kstatus. ``Reconciling`` is True while something is
under way that can end by itself, ``Stalled`` where it takes a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from hookline_api.base import Resource
from hookline_api.errors_page import pointer
from hookline_api.status import (
    ArtifactStatus,
    Condition,
    ConditionType,
    Failure,
    PodCounts,
    RevisionStatus,
    RollbackStatus,
    WasmPluginStatus,
)
from hookline_api.text import readable
from hookline_operator.status import conditions, health, sources
from hookline_operator.status.conditions import MAX_MESSAGE, ConditionText, Evidence, cut
from hookline_operator.status.reasons import (
    HEALTHY,
    NO_PODS,
    NOT_GRANTED,
    PENDING,
    POLICY_AUDIT,
    PROGRESSING,
    RESOLVED,
    VERIFIED,
)

if TYPE_CHECKING:
    from hookline_operator.status.observation import Observation, PodObservation

_MAX_FAILURES: Final = 5
_MAX_REVISIONS: Final = 10
NAMED: Final = 3
"""Other plugins that one sentence names."""


class Event(Resource):
    """One line for ``kubectl describe``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]


class Outcome(Resource):
    """What is to be written."""

    status: WasmPluginStatus
    events: list[Event] = []


def reconcile(observed: Observation) -> Outcome:
    """The status of a plugin, and the Events of what changed."""
    held = _held(observed)
    counts, older, load_failures, sentence = _count(observed, held)
    if held is not None:
        load_failures.append(_rollback(held))
    of_new = [pod for pod in observed.pods if pod.runs == "Current"]
    verdict = health.judge(observed.pods)
    told = conditions.conditions(
        Evidence(
            resolution=observed.resolution,
            counts=counts,
            older=older,
            waiting=sum(pod.waits for pod in observed.pods),
            sentence=sentence,
            health=verdict,
            health_of_new=verdict if len(of_new) == len(observed.pods) else health.judge(of_new),
            sources=sources.judge(observed.pods, asks=observed.asks),
            offered=observed.offered,
            held=held,
            can_go_back=observed.can_go_back,
            unguarded=observed.unguarded,
            needs_pods=observed.needs_pods,
        )
    )
    artifact = observed.resolution.artifact
    status = WasmPluginStatus(
        observed_generation=observed.generation,
        conditions=[_condition(kind, each, observed) for kind, each in told.items()],
        artifact=artifact,
        pods=counts,
        failures=_since([*load_failures, *verdict.failures][:_MAX_FAILURES], observed),
        revisions=_revisions(observed),
        rolled_back=held,
        hooks=",".join(artifact.hooks) if artifact else None,
        digest=artifact.digest.removeprefix("sha256:")[:12] if artifact else None,
        failed_digest=observed.resolution.failed_digest,
        more=pointer(told["Ready"][1]) if told["Ready"][0] is not True else None,
        loaded=f"{counts.loaded}/{counts.matched}" + (f" ({older} older)" if older else ""),
    )
    return Outcome(status=status, events=_events(observed, status))


def _held(observed: Observation) -> RollbackStatus | None:
    """The rollback that holds: until the resource, or what its settings come from, asks for something else.

    A change that does not resolve asks for nothing that pods could run: what was rolled back stays so meanwhile.
    """
    known, resolution = observed.held or observed.previous.rolled_back, observed.resolution
    if known is not None and known.revision == resolution.revision:
        changed = known.generation != observed.generation and resolution.state == "Good"
        if not changed:
            return known
    first = min((pod for pod in observed.pods if pod.rolled_back), key=lambda pod: pod.name, default=None)
    if resolution.state != "Good" or resolution.revision is None or first is None or first.rolled_back is None:
        return None
    return RollbackStatus(
        revision=resolution.revision,
        generation=observed.generation,
        digest=resolution.artifact.digest if resolution.artifact else None,
        pod=first.name,
        calls=first.rolled_back.calls,
        failures=first.rolled_back.failures,
        cause=first.rolled_back.cause,
        message=readable(first.rolled_back.message),
        since=observed.now,
    )


def _count(observed: Observation, held: RollbackStatus | None) -> tuple[PodCounts, int, list[Failure], str]:
    """How many pods do what, how many run something older, why it is not loaded, and one sentence."""
    resolution, pods = observed.resolution, sorted(observed.pods, key=lambda pod: pod.name)
    if resolution.state != "Good" or (held is not None and observed.can_go_back):
        return _count_older(observed)
    loaded = [pod for pod in pods if pod.runs == "Current" and pod.ready]
    failures = [
        pod.failure.model_copy(update={"pod": pod.name})
        for pod in pods
        if pod.runs != "Current" and pod.failure is not None
    ]
    counts = PodCounts(
        matched=len(pods),
        loaded=len(loaded),
        updating=len(pods) - len(loaded) - len(failures),
        failed=len(failures),
        unguarded=observed.unguarded_count,
    )
    older = sum(pod.runs == "Older" for pod in pods)
    if not pods:
        return counts, older, failures, "no pod with a sidecar matches spec.selector"
    sentence = f"{len(loaded)} of {len(pods)} pods run it"
    if failures:
        pod = failures[0].pod
        says = f"; kubectl logs {pod} -c hookline-sidecar says more"
        sentence = cut(f"{sentence}; pod '{pod}' cannot load it: {failures[0].message}", MAX_MESSAGE - len(says)) + says
    elif len(loaded) < len(pods):
        sentence = cut(f"{sentence}; {_waits(next(pod for pod in pods if pod not in loaded))}")
    return counts, older, failures, sentence


def _count_older(observed: Observation) -> tuple[PodCounts, int, list[Failure], str]:
    """The same where no pod is to run what the resource asks for: all that they run is older."""
    resolution, matched = observed.resolution, len(observed.pods)
    failures = []
    if resolution.state == "Failed" and resolution.cause is not None:
        failures.append(Failure(cause=resolution.cause, message=cut(resolution.message)))
    failed = 0 if resolution.state == "Pending" else matched
    counts = PodCounts(matched=matched, updating=matched - failed, failed=failed, unguarded=observed.unguarded_count)
    return counts, sum(pod.runs != "Nothing" for pod in observed.pods), failures, ""


def _rollback(held: RollbackStatus) -> Failure:
    return Failure(pod=held.pod, cause=held.cause, message=cut(conditions.rolled_back(held)), since=held.since)


def _waits(pod: PodObservation) -> str:
    """Why a pod does not run it, or is not counted."""
    if pod.waits_for:
        number = max(len(pod.waits_for), pod.waits_for_number)
        more = number - min(len(pod.waits_for), NAMED)
        names = ", ".join(f"'{name}'" for name in sorted(pod.waits_for)[:NAMED])
        plugins = "plugin" if number == 1 else "plugins"
        return f"pod '{pod.name}' waits for {plugins} {names}{f' and {more} more' if more > 0 else ''}"
    if pod.runs == "Current":
        return f"pod '{pod.name}' runs it and is not ready"
    if not pod.connected:
        return f"the sidecar of pod '{pod.name}' is not connected"
    return f"pod '{pod.name}' is loading it"


def _since(failures: list[Failure], observed: Observation) -> list[Failure]:
    """Each failure with the time since when it is there; of calls, since a hook is not well, whatever its figures."""

    def identity(each: Failure) -> tuple[str | None, ...]:
        return (each.pod, each.hook) if each.hook else (each.pod, each.cause, each.message)

    known = {identity(each): each.since for each in observed.previous.failures}
    return [
        each.model_copy(update={"since": each.since or known.get(identity(each)) or observed.now}) for each in failures
    ]


def _condition(kind: ConditionType, told: ConditionText, observed: Observation) -> Condition:
    truth, reason, message = told
    status: Literal["True", "False", "Unknown"] = "Unknown" if truth is None else "True" if truth else "False"
    before = next((each for each in observed.previous.conditions if each.type == kind), None)
    return Condition(
        type=kind,
        status=status,
        observed_generation=observed.generation,
        last_transition_time=before.last_transition_time if before and before.status == status else observed.now,
        reason=reason,
        message=cut(message, 32_768),
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
    """What a person should hear of: a new revision, and each change of a status or a reason that counts.

    Those of Ready and Healthy do, and those of SourcesAvailable.
    """
    events = []
    if status.artifact and status.revisions and status.revisions != observed.previous.revisions:
        message = f"revision {status.revisions[0].revision} is {status.artifact.digest}"
        events.append(Event(type="Normal", reason=RESOLVED, message=message))
        events += [Event(type="Warning", reason=NOT_GRANTED, message=cut(each))
                   for each in observed.resolution.warnings]  # fmt: skip
    events += _of_trust(observed, status)
    now, before = _changed("Ready", observed, status)
    if now is not None and now.reason not in {PENDING, PROGRESSING}:
        events.append(_event(now))
    healthy, before = _changed("Healthy", observed, status)
    # Nobody has to hear that what is new works: Ready says so.
    news = healthy is not None and (healthy.status == "False" or (healthy.reason == HEALTHY and before == "False"))
    if healthy is not None and news and (now is None or now.reason != healthy.reason):
        events.append(_event(healthy))
    reached, before = _changed("SourcesAvailable", observed, status)
    if reached is not None and (reached.status == "False" or (reached.status == "True" and before == "False")):
        events.append(_event(reached))
    return events


def _of_trust(observed: Observation, status: WasmPluginStatus) -> list[Event]:
    """Who has signed a new artifact, what policies in Audit would refuse, and why an update waits: each once."""
    resolution, before, events = observed.resolution, observed.previous.artifact, []
    now = status.artifact
    if now is not None and now.signatures and (before is None or _proven(now) != _proven(before)):
        told = f"{now.digest} is {'; '.join(conditions.signed(resolution))}"
        events.append(Event(type="Normal", reason=VERIFIED, message=cut(told)))
    known = {each.type: each.message for each in observed.previous.conditions}
    events += [
        Event(type="Warning", reason=POLICY_AUDIT, message=cut(each))
        for each in resolution.audits
        if each not in known.get("Verified", "")
    ]
    if resolution.waits and resolution.message not in known.get("Resolved", ""):
        events.append(Event(type="Warning", reason=resolution.waits, message=cut(resolution.message)))
    return events


def _proven(artifact: ArtifactStatus) -> tuple[str, set[tuple[str, str | None]]]:
    return artifact.digest, {(each.signer, each.key) for each in artifact.signatures}


def _changed(
    kind: ConditionType, observed: Observation, status: WasmPluginStatus
) -> tuple[Condition | None, str | None]:
    """A condition, if its status or its reason is another than before; and the status that it had."""
    now = next((each for each in status.conditions if each.type == kind), None)
    then = next((each for each in observed.previous.conditions if each.type == kind), None)
    if then is None or now is None:
        return now, None
    return (now if (now.status, now.reason) != (then.status, then.reason) else None), then.status


def _event(now: Condition) -> Event:
    fine = now.status == "True" or now.reason == NO_PODS
    return Event(type="Normal" if fine else "Warning", reason=now.reason, message=cut(now.message))


def as_json(status: WasmPluginStatus) -> dict[str, Any]:
    """The status as the API server stores it: without empty fields."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
