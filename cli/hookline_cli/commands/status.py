"""``hookline status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import Answer, UsageError, command
from hookline_cli.inquiry.options import Asked, cluster_options, sidecar_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_cli.inquiry.kubectl import Kubectl
    from hookline_cli.inquiry.pods import Pod

_EXAMPLES = """
hookline status
hookline status -A
hookline status guard -n shop
hookline status --admin http://127.0.0.1:9902
hookline status guard --admin unix:/var/lib/hookline/admin.sock --json
"""
_HEAD: Final = ("NAME", "HOOKS", "DIGEST", "LOADED", "READY", "REASON", "CHECKED", "AGE")
_PODS: Final = ("POD", "READY", "STATE", "VERSION", "DIGEST", "CALLS", "FAILED", "LAST FAILURE")
_SIDECAR: Final = ("NAME", "STATE", "VERSION", "DIGEST", "HOOKS", "CALLS", "FAILED", "LAST FAILURE")
_DIGITS: Final = 12
_PLUGINS: Final = "wasmplugins.hookline.dev"


@command(
    "status",
    text="""Show plugins, and what each pod runs of one.

    Without a NAME: the plugins of a namespace, as 'kubectl get wp' shows them. With one: its sentence, and each pod
    that it is for, with the version that runs there, its calls and the newest failure, as the pod's sidecar says it
    (kubectl exec, which takes the right to create pods/exec).

    With --admin or --state, one sidecar is asked instead: what it runs, and its newest failures.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["name"], required=False),
        click.Option(["-A", "--all-namespaces", "everywhere"], is_flag=True, help="The plugins of all namespaces."),
        click.Option(["--pods", "most"], type=click.IntRange(0, 500), default=20, show_default=True, metavar="N",
                     help="How many pods are asked; those that are not ready first. 0: none."),
        *cluster_options(),
        *sidecar_options(),
    ],
)  # fmt: skip
def STATUS(  # noqa: N802 - what the decorator makes of it is a constant
    *, name: str | None, everywhere: bool, most: int, **given: Any
) -> Answer:
    """Show plugins."""
    asked = Asked(**given)
    sidecar = asked.sidecar()
    if sidecar is not None:
        if everywhere:
            raise UsageError("--all-namespaces is for a cluster")
        return _of_sidecar(sidecar.json("/v1/plugins"), name)
    if everywhere and (name is not None or asked.namespace is not None):
        raise UsageError("--all-namespaces goes with neither NAME nor --namespace")
    kubectl = asked.cluster()
    if name is None:
        return _of_cluster(kubectl.items(_PLUGINS, everywhere=everywhere), everywhere=everywhere)
    return _of_plugin(kubectl, kubectl.named(_PLUGINS, name), most)


def _of_cluster(found: Sequence[Mapping[str, Any]], *, everywhere: bool) -> Answer:
    from hookline_cli.inquiry.tables import table  # noqa: PLC0415

    rows = [_row(each) for each in found]
    head = (("NAMESPACE", *_HEAD) if everywhere else _HEAD) if rows else ()
    shown = [[str(each["metadata"].get("namespace")), *row] if everywhere else row for each, row in zip(found, rows, strict=True)]  # fmt: skip  # noqa: E501
    return Answer(
        lines=table(head, shown) if rows else ["there is no WasmPlugin here; -A shows those of all namespaces"],
        data={"plugins": [_data(each) for each in found]},
    )


def _row(found: Mapping[str, Any]) -> list[str]:
    from hookline_cli.inquiry.tables import age  # noqa: PLC0415

    status = found.get("status") or {}
    ready, observed = _condition(found, "Ready"), _condition(found, "Observed")
    return [
        str(found["metadata"]["name"]), str(status.get("hooks") or ""), str(status.get("digest") or ""),
        str(status.get("loaded") or ""), str(ready.get("status") or ""), str(ready.get("reason") or ""),
        age(observed.get("lastTransitionTime")), age(found["metadata"].get("creationTimestamp")),
    ]  # fmt: skip


def _data(found: Mapping[str, Any]) -> dict[str, Any]:
    metadata, status, ready = found["metadata"], found.get("status") or {}, _condition(found, "Ready")
    return {
        "name": metadata["name"],
        "namespace": metadata.get("namespace"),
        "generation": metadata.get("generation"),
        "hooks": status.get("hooks"),
        "digest": (status.get("artifact") or {}).get("digest"),
        "loaded": status.get("loaded"),
        "ready": ready.get("status"),
        "reason": ready.get("reason"),
        "message": ready.get("message"),
        "checked": _condition(found, "Observed").get("lastTransitionTime"),
    }


def _condition(found: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})


def _of_plugin(kubectl: Kubectl, found: Mapping[str, Any], most: int) -> Answer:
    from hookline_cli.inquiry import pods  # noqa: PLC0415
    from hookline_cli.inquiry.tables import table  # noqa: PLC0415

    name = str(found["metadata"]["name"])
    its = pods.of_plugin(kubectl, found)
    chosen = sorted(its, key=lambda pod: pod.ready)[:most]
    pods.ask(kubectl, chosen)
    rows = [_pod_row(each, name) for each in its]
    lines = table(_HEAD, [_row(found)])
    sentence = _condition(found, "Ready").get("message")
    lines += ["", str(sentence)] if sentence else []
    lines += ["", *table(_PODS, rows)] if rows else []
    errors = list(dict.fromkeys(each.error for each in its if each.error))
    lines += ["", *(f"not known: {each}" for each in errors[:5])] if errors else []
    return Answer(
        lines=lines,
        data={
            **_data(found),
            "pods": [
                {
                    "pod": each.name,
                    "ready": each.ready,
                    "waiting": each.state or None,
                    "error": each.error or None,
                    "plugin": _in(each.told, name) if each.told is not None else None,
                }
                for each in its
            ],
        },
    )


def _pod_row(pod: Pod, name: str) -> list[str]:
    ready = "true" if pod.ready else f"false ({pod.state})" if pod.state else "false"
    if pod.told is None:
        return [pod.name, ready, "", "", "", "", "", ""]
    plugin = _in(pod.told, name)
    return [pod.name, ready, *(_runs(plugin) if plugin is not None else ["NotTold", "", "", "", "", ""])]


def _in(told: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    plugins = told.get("plugins") if told is not None else None
    found = plugins if isinstance(plugins, list) else []
    return next((each for each in found if isinstance(each, dict) and each.get("name") == name), None)


def _runs(plugin: Mapping[str, Any]) -> list[str]:
    """State, version, digest, calls, failures, and the newest failure."""
    artifact, stats = plugin.get("artifact") or {}, (plugin.get("stats") or {}).values()
    failure, last = plugin.get("failure") or {}, plugin.get("last_failure") or {}
    newest = f"{last.get('hook')}: {last.get('cause')}: {last.get('message')}" if last else ""
    return [
        str(plugin.get("state")),
        str(artifact.get("version") or (plugin.get("description") or {}).get("version") or ""),
        str(artifact.get("digest") or "").removeprefix("sha256:")[:_DIGITS],
        str(sum(int(each.get("calls") or 0) for each in stats)),
        str(sum(sum((each.get("failures") or {}).values()) for each in stats)),
        str(failure.get("message") or newest),
    ]


def _of_sidecar(told: Mapping[str, Any], name: str | None) -> Answer:
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415
    from hookline_cli.inquiry.tables import table  # noqa: PLC0415

    plugins = [each for each in told.get("plugins") or () if name in {None, each.get("name")}]
    if name is not None and not plugins:
        names = ", ".join(str(each.get("name")) for each in told.get("plugins") or ()) or "none"
        raise FetchError(f"the sidecar knows no plugin '{name}'; there are: {names}", transient=False)
    rows = []
    for each in plugins:
        state, version, digest, calls, failed, last = _runs(each)
        rows.append(
            [str(each.get("name")), state, version, digest, ",".join(each.get("hooks") or ()), calls, failed, last]
        )
    problems = [each for each in told.get("problems") or () if name in {None, each.get("plugin")}]
    lines = table(_SIDECAR, rows) if rows else ["the sidecar has no plugin"]
    lines += [f"problem: {each.get('file')}: {each.get('field')}: {each.get('message')}" for each in problems]
    source = told.get("source") or {}
    if source.get("connected") is False:
        lines.append(f"problem: it does not reach the operator {source.get('operator')}: {source.get('error')}")
    return Answer(
        lines=lines,
        data={
            "source": source,
            "bundle": told.get("bundle"),
            "workers": told.get("workers"),
            "plugins": plugins,
            "problems": problems,
        },
    )
