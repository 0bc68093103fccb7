"""What a plugin says of itself, as its author writes it: read as leniently as a host does, which tells nobody why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hookline_api.hooks import Hook
from hookline_api.permissions import Permission, is_permission
from hookline_api.text import found, readable
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.module.describe import MAX_DOCUMENT, PluginDescription
from hookline_cli.authoring.texts import an_object, did_you_mean, read

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_artifacts.module.inspection import ModuleInfo

_FIELDS: Final = frozenset(PluginDescription.model_fields) - {"notes"}
_OLD: Final = frozenset({"min_memory", "max_memory"})
"""Which HeliosDB's plugin.toml has at the top."""
_TEXTS: Final = ("name", "version", "description", "author", "license")


def document(path: Path) -> dict[str, Any]:
    """What ``plugin.json`` holds. Raises FetchError and ConfigError."""
    return an_object(read(path, most=MAX_DOCUMENT, what=path.name), what=path.name)


def name_in(path: Path) -> str | None:
    """The name that it says. Raises FetchError and ConfigError."""
    name = document(path).get("name")
    return name if isinstance(name, str) else None


def section(data: dict[str, Any]) -> bytes:
    """The section ``hookline.plugin``. Raises ConfigError."""
    try:
        raw = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ConfigError("plugin.json: it has half of a surrogate pair, which is no character") from None
    if len(raw) > MAX_DOCUMENT:
        raise ConfigError(f"plugin.json: it has {len(raw)} bytes, and a host reads no more than {MAX_DOCUMENT}")
    return raw


def ignored(data: dict[str, Any]) -> list[str]:
    """What of it a host would not use, a sentence each."""
    kept = PluginDescription.model_validate(data)
    notes = []
    for key, value in data.items():
        if key in _OLD and "resources" not in data:
            continue
        if key not in _FIELDS:
            notes.append(f"the field '{readable(key, 60)}' is ignored: there is none{did_you_mean(key, _FIELDS)}")
        elif key in _TEXTS and getattr(kept, key) != value:
            became = getattr(kept, key)
            how = "it is not a text" if became is None else f"it becomes {found(became)}"
            notes.append(f"the field '{key}' is not taken as it is: {how}")
    notes += _ignored_hooks(data.get("hooks"), kept)
    notes += _ignored_permissions(data.get("permissions"), kept)
    if data.get("config_schema") is not None and kept.config_schema is None:
        notes.append("the field 'config_schema' is ignored: it has to be an object, nested no deeper than 32")
    resources = data.get("resources")
    for key, value in resources.items() if isinstance(resources, dict) else ():
        if key not in _OLD:
            notes.append(
                f"the field 'resources.{readable(key, 60)}' is ignored: there is none{did_you_mean(key, _OLD)}"
            )
        elif getattr(kept.resources, key) is None and value is not None:
            notes.append(f"the field 'resources.{key}' is ignored: {found(value)} is not a size, such as \"4Mi\"")
    if resources is not None and not isinstance(resources, dict):
        notes.append("the field 'resources' is ignored: it has to be an object")
    return notes


def _ignored_hooks(value: Any, kept: PluginDescription) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        return ["the field 'hooks' is ignored: it has to be a list of hooks"]
    notes = []
    for each in value:
        if not PluginDescription.model_validate({"hooks": [each]}).hooks:
            near = did_you_mean(each, Hook) if isinstance(each, str) else ""
            notes.append(f"the hook {found(each)} is ignored: there is none{near}")
    if value and not kept.hooks:
        notes.append("none of its hooks is known: all that the module exports are called")
    return notes


def _ignored_permissions(value: Any, kept: PluginDescription) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        return ["the field 'permissions' is ignored: it has to be a list of permissions"]
    notes = [
        f"the permission '{readable(each, 64)}' cannot be granted: there is none{did_you_mean(each, Permission)}"
        for each in kept.permissions
        if not is_permission(each)
    ]
    if any(not isinstance(each, str) for each in value):
        notes.append("a permission that is not a text is ignored")
    return notes


def against_module(description: PluginDescription, info: ModuleInfo) -> list[str]:
    """Where it and the module differ, a sentence each."""
    declared = description.hooks
    notes = [
        f"it declares the hook {each.value}, which the module does not export: it is never called"
        for each in declared
        if each not in info.hooks
    ]
    notes += [
        f"the module exports the hook {each.value}, which it does not declare: it is not called"
        for each in info.hooks
        if declared and each not in declared
    ]
    lacking = sorted(info.permissions - set(description.permissions))
    lacking = [each for each in lacking if not any(p.startswith(f"{each}:") for p in description.permissions)]
    if lacking:
        notes.append(
            f"the module's imports need {', '.join(lacking)}, which it does not ask for: say so in permissions"
        )
    return notes
