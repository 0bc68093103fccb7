"""From a resource to a bundle's entry: fetched, checked, inspected, with its settings filled in.

Operator and sidecar come through here, so that what one accepts the other can load. Nothing is compiled.
"""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import orjson

from hookline_api import json_cost
from hookline_api.abi import permission_refusal, ungranted_imports
from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_api.config import MAX_CONFIG, MAX_CONFIG_VALUES, Config
from hookline_api.resources import LocalSource, OCISource, Source, WasmPlugin
from hookline_artifacts.credentials import MAX_SECRETS, PullSecret
from hookline_artifacts.entry import check_entry
from hookline_artifacts.errors import ConfigError, FetchError, NotGrantedError, VerifyError
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import ModuleInfo, inspect_file
from hookline_artifacts.net.urls import foreign, shown
from hookline_artifacts.reference import Reference, parse
from hookline_artifacts.registry import RegistryAccess
from hookline_artifacts.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hookline_api.hooks import Hook
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.store import Artifact

_HOST: Final = 256
# https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets
_DOCKER_CONFIG: Final = ".dockerconfigjson"
_DOCKER_CFG: Final = ".dockercfg"


class Objects(Protocol):
    """Where Secrets and ConfigMaps of a plugin's namespace come from."""

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a Secret; None where there is none."""

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a ConfigMap, text and binary; None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """One resource, resolved."""

    entry: BundlePlugin
    artifact: Artifact = field(repr=False)
    """While it is held, the store keeps the module."""
    info: ModuleInfo = field(repr=False)
    description: PluginDescription
    hooks: tuple[Hook, ...]
    """Those that are called where the resource names none."""
    notes: tuple[str, ...] = ()
    """What is legal, and may not be what was meant; one sentence each."""

    @property
    def ungranted_imports(self) -> dict[str, str]:
        """Functions that the module imports and that answer "denied", with the permission that each needs."""
        return ungranted_imports(self.info.functions, self.entry.permissions)

    @property
    def ungranted(self) -> list[str]:
        """Permissions that the plugin asks for, or its imports are about, and the resource does not grant."""
        return sorted({*self.description.permissions, *self.info.permissions} - {*self.entry.permissions})


async def resolve(
    plugin: WasmPlugin,
    *,
    fetcher: Fetcher,
    objects: Objects,
    previous: BundleArtifact | None = None,
    ask_again: bool = False,
    base: Path | None = None,
    origin: str | None = None,
    access: RegistryAccess | None = None,
    prove: bool = False,
    key: bytes | None = None,
) -> Resolved:
    """Resolve one resource. Raises FetchError, VerifyError or ConfigError.

    ``previous`` is the artifact that the plugin has now: a tag that it resolved stays resolved unless the pull policy
    is Always or ``ask_again`` says that its ``trackInterval`` is over. ``base`` is the folder of the manifest, for
    file sources; without it there are none. ``access`` stands in for what ``registry_access`` finds; ``prove`` is
    ``Fetcher.fetch_oci``'s. ``key`` is what the entry is sealed with.
    """
    spec = plugin.spec
    if spec.verify is not None and spec.verify.wanted:
        raise VerifyError(
            "spec.verify asks for a signature, and this version of Hookline cannot check any; "
            "pin the module with spec.sha256 or a digest reference instead"
        )
    config, secret_paths = await settings(plugin, objects)
    source = plugin.spec.source
    if source.oci is not None and access is None:
        access = await registry_access(source.oci, plugin.metadata.namespace, objects)
    digest = None
    if source.oci is not None and not ask_again and not _always(source.oci) and previous is not None:
        digest = previous.digest if previous.reference == source.oci.reference else None
    reference, artifact = await fetch(plugin, fetcher, objects, digest=digest, base=base, access=access, prove=prove)
    if spec.sha256 is not None and artifact.sha256 != spec.sha256:
        raise VerifyError(f"the module's sha256 is {artifact.sha256}, and spec.sha256 asks for {spec.sha256}")
    info = await in_thread(_inspect, artifact.path)
    description = PluginDescription()
    if info.description is not None:
        description = PluginDescription.from_json(info.description)
    description = description.over(artifact.description)
    found = BundleArtifact(
        digest=artifact.digest,
        sha256=artifact.sha256,
        size=artifact.size,
        layout=artifact.layout,
        reference=reference,
    )
    hooks = called_hooks(plugin, description, info)
    made = entry(plugin, found, hooks=hooks, config=config, secret_paths=secret_paths, origin=origin, key=key)
    check_entry(made, info)
    _check_permissions(plugin, info)
    return Resolved(
        entry=made,
        artifact=artifact,
        info=info,
        description=description,
        hooks=hooks,
        notes=(*description.notes, *_notes(plugin, description, info)),
    )


def entry(
    plugin: WasmPlugin,
    artifact: BundleArtifact,
    *,
    hooks: Sequence[Hook],
    config: Config,
    secret_paths: list[str],
    origin: str | None = None,
    key: bytes | None = None,
) -> BundlePlugin:
    """The bundle's entry of a resource and its artifact. ``hooks`` are called where the resource names none.

    Without a ``key`` to seal it with, its revision must be shown to nobody who may not know its Secrets.
    """
    spec = plugin.spec
    made = BundlePlugin(
        name=plugin.metadata.name,
        namespace=plugin.metadata.namespace,
        generation=plugin.metadata.generation,
        origin=origin,
        artifact=artifact,
        hooks=list(dict.fromkeys(spec.hooks)) or list(hooks),
        priority=spec.priority,
        match=spec.match,
        config=config,
        secret_paths=secret_paths,
        permissions=sorted(set(spec.permissions)),
        egress=spec.egress,
        kv=spec.kv,
        limits=spec.limits,
        isolation=spec.isolation,
        observers=spec.observers,
        failure_policy=spec.failure_policy,
        mode=spec.mode,
        probation=spec.rollout.probation,
    )
    return made if key is None else made.sealed(key)


def called_hooks(plugin: WasmPlugin, description: PluginDescription, info: ModuleInfo) -> tuple[Hook, ...]:
    """The hooks that are called where the resource names none: those that the package declares, or all exported ones.

    Raises ConfigError where the resource names none, and nothing would be called.
    """
    if not description.hooks:
        return info.hooks
    called = tuple(hook for hook in info.hooks if hook in description.hooks)
    if not called and not plugin.spec.hooks:
        raise ConfigError(
            f"the package declares {', '.join(description.hooks)}, and the module exports only "
            f"{', '.join(info.hooks)}: nothing would be called; name the hooks in spec.hooks, or mend the package"
        )
    return called


def _notes(plugin: WasmPlugin, description: PluginDescription, info: ModuleInfo) -> list[str]:
    """What the package says of itself, where the resource or the module says otherwise."""
    notes = []
    name, declared, named = plugin.metadata.name, description.hooks, plugin.spec.hooks
    if description.name is not None and description.name != name:
        notes.append(
            f"the package calls itself '{description.name}': here it is '{name}', also as the name of its keys"
        )
    missing = [hook.value for hook in declared if hook not in info.hooks]
    if missing:
        notes.append(
            f"the package declares {', '.join(missing)}, which the module does not export: "
            f"{'it is' if len(missing) == 1 else 'they are'} never called"
        )
    if declared and not named and (left := [hook.value for hook in info.hooks if hook not in declared]):
        notes.append(
            f"the module exports {', '.join(left)}, which the package does not declare: "
            f"{'it is' if len(left) == 1 else 'they are'} not called unless spec.hooks says so"
        )
    if declared and (more := [hook.value for hook in dict.fromkeys(named) if hook not in declared]):
        notes.append(
            f"spec.hooks names {', '.join(more)}, which the package does not declare: "
            f"{'it is' if len(more) == 1 else 'they are'} called all the same"
        )
    return notes


def _check_permissions(plugin: WasmPlugin, info: ModuleInfo) -> None:
    """Whether all is granted that the module imports, where that is asked for. Raises NotGrantedError.

    What a sidecar gets from an operator has been through here, and is not judged again: the policy is the resource's.
    """
    ungranted = ungranted_imports(info.functions, plugin.spec.permissions)
    if ungranted and plugin.spec.permissions_policy == "Strict":
        raise NotGrantedError(permission_refusal(ungranted))


def _inspect(path: Path) -> ModuleInfo:
    try:
        return inspect_file(path)
    except OSError as error:
        raise FetchError(f"the module's file in the store cannot be read: {error.strerror}") from error


async def fetch(
    plugin: WasmPlugin,
    fetcher: Fetcher,
    objects: Objects,
    *,
    digest: str | None,
    base: Path | None = None,
    access: RegistryAccess | None = None,
    prove: bool = False,
) -> tuple[str, Artifact]:
    """The reference as it may be shown, and the artifact. Raises FetchError, VerifyError or ConfigError.

    An OCI source is pinned to ``digest`` where one is given.
    """
    source, namespace = plugin.spec.source, plugin.metadata.namespace
    owner = namespace or ""
    if source.oci is not None:
        if access is None:
            access = await registry_access(source.oci, namespace, objects)
        artifact = await fetcher.fetch_oci(
            source.oci, digest=digest, access=access, base=base, prove=prove, owner=owner
        )
        return source.oci.reference, artifact
    if source.http is not None:
        artifact = await fetcher.fetch_http(source.http, prove=prove, owner=owner)
        return shown(foreign(source.http.url)), artifact
    if isinstance(source, LocalSource) and source.file is not None:
        if base is None:
            raise ConfigError("source.file is for manifest folders only")
        return f"file:{source.file.path}", await fetcher.fetch_file(base / source.file.path)
    reference = source.config_map
    assert reference is not None  # noqa: S101 - the model has exactly one source
    data = await objects.config_map(namespace, reference.name)
    if data is None or reference.key not in data:
        raise FetchError(f"there is no ConfigMap '{reference.name}' with the key '{reference.key}'")
    return f"configmap:{reference.name}/{reference.key}", await fetcher.fetch_bytes(data[reference.key], owner=owner)


def asks(source: Source) -> str:
    """Host and port of what has to answer for a source to be fetched; empty where nothing has to. Raises FetchError."""
    if source.oci is not None:
        reference = parse(source.oci.reference)
        return reference.registry if isinstance(reference, Reference) else ""
    return (urlsplit(source.http.url).netloc.rpartition("@")[2])[:_HOST] if source.http is not None else ""


def is_asked_again(source: Source) -> bool:
    """Whether the same source may mean another module at the next look: a tag that is asked each time, or tracked."""
    return source.oci is not None and (_always(source.oci) or source.oci.track_interval is not None)


def _always(source: OCISource) -> bool:
    if source.pull_policy is not None:
        return source.pull_policy == "Always"
    reference = parse(source.reference)
    return reference.digest is None and reference.tag in {None, "latest"}


async def registry_access(
    source: OCISource, namespace: str | None, objects: Objects, more: Sequence[str] = ()
) -> RegistryAccess:
    """With what a registry is asked. Raises FetchError.

    ``more`` are names of further pull secrets, asked after the source's own; one that is not there is passed over.
    A pull secret that is not there or cannot be read is the registry client's to tell, where it was needed.
    """
    configs = []
    own = [reference.name for reference in source.pull_secrets]
    for name in itertools.islice(dict.fromkeys([*own, *more]), MAX_SECRETS + 1):  # of one more, the keychain tells
        secret = await objects.secret(namespace, name) or {}
        bare = _DOCKER_CONFIG not in secret and _DOCKER_CFG in secret
        document = secret.get(_DOCKER_CFG if bare else _DOCKER_CONFIG)
        if document is not None or name in own:
            configs.append(PullSecret(name=name, namespace=namespace, document=document, bare=bare))
    ca_pem = None
    if source.ca_config_map is not None:
        data = await objects.config_map(namespace, source.ca_config_map.name)
        if data is None or "ca.crt" not in data:
            raise FetchError(f"there is no ConfigMap '{source.ca_config_map.name}' with the key 'ca.crt'")
        ca_pem = data["ca.crt"].decode(errors="replace")
    return RegistryAccess(dockerconfigs=tuple(configs), ca_pem=ca_pem)


async def settings(plugin: WasmPlugin, objects: Objects) -> tuple[Config, list[str]]:
    """``config`` with ``configFrom`` laid over it, and which paths of it are secret. Raises ConfigError."""
    try:
        json_cost.check(plugin.spec.config.data, what="config", max_values=MAX_CONFIG_VALUES)
        config: dict[str, Any] = orjson.loads(orjson.dumps(plugin.spec.config.parsed()))
    except json_cost.CostError as error:
        raise ConfigError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config cannot be written as JSON: {error!s:.200}") from None
    secret_paths: list[str] = []
    for each in plugin.spec.config_from:
        if each.secret_ref is not None:
            kind, name = "Secret", each.secret_ref.name
            data = await objects.secret(plugin.metadata.namespace, name)
            secret_paths.append(each.path)
        else:
            assert each.config_map_ref is not None  # noqa: S101 - the model has exactly one
            kind, name = "ConfigMap", each.config_map_ref.name
            data = await objects.config_map(plugin.metadata.namespace, name)
        if data is None or each.key not in data:
            raise ConfigError(f"configFrom '{each.path}': there is no {kind} '{name}' with the key '{each.key}'")
        try:
            value = data[each.key].decode()
        except UnicodeDecodeError:
            value = base64.b64encode(data[each.key]).decode()
        *parents, last = each.path.split(".")
        target = config
        for part in parents:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"configFrom '{each.path}': '{part}' in config is no object")
        target[last] = value
    laid = Config(config)
    if len(laid.data) > MAX_CONFIG:
        raise ConfigError(f"config has more than {MAX_CONFIG} bytes")
    return laid, secret_paths
