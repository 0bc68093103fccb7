"""The status of a ``WasmPlugin``: what its pods run, as the operator writes it.

The field docstrings become ``kubectl explain``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from hookline_api.base import Resource

ConditionType = Literal[
    "Ready",
    "Healthy",
    "Resolved",
    "Verified",
    "PermissionsGranted",
    "SourcesAvailable",
    "Programmed",
    "Reconciling",
    "Stalled",
    "Observed",
]


class Condition(Resource):
    """As Kubernetes' ``metav1.Condition``."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, Field(max_length=32_768)]


class SignatureStatus(Resource):
    """One signature that was verified."""

    signer: Annotated[str, Field(max_length=512)]
    """The signer's name, or the key or the identity."""
    key: Annotated[str, Field(max_length=80)] | None = None
    """``sha256:`` of the public key (SubjectPublicKeyInfo); none for a keyless signature."""
    asked_by: Annotated[str, Field(max_length=300)]
    """``spec.verify``, or a PluginTrustPolicy."""
    log_index: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Where it stands in the transparency log."""
    time: Annotated[str, Field(max_length=40)] | None = None
    """When it was made, as the log or a timestamp authority says it."""


class ArtifactStatus(Resource):
    """The one artifact that the whole fleet runs."""

    digest: str
    sha256: str | None = None
    layout: str | None = None
    size: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Bytes of the module."""
    version: str | None = None
    """As the artifact tells it."""
    signer: str | None = None
    """Who has signed it, of those that were asked for."""
    signatures: Annotated[list[SignatureStatus], Field(max_length=8)] = []
    """What was verified."""
    cases: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """How many cases its module carries; sidecars ask them as ``spec.selfTest`` says."""
    hooks: Annotated[list[str], Field(max_length=12)] = []
    imports: Annotated[list[str], Field(max_length=256)] = []


class PodCounts(Resource):
    """Counts of the pods that the plugin is for."""

    matched: int = 0
    loaded: int = 0
    updating: int = 0
    failed: int = 0
    unguarded: int = 0
    """Pods that match, or ask for a sidecar, and have none; they are not among ``matched``."""


class Failure(Resource):
    """One failure with a reason that a person can act on."""

    pod: str | None = None
    hook: str | None = None
    """The hook whose calls failed, if calls failed."""
    cause: str
    message: Annotated[str, Field(max_length=1024)]
    since: str | None = None


class RevisionStatus(Resource):
    """One revision of the plugin: an artifact digest and settings."""

    revision: str
    digest: str
    since: str | None = None


class RollbackStatus(Resource):
    """A revision that failed on probation; no pod is told to run it until the resource changes."""

    revision: str
    """The name of the revision, as in ``status.revisions``."""
    generation: int
    """Generation of the resource that asked for it."""
    digest: str | None = None
    pod: str
    """The first pod that went back."""
    calls: int
    failures: int
    cause: str
    message: Annotated[str, Field(max_length=1024)]
    since: str | None = None


class WasmPluginStatus(Resource):
    """What the pods really run."""

    observed_generation: int | None = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    artifact: ArtifactStatus | None = None
    pods: PodCounts = PodCounts()
    failures: Annotated[list[Failure], Field(max_length=5)] = []
    """The five worst failures."""
    revisions: Annotated[list[RevisionStatus], Field(max_length=10)] = []
    """The revisions of the plugin, newest first."""
    rolled_back: RollbackStatus | None = None
    hooks: str | None = None
    """The hooks in one word each, for ``kubectl get``."""
    digest: str | None = None
    """The digest's first twelve digits, for ``kubectl get``."""
    failed_digest: str | None = None
    """The whole digest of the artifact that the source means, where it was refused or cannot be had: the conditions
    say why."""
    more: str | None = None
    """Where the reason of Ready is explained, with what to do: a page of Hookline's documentation. None where all is
    well."""
    loaded: str | None = None
    """``loaded/matched`` pods, for ``kubectl get``."""
