"""Writes docs/reference/plugintrustpolicy.md: every field, from its definition. A test keeps it fresh.

The page of ``WasmPlugin`` is docs/manifest.md (``write_manifest.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hookline_api.crd import policy_crd

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
PAGES: Final = {
    "plugintrustpolicy.md": (
        "PluginTrustPolicy",
        "A `PluginTrustPolicy` says what plugins may be and do, whoever writes them; [Trust](../trust.md) shows how.",
        policy_crd,
    ),
}
_HEAD: Final = """\
# {kind}

{what} This page lists every field of its `spec`, with its type and its meaning, for whoever writes one. `kubectl
explain {explained}.spec` says the same. `[]` stands for each item of a list. A field may be left out unless its type
says "required".

<!-- Generated from crds/hookline_api by scripts/write_reference.py; do not edit. -->
"""
_HEADING: Final = "\n## spec.{name}\n\n{text}{table}"
_TABLE: Final = "| field | type | |\n|---|---|---|\n"


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field below: its path, its type, and what it is."""
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, _type(each) + (", required" if name in required else ""), _text(each)
        if _is_reference(each):
            continue
        yield from fields(each, here)
        item = each.get("items")
        if isinstance(item, dict):
            yield from fields(item, f"{here}[]")


def _is_reference(schema: dict[str, Any]) -> bool:
    return set(schema.get("properties", ())) == {"name", "key"}


def _type(schema: dict[str, Any]) -> str:
    if _is_reference(schema):
        return "`name` and `key`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "anything"))
    item = schema.get("items")
    if isinstance(item, dict):
        return f"list of {_type(item)}"
    if schema.get("x-kubernetes-int-or-string"):
        kind = "number or text"
    return kind.replace("string", "text").replace("integer", "number")


def _text(schema: dict[str, Any]) -> str:
    text = re.sub(r"\s+", " ", schema.get("description", "")).replace("``", "`").replace("|", "\\|").strip()
    if "default" in schema and "Default" not in text:
        text = f"{text} Default `{json.dumps(schema['default'])}`.".strip()
    return text


def render(page: str) -> str:
    """The text of a page."""
    kind, what, definition = PAGES[page]
    spec = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    parts = []
    required = spec.get("required", ())
    for name, schema in sorted(spec["properties"].items(), key=lambda each: each[0] not in required):
        rows = list(fields(schema)) or list(fields(schema.get("items", {})))
        text = " ".join(filter(None, (_text(schema), f"({_type(schema)})")))
        table = _TABLE + "".join(f"| `{path}` | {kind} | {said} |\n" for path, kind, said in rows) if rows else ""
        title = f"{name}[]" if schema.get("type") == "array" else name
        parts.append(_HEADING.format(name=title, text=f"{text}\n" + ("\n" if table else ""), table=table))
    return _HEAD.format(kind=kind, what=what, explained=kind.lower()) + "".join(parts)


if __name__ == "__main__":
    for each in PAGES:
        (FOLDER / each).write_text(render(each))
