"""Rows about the operator and what it stands on: replicas that die, definitions and rights that change, the API server.

One after the other: each breaks something of the whole cluster. What must be true is always the same: a change that is
wrong is said, soon after; and where nobody can say it, kubectl shows that nobody looks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cluster import Cluster, ClusterError
from installation import HOME, ROOT, kill_container, until
from truth.looks import answers, condition, event, kubectl_says, ready, step
from truth.row import LEASE_S, Act, Look, Row

if TYPE_CHECKING:
    from truth.scene import Scene

WELL: Final = (ready(), answers("good"))
SAID: Final[tuple[Look, ...]] = (condition("Ready", "False", "FetchFailed", "tpyo"), step())
"""The tag that is wrong is noticed: somebody looks."""
_PUSH: Final = r"check the reference[^;]*"
CRD: Final = "wasmplugins.hookline.dev"


def prepare(scene: Scene) -> None:
    """A good plugin."""
    scene.push("good")
    scene.guard()


def _wrong_tag_after(breaks: Act) -> Act:
    """Break it, and then ask for what is not there: it has to be said all the same."""

    def act(scene: Scene) -> None:
        scene.mark()
        breaks(scene)
        scene.guard("tpyo")

    return act


def settled(scene: Scene) -> None:
    """Two operators that are ready, one of which leads, and none that is on its way out."""
    installation = scene.installation
    installation.rolled_out()

    def are() -> bool:
        names = {each["metadata"]["name"] for each in installation.replicas()}
        return len(names) == 2 and installation.leader() in names

    until(are, "two operators, and a leader among them")


def _mend(scene: Scene) -> None:
    scene.guard()
    settled(scene)


def _mend_after(mends: Act) -> Act:
    def act(scene: Scene) -> None:
        mends(scene)
        _mend(scene)

    return act


def _kill_leader(scene: Scene) -> None:
    scene.installation.kill(until(scene.installation.leader, "a leader"))


def _kill_both(scene: Scene) -> None:
    scene.installation.kill(*(each["metadata"]["name"] for each in scene.installation.replicas()))


def _crash_both(scene: Scene) -> None:
    for pod in scene.installation.replicas():
        kill_container(scene.cluster, pod, "operator")


def _evict(scene: Scene) -> None:
    name = until(scene.installation.leader, "a leader")
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": HOME},
    }  # fmt: skip
    where = f"/api/v1/namespaces/{HOME}/pods/{name}/eviction"
    scene.cluster.kubectl("create", "--raw", where, "--filename=-", input=json.dumps(eviction))


def _drain(scene: Scene) -> None:
    """The one node, of the operator's pods alone: the second may not go while the first finds no other node."""
    node = scene.cluster.get("nodes")["items"][0]["metadata"]["name"]
    which = ("--pod-selector=app.kubernetes.io/component=operator", "--ignore-daemonsets", "--delete-emptydir-data")
    scene.try_kubectl("drain", node, *which, "--timeout=8s")
    scene.mark()


def _uncordon(scene: Scene) -> None:
    for node in scene.cluster.get("nodes")["items"]:
        scene.cluster.kubectl("uncordon", node["metadata"]["name"])


def _scaled_to(replicas: int) -> Act:
    return lambda scene: scene.installation.scale(replicas)


def _patch(kind: str, name: str, *operations: dict[str, Any]) -> Act:
    def act(scene: Scene) -> None:
        scene.cluster.kubectl("patch", kind, name, "--type=json", f"--patch={json.dumps(operations)}")

    return act


def _served(*, served: bool) -> Act:
    return _patch("crd", CRD, {"op": "replace", "path": "/spec/versions/0/served", "value": served})


def _not_served_for_a_while(scene: Scene) -> None:
    """Long enough that a watch ends, and what opens the next one is refused."""
    _served(served=False)(scene)
    until(lambda: not scene.plugin("guard"), "it is not served")
    seen = len(scene.load.answers)
    until(lambda: len(scene.load.answers) > seen + 6 * 20, "six seconds of answers")
    _served(served=True)(scene)
    until(lambda: scene.plugin("guard"), "it is served again")
    scene.mark()
    until(lambda: _tried(scene, "tpyo"), "kubectl apply")


def _tried(scene: Scene, tag: str) -> bool:
    try:
        scene.guard(tag)
    except ClusterError:
        return False
    return True


def _definition(scene: Scene) -> None:
    """As the chart has it."""
    scene.cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", f"--filename={ROOT}/crds/hookline.dev_wasmplugins.yaml"
    )


_ROLE: Final = ("clusterrole", "hookline-operator")


def _rights(scene: Scene) -> dict[str, Any]:
    found: dict[str, Any] = scene.cluster.get(*_ROLE)
    return found


class Rights:
    """Takes rights away, and gives them back."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def take(self, scene: Scene) -> None:
        """All on wasmplugins."""
        self._kept = _rights(scene)
        rules = [
            rule for rule in self._kept["rules"] if not {"wasmplugins", "wasmplugins/status"} & set(rule["resources"])
        ]
        patch = [{"op": "replace", "path": "/rules", "value": rules}]
        scene.cluster.kubectl("patch", *_ROLE, "--type=json", f"--patch={json.dumps(patch)}")

    def give(self, scene: Scene) -> None:
        """As they were."""
        patch = [{"op": "replace", "path": "/rules", "value": self._kept["rules"]}]
        scene.cluster.kubectl("patch", *_ROLE, "--type=json", f"--patch={json.dumps(patch)}")


RIGHTS: Final = Rights()


def _without_status(scene: Scene) -> None:
    """A definition without the status subresource: what the operator writes is refused."""
    _patch("crd", CRD, {"op": "remove", "path": "/spec/versions/0/subresources"})(scene)
    scene.mark()
    scene.guard("tpyo")


def _definition_back(scene: Scene) -> None:
    _definition(scene)
    until(lambda: _tried(scene, "tpyo"), "kubectl apply")
    until(lambda: SAID[0](scene), "the wrong tag is said, without a restart")
    _mend(scene)


def _no_rights(scene: Scene) -> None:
    RIGHTS.take(scene)
    scene.mark()
    scene.guard("tpyo")


def _rights_back(scene: Scene) -> None:
    RIGHTS.give(scene)
    until(lambda: SAID[0](scene), "the wrong tag is said, without a restart")
    _mend(scene)


def _paused(name: str) -> Act:
    """A process of the control plane stands still for some seconds; the wrong tag is applied when it goes on."""

    def act(scene: Scene) -> None:
        assert isinstance(scene.cluster, Cluster)
        scene.cluster.pause(name)
        try:
            seen = len(scene.load.answers)
            until(lambda: len(scene.load.answers) > seen + 10 * 20, "ten seconds of answers")
        finally:
            scene.cluster.resume(name)
        scene.mark()
        until(lambda: _tried(scene, "tpyo"), "kubectl apply")

    return act


OUTAGES: Final = [
    Row(
        name="leader-killed", what="the operator that leads killed, without a goodbye",
        breaks=_wrong_tag_after(_kill_leader), says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="both-killed", what="both operators killed, and their pods deleted",
        breaks=_wrong_tag_after(_kill_both), says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="both-crashed", what="both operators' containers killed; the kubelet starts them again",
        breaks=_wrong_tag_after(_crash_both), says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="evicted", what="the operator that leads evicted",
        breaks=_wrong_tag_after(_evict), says=SAID, next_step=_PUSH, mends=_mend, well=WELL,
    ),
    Row(
        name="drained", what="the only node drained of operators: one of them stays",
        breaks=_wrong_tag_after(_drain), says=(*SAID, kubectl_says("disruption budget")), next_step=_PUSH,
        mends=_mend_after(_uncordon), well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="apiserver-paused", what="an API server that stands still for ten seconds",
        breaks=_paused("kube-apiserver"), says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="etcd-paused", what="etcd standing still for ten seconds",
        breaks=_paused("etcd"), says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="definition-not-served", what="the definition not served for six seconds, then served again",
        breaks=_not_served_for_a_while, says=SAID, next_step=_PUSH, mends=_mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="definition-without-status", what="a definition without its status subresource: no status can be written",
        breaks=_without_status, says=(event("StatusNotWritten", "status subresource"),),
        next_step=r"apply the chart's CustomResourceDefinitions",
        mends=_definition_back, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="no-rights", what="the operator's rights on WasmPlugins taken away",
        breaks=_no_rights, says=(event("StatusNotWritten", "cannot|forbidden"),),
        next_step=r"give the operator back the rights of its chart: helm upgrade",
        mends=_rights_back, well=WELL, bound_s=LEASE_S,
    ),
]  # fmt: skip
"""Those that need nothing but the cluster."""
