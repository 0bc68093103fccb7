"""The ``PluginTrustPolicy`` resources of the cluster: which of them apply to a plugin, with their keys read.

A policy is followed by a watch, and so are the labels of namespaces. The keys that it names are in Secrets and
ConfigMaps of the operator's own namespace, which are looked at again every few seconds. A policy is swapped for its
successor once all of that was read, and until then the one before it goes on.

What cannot be told is closed: a policy that this version does not understand forbids everything that it may select, and
so does one whose keys cannot be read; a namespace that is not known yet is selected by all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from hookline_api.base import API_VERSION
from hookline_api.policies import POLICY_PLURAL, PluginSelector, PluginTrustPolicySpec
from hookline_api.resources import LabelSelector
from hookline_api.trust import documents
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_artifacts.judging.policies import read_spec
from hookline_artifacts.trust.policy import Policy, selected
from hookline_artifacts.trust.requirement import load
from hookline_operator.cluster.kube import Kube, KubeError, path
from hookline_operator.cluster.reflector import Reflector
from hookline_operator.cluster.sight import AWAY, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_operator.cluster.kube import Key, Object
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.sight import Sights

LOOK_S: Final = 15.0
"""Seconds between two looks at the keys of policies."""
_AGAIN_S: Final = 2.0
"""The same while some cannot be read."""
_RELIST_S: Final = 20.0
"""Seconds after which all policies are read anew, whatever the watch told."""
_WAIT_S: Final = 10.0
"""How long a new policy waits for an API server that does not answer for its keys; then it is closed."""
_CACHED: Final = 20_000
"""Plugins, by their namespaces, names and labels."""

_M = TypeVar("_M", bound=BaseModel)
_Labels = tuple[tuple[str, str], ...]

log = logging.getLogger("hookline.policies")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownPolicy:
    """A policy as the API server has it."""

    name: str
    uid: str
    generation: int
    spec: PluginTrustPolicySpec | None
    """None where this version does not understand it."""
    problem: str
    """Why it is closed, in one sentence; empty where it is not."""
    status: bytes = field(repr=False)
    """The last one, in JSON."""
    shown: PluginTrustPolicySpec = field(repr=False)
    """What of it is understood: its selectors and its mode, as far as they can be read."""

    @classmethod
    def of(cls, found: Object) -> KnownPolicy:
        """From the API's object."""
        metadata, spec = found["metadata"], found.get("spec")
        read, problem = read_spec(spec)
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            spec=read,
            problem=problem,
            status=orjson.dumps(found.get("status") or {}),
            shown=read if read is not None else _as_far_as_readable(spec),
        )

    def is_as(self, other: KnownPolicy | None) -> bool:
        """Whether it asks for what another one does."""

        def told(each: KnownPolicy) -> tuple[object, ...]:
            return each.uid, each.generation, each.spec, each.problem, each.shown

        return other is not None and told(self) == told(other)


class Policies:
    """All policies, and which of them apply. ``changed`` is called when others apply, or ask for something else."""

    def __init__(self, kube: Kube, sights: Sights, *, own_namespace: str, look_s: float = LOOK_S) -> None:
        self.changed: list[Callable[[], None]] = []
        self.written: list[Callable[[], None]] = []
        """Called when a policy came, changed or went, its status included."""
        self.namespace_changed: list[Callable[[str], None]] = []
        """Called with a namespace whose labels have changed, where a policy looks at them."""
        self._kube = kube
        self._own = own_namespace
        self._look_s = look_s
        self._policies: Reflector[KnownPolicy] = Reflector(
            kube,
            path(API_VERSION, POLICY_PLURAL),
            project=KnownPolicy.of,
            changed=self._policy_changed,
            sight=sights.new(POLICY_PLURAL),
            absent=self._is_not_installed,
            # An API server whose definition was just replaced tells of new policies without their new fields.
            relist_s=_RELIST_S,
        )
        self._namespaces: Reflector[_Labels] = Reflector(
            kube,
            path("v1", "namespaces"),
            project=_labels_of,
            changed=self._namespace_changed,
            sight=sights.new("namespaces"),
            metadata_only=True,
        )
        self.reflectors: list[Reflector[Any]] = [self._policies, self._namespaces]
        """Whoever owns this object runs them."""
        self._in_force: dict[str, tuple[KnownPolicy, Policy]] = {}
        """By name, sorted: what applies, and what it was made of."""
        self._began = False
        """Whether anything may have been offered by what is in force."""
        self._coming: dict[str, asyncio.Task[None]] = {}
        self._applying: dict[tuple[str, str, _Labels | None], tuple[Policy, ...]] = {}

    # ── what is asked ──

    def applying(self, plugin: Plugin) -> tuple[Policy, ...]:
        """The policies that apply to a plugin, sorted by name. It is the same object until something changes."""
        return self._apply(plugin.namespace, plugin.name, plugin.labels)

    def applying_to(self, namespace: str, name: str, labels: Mapping[str, str]) -> tuple[Policy, ...]:
        """The same of a plugin that need not be there."""
        return self._apply(namespace, name, tuple(sorted(labels.items())))

    def all(self) -> list[KnownPolicy]:
        """Every policy, by name; where its keys cannot be read, that is its problem."""
        found = []
        for _, each in sorted(self._policies.items.items()):
            known, made = self._in_force.get(each.name, (None, None))
            problem = each.problem or (made.broken if made is not None and each.is_as(known) else "")
            found.append(
                KnownPolicy(
                    name=each.name,
                    uid=each.uid,
                    generation=each.generation,
                    spec=each.spec,
                    problem=problem,
                    status=each.status,
                    shown=each.shown,
                )
            )
        return found

    def in_force(self) -> list[Policy]:
        """Every policy as it is kept now, with its keys, by name."""
        return [made for _, made in self._in_force.values()]

    def selects(self, spec: PluginTrustPolicySpec, namespace: str, name: str, labels: Mapping[str, str] | None) -> bool:
        """Whether a policy's selectors select a plugin. ``labels`` that are not known are selected by all."""
        return selected(spec, name=name, labels=labels, namespace_labels=self._labels(namespace))

    def _labels(self, namespace: str) -> dict[str, str] | None:
        """Those of a namespace; None where they are not known."""
        found = self._namespaces.items.get(("", namespace))
        return dict(found) if found is not None else None

    async def made(self, name: str, spec: PluginTrustPolicySpec) -> Policy:
        """A policy with its keys as they are now; ``broken`` where they cannot be read. It need not be applied."""
        try:
            return await _made(name, spec, _OwnObjects(self._kube, self._own), self._own)
        except FetchError as error:
            return Policy(name=name, spec=spec, broken=_unread(error))

    def _apply(self, namespace: str, name: str, labels: _Labels | None) -> tuple[Policy, ...]:
        if not self._in_force:
            return ()
        key = namespace, name, labels
        known = self._applying.get(key)
        if known is None:
            if len(self._applying) >= _CACHED:
                self._applying.clear()
            given, around = dict(labels) if labels is not None else None, self._labels(namespace)
            found = (made for _, made in self._in_force.values())
            known = tuple(
                each for each in found if selected(each.spec, name=name, labels=given, namespace_labels=around)
            )
            self._applying[key] = known
        return known

    # ── keeping it current ──

    async def first_sync(self) -> None:
        """Wait until all policies that there are, and their keys, were read.

        DANGER: what is offered before that may be what a policy forbids.
        """
        await asyncio.gather(*(each.synced.wait() for each in self.reflectors))
        while self._coming:
            await asyncio.wait(self._coming.values())
        self._began = True

    async def run(self) -> None:
        """Look at the keys of policies again and again, for ever."""
        looked = 0.0
        try:
            while True:
                await asyncio.sleep(_AGAIN_S)
                looked += _AGAIN_S
                broken = any(made.broken and known.spec is not None for known, made in self._in_force.values())
                if broken or looked >= self._look_s:
                    await self._look()
                    looked = 0.0
        finally:
            for each in self._coming.values():
                each.cancel()

    async def _look(self) -> None:
        """Read the keys of all policies once more."""
        objects = _OwnObjects(self._kube, self._own)
        for known, made in list(self._in_force.values()):
            signatures = known.spec.signatures if known.spec is not None else None
            if signatures is None or not documents(signatures) or known.name in self._coming:
                continue
            try:
                new = await _made(known.name, known.shown, objects, self._own)
            except FetchError as error:
                if error.transient:  # as long as nobody answers, they are what they were
                    continue
                new = Policy(name=known.name, spec=known.shown, broken=_unread(error))
            if self._in_force.get(known.name) == (known, made) and new != made:
                self._swap(known, new)

    def _policy_changed(self, key: Key, old: KnownPolicy | None, new: KnownPolicy | None) -> None:
        name = key[1]
        if new is None:
            self._stop(name)
            if self._in_force.pop(name, None) is not None:
                log.info("the PluginTrustPolicy '%s' is gone", name)
                self._tell()
        elif not new.is_as(old):
            self._stop(name)
            task = asyncio.get_running_loop().create_task(self._take(new), name=f"policy {name}")
            self._coming[name] = task
            task.add_done_callback(lambda done: self._coming.pop(name) if self._coming.get(name) is done else None)
        for hear in self.written:
            hear()

    def _stop(self, name: str) -> None:
        """What was being read of an older one counts no more."""
        task = self._coming.pop(name, None)
        if task is not None:
            task.cancel()

    async def _take(self, known: KnownPolicy) -> None:
        """Put a policy in force, once its keys are read."""
        try:
            await self._read_and_swap(known)
        except Exception as error:  # a defect of ours must not leave it out
            log.exception("the PluginTrustPolicy '%s' could not be read", known.name)
            broken = f"the operator failed to read it: {type(error).__name__}; its log says more"
            self._swap(known, Policy(name=known.name, spec=known.shown, broken=broken))

    async def _read_and_swap(self, known: KnownPolicy) -> None:
        if known.spec is None:
            log.error("the PluginTrustPolicy '%s' forbids all that it selects: %s", known.name, known.problem)
            self._swap(known, Policy(name=known.name, spec=known.shown, broken=known.problem))
            return
        deadline = asyncio.get_running_loop().time() + _WAIT_S
        while True:
            try:
                made = await _made(known.name, known.spec, _OwnObjects(self._kube, self._own), self._own)
                break
            except FetchError as error:
                # Nothing is offered before the first time, and what a policy said before goes on: both can wait.
                waits = known.name in self._in_force or not self._began
                if not error.transient or (not waits and asyncio.get_running_loop().time() > deadline):
                    made = Policy(name=known.name, spec=known.spec, broken=_unread(error))
                    break
            await asyncio.sleep(_AGAIN_S / 4)
        self._swap(known, made)

    def _swap(self, known: KnownPolicy, made: Policy) -> None:
        if made.broken and known.spec is not None:
            log.error("the PluginTrustPolicy '%s' forbids all that it selects: %s", made.name, made.broken)
        self._in_force[made.name] = known, made
        self._in_force = dict(sorted(self._in_force.items()))
        self._tell()
        for hear in self.written:
            hear()

    def _tell(self) -> None:
        self._applying.clear()
        for hear in self.changed:
            hear()

    def _namespace_changed(self, key: Key, _old: _Labels | None, _new: _Labels | None) -> None:
        looked_at = (made.spec.namespace_selector for _, made in self._in_force.values())
        if not any(each.match_labels or each.match_expressions for each in looked_at):
            return
        self._applying = {each: found for each, found in self._applying.items() if each[0] != key[1]}
        for hear in self.namespace_changed:
            hear(key[1])

    async def _is_not_installed(self) -> bool:
        """Whether the API server has the group, and no such resource in it. Raises KubeError."""
        found = await self._kube.get(f"/apis/{API_VERSION}")
        return found is not None and all(each["name"] != POLICY_PLURAL for each in found["resources"])


class _OwnObjects:
    """Secrets and ConfigMaps of the operator's namespace as they are now, each read once."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._read: dict[tuple[str, str], Mapping[str, bytes] | None] = {}

    async def secret(self, _namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A Secret's data; None where there is none. Raises FetchError."""
        return await self._data("Secret", name)

    async def config_map(self, _namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A ConfigMap's data; None where there is none. Raises FetchError."""
        return await self._data("ConfigMap", name)

    async def _data(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        if (kind, name) not in self._read:
            try:
                found = await self._kube.get(path("v1", kind.lower() + "s", self._namespace, name))
            except KubeError as error:
                away = reason_of(error) in AWAY
                raise FetchError(f"the {kind} '{name}' cannot be read: {error}", transient=away) from error
            self._read[kind, name] = _data_of(kind, found) if found is not None else None
        return self._read[kind, name]


def _data_of(kind: str, found: Object) -> Mapping[str, bytes]:
    data = found.get("data") or {}
    try:
        if kind == "Secret":
            return {each: base64.b64decode(value) for each, value in data.items()}
        binary = {each: base64.b64decode(value) for each, value in (found.get("binaryData") or {}).items()}
    except binascii.Error as error:
        raise ConfigError(f"the {kind} '{found['metadata']['name']}' cannot be read: {error}") from error
    return {each: value.encode() for each, value in data.items()} | binary


async def _made(name: str, spec: PluginTrustPolicySpec, objects: _OwnObjects, namespace: str) -> Policy:
    """A policy with its keys; ``broken`` where they are not what they should be. Raises FetchError."""
    if spec.signatures is None or not spec.signatures.wanted:
        return Policy(name=name, spec=spec)
    try:
        requirement = await load(
            spec.signatures, objects=objects, namespace=namespace, base=None, where="spec.signatures"
        )
    except ConfigError as error:
        return Policy(name=name, spec=spec, broken=_unread(error))
    return Policy(name=name, spec=spec, requirement=requirement)


def _unread(error: Exception) -> str:
    return f"its keys cannot be read, so nothing can be proven: {error}"


def _as_far_as_readable(spec: Any) -> PluginTrustPolicySpec:
    """Whom a policy is for that is not understood: all, as far as its selectors cannot be read."""
    found = spec if isinstance(spec, dict) else {}
    return PluginTrustPolicySpec(
        mode="Audit" if found.get("mode") == "Audit" else "Enforce",
        namespace_selector=_readable(LabelSelector, found.get("namespaceSelector")),
        plugin_selector=_readable(PluginSelector, found.get("pluginSelector")),
    )


def _readable(model: type[_M], part: Any) -> _M:
    try:
        return model.model_validate(part or {}, extra="forbid", by_alias=True, by_name=False)
    except ValidationError:
        return model()


def _labels_of(found: Object) -> _Labels:
    return tuple(sorted((found["metadata"].get("labels") or {}).items()))
