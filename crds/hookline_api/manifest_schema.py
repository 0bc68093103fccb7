"""JSON Schema of the manifests that people write, for their editors: ``docs/schemas``. Pure.

An editor sees one document at a time: a ``WasmPlugin``, or a Secret or ConfigMap beside it, of which it says nothing.
As strict as whoever takes the manifest: a field that is not known is an error. What only code can check (bounds of
durations and sizes, CEL rules) is in the descriptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hookline_api.base import API_VERSION
from hookline_api.described import describe
from hookline_api.hooks import Hook, hook_spellings
from hookline_api.quantities import format_duration, format_size
from hookline_api.resources import LocalSource, LocalWasmPluginSpec, Source, WasmPluginSpec

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]

FLAVOURS: Final[dict[str, tuple[str, type[BaseModel], type[BaseModel]]]] = {
    "wasmplugin": ("A WasmPlugin for a cluster", WasmPluginSpec, Source),
    "local-wasmplugin": ("A WasmPlugin in a manifest folder", LocalWasmPluginSpec, LocalSource),
}
"""By the file's name: what it is of, its spec, and the model of its source."""
_BESIDE: Final = ["Secret", "ConfigMap"]
_KEPT: Final = frozenset({
    "type", "properties", "required", "items", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems",
    "minimum", "maximum", "maxProperties", "default", "additionalProperties", "anyOf", "$ref",
})  # fmt: skip
"""Keywords that go over as they are; all others are pydantic's or Kubernetes' own."""


def schema(flavour: str) -> Json:
    """The schema of one flavour."""
    title, spec, source = FLAVOURS[flavour]
    describe(spec)
    made = spec.model_json_schema(by_alias=True)
    definitions = {name: _clean(each) for name, each in made.pop("$defs").items()}
    definitions[spec.__name__] = _clean(made)
    kinds = [field.alias or name for name, field in source.model_fields.items()]
    definitions[source.__name__]["oneOf"] = [{"required": [each]} for each in kinds]
    plugin = {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": "WasmPlugin"},
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "description": "Also the name of the plugin's keys."}},
            },
            "spec": {"$ref": f"#/$defs/{spec.__name__}"},
            "status": {"type": "object", "description": "Written by the operator."},
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": "Generated from crds/hookline_api by scripts/write_schemas.py; do not edit.",
        "if": {"properties": {"kind": {"enum": _BESIDE}}, "required": ["kind"]},
        "then": {"type": "object"},
        "else": {"$ref": "#/$defs/WasmPlugin"},
        "$defs": {"WasmPlugin": plugin} | dict(sorted(definitions.items())),
    }


def _clean(node: Json) -> Json:
    """One schema of pydantic's in the vocabulary of editors."""
    if "x-kubernetes-int-or-string" in node:
        sizes: Json = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": node["pattern"]}]}
        default = {"default": format_size(node["default"])} if isinstance(node.get("default"), int) else {}
        return sizes | default | ({"description": _text(node["description"])} if "description" in node else {})
    if node.get("maxLength") == _HOOK and node.get("type") == "string":
        return _hook()
    if "anyOf" in node and {"type": "null"} in node["anyOf"]:  # a field that may be left out; nobody writes null
        (only,) = [each for each in node["anyOf"] if each != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key != "anyOf" and (key, value) != ("default", None)}
        return _clean({**only, **rest})
    found: Json = {key: value for key, value in node.items() if key in _KEPT}
    if found.get("type") == "string" and isinstance(found.get("default"), int):
        found["default"] = format_duration(found["default"])
    if "description" in node:
        found["description"] = _text(node["description"])
    if "const" in node:
        found["const"] = node["const"]
    if "properties" in node:
        found["properties"] = {name: _clean(each) for name, each in node["properties"].items()}
        found.setdefault("additionalProperties", False)
    if isinstance(node.get("items"), dict):
        found["items"] = _clean(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        found["additionalProperties"] = _clean(node["additionalProperties"])
    return found


_HOOK: Final = 16
"""The ``maxLength`` that tells ``HookName``."""


def _hook() -> Json:
    """A hook, by its name or by any other spelling that manifests in the field have, in any case."""
    spelt = ("".join(f"[{each.upper()}{each}]" if each.isalpha() else each for each in name) for name in _OTHERS)
    return {"anyOf": [{"enum": [each.value for each in Hook]}, {"pattern": f"^({'|'.join(spelt)})$"}]}


_OTHERS: Final = sorted(hook_spellings())


def _text(value: Any) -> Any:
    return " ".join(value.split()).replace("``", "`") if isinstance(value, str) else value
