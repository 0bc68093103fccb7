"""Which replica reconciles: the holder of a Lease.

The official client elects; this keeps it going, and gives it back.

The holder's identity holds its name and its ``POD_IP:PORT``, so that the other replicas find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.cluster.replica import Replica
from hookline_operator.cluster.sight import Sight, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_operator.cluster.kube import Kube, Object

_LEASE_S: Final = 15
_RENEW_S: Final = 10
_RETRY_S: Final = 2
_LOOK_S: Final = 0.5
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_LEASES: Final = "coordination.k8s.io/v1"

log = logging.getLogger("hookline.election")


class _Lock(BaseLock):
    """The Lease, through our own client: no exception ends an election, and an API server that is away is a no.

    The library's own lock cannot create a Lease (37.0.2 passes a bool where its models want a string).
    """

    def __init__(self, kube: Kube, name: str, namespace: str, identity: str, sight: Sight) -> None:
        super().__init__(name, namespace, identity)
        self._kube = kube
        self._sight = sight
        self._all = path(_LEASES, "leases", namespace)
        self._read: Object = {}
        self.until = 0.0
        """When (monotonic) another may take it, unless it is renewed."""

    async def get(self, name: str, namespace: str) -> Any:
        """Whether there is a Lease, and who holds it or why it cannot be read."""
        try:
            self._read = await self._kube.request("GET", f"{self._all}/{name}")
        except KubeError as error:
            if error.status != _NOT_FOUND:  # there is none yet, and we make one
                self._sight.failed(reason_of(error), f"the Lease {namespace}/{name} cannot be read: {error}")
            refusal = ApiException(status=error.status, reason=str(error))
            refusal.body = json.dumps({"code": error.status})
            return False, refusal
        spec = self._read.get("spec") or {}
        if spec.get("holderIdentity") not in {None, "", self.identity}:
            self._sight.answered()  # of our own, only a write tells
        seconds = spec.get("leaseDurationSeconds")
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            str(seconds) if seconds else None,
            spec.get("acquireTime"),
            spec.get("renewTime"),
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Whether we made it."""
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": _LEASES, "kind": "Lease", "metadata": metadata, "spec": _spec(election_record, None)}
        return await self._try("POST", self._all, body)

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:  # noqa: ARG002
        """Whether we hold it: with the version that was read, so that of two only one does."""
        body = self._read | {"spec": _spec(updated_record, self._read.get("spec"))}
        return await self._try("PUT", f"{self._all}/{name}", body)

    async def _try(self, method: str, where: str, body: Object) -> bool:
        began = time.monotonic()
        try:
            self._read = await self._kube.request(method, where, body=body)
        except KubeError as error:
            if error.status != _CONFLICT:  # somebody was quicker
                self._sight.failed(reason_of(error), f"the Lease cannot be held: {error}")
            return False
        self._sight.answered()
        self.until = began + _LEASE_S
        return True


def _spec(record: LeaderElectionRecord, before: Object | None) -> Object:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    same = before is not None and before.get("holderIdentity") == record.holder_identity
    changes = (before or {}).get("leaseTransitions") or 0
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": _LEASE_S,
        "acquireTime": before.get("acquireTime") if same and before is not None else now,
        "renewTime": now,
        "leaseTransitions": changes if same else changes + 1,
    }


class Election:
    """This replica's part in the election."""

    def __init__(
        self,
        kube: Kube,
        *,
        name: str,
        namespace: str,
        replica: Replica,
        sight: Sight | None = None,
    ) -> None:
        self._kube = kube
        self._sight = sight or Sight("lease")
        self._name = name
        self._namespace = namespace
        self._replica = replica
        self._election: LeaderElection | None = None
        self._work: asyncio.Task[None] | None = None
        self._lock: _Lock | None = None
        self._working = False

    @property
    def leading(self) -> bool:
        """Whether this replica leads and no other can, also after the process was stopped for a while."""
        return self._working and self._lock is not None and time.monotonic() < self._lock.until

    @property
    def leader(self) -> Replica | None:
        """Who leads, as far as is known here."""
        record = self._election.observed_record if self._election is not None else None
        return Replica.of(record.holder_identity) if record is not None else None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Take part until cancelled. Then give the Lease back, so that the next leader need not wait.

        ``lead`` runs while this replica holds the Lease, and is cancelled when it is lost.
        """
        # The library tells each failed try with a stack trace; that the API server is away is said once elsewhere.
        logging.getLogger("kubernetes.aio.leaderelection").setLevel(logging.CRITICAL)
        try:
            while True:
                lock = self._lock = _Lock(self._kube, self._name, self._namespace, self._replica.identity, self._sight)
                self._election = LeaderElection(
                    Config(
                        lock,
                        lease_duration=_LEASE_S,
                        renew_deadline=_RENEW_S,
                        retry_period=_RETRY_S,
                        onstarted_leading=functools.partial(self._started, lead),
                        onstopped_leading=self._stopped,
                    )
                )
                await self._elect(self._election)
                await self._end_work()
        finally:
            held = self._working
            await self._end_work()
            if held:
                with contextlib.suppress(KubeError, TimeoutError):
                    async with asyncio.timeout(5):
                        await self._give_back()

    async def _elect(self, election: LeaderElection) -> None:
        """Wait for a term, and serve it. Raises what ``lead`` raised: a holder that does nothing does not lead."""
        self._work = None
        electing = asyncio.create_task(election.run(), name="election")
        try:
            while not electing.done():
                await asyncio.wait({electing}, timeout=_LOOK_S)
                other = self.leader
                if self._working and other is not None and other != self._replica:
                    # We stood still for longer than a term. The library would go on as long as it tries to renew.
                    log.warning("this replica (%s) no longer leads: %s does", self._replica.name, other.name)
                    return
                if self._work is not None and self._work.done() and not self._work.cancelled():
                    self._work.result()
                    raise RuntimeError("the leader's work ended by itself")
            electing.result()
        finally:
            electing.cancel()

    async def _end_work(self) -> None:
        """End what leads.

        DANGER: the library does not, where it is cancelled. It would go on to write while another leads already, and
        what it wrote of sidecars that are being sent away would be false.
        """
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _started(self, lead: Callable[[], Awaitable[None]]) -> None:
        log.info("this replica (%s) leads", self._replica.name)
        self._work = asyncio.current_task()
        self._working = True
        try:
            await lead()
        finally:
            self._working = False

    async def _stopped(self) -> None:
        log.warning("this replica (%s) no longer leads", self._replica.name)

    async def _give_back(self) -> None:
        where = path(_LEASES, "leases", self._namespace, self._name)
        lease = await self._kube.get(where)
        if lease is not None and lease["spec"].get("holderIdentity") == self._replica.identity:
            # An update, with the version that was read: whoever took it meanwhile keeps it.
            lease["spec"] |= {"holderIdentity": None, "acquireTime": None, "renewTime": None}
            await self._kube.request("PUT", where, body=lease)
