"""Rows about pods: none that matches, some that nobody guards, some that wait, some that die."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, Final

import yaml

from installation import ROOT, image, kill_container, until
from truth import guests
from truth.looks import answers, condition, event, kubectl_says, ready, status, step
from truth.row import Row

if TYPE_CHECKING:
    from truth.scene import Scene

WELL: Final = (ready(), answers("good"))
_NOBODY: Final = {"matchLabels": {"app": "nobody"}}


def prepare(scene: Scene) -> None:
    """A good plugin, and one that nobody can have."""
    scene.push("good")
    scene.push("good", guests.identity_module("good"), name="other")
    scene.guard()


def _no_other(scene: Scene) -> None:
    scene.tenant.kubectl("delete", "wasmplugin", "other", "--ignore-not-found")


def bare_pod(name: str, **labels: str) -> dict[str, Any]:
    """A small pod of the example's nginx, without a Deployment, and with these labels alone."""
    for each in yaml.safe_load_all((ROOT / "examples/kubernetes/proxy.yaml").read_text()):
        if each["kind"] == "Deployment":
            small = {"hookline.dev/sidecar-cpu-request": "10m", "hookline.dev/sidecar-memory-request": "64Mi"}
            metadata = {"name": name, "labels": labels, "annotations": small}
            spec = copy.deepcopy(each["spec"]["template"]["spec"])
            nginx = spec["containers"][0]
            nginx["image"] = image("nginx")
            nginx["resources"]["requests"]["cpu"] = "10m"
            nginx.pop("lifecycle", None)
            spec["terminationGracePeriodSeconds"] = 0
            return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    raise AssertionError("the example has no Deployment")


def _gone(scene: Scene, *pods: str) -> None:
    scene.tenant.kubectl("delete", "pod", *pods, "--grace-period=0", "--force", "--ignore-not-found", "--wait=false")
    until(lambda: not set(pods) & {each["metadata"]["name"] for each in _pods(scene)}, f"{pods} are gone")


def _pods(scene: Scene) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scene.cluster.get("pods", f"--namespace={scene.tenant.name}")["items"]
    return found


def _unguarded(scene: Scene) -> None:
    """As kubectl runs it in a namespace without the label: its own labels match, and ask for no sidecar."""
    scene.guard(selector={"matchLabels": {"app": "proxy"}})
    scene.mark()
    scene.tenant.apply(bare_pod("unguarded", app="proxy"))


def _guarded_again(scene: Scene) -> None:
    _gone(scene, "unguarded")
    scene.guard()


def _stuck(scene: Scene) -> None:
    """A plugin that cannot be had, for all pods of the namespace; and then a new pod."""
    scene.guard("tpyo", name="other")
    scene.mark()
    scene.tenant.apply(bare_pod("stuck", app="proxy", **{"hookline.dev/inject": "true"}))


def _stuck_no_more(scene: Scene) -> None:
    """Once the plugin is gone the pod starts; it is taken away for the rows after this one."""
    _no_other(scene)
    scene.tenant.kubectl("wait", "--for=condition=Ready", "pod/stuck", "--timeout=180s")
    _gone(scene, "stuck")


def _open(scene: Scene) -> None:
    """The same, but the plugin says that pods may start without it."""
    scene.guard("tpyo", name="other", failurePolicy={"fetch": "Open"})
    scene.mark()
    scene.tenant.apply(bare_pod("started", app="proxy", **{"hookline.dev/inject": "true"}))
    scene.tenant.kubectl("wait", "--for=condition=Ready", "pod/started", "--timeout=180s")


def _open_no_more(scene: Scene) -> None:
    _no_other(scene)
    _gone(scene, "started")


def _third(scene: Scene, name: str) -> dict[str, Any]:
    """A third proxy, which nobody asks; as it is when it is ready and counted."""
    scene.tenant.apply(bare_pod(name, app="proxy", **{"hookline.dev/inject": "true"}))
    scene.tenant.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")
    until(lambda: scene.plugin("guard")["status"]["loaded"] == "3/3", "the third proxy is counted")
    return next(each for each in _pods(scene) if each["metadata"]["name"] == name)


def _kill_sidecar(scene: Scene) -> None:
    found = _third(scene, "mortal")
    scene.mark()
    kill_container(scene.cluster, found, "hookline-sidecar")


def _not_ready(scene: Scene) -> None:
    """The proxy's own container dies, and goes on dying."""
    pod = bare_pod("sick", app="proxy", **{"hookline.dev/inject": "true"})
    nginx = pod["spec"]["containers"][0]
    nginx["readinessProbe"] = {
        "exec": {"command": ["sh", "-c", "! test -e /tmp/unready"]}, "periodSeconds": 1, "failureThreshold": 1
    }  # fmt: skip
    scene.tenant.apply(pod)
    scene.tenant.kubectl("wait", "--for=condition=Ready", "pod/sick", "--timeout=180s")
    until(lambda: scene.plugin("guard")["status"]["loaded"] == "3/3", "the third proxy is counted")
    scene.mark()
    scene.inside("sick", "nginx", "touch", "/tmp/unready")


def _delete_plugin(scene: Scene) -> None:
    """Of a second plugin, which all proxies run; what kubectl answers is what a person reads."""
    scene.guard("good", name="other")
    scene.ready("other")
    scene.mark()
    scene.try_kubectl("delete", "wasmplugin", "other")


def _older(scene: Scene) -> None:
    """A pod that was there before its namespace's label; the plugin is for all pods of the namespace."""
    scene.tenant.apply(bare_pod("older", app="older"))
    scene.tenant.kubectl("wait", "--for=condition=Ready", "pod/older", "--timeout=180s")
    scene.mark()
    scene.cluster.kubectl("label", "namespace", scene.tenant.name, "hookline.dev/inject=true")


def _older_no_more(scene: Scene) -> None:
    scene.cluster.kubectl("label", "namespace", scene.tenant.name, "hookline.dev/inject-")
    _gone(scene, "older")


def _late(scene: Scene) -> None:
    """A proxy as the others, but its sidecar's clock is five minutes late: libfaketime, from the image of our tools."""
    proxy = copy.deepcopy(scene.tenant.pods()[0].found)
    spec, annotations = proxy["spec"], proxy["metadata"]["annotations"]  # the operator's authority is in one of those
    for name in ("nodeName", "hostname", "priority", "serviceAccount", "serviceAccountName"):
        spec.pop(name, None)
    sidecar = next(each for each in spec["initContainers"] if each["name"] == "hookline-sidecar")
    security = sidecar["securityContext"]
    sidecar["volumeMounts"].append({"name": "clock", "mountPath": "/clock"})
    sidecar["env"] = [
        *sidecar.get("env", []),
        {"name": "LD_PRELOAD", "value": "/clock/libfaketime.so.1"},
        {"name": "FAKETIME", "value": "-300s"},
        {"name": "FAKETIME_DONT_FAKE_MONOTONIC", "value": "1"},
    ]
    copies = ["sh", "-c", "cp /usr/lib/*/faketime/libfaketime.so.1 /clock/"]
    spec["initContainers"].insert(0, {
        "name": "clock", "image": image("tools"), "command": copies, "securityContext": security,
        "volumeMounts": [{"name": "clock", "mountPath": "/clock"}],
    })  # fmt: skip
    spec["volumes"].append({"name": "clock", "emptyDir": {}})
    labels = {"app": "proxy", "hookline.dev/inject": "false", "hookline.dev/sidecar": "true"}
    metadata = {"name": "late", "labels": labels, "annotations": annotations}
    scene.tenant.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    scene.tenant.kubectl("wait", "--for=condition=Ready", "pod/late", "--timeout=180s")
    now = scene.inside("late", "hookline-sidecar", "python3", "-c", "import time; print(time.time())")
    assert 200 < time.time() - float(now) < 600
    scene.mark()


OF_PODS: Final = [
    Row(
        name="no-pods", what="a selector that no pod matches",
        breaks=lambda scene: scene.guard("good", name="other", selector=_NOBODY),
        says=(condition("Ready", "Unknown", "NoMatchingPods", of="other"), event("NoMatchingPods", of="other")),
        next_step=r"spec\.selector[^;]*", mends=_no_other, well=WELL,
    ),
    Row(
        name="no-pods-meant", what="the same, with `selector.required: false`: nothing is wrong",
        breaks=lambda scene: scene.guard("good", name="other", selector=_NOBODY | {"required": False}),
        says=(condition("Ready", "True", "NoMatchingPods", of="other"),), next_step=r"spec\.selector[^;]*",
        mends=_no_other, well=WELL,
    ),
    Row(
        name="unguarded", what="a pod that the selector matches, in a namespace without the label: it has no sidecar",
        breaks=_unguarded,
        says=(
            condition("Ready", "False", "Unguarded", "unguarded"),
            step(),
            status("pods.unguarded", 1),
            event("Unguarded", kind="Pod", of="unguarded"),
            event("Unguarded"),
        ),
        next_step=r"label one of them hookline\.dev/inject=true[^;]*", mends=_guarded_again, well=WELL,
    ),
    Row(
        name="older-pod", what="a pod older than its namespace's label: it has no sidecar",
        breaks=_older,
        says=(
            condition("Ready", "False", "Unguarded", "older"),
            step(),
            status("pods.unguarded", 1),
            event("Unguarded", kind="Pod", of="older"),
            event("Unguarded"),
        ),
        next_step=r"delete it, so that it is made again", mends=_older_no_more, well=WELL,
    ),
    Row(
        name="clock", what="nothing: the clock of one sidecar is five minutes late (libfaketime)",
        breaks=_late,
        says=(condition("Ready", "True", "Ready", "3 of 3"), status("loaded", "3/3"), condition("Healthy", "True")),
        next_step="3 of 3 pods run it", mends=lambda scene: _gone(scene, "late"), well=WELL,
    ),
    Row(
        name="stuck-in-init", what="a new pod that waits in Init, because of a plugin that cannot be fetched",
        breaks=_stuck,
        says=(
            event("WaitsForPlugin", "'other'.*failurePolicy", kind="Pod", of="stuck"),
            condition("Ready", "False", "FetchFailed", of="other"),
            condition("Ready", "False", "Progressing", "pod 'stuck' waits for plugin 'other'"),
        ),
        next_step=r"spec\.failurePolicy\.fetch: Open[^;]*", mends=_stuck_no_more, well=WELL,
    ),
    Row(
        name="first-load-open", what="the same, with `failurePolicy.fetch: Open`: the pod starts without it",
        breaks=_open,
        says=(condition("Ready", "False", "FetchFailed", of="other"), condition("Ready", "True")),
        next_step=r"check the reference[^;]*", mends=_open_no_more, well=WELL,
    ),
    Row(
        name="sidecar-killed", what="the sidecar of a pod killed",
        breaks=_kill_sidecar,
        says=(condition("Ready", "False", "Progressing", "mortal"),),
        next_step=r"pod 'mortal'[^;]*", mends=lambda scene: _gone(scene, "mortal"), well=WELL,
    ),
    Row(
        name="pod-not-ready", what="a pod that is not ready, though its sidecar is",
        breaks=_not_ready,
        says=(condition("Ready", "False", "Progressing", "sick"),),
        next_step=r"pod 'sick'[^;]*", mends=lambda scene: _gone(scene, "sick"), well=WELL,
    ),
    Row(
        name="plugin-deleted", what="a plugin deleted that pods run",
        breaks=_delete_plugin,
        says=(kubectl_says("Warning.*2 pods"),), next_step=r"[^.;]*pods[^.;]*", well=WELL,
    ),
]  # fmt: skip
