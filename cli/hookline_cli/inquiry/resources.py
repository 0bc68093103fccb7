"""What a WasmPlugin's status says of each stage. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hookline_cli.inquiry.stages import Name, Stages, of_failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OF_REASON: Final[Mapping[str, Name]] = {
    "VerifyFailed": "verify",
    "SignatureFailed": "verify",
    "PolicyForbids": "verify",
    "ConfigInvalid": "settings",
    "PermissionsIncreased": "settings",
    "SelfTestFailed": "self-test",
}
_CAUSES: Final = {"FetchFailed": "fetch", "ConfigInvalid": "config"}
_NOT_CONNECTED: Final = "is not connected"


def of_plugin(found: Mapping[str, Any]) -> Stages:
    """All stages, as far as the status knows them."""
    stages = Stages()
    metadata, status = _mapping(found.get("metadata")), _mapping(found.get("status"))
    generation = metadata.get("generation")
    stages.set("apply", "ok", f"generation {generation}", at=str(metadata.get("creationTimestamp") or ""))
    conditions = {str(each.get("type")): each for each in _items(status.get("conditions"))}
    if not _observed(stages, status, conditions, generation):
        return stages
    ready = conditions.get("Ready", {})
    reason = str(ready.get("reason"))
    if reason == "Pending":
        stages.set("resolve", "waiting", str(ready.get("message")), next="wait, and ask again", at=_at(ready))
        return stages
    failed = _failed(conditions, reason)
    if failed is not None:
        stage, condition = failed
        stages.pass_until(stage)
        stages.set(
            stage, "failed", str(ready.get("message") or condition.get("message")), at=_at(condition),
            next=_advice(conditions),
        )  # fmt: skip
        return stages
    _module(stages, status, conditions)
    _pods(stages, status, conditions, reason)
    return stages


def _observed(
    stages: Stages, status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], generation: Any
) -> bool:
    """Whether an operator has seen what is there now."""
    observed = conditions.get("Observed", {})
    seen = status.get("observedGeneration")
    if not conditions:
        stages.set("operator", "waiting", "no operator has looked at it yet")
        return False
    if seen != generation:
        stages.set(
            "operator", "waiting",
            f"no operator has looked at generation {generation} yet; what is known is of generation {seen}",
            at=_at(observed),
        )  # fmt: skip
        return False
    if observed.get("status") == "False":
        stages.set("operator", "failed", str(observed.get("message") or "no operator is at work"), at=_at(observed))
        return False
    stages.set("operator", "ok", "last looked at then", at=_at(observed))
    return True


def _failed(conditions: Mapping[str, Mapping[str, Any]], reason: str) -> tuple[Name, Mapping[str, Any]] | None:
    """The stage at which nothing came of it, and its condition."""
    if reason not in _OF_REASON and reason != "FetchFailed":
        return None
    resolved, verified = conditions.get("Resolved", {}), conditions.get("Verified", {})
    about = verified if verified.get("status") == "False" else resolved
    message = str(about.get("message"))
    stage = _OF_REASON.get(reason)
    if stage is None or stage == "verify":
        stage = of_failure(_CAUSES.get(reason, "verify"), message)
        stage = "verify" if stage == "compile" else stage  # the operator compiles nothing
    return stage, about


def _module(stages: Stages, status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> None:
    artifact = _mapping(status.get("artifact"))
    for stage, kind in (("resolve", "Resolved"), ("verify", "Verified"), ("settings", "PermissionsGranted")):
        condition = conditions.get(kind, {})
        # With Lenient, permissions that are not granted keep nothing from running.
        stages.set(stage, "ok", str(condition.get("message") or ""), at=_at(condition))  # type: ignore[arg-type]
    said = f"{artifact.get('size')} bytes, layout {artifact.get('layout')}" if artifact.get("sha256") else ""
    stages.set("pull", "ok", said)


def _pods(stages: Stages, status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], reason: str) -> None:
    """From the pods' sidecars to the answers."""
    counts = _mapping(status.get("pods"))
    programmed, ready, healthy = (conditions.get(each, {}) for each in ("Programmed", "Ready", "Healthy"))
    message, advice = str(programmed.get("message") or ready.get("message")), _advice(conditions)
    failures = _items(status.get("failures"))
    if reason == "NoMatchingPods":
        stages.set(
            "connect", "ok" if ready.get("status") == "True" else "waiting", str(ready.get("message")), at=_at(ready),
            next="compare spec.selector with the pods' labels; pods without a sidecar do not count",
        )  # fmt: skip
    elif reason == "Unguarded":
        stages.set("connect", "failed", str(ready.get("message")), at=_at(ready), next=advice)
    elif reason == "RolledBack":
        stages.pass_until("answers")
        stages.set("answers", "failed", str(ready.get("message")), at=_at(ready), next=advice)
    elif reason == "PodsFailed" and failures:
        first = next((each for each in failures if not each.get("hook")), failures[0])
        stage = of_failure(str(first.get("cause")), str(first.get("message")))
        stages.pass_until(stage)
        stages.set(stage, "failed", str(ready.get("message")), at=str(first.get("since") or _at(ready)), next=advice)
    elif programmed.get("status") == "True":
        stages.pass_until("answers")
        stages.set("switch", "ok", message, at=_at(programmed))
        state = healthy.get("status")
        stages.set(
            "answers", "failed" if state == "False" else "ok", str(healthy.get("message") or ""), at=_at(healthy),
            next=advice if state == "False" else "",
        )  # fmt: skip
    elif _NOT_CONNECTED in message:
        stages.set("connect", "waiting", message, at=_at(programmed))
    elif counts.get("matched"):
        stages.pass_until("prepare")
        stages.set("prepare", "waiting", message, at=_at(programmed), next="wait, or ask about the pod that it names")


def _advice(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """What the operator says that somebody has to do, or that it does itself."""
    for kind in ("Stalled", "Reconciling"):
        condition = conditions.get(kind, {})
        if condition.get("status") == "True":
            return str(condition.get("message") or "").removesuffix("; see Ready")
    return ""


def _at(condition: Mapping[str, Any]) -> str:
    return str(condition.get("lastTransitionTime") or "")


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _items(found: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
