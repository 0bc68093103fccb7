"""A bundle's entry: made of a resource and its artifact, and whether it fits its module. Pure.

Operator and sidecar make entries here; whoever is handed one checks it here, the worker too.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.abi import permission_refusal, ungranted_imports
from hookline_api.bundle import BundlePlugin
from hookline_api.config import MAX_CONFIG, MAX_CONFIG_VALUES, Config
from hookline_artifacts.errors import ConfigError, NotGrantedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.bundle import BundleArtifact
    from hookline_api.hooks import Hook
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo

_PAGE: Final = 65_536
"""Bytes of a page of WebAssembly memory."""


def make_entry(
    plugin: WasmPlugin,
    artifact: BundleArtifact,
    *,
    hooks: Sequence[Hook],
    config: Config,
    secret_paths: list[str],
    credentials: dict[str, str] | None = None,
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
        data_sources=spec.data_sources,
        caches=spec.caches,
        egress=spec.egress,
        credentials=credentials or {},
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


def notes_on(plugin: WasmPlugin, description: PluginDescription, info: ModuleInfo) -> list[str]:
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


def check_entry(entry: BundlePlugin, info: ModuleInfo) -> None:
    """Whether the settings fit the module. Raises ConfigError."""
    missing = [hook.value for hook in entry.hooks if hook not in info.hooks]
    if missing:
        raise ConfigError(f"spec.hooks names {', '.join(missing)}, and the module exports only {', '.join(info.hooks)}")
    if info.memory_pages * _PAGE > entry.limits.memory:
        raise ConfigError(
            f"the module starts with {info.memory_pages * _PAGE} bytes of memory, "
            f"and limits.memory is {entry.limits.memory}"
        )


def check_permissions(plugin: WasmPlugin, info: ModuleInfo) -> None:
    """Whether all is granted that the module imports, where that is asked for. Raises NotGrantedError.

    What a sidecar gets from an operator has been through here, and is not judged again: the policy is the resource's.
    """
    ungranted = ungranted_imports(info.functions, plugin.spec.permissions)
    if ungranted and plugin.spec.permissions_policy == "Strict":
        raise NotGrantedError(permission_refusal(ungranted))


def own_config(plugin: WasmPlugin) -> dict[str, Any]:
    """``spec.config`` by itself, as a copy that may be written to. Raises ConfigError."""
    try:
        json_cost.check(plugin.spec.config.data, what="config", max_values=MAX_CONFIG_VALUES)
        config: dict[str, Any] = orjson.loads(orjson.dumps(plugin.spec.config.parsed()))
    except json_cost.CostError as error:
        raise ConfigError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config cannot be written as JSON: {error!s:.200}") from None
    return config


def lay_over(config: dict[str, Any], path: str, raw: bytes) -> None:
    """Write the value of one ``configFrom`` into ``config``: text, or base64 of other bytes. Raises ConfigError."""
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        value = base64.b64encode(raw).decode()
    *parents, last = path.split(".")
    target = config
    for part in parents:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"configFrom '{path}': '{part}' in config is not an object")
    target[last] = value


def whole_config(config: dict[str, Any]) -> Config:
    """The configuration as it is handed out. Raises ConfigError where it is too large."""
    made = Config(config)
    if len(made.data) > MAX_CONFIG:
        raise ConfigError(f"config has more than {MAX_CONFIG} bytes")
    return made
