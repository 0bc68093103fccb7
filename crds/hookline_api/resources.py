"""``WasmPlugin``: one named WebAssembly plugin with its settings (``hookline.dev/v1alpha1``).

The field docstrings become ``kubectl explain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from hookline_api.base import API_VERSION, KIND, Name, ObjectMeta, Resource, Sha256
from hookline_api.config import Config
from hookline_api.hooks import Hook, hook_spellings, parse_hook
from hookline_api.outbound import Outbound, ValkeyServer
from hookline_api.permissions import PERMISSION_PATTERN, Permission, grants, is_permission
from hookline_api.quantities import Duration, Size, bounded, format_duration, format_size
from hookline_api.status import WasmPluginStatus
from hookline_api.trust import Verify

PermissionName = Annotated[str, Field(pattern=PERMISSION_PATTERN, max_length=64)]
HookName = Annotated[
    Hook,
    BeforeValidator(parse_hook),
    WithJsonSchema({"type": "string", "maxLength": 16}),
]


class LocalObjectReference(Resource):
    """An object of the plugin's own namespace, by name."""

    name: Name


class OCISource(Resource):
    """A module in an OCI registry, in any layout that ``docs/reference/artifacts.md`` lists."""

    reference: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            json_schema_extra={
                "x-kubernetes-validations": [
                    {
                        "rule": "!self.startsWith('oci-layout:')",
                        "message": "oci-layout: is for manifest folders only",
                    }
                ]
            },
        ),
    ]
    """``registry/repository:tag`` or ``registry/repository@sha256:…``; in manifest folders also
    ``oci-layout:PATH[:tag|@digest]``, relative to the manifest."""
    pull_policy: Literal["IfNotPresent", "Always"] | None = None
    """Whether a tag is asked for again on each change of the resource. Default: Always for ``:latest`` and
    for no tag, else IfNotPresent. A digest is never asked for twice."""
    pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=16)] = []
    """Secrets of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg, tried in order."""
    ca_config_map: LocalObjectReference | None = None
    """A ConfigMap whose key ``ca.crt`` holds the registry's own certificate authority, PEM."""
    insecure: bool = False
    """Speak plain HTTP to the registry. Credentials are sent in the clear."""
    track_interval: Annotated[Duration, bounded(10_000, 30 * 86_400_000, format_duration)] | None = None
    """How often to ask what the tag points to (``10s`` to ``720h``). Default: never."""
    mirrors: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=8)] = []
    """Repositories, ``registry/repository``, that are asked in this order before the reference's own; with ``http://``
    in front over plain HTTP. What they give must have the same digests; a tag, too, is asked of the first that answers.
    A policy that names the allowed repositories has to allow them too."""


class HTTPSource(Resource):
    """A module at a URL; its digest is required, because a URL may answer anything tomorrow."""

    url: Annotated[str, Field(pattern="^https?://", max_length=2048)]
    sha256: Sha256
    """SHA-256 of the bytes at the URL, as 64 lower-case hex digits."""


class ConfigMapSource(Resource):
    """A module in a ConfigMap's ``binaryData``: small ones, in development."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253)] = "plugin.wasm"


class FileSource(Resource):
    """A file beside the manifest. Only in manifest folders."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """Of a ``.wasm`` or a packed ``.tar.gz``; relative to the manifest."""


def _exactly_one(source: BaseModel) -> None:
    kinds = {name: field.alias or name for name, field in type(source).model_fields.items()}
    given = [kind for name, kind in kinds.items() if getattr(source, name) is not None]
    if len(given) != 1:
        instead = f", not {' and '.join(given)}" if given else ""
        raise ValueError(f"give exactly one of {', '.join(kinds.values())}{instead}")


class Source(Resource):
    """Where the module comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "[has(self.oci), has(self.http), has(self.configMap)].exists_one(given, given)",
                    "message": "give exactly one of oci, http, configMap",
                }
            ]
        }
    )

    oci: OCISource | None = None
    http: HTTPSource | None = None
    config_map: ConfigMapSource | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        _exactly_one(self)
        return self


class LocalSource(Source):
    """A source in a manifest folder, where files beside the manifest are allowed too."""

    file: FileSource | None = None


class SelectorRequirement(Resource):
    """One requirement of a label selector, as Kubernetes has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                    "message": "In and NotIn need values, Exists and DoesNotExist take none",
                }
            ]
        }
    )

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=64)] = []


class LabelSelector(Resource):
    """Objects by their labels, as Kubernetes has it; empty selects all."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = {}
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=64)] = []


class Selector(LabelSelector):
    """The proxy pods, by their labels; empty selects every pod of the namespace that has a sidecar."""

    required: bool = True
    """Whether a matching pod must exist. True: the plugin is not Ready while there is none. False: the plugin may
    wait for pods. Default true."""


Pattern = Annotated[str, Field(min_length=1, max_length=253)]
Patterns = Annotated[list[Pattern], Field(max_length=64)]


class Match(Resource):
    """Which calls a plugin is asked about. All given fields must match; a ``*`` stands for any characters.

    A call is skipped only where it says that it is for something else. What the proxy did not say, or what
    a rewrite made unknown, counts as a match: a guard is never left out by an omission.
    """

    databases: Patterns = []
    """Compared with ``hook_context.database``."""
    users: Patterns = []
    """Compared with ``hook_context.identity``, or ``username`` where a client authenticates."""
    applications: Patterns = []
    """Compared with the attribute ``application_name``."""
    query_classes: Annotated[
        list[Literal["read", "write", "select", "insert", "update", "delete", "ddl", "other"]],
        Field(max_length=8),
    ] = []
    """``read`` and ``write`` as the proxy says in ``is_read_only``; the others by the statements' first
    words. A text whose class cannot be told for sure (``WITH``, ``EXPLAIN``, ``CALL``) is of every class."""
    tables: Patterns = []
    """Compared with each of ``tables``; one is enough."""


class KeyRef(Resource):
    """A Secret or a ConfigMap, by name."""

    name: Name


class ConfigFrom(Resource):
    """One setting from a Secret or a ConfigMap. Values of Secrets are shown nowhere."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.secretRef) != has(self.configMapRef)",
                    "message": "give exactly one of secretRef, configMapRef",
                }
            ]
        }
    )

    secret_ref: KeyRef | None = None
    config_map_ref: KeyRef | None = None
    key: Annotated[str, Field(min_length=1, max_length=253)]
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,7}$", max_length=253)]
    """Where in ``config`` the value goes, with dots: ``upstream.token``."""

    @model_validator(mode="after")
    def _one(self) -> ConfigFrom:
        if (self.secret_ref is None) == (self.config_map_ref is None):
            raise ValueError("give exactly one of secretRef, configMapRef")
        return self


class Limits(Resource):
    """What one plugin may use. Every bound is enforced; reaching one is a failure with a cause."""

    timeout: Annotated[Duration, bounded(1, 60_000, format_duration)] = 100
    """Processor time for one call of one plugin, 1ms to 60s; waiting for a core does not count, up to ten times as
    much, but 1s more at least and 5s more at most. Cause ``timeout``. Default 100ms."""
    wait: Annotated[Duration, bounded(1, 60_000, format_duration)] = 1000
    """Time that one call may spend in host functions that ask somebody else (queries, HTTP, a cache or keys on a
    server), on top of ``timeout``, 1ms to 60s. Cause ``timeout``. Default 1s."""
    memory: Annotated[Size, bounded(65_536, 2**30, format_size)] = Field(default=64 * 2**20, validate_default=True)
    """Linear memory of one instance, 64Ki to 1Gi; a guest that asks for more gets ``memory.grow`` = -1.
    Default 64Mi."""
    fuel: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Instructions of one call, about one unit each; a number makes the plugin 12 to 24 % slower and
    repeatable. Cause ``timeout``. Default: not counted."""
    input: Annotated[Size, bounded(1, 64 * 2**20, format_size)] = Field(default=2**18, validate_default=True)
    """Bytes of one hook call, up to 64Mi. Cause ``overload``. Default 256Ki."""
    output: Annotated[Size, bounded(1, 64 * 2**20, format_size)] = Field(default=2**20, validate_default=True)
    """Bytes of one result, up to 64Mi. Cause ``result``. Default 1Mi."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Calls at the same time in one pod; four times as many may wait, for at most ``timeout``.
    Cause ``overload``. Default 16."""


class Isolation(Resource):
    """How instances are used."""

    mode: Literal["PerCall", "Pooled"] = "PerCall"
    """PerCall: fresh memory for every call. Pooled: instances are used again, for guests that free what
    they take; one that does not is refused when it is loaded. Default PerCall."""
    size: Annotated[int, Field(ge=1, le=256)] = 4
    """Pooled: instances kept by one worker. Default 4."""
    max_calls: Annotated[int, Field(ge=1, le=2**31)] = 10_000
    """Pooled: an instance is dropped after this many calls. Default 10000."""


# The store's own caps (hookline_runtime.host.kv), and how much of them one object of the API can carry beside its other
# settings: etcd takes 1.5 MiB, and the operator keeps each revision in an object too.
MAX_KV_KEYS: Final = 1024
MAX_KV_BYTES: Final = 64 * 1024
"""Of one key, and of one value."""
MAX_KV_INITIAL: Final = 512 * 1024
"""Of all keys and values in ``kv.initial``."""


def _kv_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - pydantic makes an error of a ValueError alone
            "is not text: write a number or a boolean in quotes, and JSON as a block scalar (key: |)"
        )
    return value


# The API server counts characters: to count bytes there costs more than it allows for so many values.
_KvValue = Annotated[str, Field(max_length=MAX_KV_BYTES), BeforeValidator(_kv_text)]


class KvSettings(Resource):
    """The plugin's keys in the key-value store."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "(has(self.scope) && self.scope == 'Cluster') == has(self.valkey)",
                    "message": "scope: Cluster needs kv.valkey, and nothing else takes it",
                }
            ]
        }
    )

    scope: Literal["Pod", "Cluster"] = "Pod"
    """Pod: each pod has keys of its own. Cluster: all pods share them, on the server that ``valkey`` names. Default
    Pod."""
    valkey: ValkeyServer | None = None
    """Where the keys are, with ``scope: Cluster``."""
    initial: Annotated[
        dict[str, _KvValue],
        Field(
            max_length=MAX_KV_KEYS,
            json_schema_extra={
                "x-kubernetes-validations": [
                    {
                        "rule": f"self.all(key, size(key) > 0 && size(key) <= {MAX_KV_BYTES})",
                        "message": f"a key has 1 to {MAX_KV_BYTES} bytes",
                    },
                    {
                        "rule": f"self.map(key, size(key) + size(self[key])).sum() <= {MAX_KV_INITIAL}",
                        "message": f"keys and values have more than {MAX_KV_INITIAL} bytes together",
                    },
                ]
            },
        ),
    ] = {}
    """Keys and their values, text of at most 64Ki each and 512Ki in all, that are in the store before the plugin's
    first call in a pod; with ``scope: Cluster``, on the server. Shown in clear wherever the resource is: put secrets
    into ``configFrom``."""
    overwrite: Literal["Never", "OnChange"] = "Never"
    """Never: each key is written once in a pod (with ``scope: Cluster``, once for all), where there is none; what the
    plugin or an administrator makes of it then stays, also that it is deleted. OnChange: a key is written again
    whenever its value here is not the one that was last written from here. No mode deletes a key. Default Never."""

    @field_validator("initial")
    @classmethod
    def _fits(cls, initial: dict[str, str]) -> dict[str, str]:
        total = 0
        for key, value in initial.items():
            key_bytes, value_bytes = len(key.encode()), len(value.encode())
            if not 0 < key_bytes <= MAX_KV_BYTES:
                raise ValueError(f"a key has 1 to {MAX_KV_BYTES} bytes, and {key[:64]!r} has {key_bytes}")
            if value_bytes > MAX_KV_BYTES:
                raise ValueError(f"the value of {key[:64]!r} has {value_bytes} bytes, more than {MAX_KV_BYTES}")
            total += key_bytes + value_bytes
        if total > MAX_KV_INITIAL:
            raise ValueError(
                f"keys and values have {total} bytes together, more than {MAX_KV_INITIAL}; write the larger ones "
                "through the sidecar (hookline-sidecar kv put)"
            )
        return initial

    @model_validator(mode="after")
    def _has_server(self) -> KvSettings:
        if (self.scope == "Cluster") != (self.valkey is not None):
            raise ValueError("scope: Cluster needs kv.valkey, and nothing else takes it")
        return self


CallPolicy = Literal["Closed", "Open"]
SelfTest = Literal["Required", "IfPresent", "Off"]
LoadPolicy = Literal["LastGood", "Closed", "Open"]


class FailurePolicy(Resource):
    """What the chain answers when a plugin fails, per cause.

    LastGood: what ran before goes on; where nothing did, as Closed. Closed: the refusing answer of the hook
    (``docs/reference/hooks.md``). Open: as if the plugin were not there. Defaults: Closed on deciding hooks, Open on
    observing ones, LastGood for ``fetch``, ``verify`` and ``config``.
    """

    fetch: LoadPolicy = "LastGood"
    """The module cannot be fetched."""
    verify: Literal["LastGood", "Closed"] = "LastGood"
    """The module is not what was asked for: digest, signature, imports, exports. Never Open."""
    config: LoadPolicy = "LastGood"
    """The settings are wrong."""
    trap: CallPolicy | None = None
    """The guest trapped."""
    timeout: CallPolicy | None = None
    """The guest used up its time or its fuel."""
    result: CallPolicy | None = None
    """The guest's answer is not a valid decision."""
    overload: CallPolicy | None = None
    """The input, or the queue, is over its limit."""
    store: Literal["Closed", "Open", "PodLocal"] | None = None
    """The server with the plugin's keys is away (``kv.scope: Cluster``), or refuses. Closed, Open: the call ends so.
    PodLocal: the keys of this pod are used meanwhile; they are counted apart and never merged."""


class Observers(Resource):
    """How calls reach a plugin that only watches: on the observing hooks, and in Shadow mode on every hook."""

    overflow: Literal["Drop", "Wait"] = "Drop"
    """What happens to a call where 1024 calls, or 16Mi of them, wait for the plugin already. Drop: it is not
    observed, and counted. Wait: its answer waits until there is room, for as long as the proxy does. Default Drop."""


class Auth(Resource):
    """What ``/v1/auth`` makes of the plugin's answers (``docs/reference/proxies.md``)."""

    tell_reason: bool = False
    """Whether the client may read why it is refused: the plugin's own words, as ``error_description`` of the challenge
    and in the header ``X-Hookline-Reason``. They may help who guesses passwords or paths. Default false."""


class Probation(Resource):
    """How a new version proves itself in each pod, while the version before it stays warm.

    A call of its first ``calls`` that traps, times out or answers no valid decision is asked of the version before;
    after ``maxFailures`` of them the pod goes back to that one, and the rollout is held everywhere until the
    resource changes.
    """

    calls: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Calls until it has proven itself; 0: no probation. Default 100."""
    for_: Annotated[Duration, bounded(1_000, 86_400_000, format_duration)] = Field(default=300_000, alias="for")
    """How long probation lasts at most, however few calls there are. Default 5m."""
    max_failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Failed calls at which the pod goes back. Default 5."""


class Rollout(Resource):
    """How a change reaches the pods."""

    deadline: Annotated[Duration, bounded(1_000, 3_600_000, format_duration)] = 30_000
    """How long prepared pods wait for the others before they switch. Default 30s."""
    probation: Probation = Probation()


class WasmPluginSpec(Outbound):
    """What the plugin is, where it runs and what it may do."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.egress) || size(self.egress) == 0 || "
                    "(has(self.permissions) && self.permissions.exists(p, p == 'http.fetch'))",
                    "message": "egress needs the permission http.fetch",
                },
                {
                    "rule": "!has(self.dataSources) || size(self.dataSources) == 0 || (has(self.permissions) && "
                    "self.permissions.exists(p, p == 'query.execute' || p.startsWith('query.execute:')))",
                    "message": "dataSources need the permission query.execute",
                },
            ]
        }
    )

    source: Source
    sha256: Sha256 | None = None
    """SHA-256 of the module's own bytes, whatever it was packed in, as 64 lower-case hex digits."""
    verify: Verify | None = None
    selector: Selector = Selector()
    hooks: Annotated[
        list[HookName],
        Field(
            max_length=12,
            json_schema_extra={
                "x-kubernetes-list-type": "atomic",
                "x-kubernetes-validations": [
                    {
                        "rule": "self.all(h, h.lowerAscii() in ["
                        + ", ".join(f"'{name}'" for name in sorted(hook_spellings()))
                        + "])",
                        "message": "hooks are " + ", ".join(Hook),
                    }
                ],
            },
        ),
    ] = []
    """Which hooks to call. Default: every hook that the module exports."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Higher runs earlier; ties by name. Default 0."""
    match: Match = Match()
    config: Annotated[Config, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] = Config()
    """Free form; checked against the plugin's own JSON Schema where it ships one."""
    config_from: Annotated[list[ConfigFrom], Field(max_length=64)] = []
    """Settings from Secrets and ConfigMaps, laid over ``config`` in order."""
    permissions: Annotated[
        list[PermissionName], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """What the plugin may ask of its host. Default: nothing."""
    permissions_policy: Literal["Strict", "Lenient", "FollowArtifact"] = "Strict"
    """Strict: a module that imports a function whose permission is not granted is not loaded (``ConfigInvalid``).
    Lenient: it is loaded, and such a function answers "denied". FollowArtifact: what the artifact asks for is granted,
    beside ``permissions``. With the first two, a new version that asks for more than the one before it and than is
    granted waits until the resource grants it (``PermissionsIncreased``). Default Strict."""
    kv: KvSettings = KvSettings()
    limits: Limits = Limits()
    isolation: Isolation = Isolation()
    observers: Observers = Observers()
    auth: Auth = Auth()
    failure_policy: FailurePolicy = FailurePolicy()
    mode: Literal["Enforce", "Shadow"] = "Enforce"
    """Shadow: the plugin runs and is measured, off the reply's path, and decides nothing. Default Enforce."""
    self_test: SelfTest = "IfPresent"
    """Whether a sidecar asks a new version the cases that its module carries (``hookline.cases``) before it may take
    over, and refuses one that does not answer them as they say, as ``failurePolicy.verify`` has it. Required: a module
    without cases is refused too. IfPresent: a module without cases runs. Off: cases are not asked. Default
    IfPresent."""
    rollout: Rollout = Rollout()

    @model_validator(mode="after")
    def _are_permitted(self) -> WasmPluginSpec:
        if self.egress and Permission.HTTP_FETCH not in self.permissions:
            raise ValueError("egress needs the permission http.fetch")
        if self.data_sources and not grants(self.permissions, Permission.QUERY_EXECUTE):
            raise ValueError("dataSources need the permission query.execute")
        return self


class Granting(Protocol):
    """What grants permissions: a spec, or what is left of one."""

    @property
    def permissions(self) -> Sequence[str]:
        """Those that it lists."""

    @property
    def permissions_policy(self) -> str | None:
        """As in a spec."""


def granted(spec: Granting, asks: Sequence[str]) -> list[str]:
    """The permissions that a plugin has whose artifact asks for these, in order."""
    follows = spec.permissions_policy == "FollowArtifact"
    more = [each for each in asks if follows and is_permission(each) and not grants(spec.permissions, each)]
    return sorted({*spec.permissions, *more})


class LocalWasmPluginSpec(WasmPluginSpec):
    """The spec in a manifest folder: also files beside the manifest."""

    source: LocalSource


class WasmPlugin(Resource):
    """A WebAssembly plugin for the proxies of matching pods."""

    api_version: Literal["hookline.dev/v1alpha1"] = API_VERSION
    kind: Literal["WasmPlugin"] = KIND
    metadata: ObjectMeta
    spec: WasmPluginSpec
    status: WasmPluginStatus | None = None


class LocalWasmPlugin(WasmPlugin):
    """A ``WasmPlugin`` in a manifest folder: also files beside the manifest."""

    spec: LocalWasmPluginSpec
