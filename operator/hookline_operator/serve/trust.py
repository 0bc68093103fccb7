"""Finds the pods whose sidecars do not trust this operator's present certificate authority.

A sidecar trusts the authorities in its pod's annotation, and those that the operator told it of over a connection. So a
new authority reaches the sidecars that are connected. One that is away and knows the old authority alone is *stranded*:
it runs what it has, and hears of nothing newer. A person has to delete its pod, so the log, a metric and the plugins'
statuses say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Final, NoReturn

from hookline_api.distribution import AuthorityMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.pods import Pod
    from hookline_operator.serve.fleet import Fleet, PodState
    from hookline_operator.webhooks.certificates import CertificateKeeper

_LOOK_S: Final = 5.0
_GRACE_S: Final = 35.0
"""Seconds that a sidecar may be away before it counts as stranded. It pauses for half a minute between tries."""
_NAMED: Final = 5
STRANDED: Final = (
    "its sidecar trusts a certificate authority of the operator that is gone, and cannot connect: delete the pod, so "
    "that it is made again with the present one"
)

log = logging.getLogger("hookline.trust")


class Trust:
    """Looks for stranded pods while ``leads`` is true: only the leader knows of all connections."""

    def __init__(
        self,
        catalogue: Catalogue,
        fleet: Fleet,
        certificates: CertificateKeeper,
        *,
        tell: Callable[[], None],
        leads: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``tell`` is called when the sidecars have to be told of other authorities."""
        self.stranded: dict[str, Pod] = {}
        """By uid."""
        self._catalogue = catalogue
        self._fleet = fleet
        self._certificates = certificates
        self._tell = tell
        self._leads = leads
        self._now = now
        self._since: float | None = None
        """When this replica began to lead."""
        self._away: dict[str, float] = {}
        """By uid: when the sidecar was last seen to be connected."""
        self._told: dict[str, str] = {}
        """By uid: the version of the authorities that it said it knows."""
        self._new = False
        self._woken = asyncio.Event()

    async def run(self) -> NoReturn:
        """Check every few seconds, and at once when the authority has changed."""
        while True:
            self.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._woken.wait()
            self._woken.clear()

    def authority_changed(self) -> None:
        """There are other authorities: tell the sidecars, and check who knows only older ones."""
        self._tell()
        self._new = True
        self._woken.set()

    def check(self) -> None:
        """Find the stranded pods, and say what has changed."""
        pods = [pod for there in self._catalogue.pods.values() for pod in there.values() if pod.live]
        self._forget_gone(pods)
        if not self._leads():
            self._since = None
            self._set({})
            return
        now = self._now()
        self._since = now if self._since is None else self._since
        old = self._of_the_old_authority(pods)
        if self._new:
            self._new = False
            self._say_new(old)
        found = {}
        for pod in old:
            if pod.uid not in self._fleet.states:
                seen = max(self._since, self._away.get(pod.uid, 0.0))
                if now - seen >= _GRACE_S:
                    found[pod.uid] = pod
        self._set(found)

    def _forget_gone(self, pods: list[Pod]) -> None:
        """Keep nothing of pods that are gone: this is heard by every replica, and some never lead."""
        uids, version = {pod.uid for pod in pods}, version_of(self._certificates.bundle)
        self._told = {uid: known for uid, known in self._told.items() if uid in uids and known == version}
        self._away = {uid: when for uid, when in self._away.items() if uid in uids}

    def _of_the_old_authority(self, pods: list[Pod]) -> list[Pod]:
        """Those whose annotation does not have the authority that signs, and who were not told of it."""
        signer = self._certificates.signer
        return [
            pod
            for pod in pods
            if pod.authorities is not None and signer not in pod.authorities and pod.uid not in self._told
        ]

    def sidecar_changed(self, uid: str, state: PodState | None, _namespace: str, _replica: str) -> None:
        """A sidecar came, reported or went: note when, and which authorities it knows."""
        self._away[uid] = self._now()
        if state is not None and state.report.authority is not None:
            self._told[uid] = state.report.authority

    def _say_new(self, old: list[Pod]) -> None:
        away = [pod for pod in old if pod.uid not in self._fleet.states]
        log.warning(
            "the operator's certificate authorities are others now: %d pods were made with older ones alone; %d of "
            "them are connected, and are told; %d are not%s",
            *(len(old), len(old) - len(away), len(away), f", and must be deleted: {_names(away)}" if away else ""),
        )

    def _set(self, found: dict[str, Pod]) -> None:
        before, self.stranded = self.stranded, found
        self._fleet.stranded.clear()
        self._fleet.stranded.update(dict.fromkeys(found, STRANDED))
        changed = [pod for uid, pod in {**before, **found}.items() if (uid in before) != (uid in found)]
        if found and len(found) > len(before):
            log.warning(
                "%d pods trust only a certificate authority of this operator that is gone, and cannot connect; delete "
                "them, so that they are made again: %s",
                *(len(found), _names(list(found.values()))),
            )
        elif before and not found and self._leads():
            log.info("no pod is left that trusts only an old certificate authority")
        for namespace in {pod.namespace for pod in changed}:
            for plugin in self._catalogue.plugins_in(namespace):
                self._catalogue.tell_plugin(plugin.key)


def message(bundle: str) -> AuthorityMessage:
    """The message that tells sidecars of the authorities."""
    return AuthorityMessage(version=version_of(bundle), bundle=bundle)


def version_of(bundle: str) -> str:
    """A short name for these authorities: the begin of their SHA-256."""
    return hashlib.sha256(bundle.encode()).hexdigest()[:16]


def _names(pods: list[Pod]) -> str:
    names = ", ".join(sorted(f"{pod.namespace}/{pod.name}" for pod in pods)[:_NAMED])
    return f"{names} and {len(pods) - _NAMED} more" if len(pods) > _NAMED else names
