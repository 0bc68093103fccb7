"""``PluginTrustPolicy``: what the plugins of a cluster may be and do, whoever writes their resources.

Every policy whose selectors match a plugin applies; each forbids by itself, so the strictest wins, and no resource can
relax one. The field docstrings become ``kubectl explain``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from hookline_api.base import API_VERSION, POLICY_KIND, ObjectMeta, Resource
from hookline_api.outbound import HostPattern, Port
from hookline_api.quantities import Duration, Size, bounded, format_duration, format_size
from hookline_api.resources import LabelSelector, PermissionName, SelfTest
from hookline_api.status import Condition
from hookline_api.trust import NamePattern, RepositoryPattern, Signatures, Version

POLICY_PLURAL: Final = "plugintrustpolicies"
MAX_REFUSALS: Final = 10
_LIST: Final = 64

SourceKind = Literal["oci", "http", "configMap", "file"]
LoadChoice = Literal["LastGood", "Closed", "Open", "PodLocal"]


class PluginSelector(LabelSelector):
    """Plugins, by the labels of their resources and by their names; empty selects all."""

    names: Annotated[list[NamePattern], Field(max_length=_LIST)] = []
    """One of these, with ``*`` for any characters. Default: any."""


class EgressAllowance(Resource):
    """Where rules of ``egress`` may lead."""

    hosts: Annotated[list[HostPattern], Field(min_length=1, max_length=_LIST)]
    """Host names, ``*.`` and a domain for all names below it, or ``*``. A rule's own pattern must be within one."""
    schemes: Annotated[list[Literal["http", "https"]], Field(min_length=1, max_length=2)] = ["https"]
    """Default: https."""
    ports: Annotated[list[Port], Field(max_length=_LIST)] = []
    """Default: any."""


class LimitBounds(Resource):
    """The most that ``spec.limits`` may say."""

    timeout: Annotated[Duration, bounded(1, 60_000, format_duration)] | None = None
    wait: Annotated[Duration, bounded(1, 60_000, format_duration)] | None = None
    memory: Annotated[Size, bounded(65_536, 2**30, format_size)] | None = None
    fuel: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Where it is given, a plugin must have ``limits.fuel``, and no more."""
    input: Annotated[Size, bounded(1, 64 * 2**20, format_size)] | None = None
    output: Annotated[Size, bounded(1, 64 * 2**20, format_size)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None


class MinimumVersion(Resource):
    """The lowest version of some plugins."""

    plugins: Annotated[list[NamePattern], Field(min_length=1, max_length=_LIST)]
    version: Version


class PluginTrustPolicySpec(Resource):
    """What the plugins that it selects may be and do. What is left out is not judged."""

    mode: Literal["Enforce", "Audit"] = "Enforce"
    """Enforce: what it forbids runs in no pod, not even as the last good version. Audit: it is counted, and told in the
    plugin's status, and runs. Default Enforce."""
    namespace_selector: LabelSelector = LabelSelector()
    """The namespaces of the plugins, by labels. Default: all."""
    plugin_selector: PluginSelector = PluginSelector()
    """Default: all."""
    sources: Annotated[list[SourceKind], Field(max_length=4)] | None = None
    """The kinds of ``spec.source`` that are allowed. Default: any."""
    repositories: Annotated[list[RepositoryPattern], Field(max_length=_LIST)] | None = None
    """The repositories that an artifact may be of. With it, sources that are no registry are not allowed. Default:
    any."""
    references: Literal["Any", "Digest", "Tag"] = "Any"
    """Digest: the reference must have a digest. Tag: it must have a tag and no digest, so that it can be moved
    forward. Default Any."""
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=_LIST)] | None = None
    """Tags that a reference may have, with ``*`` for any characters. One with a digest is not judged by it. Default:
    any."""
    signatures: Signatures | None = None
    """The signatures that every artifact needs, whatever ``spec.verify`` says beside it."""
    minimum_versions: Annotated[list[MinimumVersion], Field(max_length=_LIST)] = []
    permissions: Annotated[list[PermissionName], Field(max_length=_LIST)] | None = None
    """The permissions that may be granted: ``query.execute`` stands for its parts, too. Default: any."""
    permissions_policies: (
        Annotated[list[Literal["Strict", "Lenient", "FollowArtifact"]], Field(max_length=3)] | None
    ) = None
    """Default: any."""
    self_tests: Annotated[list[SelfTest], Field(max_length=3)] | None = None
    """What ``spec.selfTest`` may be: with ``[Required]`` only modules run that carry their own cases, and hold them.
    Default: any."""
    egress: Annotated[list[EgressAllowance], Field(max_length=_LIST)] | None = None
    """Where HTTP requests may go. Default: anywhere."""
    data_sources: Annotated[list[HostPattern], Field(max_length=_LIST)] | None = None
    """The hosts of databases. Default: any."""
    stores: Annotated[list[HostPattern], Field(max_length=_LIST)] | None = None
    """The hosts of Valkey servers for caches and keys. A server whose URL is in a Secret cannot be judged, and is not
    allowed then. Default: any."""
    failure_policies: Annotated[list[LoadChoice], Field(max_length=4)] | None = None
    """What ``spec.failurePolicy`` may say for any cause. Hooks that only observe are Open unless it says otherwise, and
    that is always allowed. Default: any."""
    limits: LimitBounds = LimitBounds()


class Refusal(Resource):
    """A plugin that it forbids."""

    plugin: Annotated[str, Field(max_length=512)]
    """``namespace/name``."""
    message: Annotated[str, Field(max_length=1024)]


class PluginTrustPolicyStatus(Resource):
    """What it does now."""

    observed_generation: int | None = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    matched: int = 0
    """Plugins that it selects."""
    refused: int = 0
    """Plugins that it keeps from running."""
    would_refuse: int = 0
    """Plugins that it would keep from running if its mode were Enforce."""
    unknown: int = 0
    """Plugins whose signatures have not been looked at yet."""
    refusals: Annotated[list[Refusal], Field(max_length=MAX_REFUSALS)] = []
    """Some of them, by name."""


class PluginTrustPolicy(Resource):
    """What the plugins of a cluster may be and do."""

    api_version: Literal["hookline.dev/v1alpha1"] = API_VERSION
    kind: Literal["PluginTrustPolicy"] = POLICY_KIND
    metadata: ObjectMeta
    spec: PluginTrustPolicySpec
    status: PluginTrustPolicyStatus | None = None
