"""Mistakes in settings and permissions: ``hookline check`` holds manifests against their module and their objects."""

from __future__ import annotations

import json

from deliberate import SECRET, Mistake, local, plugin, rows
from guests import Guests
from hookline_artifacts.module.annotate import with_sections

KEY = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
FETCH = '(import "hookline" "http_fetch" (func (param i32 i32) (result i64)))'
QUERY = '(import "hookline" "query_execute" (func (param i32 i32) (result i64)))'
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer", "maximum": 9}, "token": {"type": "string", "maxLength": 5}}, "additionalProperties": False}
ABOUT = {"name": "guard", "hooks": ["pre_query"], "config_schema": SCHEMA}
NEEDS = {**ABOUT, "config_schema": {**SCHEMA, "required": ["limit"]}}


def module(imports="", about=ABOUT):
    """One that goes on."""
    wasm = Guests().module({"pre_query": "(i64.const 0)"}, imports=imports)
    return with_sections(wasm, {"hookline.plugin": json.dumps(about).encode()})


def held(name, cause, step, *objects, wasm=None, **spec):
    """A row about one manifest in a folder with its module."""
    files = {"guard.wasm": wasm or module(), "p.yaml": [local(**spec), *objects]}
    return Mistake(name=name, done=["check", "p.yaml"], files=files, cause=cause, step=step)


def secret(**data):
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": data}


def given(key="k", path="token", ref="secretRef", name="s"):
    """A setting of an object."""
    return [{ref: {"name": name}, "key": key, "path": path}]


PERMISSIONS = [
    held("a permission is misspelt", (), (), permissions=["kv.raed"]),
    held("a permission for an import is missing", (), (), wasm=module(KEY)),
    held("query_execute without a source of data", (), (), wasm=module(QUERY), permissions=["query.execute"]),
    held("http_fetch without egress", (), (), wasm=module(FETCH), permissions=["http.fetch"]),
    held("egress is a URL", (), (), permissions=["http.fetch"], egress=["https://api.example.com/v1"]),
    held("config.read is missing", (), (), config={"limit": 1}),
    held("a source of data is not there", (), (), permissions=["query.execute:orders"]),
]
SETTINGS = [
    held("a setting has a wrong type", (), (), config={"limit": "many"}, permissions=["config.read"]),
    held("a setting is out of bounds", (), (), config={"limit": 10}, permissions=["config.read"]),
    held("a setting is misspelt", (), (), config={"limt": 1}, permissions=["config.read"]),
    held("a setting is missing", (), (), config={}, wasm=module(about=NEEDS), permissions=["config.read"]),
    held("settings are a list", (), (), config=["limit"], permissions=["config.read"]),
    held("settings are too large", (), (), config={"token": "x" * 2**20}, permissions=["config.read"]),
    held("a Secret is not there", (), (), configFrom=given(), permissions=["config.read"]),
    held("a Secret has not the key", (), (), secret(other=SECRET), configFrom=given(), permissions=["config.read"]),
    held("a ConfigMap is not there", (), (), configFrom=given(ref="configMapRef"), permissions=["config.read"]),
    held("a value of a Secret is refused", (), (), secret(k=SECRET), configFrom=given(), permissions=["config.read"]),
    held("a value of a Secret is no whole number", (), (), secret(k=SECRET), configFrom=given(path="limit"), permissions=["config.read"]),
    held("a value of a Secret for a field that is not there", (), (), secret(k=SECRET), configFrom=given(path="tokn"), permissions=["config.read"]),
    held("a Secret is no base64", (), (), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "%%%"}}, configFrom=given(), permissions=["config.read"]),
    Mistake(name="settings of the command line are no JSON", done=["call", "guard.wasm", "pre_query", "SELECT 1", "--config", "{limit: 1}"], files={"guard.wasm": module()}, cause=(), step=(), code=2),
    Mistake(name="settings of the command line are refused", done=["call", "guard.wasm", "pre_query", "SELECT 1", "--config", '{"limit": "x"}'], files={"guard.wasm": module()}, cause=(), step=(), code=2),
]


@rows(PERMISSIONS)
def test_a_mistake_in_permissions_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)


@rows(SETTINGS)
def test_a_mistake_in_settings_is_told(make, mistake):
    """With its cause and the next step, and no value of a Secret."""
    make(mistake)
