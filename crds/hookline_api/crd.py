"""The CustomResourceDefinitions, generated from the models. ``make crds`` writes them; a test keeps them fresh.

A *structural* schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema) has no references, no ``anyOf`` around types and
no ``additionalProperties: false``; pydantic's JSON Schema is rewritten to that here.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from hookline_api.base import GROUP, KIND, PLURAL, POLICY_KIND, VERSION
from hookline_api.described import describe
from hookline_api.policies import (
    POLICY_PLURAL,
    PluginTrustPolicy,
    PluginTrustPolicySpec,
    PluginTrustPolicyStatus,
)
from hookline_api.resources import WasmPlugin, WasmPluginSpec
from hookline_api.revisions import REVISION_KIND, REVISION_PLURAL, WasmPluginRevision
from hookline_api.status import WasmPluginStatus

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]

_COLUMNS: Final = (
    ("Hooks", "string", ".status.hooks", 0, "Hooks that the plugin answers"),
    ("Digest", "string", ".status.digest", 0, "The artifact, first twelve digits"),
    ("Loaded", "string", ".status.loaded", 0, "Pods that run this generation / that match"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0, "All matching pods run it, and it works"),
    ("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", 0, "Why, in one word"),
    (
        "Checked",
        "date",
        ".status.conditions[?(@.type=='Observed')].lastTransitionTime",
        0,
        "How long ago an operator last saw that this is so",
    ),
    ("Message", "string", ".status.conditions[?(@.type=='Ready')].message", 1, "Why, in one sentence"),
    ("Failed-Digest", "string", ".status.failedDigest", 1, "The artifact that was refused, or cannot be had"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)
_REVISION_COLUMNS: Final = (
    ("Plugin", "string", ".plugin", 0, "The WasmPlugin that it is of"),
    ("Revision", "integer", ".revision", 0, "The highest one runs"),
    ("Digest", "string", ".digest", 0, "The artifact"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)
_POLICY_COLUMNS: Final = (
    ("Mode", "string", ".spec.mode", 0, "Enforce, or Audit"),
    ("Matched", "integer", ".status.matched", 0, "Plugins that it selects"),
    ("Refused", "integer", ".status.refused", 0, "Plugins that it keeps from running"),
    ("Would-Refuse", "integer", ".status.wouldRefuse", 0, "Plugins that it would keep from running"),
    ("Message", "string", ".status.conditions[?(@.type=='Ready')].message", 1, "In one sentence"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)
_Columns = tuple[tuple[str, str, str, int, str], ...]

_EVERY_OBJECTS: Final[Json] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}
# No defaults: the API server would write them into stored objects, and freeze today's choice there.
# The rest of pydantic's vocabulary has no meaning to Kubernetes.
_DROPPED: Final = frozenset({"title", "default", "const", "examples"})


def crd() -> Json:
    """The whole definition of ``WasmPlugin`` as plain data."""
    describe(WasmPluginSpec, WasmPluginStatus)
    parts = {
        "spec": structural(WasmPluginSpec.model_json_schema(by_alias=True)),
        "status": structural(WasmPluginStatus.model_json_schema(by_alias=True)),
    }
    root = _root(WasmPlugin, ["spec"], parts)
    return _definition(KIND, PLURAL, "wp", root, _COLUMNS, subresources={"status": {}})


def revision_crd() -> Json:
    """The whole definition of ``WasmPluginRevision`` as plain data."""
    describe(WasmPluginRevision)
    made = structural(WasmPluginRevision.model_json_schema(by_alias=True))
    parts = {name: node for name, node in made["properties"].items() if name not in _EVERY_OBJECTS}
    root = _root(WasmPluginRevision, [name for name in made["required"] if name in parts], parts)
    return _definition(REVISION_KIND, REVISION_PLURAL, "wpr", root, _REVISION_COLUMNS)


def policy_crd() -> Json:
    """The whole definition of ``PluginTrustPolicy`` as plain data."""
    describe(PluginTrustPolicySpec, PluginTrustPolicyStatus)
    parts = {
        "spec": structural(PluginTrustPolicySpec.model_json_schema(by_alias=True)),
        "status": structural(PluginTrustPolicyStatus.model_json_schema(by_alias=True)),
    }
    root = _root(PluginTrustPolicy, ["spec"], parts)
    status: Json = {"status": {}}
    return _definition(POLICY_KIND, POLICY_PLURAL, "ptp", root, _POLICY_COLUMNS, subresources=status, scope="Cluster")


def _definition(
    kind: str,
    plural: str,
    short: str,
    root: Json,
    columns: _Columns,
    subresources: Json | None = None,
    scope: str = "Namespaced",
) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["hookline"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    **({"subresources": subresources} if subresources else {}),
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "priority": priority}
                        | ({"description": text} if text else {})
                        for name, type_, path, priority, text in columns
                    ],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _root(model: type[BaseModel], required: list[str], parts: Json) -> Json:
    return {
        "type": "object",
        "description": " ".join((inspect.getdoc(model) or "").split()),
        "required": required,
        "properties": _EVERY_OBJECTS | parts,
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
