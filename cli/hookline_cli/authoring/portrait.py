"""What is to be seen of a module without running it, and the resource that would run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hookline_api.cases import SECTION, read_cases
from hookline_api.permissions import is_permission
from hookline_api.quantities import format_size
from hookline_api.resources import Limits
from hookline_api.text import readable
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.annotate import custom_sections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo

_PAGE: Final = 65_536
_QUERIES: Final = frozenset({"hookline.query_execute", "hookline.query_prepare"})
_FETCHES: Final = frozenset({"hookline.http_fetch", "hookline.http_post"})
_CACHES: Final = "hookline.cache_"
_MAX_FIELDS: Final = 50


def cases_in(wasm: bytes) -> tuple[int | None, str | None]:
    """How many cases a module carries, and why they cannot be read; None for none."""
    try:
        raw = custom_sections(wasm).get(SECTION)
        return (None, None) if raw is None else (len(read_cases(raw)), None)
    except (ValueError, VerifyError, RecursionError) as error:
        return None, readable(" ".join(str(error).split()), 200)


def asks(info: ModuleInfo, description: PluginDescription) -> list[str]:
    """The permissions that it asks for, or its imports are about."""
    return sorted({*info.permissions, *description.permissions})


def settings(schema: Mapping[str, Any] | None) -> list[tuple[str, str, bool, str]]:
    """The fields of its settings: name, type, whether it is required, and what the schema says of it."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, dict):
        return []
    required = (schema or {}).get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    found = []
    for name, each in list(properties.items())[:_MAX_FIELDS]:
        part = each if isinstance(each, dict) else {}
        kind = part.get("type", "any")
        text = part.get("description", "")
        found.append((readable(name, 60), readable(str(kind), 40), name in needed, readable(str(text), 200)))
    return found


_NO_TEXT: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
"""Words that YAML may take for something else than a text."""


def resource(name: str, source: Mapping[str, Any], info: ModuleInfo, description: PluginDescription) -> str:
    """A WasmPlugin that grants all that it asks for, to be pasted. What only its owner knows is a comment."""
    lines = [
        "apiVersion: hookline.dev/v1alpha1",
        "kind: WasmPlugin",
        "metadata:",
        f"  name: {name if name[0].isalpha() and name not in _NO_TEXT else _flow(name)}",
        "spec:",
        f"  source: {_flow(source)}",
    ]
    wanted = [each for each in asks(info, description) if is_permission(each)]
    if wanted:
        lines.append(f"  permissions: {_flow(wanted)}")
    memory = max(info.memory_pages * _PAGE, description.resources.min_memory or 0)
    if memory > Limits().memory:
        lines.append(f"  limits: {{memory: {format_size(memory)}}}")
    functions = set(info.functions)
    needed = [field for field, kind, is_required, _ in settings(description.config_schema) if is_required]
    if needed:
        lines.append(f"  # config: it needs {', '.join(needed)}")
    if functions & _QUERIES:
        lines.append("  # dataSources: which databases it may ask; without one, each query is refused")
    if functions & _FETCHES:
        lines.append("  # egress: which hosts it may ask; without one, each request is refused")
    if any(each.startswith(_CACHES) for each in functions):
        lines.append("  # caches: which caches it has; without one, it stores nothing")
    return "\n".join(lines)


def _flow(value: Any) -> str:
    """JSON, which YAML reads as it is."""
    return json.dumps(value, ensure_ascii=False)
