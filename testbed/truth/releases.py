"""Rows about the release: helm's verbs, nobody there at all, and an API server that answers the operator badly."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cluster import Cluster, ClusterError, NotPossibleHereError
from installation import HOME, ROOT, until
from truth.between import Between, Mood
from truth.looks import answers, condition, event, kubectl_says, listed, ready, status, step
from truth.outages import SAID, settled
from truth.pods import bare_pod
from truth.row import LEASE_S, Act, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from truth.scene import Scene

WELL: Final = (ready(), answers("good"))
_PUSH: Final = r"check the reference[^;]*"


class Detour:
    """The way of the operator to its API server, for the rows that disturb it."""

    def __init__(self) -> None:
        self._between: Between | None = None

    @contextmanager
    def taken(self, scene: Scene) -> Iterator[None]:
        """From a `helm upgrade` on, until this ends; nobody goes the old way back."""
        if not isinstance(scene.cluster, Cluster):
            raise NotPossibleHereError("the API server of somebody else's cluster is not ours to stand before")
        with Between(scene.cluster).running() as self._between:
            yield

    def values(self) -> list[str]:
        """What helm is told."""
        assert self._between is not None
        where = {"KUBERNETES_SERVICE_HOST": self._between.address, "KUBERNETES_SERVICE_PORT": self._between.port}
        flags = []
        for number, (name, value) in enumerate(where.items()):
            flags += [f"--set=extraEnv[{number}].name={name}", f"--set-string=extraEnv[{number}].value={value}"]
        return flags

    def in_mood(self, mood: Mood) -> Act:
        """The wrong tag is applied while it is so."""

        def act(scene: Scene) -> None:
            assert self._between is not None
            self._between.mood = mood
            scene.mark()
            scene.guard("tpyo")

        return act

    def for_a_while(self, mood: Mood) -> Act:
        """So for ten seconds; the wrong tag is applied afterwards."""

        def act(scene: Scene) -> None:
            assert self._between is not None
            self._between.mood = mood
            seen = len(scene.load.answers)
            until(lambda: len(scene.load.answers) > seen + 10 * 20, "ten seconds of answers")
            self._between.mood = "honest"
            scene.mark()
            scene.guard("tpyo")

        return act

    def mend(self, scene: Scene) -> None:
        """As it was."""
        assert self._between is not None
        self._between.mood = "honest"
        scene.guard()


DETOUR: Final = Detour()


def _upgrade(scene: Scene) -> None:
    """To other values, which every replica gets; the tag is applied while they are replaced."""
    scene.installation.helm("upgrade", str(ROOT / "helm"), "--reuse-values", *DETOUR.values())
    scene.mark()
    scene.guard("tpyo")


def _rollback(scene: Scene) -> None:
    scene.installation.helm("rollback")
    scene.mark()
    scene.guard("tpyo")


def _settled(scene: Scene) -> None:
    scene.guard()
    settled(scene)


def _reinstall(scene: Scene) -> None:
    """Plugins and pods stay, and are taken over."""
    scene.installation.uninstall()
    scene.installation.install()
    scene.mark()
    scene.guard("tpyo")


def _nobody(scene: Scene) -> None:
    scene.mark()
    scene.installation.scale(0)


def _somebody(scene: Scene) -> None:
    scene.installation.scale(2)


def _made_while_away(scene: Scene) -> None:
    """A pod that asks for a sidecar, and nobody gives it one; then the operators are back."""
    scene.installation.scale(0)
    scene.tenant.apply(bare_pod("orphan", app="proxy", **{"hookline.dev/inject": "true"}))
    scene.installation.scale(2)
    scene.mark()


def _orphan_gone(scene: Scene) -> None:
    settled(scene)
    scene.tenant.kubectl("delete", "pod", "orphan", "--grace-period=0", "--force", "--ignore-not-found")


def _required(scene: Scene) -> None:
    """Where the namespace says so, no pod starts without; what kubectl answers is what people read."""
    scene.cluster.kubectl("label", "namespace", scene.tenant.name, "hookline.dev/require-injection=true")
    scene.installation.scale(0)
    scene.mark()
    try:
        scene.tenant.apply(bare_pod("refused", app="proxy"))
    except ClusterError as error:
        scene.said = str(error).rpartition("\n")[2]


def _not_required(scene: Scene) -> None:
    scene.cluster.kubectl("label", "namespace", scene.tenant.name, "hookline.dev/require-injection-")
    scene.installation.scale(2)


def _new_authority(scene: Scene) -> None:
    """Its Secret is lost, and both replicas start without it; who trusted the old one has to hear of the new one."""
    scene.cluster.kubectl("delete", "secret", "hookline-operator-tls", f"--namespace={HOME}")
    scene.mark()
    scene.cluster.kubectl("rollout", "restart", "deployment/hookline-operator", f"--namespace={HOME}")
    scene.installation.rolled_out()
    scene.guard("tpyo")


NOT_OBSERVED: Final = (
    condition("Ready", "Unknown", "NotObserved"),
    condition("Observed", "False", "NotObserved"),
)
"""What was True is not said to be so any more."""
_NOBODY_LOOKS: Final = r"operator[^;]*"
_DEPLOYMENT: Final = ("get", "deployments", f"--namespace={HOME}")

RELEASES: Final = [
    Row(
        name="upgrade", what="`helm upgrade`, and a wrong tag meanwhile",
        breaks=_upgrade, says=SAID, next_step=_PUSH, mends=_settled, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="apiserver-slow", what="an API server whose answers take three seconds",
        breaks=DETOUR.in_mood("slow"), says=SAID, next_step=_PUSH, mends=DETOUR.mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="apiserver-429", what="an API server that answers 429 for ten seconds",
        breaks=DETOUR.for_a_while("crowded"), says=SAID, next_step=_PUSH, mends=DETOUR.mend, well=WELL,
        bound_s=LEASE_S,
    ),
    Row(
        name="watches-410", what="watches that are answered 410 Gone for ten seconds",
        breaks=DETOUR.for_a_while("gone"), says=SAID, next_step=_PUSH, mends=DETOUR.mend, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="rollback", what="`helm rollback`, and a wrong tag meanwhile",
        breaks=_rollback, says=SAID, next_step=_PUSH, mends=_settled, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="scaled-to-0", what="no operator at all: scaled to 0",
        breaks=_nobody, says=(*NOT_OBSERVED, listed("0/0", *_DEPLOYMENT)), next_step=_NOBODY_LOOKS,
        mends=_somebody, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="made-while-away", what="a pod made while no operator was there: it has no sidecar",
        breaks=_made_while_away,
        says=(
            condition("Ready", "False", "Unguarded", "orphan"),
            step(),
            status("pods.unguarded", 1),
            event("Unguarded", kind="Pod", of="orphan"),
        ),
        next_step=r"delete it, so that it is made again", mends=_orphan_gone, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="require-injection", what="the same in a namespace with `require-injection`: no pod is made",
        breaks=_required, says=(kubectl_says("required.inject.hookline.dev"),),
        next_step=r"no endpoints available for service .?.hookline-operator.?.|connection refused",
        mends=_not_required, well=WELL,
    ),
    Row(
        name="new-authority", what="the Secret with the certificate authority lost, and a new one made",
        breaks=_new_authority, says=SAID, next_step=_PUSH, mends=_settled, well=WELL, bound_s=LEASE_S,
    ),
    Row(
        name="reinstalled", what="`helm uninstall` and `helm install`, and then a wrong tag",
        breaks=_reinstall, says=SAID, next_step=_PUSH, mends=_settled, well=WELL, bound_s=LEASE_S,
    ),
]  # fmt: skip
"""In this order: the upgrade puts the detour in, the rollback takes it out."""
