"""``WasmPlugin`` resources as the operator keeps them: as JSON bytes, which are parsed when they are needed.

5,000 parsed plugins with their settings would take gigabytes. What is asked often is computed once and kept beside the
bytes: ``Facts``, and the cached properties.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from hookline_api import json_cost, trust
from hookline_api.base import API_VERSION, KIND
from hookline_api.bundle import LoadFailure
from hookline_api.config import MAX_CONFIG_VALUES
from hookline_api.hooks import OBSERVERS
from hookline_api.outbound import references
from hookline_api.resources import Selector, WasmPlugin
from hookline_api.sources import source_names
from hookline_api.status import RollbackStatus, WasmPluginStatus
from hookline_artifacts.trust.policy import asked_by
from hookline_operator.cluster.revisions import MAX_DEPTH, is_deeper, kept
from hookline_operator.status.reasons import CAUSES, TROUBLES

if TYPE_CHECKING:
    from hookline_api.trust import Document, ObjectKey
    from hookline_artifacts.trust.policy import Asked
    from hookline_operator.cluster.kube import Key, Object

_TOO_DEEP: Final = f"config is nested deeper than {MAX_DEPTH} levels"
_MAX_VALUES: Final = MAX_CONFIG_VALUES + 2**15
"""Values and names of a spec: the rest of it has a few thousand at the most."""
_TOO_MANY: Final = f"config has more than {MAX_CONFIG_VALUES} values and names"
_LEVELS: Final = 6
"""How far down a part of a spec names Secrets: ``dataSources[0].postgres.tls.caFrom`` is the furthest."""
_MAX_LABELS: Final = 64
_MAX_LABELS_SIZE: Final = 16 * 1024
_NO_ROOM: Final = "the specs of its namespace's plugins have "


class Facts(NamedTuple):
    """What every change of a pod or a Secret asks of a spec."""

    permissions: list[str]
    is_strict: bool
    """Whether it is to be refused where a permission is missing."""
    track_interval: int | None
    """Milliseconds after which its tag is asked again."""
    observes: bool
    """Whether it says that only observing hooks are called: then nothing waits for it."""
    asks: bool
    """Whether it names anything outside its pods that it may ask."""
    refers_to: list[tuple[str, bool]]
    """Every object that it names, as ``Kind/name``, and whether settings, keys or the module are in it."""
    keys: frozenset[str]
    """Of these, those that hold nothing but keys that signatures are verified with."""
    asked: Asked
    """What policies judge."""
    wants_signatures: bool
    """Whether it asks for any itself."""


@dataclass(frozen=True)
class Plugin:
    """A ``WasmPlugin`` as it was last seen."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: bytes = field(repr=False)
    """JSON."""
    status: bytes = field(repr=False)
    """JSON."""
    created: str = ""
    size: int = field(default=0, compare=False)
    """Bytes of the spec in the API, also where it is not kept."""
    names: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    """The names of all objects that the spec refers to, so that a changed Secret needs no look into specs."""
    labels: tuple[tuple[str, str], ...] | None = ()
    """Sorted; None where there are too many to keep: what selects by labels takes those for selected."""
    left_out: bool = False
    """Whether its namespace has no room for its spec: then little of it is kept."""

    @classmethod
    def of(cls, found: Object) -> Plugin:
        """From the API's object."""
        metadata, spec = found["metadata"], found.get("spec")
        if isinstance(spec, dict) and is_deeper(spec, MAX_DEPTH):
            # Only config can be; the rest is of the CRD's making. The API server takes 10,000 levels, orjson does not.
            spec = {**spec, "config": _TOO_DEEP}
        text = _kept(spec)
        if isinstance(spec, dict) and json_cost.values(text, at_most=_MAX_VALUES) > _MAX_VALUES:
            text = _kept(_refused(spec, _TOO_MANY))
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            spec=text,
            status=_kept(found.get("status") or {}),
            created=metadata.get("creationTimestamp") or "",
            size=len(text),
            names=_names(spec),
            labels=_labels(metadata.get("labels") or {}),
        )

    def without_spec(self, why: str) -> Plugin:
        """The same plugin, with nothing of its spec but the selector."""
        spec = _kept(_refused(orjson.loads(self.spec), why))
        return replace(self, spec=spec, names=frozenset(), left_out=True)

    def after(self, known: Plugin | None) -> Plugin:
        """The same plugin, with what was computed of its spec before, where the spec is the same."""
        if known is None or known.spec != self.spec:
            return self
        made = replace(self, spec=known.spec)
        made.__dict__.update({name: known.__dict__[name] for name in ("facts", "selector") if name in known.__dict__})
        return made

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    def parsed(self) -> WasmPlugin:
        """The resource. Raises ``pydantic.ValidationError``: the models check more than the API server does."""
        spec = orjson.loads(self.spec)
        config = spec.get("config") if isinstance(spec, dict) else None
        if isinstance(config, str) and config.startswith((_TOO_DEEP, _TOO_MANY, _NO_ROOM)):
            wrong = InitErrorDetails(
                type=PydanticCustomError("too_much", "{why}", {"why": config}), loc=("spec",), input=None
            )
            raise ValidationError.from_exception_data(KIND, [wrong])
        return parse_plugin(self.namespace, self.name, self.uid, self.generation, spec)

    @property
    def settings_from(self) -> list[str]:
        """The objects, as ``Kind/name``, that hold settings or the module itself."""
        return [each for each, settings in self.facts.refers_to if settings] if self.facts else []

    @property
    def refers_to(self) -> list[str]:
        """Every object, as ``Kind/name``, that the resource names."""
        return [each for each, _ in self.facts.refers_to] if self.facts else []

    @cached_property
    def facts(self) -> Facts | None:
        """The spec without its settings, which would take a tenth of a second to read; None where it is not valid."""
        spec = orjson.loads(self.spec)
        if isinstance(spec, dict) and isinstance(spec.get("config"), dict):
            spec["config"] = {}
        try:
            resource = parse_plugin(self.namespace, self.name, self.uid, self.generation, spec)
        except ValidationError:
            return None
        read = resource.spec
        found = [(f"Secret/{each.secret_ref.name}", True) for each in read.config_from if each.secret_ref]
        found += [(f"ConfigMap/{each.config_map_ref.name}", True) for each in read.config_from if each.config_map_ref]
        found += [(f"Secret/{name}", True) for name in sorted({each.name for _, each in references(read)})]
        verify = read.verify
        documents = [] if verify is None else trust.documents(verify.signatures)
        keys = {f"{kind}/{each.name}" for document in documents for kind, each in _objects(document)}
        keys -= {each for each, _ in found}
        found += [(each, True) for each in sorted(keys)]
        source = read.source
        if source.config_map is not None:
            found.append((f"ConfigMap/{source.config_map.name}", True))
        if source.oci is not None:
            found += [(f"Secret/{each.name}", False) for each in source.oci.pull_secrets]
            if source.oci.ca_config_map is not None:
                found.append((f"ConfigMap/{source.oci.ca_config_map.name}", False))
        return Facts(
            permissions=list(read.permissions),
            is_strict=read.permissions_policy == "Strict",
            track_interval=source.oci.track_interval if source.oci is not None else None,
            observes=bool(read.hooks) and all(hook in OBSERVERS for hook in read.hooks),
            asks=bool(read.egress or source_names(read, read.kv.valkey)),
            refers_to=found,
            keys=frozenset(keys) - ({f"ConfigMap/{source.config_map.name}"} if source.config_map else set()),
            asked=asked_by(resource),
            wants_signatures=verify is not None and verify.wanted,
        )

    @cached_property
    def selector(self) -> Selector:
        """Which pods it is for.

        It is read where the rest of the spec is wrong, too; an unreadable one selects all pods.
        """
        spec = orjson.loads(self.spec)
        try:
            return Selector.model_validate((spec or {}).get("selector") or {})
        except (ValidationError, AttributeError):
            return Selector()

    def last_status(self) -> WasmPluginStatus:
        """The status that the API server has; an empty one where it cannot be read."""
        try:
            return WasmPluginStatus.model_validate_json(self.status)
        except ValidationError:
            return WasmPluginStatus()

    @cached_property
    def is_ready(self) -> bool:
        """Whether its status says Ready."""
        return any(each.type == "Ready" and each.status == "True" for each in self.last_status().conditions)

    @cached_property
    def vouches(self) -> tuple[str, str | None] | None:
        """The revision, and its module's sha256, that were good when the operator last wrote the status.

        Nobody else may write the status, so it vouches for that revision.
        """
        status = self.last_status()
        if not status.revisions or status.artifact is None:
            return None
        return status.revisions[0].revision, status.artifact.sha256

    @cached_property
    def failure(self) -> LoadFailure | None:
        """Why this generation cannot be loaded, as its status says."""
        status = self.last_status()
        conditions = {each.type: each for each in status.conditions}
        ready = conditions.get("Ready")
        cause = CAUSES.get(ready.reason) if ready is not None else None
        if ready is None or cause is None or ready.observed_generation != self.generation:
            return None
        own = conditions.get("Verified" if cause == "verify" else "Resolved")
        return LoadFailure(cause=cause, message=own.message) if own is not None else None

    @cached_property
    def trouble(self) -> str | None:
        """What is wrong with its calls, as its status says: one of ``TROUBLES``."""
        reasons = (each.reason for each in self.last_status().conditions if each.type == "Healthy")
        return next((reason for reason in reasons if reason in TROUBLES), None)

    @cached_property
    def rolled_back(self) -> RollbackStatus | None:
        """The revision of it that failed on probation, as its status says."""
        return self.last_status().rolled_back

    @property
    def is_rolled_back(self) -> bool:
        """Whether its status says that a revision of it failed on probation, and is held."""
        return self.rolled_back is not None


def _labels(found: dict[str, str]) -> tuple[tuple[str, str], ...] | None:
    if len(found) > _MAX_LABELS or sum(len(key) + len(value) for key, value in found.items()) > _MAX_LABELS_SIZE:
        return None
    return tuple(sorted(found.items()))


def _kept(data: Any) -> bytes:
    return kept(orjson.dumps(data))


def _refused(spec: Any, why: str) -> Object:
    """What is kept of a spec that is not: the CRD lets nobody write a text as ``config``."""
    return {"selector": spec.get("selector") if isinstance(spec, dict) else None, "config": why}


def _names(spec: Any) -> frozenset[str]:
    """The names of all objects that a spec refers to, whether the rest of it is right or not."""
    oci = _at(spec, "source", "oci")
    found = [
        _at(each, kind, "name") for each in _list(_at(spec, "configFrom")) for kind in ("secretRef", "configMapRef")
    ]
    found += [_at(each, "name") for each in _list(_at(oci, "pullSecrets"))]
    found += [_at(oci, "caConfigMap", "name"), _at(spec, "source", "configMap", "name")]
    for part in ("dataSources", "caches", "egress", "kv"):
        found += _secrets_in(_at(spec, part))
    found += _documents_in(_at(spec, "verify"))
    return frozenset(each for each in found if isinstance(each, str))


def _secrets_in(node: Any, levels: int = _LEVELS) -> list[Any]:
    """The names of what looks like a ``SecretKeyRef``."""
    found: list[Any] = []
    for key, value in node.items() if isinstance(node, dict) else ((None, each) for each in _list(node)):
        if isinstance(key, str) and key.endswith("From"):
            found.append(_at(value, "name"))
        elif levels:
            found += _secrets_in(value, levels - 1)
    return found


def _documents_in(node: Any, levels: int = _LEVELS) -> list[Any]:
    """The names of what looks like the objects of a ``Document``."""
    found = [_at(node, "secret", "name"), _at(node, "configMap", "name")]
    for value in node.values() if isinstance(node, dict) else _list(node):
        if levels:
            found += _documents_in(value, levels - 1)
    return found


def _objects(document: Document) -> list[tuple[str, ObjectKey]]:
    """The object that a document is kept in, with its kind."""
    both = (("Secret", document.secret), ("ConfigMap", document.config_map))
    return [(kind, each) for kind, each in both if each is not None]


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _list(node: Any) -> list[Any]:
    return node if isinstance(node, list) else []


def parse_plugin(namespace: str, name: str, uid: str, generation: int, spec: Any) -> WasmPlugin:
    """A resource from its parts. Raises ``pydantic.ValidationError``."""
    metadata = {"namespace": namespace, "name": name, "uid": uid, "generation": generation}
    return WasmPlugin.model_validate(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}, by_alias=True, by_name=False
    )
