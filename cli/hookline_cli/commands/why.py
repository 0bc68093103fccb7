"""``hookline why``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import REFUSED, Answer, UsageError, command, painted
from hookline_cli.inquiry.options import Asked, cluster_options, sidecar_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_cli.inquiry.kubectl import Kubectl
    from hookline_cli.inquiry.pods import Pod
    from hookline_cli.inquiry.stages import Stage, Stages

_EXAMPLES = """
hookline why guard
hookline why guard web-7d9f8 -n shop
hookline why guard --json
hookline why guard --admin http://127.0.0.1:9902
hookline why guard --state ~/.local/state/hookline
"""
_PLUGINS: Final = "wasmplugins.hookline.dev"
_REVISIONS: Final = "wasmpluginrevisions.hookline.dev"
_EVENTS: Final = 5
_COLOURS: Final = {"ok": "green", "failed": "red", "waiting": "yellow"}
_NOT_OF_FOLDER: Final = ("operator", "connect")
_NOT_OF_SIDECAR: Final = ("apply", "operator")


@command(
    "why",
    text="""Explain why a plugin does not answer yet.

    What happens between a manifest and an answer is a line each: the resource is there, an operator has looked at it,
    its reference is resolved, the module pulled and verified, its settings fit, the pod's sidecar knows of it, compiles
    it, tries its own cases, prepares it in every worker, switches, and its calls go well. Each has its time, where that
    is known. At the end is the sentence where it stopped, and what to do.

    From a cluster, it is what the WasmPlugin's status, its Events and the pod's sidecar say (kubectl get, and kubectl
    exec for POD: by default one that is not ready). With --admin or --state, one sidecar is asked alone.

    The exit code is 0 where the plugin runs and its calls go well, else 1.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["plugin"]),
        click.Argument(["pod"], required=False),
        *cluster_options(),
        *sidecar_options(),
    ],
)
def WHY(*, plugin: str, pod: str | None, **given: Any) -> Answer:  # noqa: N802 - the decorator makes it a constant
    """Explain a plugin."""
    from hookline_cli.inquiry import stages  # noqa: PLC0415

    asked = Asked(**given)
    sidecar = asked.sidecar()
    if sidecar is None:
        return _of_cluster(asked.cluster(), plugin, pod)
    if pod is not None:
        raise UsageError("POD is for a cluster, and --admin and --state name a sidecar")
    told = sidecar.json("/v1/plugins")
    source = told.get("source") or {}
    left_out = _NOT_OF_FOLDER if source.get("kind") == "folder" else _NOT_OF_SIDECAR
    made = stages.Stages([each for each in stages.ORDER if each not in left_out])
    stages.of_sidecar(made, told, plugin)
    _tell_operator(made, source)
    return _answer(plugin, made, subject=f"plugin '{plugin}' in the sidecar at {sidecar.where}", events=[], more={})


def _tell_operator(made: Stages, source: Mapping[str, Any]) -> None:
    """With an operator, resolving and verifying is its work: what comes from it is resolved."""
    if source.get("kind") == "operator" and made["pull"].state == "ok":
        made.pass_until("pull")


def _of_cluster(kubectl: Kubectl, name: str, wanted: str | None) -> Answer:
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415
    from hookline_cli.inquiry import pods, resources  # noqa: PLC0415

    try:
        found = kubectl.named(_PLUGINS, name)
    except FetchError as error:
        if "not found" not in str(error):
            raise
        others = [str(each["metadata"]["name"]) for each in kubectl.items(_PLUGINS)]
        return _missing(name, others)
    made = resources.of_plugin(found)
    its = pods.of_plugin(kubectl, found)
    chosen = _chosen(its, found, wanted)
    if chosen is not None:
        pods.ask(kubectl, [chosen])
        if chosen.told is not None:
            _merge(made, chosen, name, asked=wanted is not None)
        elif chosen.state:
            made.set("connect", "waiting", f"pod '{chosen.name}': its sidecar does not run: {chosen.state}",
                     next=f"kubectl describe pod {chosen.name}")  # fmt: skip
    metadata = found["metadata"]
    subject = f"WasmPlugin '{name}' in namespace '{metadata.get('namespace')}', generation {metadata.get('generation')}"
    return _answer(
        name, made, subject=subject, events=_events(kubectl, name),
        more={
            "namespace": metadata.get("namespace"),
            "generation": metadata.get("generation"),
            "pod": chosen.name if chosen is not None else None,
            "podError": (chosen.error or None) if chosen is not None else None,
            "pods": [{"pod": each.name, "ready": each.ready} for each in its],
            "revisions": [
                {"name": each["metadata"]["name"], "revision": each.get("revision"), "digest": each.get("digest")}
                for each in kubectl.try_items(_REVISIONS)
                if each.get("plugin") == name
            ],
        },
    )  # fmt: skip


def _chosen(its: Sequence[Pod], found: Mapping[str, Any], wanted: str | None) -> Pod | None:
    """The pod whose sidecar is asked."""
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415

    if wanted is not None:
        pod = next((each for each in its if each.name == wanted.removeprefix("pod/")), None)
        if pod is None:
            there = ", ".join(each.name for each in its[:20]) or "none"
            raise FetchError(
                f"pod '{wanted}' has no sidecar, or the plugin's selector does not select it; selected are: {there}",
                transient=False,
            )
        return pod
    failures = (found.get("status") or {}).get("failures") or ()
    named = {each.get("pod") for each in failures}
    return min(its, key=lambda each: (each.name not in named, each.ready, each.name), default=None)


def _merge(made: Stages, pod: Pod, name: str, *, asked: bool) -> None:
    """Put what the pod's sidecar says in place of what the status says of all of them.

    Where the operator has nothing to hand out, the sidecar only repeats the operator's sentence.
    """
    from hookline_cli.inquiry import stages  # noqa: PLC0415

    assert pod.told is not None  # noqa: S101 - its caller has looked
    if stages.stopped_at([made[each] for each in stages.ORDER[: stages.ORDER.index("connect")]]) is not None:
        return
    own = stages.Stages(stages.ORDER[stages.ORDER.index("pull") :])
    stages.of_sidecar(own, pod.told, name)
    for each in stages.ORDER[stages.ORDER.index("connect") :]:
        stage, known = own[each], made[each]
        worse = stage.state in {"failed", "waiting"}
        if stage.state == "unknown" or (known.state in {"failed", "waiting"} and not worse and not asked):
            continue
        message = f"pod '{pod.name}': {stage.message}" if stage.message else ""
        made.set(
            each, stage.state, message or known.message, at=stage.at or known.at, seconds=stage.seconds,
            next=stage.next or known.next,
        )  # fmt: skip
    for each in ("pull", "verify", "settings"):  # of the pod's own fetch
        if own[each].state == "failed":
            made.set(each, "failed", f"pod '{pod.name}': {own[each].message}")


def _events(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    """The newest Events of it, as far as they may be read."""
    fields = f"involvedObject.kind=WasmPlugin,involvedObject.name={name}"
    found = kubectl.try_items("events", f"--field-selector={fields}")
    told = [
        {
            "at": each.get("lastTimestamp") or each.get("eventTime") or each["metadata"].get("creationTimestamp"),
            "type": each.get("type"),
            "reason": each.get("reason"),
            "message": each.get("message"),
        }
        for each in found
    ]
    return sorted(told, key=lambda each: str(each["at"]))[-_EVENTS:]


def _missing(name: str, others: Sequence[str]) -> Answer:
    from hookline_cli.inquiry import stages  # noqa: PLC0415

    made = stages.Stages()
    there = f"there are {', '.join(others[:20])}" if others else "there is none"
    made.set(
        "apply", "failed", f"there is no WasmPlugin '{name}' in this namespace; {there}",
        next="apply it, or name its namespace with -n",
    )  # fmt: skip
    return _answer(name, made, subject=f"WasmPlugin '{name}'", events=[], more={})


def _answer(
    name: str, made: Stages, *, subject: str, events: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
) -> Answer:
    from hookline_api.text import readable  # noqa: PLC0415
    from hookline_cli.inquiry import stages  # noqa: PLC0415
    from hookline_cli.inquiry.tables import lasted  # noqa: PLC0415

    done = made.done()
    stop = stages.stopped_at(done)
    lines = [subject]
    lines += [_line(each) for each in done]
    for each in events:
        lines.append(readable(f"event  {each['at']}  {each['type']} {each['reason']}: {each['message']}", 300))
    if stop is None:
        lines.append("it runs, and its calls go well")
    else:
        verb = "stopped" if stop.state == "failed" else "waits"
        lines.append(f"{verb} at {stop.name} ({stages.MEANS[stop.name]}): {readable(stop.message)}")
        lines.append(f"next: {stop.next}")
    timed = [f"{each.name} {lasted(each.seconds)}" for each in done if each.seconds is not None]
    lines += [f"took: {', '.join(timed)}"] if timed else []
    return Answer(
        lines=lines,
        data={
            "plugin": name,
            **more,
            "stages": [each.data() for each in done],
            "stoppedAt": stop.name if stop is not None else None,
            "state": stop.state if stop is not None else "ok",
            "message": stop.message if stop is not None else None,
            "next": stop.next if stop is not None else None,
            "events": list(events),
        },
        code=REFUSED if stop is not None else 0,
    )


def _line(stage: Stage) -> str:
    from hookline_api.text import readable  # noqa: PLC0415
    from hookline_cli.inquiry.tables import lasted  # noqa: PLC0415

    state = stage.state.ljust(12)
    shown = painted(state, _COLOURS[stage.state]) if stage.state in _COLOURS else state
    took = lasted(stage.seconds)
    text = f"  {shown}{stage.name.ljust(11)}{stage.at.ljust(21)}{took.ljust(8)}{readable(stage.message, 160)}"
    return text.rstrip()
