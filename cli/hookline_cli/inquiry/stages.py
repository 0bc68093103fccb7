"""The stages that a plugin passes from a manifest to its answers, and where it stopped. Pure.

A cluster's word for each is a condition of its WasmPlugin, and a sidecar's a plugin of ``/v1/plugins``; both become the
same list here.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Name = Literal[
    "apply", "operator", "resolve", "pull", "verify", "settings", "connect", "compile", "self-test", "prepare",
    "switch", "answers",
]  # fmt: skip
State = Literal["ok", "failed", "waiting", "unknown", "not reached"]
ORDER: Final[tuple[Name, ...]] = (
    "apply", "operator", "resolve", "pull", "verify", "settings", "connect", "compile", "self-test", "prepare",
    "switch", "answers",
)  # fmt: skip
MEANS: Final[Mapping[Name, str]] = {
    "apply": "the resource is there",
    "operator": "an operator has looked at it",
    "resolve": "its reference means a digest",
    "pull": "its module is fetched",
    "verify": "the module is what was asked for, signed and allowed as it has to be",
    "settings": "its settings, Secrets and permissions fit the module",
    "connect": "the pod's sidecar has been told of it",
    "compile": "the module is compiled",
    "self-test": "the module's own cases have the answers that it says",
    "prepare": "every worker has it beside what runs",
    "switch": "every worker runs it",
    "answers": "its calls go well",
}
_OF_STEP: Final[Mapping[str, Name]] = {
    "fetch": "pull", "compile": "compile", "self-test": "self-test", "prepare": "prepare", "switch": "switch"
}  # fmt: skip
_NEXT: Final[Mapping[Name, str]] = {
    "apply": "apply it: kubectl apply -f",
    "operator": "see that the operator runs: kubectl get pods -A -l app.kubernetes.io/name=hookline",
    "resolve": "mend the reference, its password (pullSecrets) or the way to the registry",
    "pull": "mend the reference, its password (pullSecrets) or the way to the registry",
    "verify": "push another module, sign it, or change the resource or the policy that asks for more",
    "settings": "change the resource, or the Secret or ConfigMap that its settings come from",
    "connect": "see to the way from the pod to the operator: NetworkPolicies, its Service, the operator's pods",
    "compile": "build the module anew, and try it before: hookline test",
    "self-test": "mend the module or its cases: hookline test says what differs",
    "prepare": "see the sidecar's log: kubectl logs POD -c hookline-sidecar",
    "switch": "see the sidecar's log: kubectl logs POD -c hookline-sidecar",
    "answers": "mend the plugin, or what it asks: kubectl logs POD -c hookline-sidecar has each failure",
}
_MANIFEST: Final = "mend that field in the file: hookline check --for folder FOLDER says all that is wrong"
_FOLDER: Final = "write its manifest into the sidecar's folder, or name another plugin"
_FILE: Final = "put the module there, or mend spec.source.file.path"
_OF_A_FILE: Final = "the file "
"""How a sentence about a module in the folder begins."""
_OWN_CASES: Final = ("own case", "selftest", "self-test")
_OF_A_PULL: Final = ("the layer", "a blob", "the file", "configmap", "the store", "the state folder")
"""What a sentence is about that comes after a reference is resolved."""
_COMPILER: Final = ("compil", "not valid webassembly", "wasm function", "wasmtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One of them."""

    name: Name
    state: State
    message: str = ""
    at: str = ""
    """When it became so, as far as that is known."""
    seconds: float | None = None
    """How long it took, as far as that is known."""
    next: str = ""
    """What to do, where it is not passed."""

    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "stage": self.name,
            "state": self.state,
            "at": self.at or None,
            "seconds": self.seconds,
            "message": self.message or None,
            "next": self.next or None,
        }


class Stages:
    """Those of one plugin."""

    def __init__(self, names: Sequence[Name] = ORDER) -> None:
        self._stages: dict[Name, Stage] = {name: Stage(name=name, state="unknown") for name in names}

    def __contains__(self, name: Name) -> bool:
        return name in self._stages

    def __getitem__(self, name: Name) -> Stage:
        return self._stages[name]

    def set(self, name: Name, state: State, message: str = "", **more: Any) -> None:
        """Say how a stage stands; of one that this plugin has not, nothing."""
        if name in self._stages:
            known = self._stages[name]
            given = {"at": known.at, "seconds": known.seconds, **more}
            self._stages[name] = Stage(name=name, state=state, message=message, **given)

    def pass_until(self, name: Name) -> None:
        """Whatever comes before this has gone well."""
        for each in ORDER[: ORDER.index(name)]:
            if each in self._stages and self._stages[each].state == "unknown":
                self.set(each, "ok", self._stages[each].message)

    def done(self) -> list[Stage]:
        """All in order: what comes after one that is not passed is not reached."""
        made, stopped = [], False
        for name in ORDER:
            stage = self._stages.get(name)
            if stage is None:
                continue
            if stopped and stage.state != "failed":
                stage = Stage(name=name, state="not reached")
            elif stage.state in {"failed", "waiting"}:
                stopped = True
                stage = stage if stage.next else replace(stage, next=_NEXT[name])
            made.append(stage)
        return made


def stopped_at(stages: Sequence[Stage]) -> Stage | None:
    """The first that is not passed; None where the plugin answers."""
    return next((each for each in stages if each.state in {"failed", "waiting"}), None)


def of_failure(cause: str, message: str) -> Name:
    """The stage at which a load failed, by its cause and its sentence."""
    said = message.lower()
    if any(each in said for each in _OWN_CASES):
        return "self-test"
    if cause == "fetch":
        return "pull" if any(each in said for each in _OF_A_PULL) else "resolve"
    if cause == "config":
        return "settings"
    return "compile" if any(each in said for each in _COMPILER) else "verify"


def of_sidecar(stages: Stages, told: Mapping[str, Any], name: str) -> None:
    """Add what a sidecar says at ``/v1/plugins`` of a plugin."""
    source = _mapping(told.get("source"))
    if source.get("kind") == "operator":
        connected = bool(source.get("connected"))
        stages.set(
            "connect", "ok" if connected else "failed",
            f"connected to {source.get('operator')}" if connected
            else f"the sidecar does not reach {source.get('operator')}: {source.get('error') or 'it is trying'}",
            at=_time(source.get("since")) if connected else "",
        )  # fmt: skip
    plugin = next((each for each in _items(told.get("plugins")) if each.get("name") == name), None)
    problems = [each for each in _items(told.get("problems")) if each.get("plugin") == name]
    if plugin is None:
        _unknown(stages, told, name, problems)
        return
    for step in _items(plugin.get("steps")):
        stage = _OF_STEP.get(str(step.get("name")))
        if stage is not None:
            state: State = "waiting" if step.get("ok") is None else "ok" if step["ok"] else "failed"
            stages.set(stage, state, at=_time(step.get("at")), seconds=step.get("seconds"))
    if problems and "apply" in stages:
        first = problems[0]
        stages.set(
            "apply", "failed", f"{first.get('file')}: {first.get('field')}: {first.get('message')}", next=_MANIFEST
        )
    else:
        _state(stages, plugin)


def _unknown(stages: Stages, told: Mapping[str, Any], name: str, problems: Sequence[Mapping[str, Any]]) -> None:
    others = [str(each.get("name")) for each in _items(told.get("plugins"))]
    there = f"it has {', '.join(others[:20])}" if others else "it has none"
    if problems:
        first = problems[0]
        stages.set(
            "apply", "failed", f"{first.get('file')}: {first.get('field')}: {first.get('message')}", next=_MANIFEST
        )
    elif "connect" in stages:
        if stages["connect"].state == "ok":
            stages.set("connect", "waiting", f"the sidecar has not been told of '{name}'; {there}")
    else:
        stages.set("apply", "failed", f"the sidecar knows no plugin '{name}'; {there}", next=_FOLDER)


def _state(stages: Stages, plugin: Mapping[str, Any]) -> None:
    state, failure = str(plugin.get("state")), _mapping(plugin.get("failure"))
    artifact = _mapping(plugin.get("artifact"))
    if failure:
        stage = of_failure(str(failure.get("cause")), str(failure.get("message")))
        if stages["compile"].state == "failed" and stage == "verify":
            stage = "compile"
        # A fetch is all of resolve, pull, verify and settings; what comes later is of a version before this one.
        for each in ORDER:
            if each in stages and (ORDER.index(each) >= ORDER.index(stage) or stages[each].state == "failed"):
                stages.set(each, "unknown")
        stages.pass_until(stage)
        goes_on = "; the version before it goes on" if state == "LastGood" else ""
        message = str(failure.get("message"))
        more = {"next": _FILE} if stage == "pull" and message.startswith(_OF_A_FILE) else {}
        stages.set(stage, "failed", f"{message}{goes_on}", **more)
        return
    if plugin.get("rolled_back"):
        rolled = _mapping(plugin["rolled_back"])
        stages.pass_until("answers")
        stages.set(
            "answers", "failed",
            f"it failed on probation ({rolled.get('cause')}: {rolled.get('message')}), and the version before it runs",
            next="change the resource, or what its settings come from: nothing is tried again before",
        )  # fmt: skip
        return
    if state != "Running":
        waits: Name = next((each for each in _OF_STEP.values() if stages[each].state != "ok"), "switch")
        stages.pass_until(waits)
        stages.set(waits, "waiting", "it is under way", next="wait, and ask again")
        return
    stages.pass_until("answers")
    if artifact.get("digest"):
        stages.set("resolve", "ok", f"{artifact.get('reference') or 'the source'} is {artifact['digest']}")
        stages.set("pull", "ok", f"{artifact.get('size')} bytes, layout {artifact.get('layout')}")
    _answers(stages, plugin)


def _answers(stages: Stages, plugin: Mapping[str, Any]) -> None:
    stats = _mapping(plugin.get("stats")).values()
    calls = sum(int(each.get("calls") or 0) for each in stats)
    failures = sum(sum(_mapping(each.get("failures")).values()) for each in stats)
    last = _mapping(plugin.get("last_failure"))
    newest = f"; the newest failure: {last.get('hook')}: {last.get('cause')}: {last.get('message')}" if last else ""
    troubles = _items(plugin.get("health"))
    if plugin.get("paused"):
        hooks = ", ".join(sorted({str(each.get("hook")) for each in _items(plugin["paused"])}))
        stages.set(
            "answers", "failed", f"so many calls of {hooks} failed that it is not asked for a while{newest}",
            at=_time(last.get("at")),
        )  # fmt: skip
    elif troubles:
        worst = troubles[0]
        stages.set(
            "answers", "failed",
            f"{worst.get('trouble')} at {worst.get('hook')}: {worst.get('bad')} of {worst.get('calls')} calls{newest}",
            at=_time(last.get("at")),
        )  # fmt: skip
    elif not calls:
        stages.set("answers", "ok", "it has not been called yet")
    elif failures * 2 >= calls:  # of all calls ever: health is about the last ones, and forgets
        stages.set("answers", "failed", f"{failures} of {calls} calls failed{newest}", at=_time(last.get("at")))
    else:
        stages.set("answers", "ok", f"{calls} calls{newest}")


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _items(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _time(found: Any) -> str:
    if not isinstance(found, int | float) or found <= 0:
        return ""
    try:
        return dt.datetime.fromtimestamp(found, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return ""
