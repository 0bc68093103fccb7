"""The CustomResourceDefinition, generated from ``resources``. ``make crds`` writes it; a test keeps it fresh.

A *structural* schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema) has no references, no ``anyOf`` around types and
no ``additionalProperties: false``; pydantic's JSON Schema is rewritten to that here.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from hookline_api.resources import GROUP, KIND, PLURAL, VERSION, WasmPlugin, WasmPluginSpec, WasmPluginStatus

Json = dict[str, Any]

_COLUMNS: Final = (
    ("Hooks", "string", ".status.hooks", 0, "Hooks that the plugin answers"),
    ("Digest", "string", ".status.digest", 0, "The artifact, first twelve digits"),
    ("Loaded", "string", ".status.loaded", 0, "Pods that run this generation / pods that match"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0, "All matching pods run it"),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].message", 1, "Why, in one sentence"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)

# No defaults: the API server would write them into stored objects, and freeze today's choice there.
# The rest of pydantic's vocabulary has no meaning to Kubernetes.
_DROPPED: Final = frozenset({"title", "default", "const", "examples"})


def crd() -> Json:
    """The whole CustomResourceDefinition as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["wp"],
                "categories": ["hookline"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        | ({"description": text} if text else {})
                        for name, kind, path, priority, text in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> Json:
    return {
        "type": "object",
        "description": inspect.getdoc(WasmPlugin),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(WasmPluginSpec.model_json_schema(by_alias=True)),
            "status": structural(WasmPluginStatus.model_json_schema(by_alias=True)),
        },
    }


def structural(schema: Json) -> Json:
    """A pydantic JSON Schema as a structural one; pure."""
    return _rewrite(schema, schema.get("$defs", {}))


def _rewrite(node: Json, definitions: dict[str, Json]) -> Json:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        # pydantic's Optional: Kubernetes says "absent" and not "null".
        (only,) = [option for option in node["anyOf"] if option != {"type": "null"}]
        node = {**only, **{key: value for key, value in node.items() if key != "anyOf"}}
        return _rewrite(node, definitions)
    out: Json = {}
    for key, value in node.items():
        if key in _DROPPED or key == "$defs":
            continue
        if key == "properties":
            out[key] = {name: _rewrite(field, definitions) for name, field in value.items()}
        elif key == "items":
            out[key] = _rewrite(value, definitions)
        elif key == "additionalProperties":
            if isinstance(value, dict):
                out[key] = _rewrite(value, definitions)
        elif key == "description":
            out[key] = " ".join(value.split())
        else:
            out[key] = value
    if "const" in node and "enum" not in node:
        out["enum"] = [node["const"]]
    return out
