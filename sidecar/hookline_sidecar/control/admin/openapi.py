"""``/openapi.json``: the hook endpoint and the admin port, generated from the contract's models (OpenAPI 3.1)."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from hookline_api.described import describe
from hookline_api.hooks import INPUTS, RESULTS, BatchInput, BatchResult, Hook, Outcome, Problem

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]

_PROBLEM: Json = {
    "description": "What is wrong with the call (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
ADMIN = {
    "/healthz": "Whether the supervisor lives",
    "/readyz": "Whether every plugin that must decide is loaded; 503 with the reasons otherwise. Not whether its calls "
    "fail",
    "/metrics": "Prometheus metrics over all workers",
    "/v1/plugins": "The source of bundles, its problems, and every plugin: state, revision, health of its hooks, "
    "statistics, last failure with the guest's last line and a backtrace, and the steps by which it got to the workers "
    "with their times",
    "/v1/bundle": "The running bundle, without the values of Secrets",
    "/v1/modules/{plugin}": "The module that runs of a plugin, as application/wasm",
    "/openapi.json": "This document",
}


@functools.cache
def document() -> Json:
    """The whole specification."""
    inputs: set[type[BaseModel]] = {model for model in INPUTS.values() if model is not None} | {Outcome, BatchInput}
    results: set[type[BaseModel]] = {model for models in RESULTS.values() for model in models} | {BatchResult, Problem}
    describe(*inputs, *results)
    names, definitions = models_json_schema(
        [*((model, "validation") for model in sorted(inputs | results, key=lambda model: model.__name__))],
        ref_template="#/components/schemas/{model}",
    )
    references = {model: schema for (model, _), schema in names.items()}
    paths: Json = {f"/v1/hooks/{hook}": {"post": _hook(hook, references)} for hook in Hook}
    paths["/v1/hooks:batch"] = {"post": _batch(references)}
    paths["/v1/auth"] = {"get": _auth()}
    paths |= {path: {"get": _asked(path, text)} for path, text in ADMIN.items()}
    paths |= _keys()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hookline sidecar",
            "version": importlib.metadata.version("hookline"),
            "description": "Hook paths are answered on --listen and --socket, admin paths on --admin and on the socket "
            "admin.sock in --state. Those below /admin/ need, on --admin, the token of --admin-token.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"admin-token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _asked(path: str, text: str) -> Json:
    """What an admin path answers."""
    found: Json = {"tags": ["admin"], "summary": text, "responses": {"200": {"description": "OK"}}}
    if "{plugin}" in path:
        found["parameters"] = [_plugin()]
        found["responses"]["404"] = _PROBLEM
    return found


def _plugin() -> Json:
    name = {"name": "plugin", "in": "path", "required": True, "schema": {"type": "string"}}
    return {**name, "description": "metadata.name of the plugin"}


def _keys() -> Json:
    """The keys of plugins (``admin_kv``)."""
    strings = {"type": "string"}
    plugin = _plugin()
    key = {"name": "key", "in": "path", "required": True, "schema": strings}
    key["description"] = "Percent-encoded bytes; a / may stand for itself"
    conditions = [{"name": name, "in": "header", "schema": strings} for name in ("If-Match", "If-None-Match")]
    queried = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in (
            ("prefix", strings), ("after", strings), ("limit", {"type": "integer", "minimum": 1, "maximum": 1024})
        )
    ]  # fmt: skip

    def operation(summary: str, *parameters: Json, refusals: tuple[str, ...], **more: Any) -> Json:
        found = {"tags": ["admin"], "summary": summary, "security": [{"admin-token": []}, {}]}
        answers = {"200": {"description": "OK"}} | dict.fromkeys((*refusals, "401", "403", "503"), _PROBLEM)
        return {**found, "parameters": list(parameters), "responses": answers, **more}

    value = {"required": True, "content": {"application/octet-stream": {"schema": {"maxLength": 65536}}}}
    prepare: Json = {"name": "prepare", "in": "query", "schema": {"enum": ["true"]}}
    changed = ("400", "404", "409", "412")
    return {
        "/admin/kv": {"get": operation("Plugins that are loaded or have keys", refusals=())},
        "/admin/kv/{plugin}": {"get": operation("A plugin's keys", plugin, *queried, refusals=("400", "404", "409"))},
        "/admin/kv/{plugin}/{key}": {
            "get": operation(
                "A value, as JSON or application/octet-stream", plugin, key, refusals=("400", "404", "409")
            ),
            "put": operation(
                "Store a value",
                plugin,
                key,
                prepare,
                *conditions,
                refusals=(*changed, "408", "413", "415", "507"),
                requestBody=value,
            ),
            "delete": operation("Delete a key, if there is one", plugin, key, *conditions, refusals=changed),
        },
    }


def _hook(hook: Hook, references: dict[Any, Json]) -> Json:
    model = INPUTS[hook]
    if model is None:
        body: Json = {"description": "Any JSON"}
    elif hook is Hook.POST_QUERY:
        body = {
            "type": "array",
            "prefixItems": [references[model], references[Outcome]],
            "minItems": 2,
            "maxItems": 2,
        }
    else:
        body = references[model]
    answers = [references[result] for result in RESULTS[hook]]
    return {
        "tags": ["hooks"],
        "operationId": hook.value,
        "summary": (inspect.getdoc(model) or hook.value) if model else "Whatever the proxy sends",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The decision, told apart by 'action'",
                "content": {"application/json": {"schema": {"oneOf": answers} if len(answers) > 1 else answers[0]}},
            },
            **dict.fromkeys(("400", "404", "405", "408", "413", "415", "503"), _PROBLEM),
        },
    }


def _batch(references: dict[Any, Json]) -> Json:
    return {
        "tags": ["hooks"],
        "operationId": "batch",
        "summary": "Many calls in one request, decided in order by one bundle",
        "requestBody": {"required": True, "content": {"application/json": {"schema": references[BatchInput]}}},
        "responses": {
            "200": {
                "description": "A decision for each call, or what is wrong with that call",
                "content": {"application/json": {"schema": references[BatchResult]}},
            },
            **dict.fromkeys(("400", "405", "408", "413", "415", "503"), _PROBLEM),
        },
    }


def _auth() -> Json:
    what = "Why, in the plugin's words, percent-encoded; only where its resource has auth: {tellReason: true}"
    reason = {"X-Hookline-Reason": {"description": what, "schema": {"type": "string"}}}
    return {
        "tags": ["hooks"],
        "operationId": "auth",
        "summary": "For proxies that ask by subrequest: authenticate, then authorize; any method is accepted",
        "responses": {
            "200": {"description": "Go on; the identity is in the X-Hookline-… headers"},
            "401": {"description": "Who is this? WWW-Authenticate has a challenge", "headers": reason},
            "403": {"description": "Not this one", "headers": reason},
        },
    }
