"""What ``reconcile`` is given of one plugin: how far its resolution is, and what the matching pods report.

Data alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hookline_api.base import Resource
from hookline_api.bundle import LoadCause
from hookline_api.distribution import HookHealth, RolledBack, UnavailableSource
from hookline_api.status import ArtifactStatus, Failure, RollbackStatus, WasmPluginStatus


class PodObservation(Resource):
    """One matching pod."""

    name: str
    ready: bool
    """Whether Kubernetes says so."""
    connected: bool = False
    """Whether its sidecar has reported."""
    runs: Literal["Current", "Older", "Nothing"] = "Nothing"
    """What its sidecar runs of this plugin: what it is to run, something else, or nothing."""
    failure: Failure | None = None
    health: list[HookHealth] = []
    """The hooks of what it runs that are not well."""
    rolled_back: RolledBack | None = None
    """What it has gone back from, where that is the revision that the resource asks for."""
    unavailable: list[UnavailableSource] = []
    """What the plugin asks and its sidecar does not reach."""
    waits: bool = False
    """Whether its sidecar, and so a new pod, waits for this plugin."""
    waits_for: list[str] = []
    """The other plugins that keep its sidecar, and so the pod, from being ready: the first of them, by name."""
    waits_for_number: int = 0
    """How many there are in all, where that is more than are named."""


class UnguardedPod(Resource):
    """A pod that should be guarded, by its labels, and has no sidecar."""

    name: str
    why: Annotated[str, Field(max_length=256)]
    """In one sentence, with what to do."""


class Resolution(Resource):
    """How far a plugin's resolution is."""

    state: Literal["Pending", "Failed", "Good"] = "Pending"
    cause: LoadCause | None = None
    reason: str = ""
    """The reason of the conditions, where it says more than ``cause``."""
    message: str = ""
    """One sentence: why it failed or what it waits for; where it is good, why its tag could not be asked again."""
    transient: bool = False
    """Whether trying again may help by itself."""
    waits: str = ""
    """Where it is good, and what its tag means by now is refused: the reason; ``message`` is why."""
    ungranted: bool = False
    """Whether it failed because the module imports what is not granted."""
    failed_digest: str | None = None
    """Of the artifact that failed, or that the tag means by now and that is refused."""
    artifact: ArtifactStatus | None = None
    """The revision that the pods should run: after a failure, the last good one."""
    revision: str | None = None
    """The name of what the resource asks for, or, where that is not known, of the last good one."""
    warnings: list[str] = []
    """Where it is good: what may not work as it should, one sentence each."""
    notes: list[str] = []
    """Where it is good: what may not be what was meant, one sentence each."""
    audits: list[str] = []
    """Where it is good: what policies in Audit would refuse, one sentence each."""


class Observation(Resource):
    """Everything that the status depends on."""

    generation: int
    previous: WasmPluginStatus = WasmPluginStatus()
    resolution: Resolution
    pods: list[PodObservation] = []
    unguarded: list[UnguardedPod] = []
    """At most some of those, by name; ``unguarded_count`` is all of them."""
    unguarded_count: int = 0
    offered: bool = True
    """Whether pods are offered any version of it."""
    asks: bool = False
    """Whether the resource names anything outside the pods that the plugin may ask."""
    needs_pods: bool = True
    """``spec.selector.required``."""
    held: RollbackStatus | None = None
    """The rollback that holds, where this generation's revision was rolled back."""
    can_go_back: bool = True
    """Whether there is a version before it that pods can be given, with the settings of today."""
    now: str
    """RFC 3339, whole seconds."""
