"""A bundle's entry: made of a resource and its artifact, and whether it fits its module. Pure.

Operator and sidecar make entries here; whoever is handed one checks it here, the worker too.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.abi import permission_refusal, ungranted_imports
from hookline_api.bundle import BundlePlugin
from hookline_api.config import MAX_CONFIG, MAX_CONFIG_VALUES, Config
from hookline_api.hooks import Hook
from hookline_api.outbound import references
from hookline_api.resources import granted
from hookline_api.sources import idle_parts
from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, NotGrantedError
from hookline_artifacts.objects import without_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hookline_api.bundle import BundleArtifact
    from hookline_api.resources import Isolation, Limits, WasmPlugin
    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo

_PAGE: Final = 65_536
"""Bytes of a page of WebAssembly memory."""
_QUERIES: Final = frozenset({"hookline.query_execute", "hookline.query_prepare"})
_FETCHES: Final = frozenset({"hookline.http_fetch", "hookline.http_post"})
_JOINTS: Final = re.compile(r"[_-]+")
_SPELT: Final = {_JOINTS.sub("", hook.value): hook.value for hook in Hook}
"""The names of hooks by what is left of them where words are run together."""
POOLED_FROM: Final = 4 * 2**20
"""Bytes of a component from which on it is pooled where the resource does not say: an interpreter with its library."""
MAX_CREDENTIAL: Final = 64 * 1024
"""Bytes of one value of a Secret that a source names: a chain of certificates has some thousands."""
MAX_CREDENTIALS: Final = 256 * 1024
"""Bytes of all of them together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a plugin gets from its resource and from the objects that this names."""

    config: Config
    secret_paths: list[str]
    """As in ``BundlePlugin``."""
    credentials: dict[str, str] = field(default_factory=dict, repr=False)
    """As in ``BundlePlugin``."""


def make_entry(
    plugin: WasmPlugin,
    artifact: BundleArtifact,
    *,
    hooks: Sequence[Hook],
    settings: Settings,
    origin: str | None = None,
    key: bytes | None = None,
) -> BundlePlugin:
    """The bundle's entry of a resource and its artifact. ``hooks`` are called where the resource names none.

    A large component is pooled where the resource does not say otherwise.

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
        config=settings.config,
        secret_paths=settings.secret_paths,
        permissions=granted(spec, artifact.asks or ()),
        data_sources=spec.data_sources,
        caches=spec.caches,
        egress=spec.egress,
        credentials=settings.credentials,
        kv=spec.kv,
        limits=spec.limits,
        isolation=_isolation(spec.isolation, artifact),
        observers=spec.observers,
        auth=spec.auth,
        failure_policy=spec.failure_policy,
        mode=spec.mode,
        self_test=spec.self_test,
        probation=spec.rollout.probation,
    )
    return made if key is None else made.sealed(key)


def _isolation(given: Isolation, artifact: BundleArtifact) -> Isolation:
    """How instances are used. Where the resource leaves that open, large components are pooled."""
    if "mode" not in given.model_fields_set and artifact.is_component and artifact.size > POOLED_FROM:
        return given.model_copy(update={"mode": "Pooled"})
    return given


def _notes_on_component(plugin: WasmPlugin, info: ModuleInfo, size: int) -> list[str]:
    if not info.is_component:
        return []
    isolation = plugin.spec.isolation
    is_large = size > POOLED_FROM
    pooled = isolation.mode == "Pooled" or ("mode" not in isolation.model_fields_set and is_large)
    costs = (
        "each call costs about 50 µs more than a module's"
        if pooled
        else "each call makes an instance, which costs about 7 ms for one of this size: set isolation.mode: Pooled"
        if is_large
        else "each call makes an instance, which costs about 400 µs: with isolation.mode: Pooled it is 50 µs"
    )
    default = "; it is Pooled, as it is large and spec.isolation.mode is not set" if pooled and is_large else ""
    said = default if "mode" not in isolation.model_fields_set else ""
    return [f"the module is a component: {costs}, and each instance counts as limits.memory{said}"]


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


def notes_on(plugin: WasmPlugin, description: PluginDescription, info: ModuleInfo, *, size: int = 0) -> list[str]:
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
    misspelt = {
        each: _SPELT[plain]
        for each, (kind, _) in sorted(info.exports.items())
        if kind == "function" and (plain := _JOINTS.sub("", each.lower())) in _SPELT and each != _SPELT[plain]
    }
    for each, hook in misspelt.items():
        notes.append(f"the module exports '{readable(each, 64)}', which is no hook and is never called; is it {hook}?")
    return [*notes, *_notes_on_outbound(plugin, info), *_notes_on_component(plugin, info, size)]


def _notes_on_outbound(plugin: WasmPlugin, info: ModuleInfo) -> list[str]:
    """Functions that the module imports and that can do nothing without settings, and settings that do nothing."""
    spec, notes = plugin.spec, []
    for imports, given, answer in (
        (_QUERIES, spec.data_sources, "spec.dataSources names no database: each query is refused"),
        (_FETCHES, spec.egress, "spec.egress allows no host: each request is refused"),
    ):
        used = [each for each in info.functions if each in imports]
        if used and not given:
            notes.append(f"the module imports {', '.join(used)}, and {answer}")
    return notes + [f"spec.{each}" for each in idle_parts(spec, spec.permissions)]


def misfits(hooks: Sequence[Hook], limits: Limits, info: ModuleInfo) -> Iterator[tuple[str, str]]:
    """What a resource asks of a module that this does not have: a field of the spec, and a sentence."""
    missing = [hook.value for hook in hooks if hook not in info.hooks]
    if missing:
        yield "hooks", f"spec.hooks names {', '.join(missing)}, and the module exports only {', '.join(info.hooks)}"
    needed = info.memory_pages * _PAGE
    if needed > limits.memory:
        said = f"the module starts with {needed} bytes of memory, and limits.memory is {limits.memory}"
        yield "limits.memory", f"{said}: raise it, or build the module with less"


def check_entry(entry: BundlePlugin, info: ModuleInfo) -> None:
    """Whether the settings fit the module. Raises ConfigError."""
    for _, why in misfits(entry.hooks, entry.limits, info):
        raise ConfigError(why)
    check_credentials(entry.credentials)
    lacking = [path for path, reference in references(entry) if reference.id not in entry.credentials]
    if lacking:
        raise ConfigError(f"{lacking[0]}: the value of its Secret is missing")


def check_credentials(credentials: Mapping[str, str]) -> None:
    """Whether the values of Secrets are within their bounds. Raises ConfigError."""
    total = 0
    for name, value in credentials.items():
        size = len(value.encode(errors="surrogatepass"))
        total += size
        if size > MAX_CREDENTIAL:
            secret, _, key = name.partition("/")
            raise ConfigError(f"the key '{key}' of the Secret '{secret}' has more than {MAX_CREDENTIAL} bytes")
    if total > MAX_CREDENTIALS:
        raise ConfigError(f"the Secrets that its sources name have more than {MAX_CREDENTIALS} bytes together")


def check_permissions(plugin: WasmPlugin, entry: BundlePlugin, info: ModuleInfo) -> None:
    """Whether all is granted that the module imports, where that is asked for. Raises NotGrantedError.

    What a sidecar gets from an operator has been through here, and is not judged again: the policy is the resource's.
    """
    ungranted = ungranted_imports(info.functions, entry.permissions)
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


def credential(path: str, secret: str, key: str, data: Mapping[str, bytes] | None) -> str:
    """The value that a field of the resource names, from the data of its Secret. Raises ConfigError."""
    raw = data.get(key) if data is not None else None
    if raw is None:
        raise ConfigError(f"{path}: {without_key('Secret', secret, key, data)}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the key '{key}' of the Secret '{secret}' is not text in UTF-8") from None


def whole_config(config: dict[str, Any]) -> Config:
    """The configuration as it is handed out. Raises ConfigError where it is too large."""
    made = Config(config)
    if len(made.data) > MAX_CONFIG:
        raise ConfigError(f"config has more than {MAX_CONFIG} bytes")
    return made
