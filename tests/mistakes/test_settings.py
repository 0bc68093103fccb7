"""Mistakes in settings and permissions: ``hookline check`` holds manifests against their module and their objects."""

from __future__ import annotations

import json

from deliberate import SECRET, Mistake, local, rows
from guests import Guests
from hookline_artifacts.module.annotate import with_sections

KEY = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
FETCH = '(import "hookline" "http_fetch" (func (param i32 i32) (result i64)))'
QUERY = '(import "hookline" "query_execute" (func (param i32 i32 i32 i32 i32 i32) (result i64)))'
CONFIG = '(import "hookline" "get_config" (func (param i32 i32) (result i64)))'
SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "maximum": 9}, "token": {"type": "string", "maxLength": 5}},
    "additionalProperties": False,
}
ABOUT = {"name": "guard", "hooks": ["pre_query"], "config_schema": SCHEMA}
NEEDS = {**ABOUT, "config_schema": {**SCHEMA, "required": ["limit"]}}


def module(imports="", about=ABOUT):
    """One that goes on."""
    wasm = Guests().module({"pre_query": "(i64.const 0)"}, imports=imports)
    return with_sections(wasm, {"hookline.plugin": json.dumps(about).encode()})


def held(name, cause, step, *objects, wasm=None, strict=False, **spec):
    """A row about one manifest in a folder with its module."""
    files = {"guard.wasm": wasm or module(), "p.yaml": [local(**spec), *objects]}
    return Mistake(name=name, done=["check", "p.yaml", *["--strict"] * strict], files=files, cause=cause, step=step)


def secret(**data):
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": data}


def given(key="k", path="token", ref="secretRef", name="s"):
    """A setting of an object."""
    return [{ref: {"name": name}, "key": key, "path": path}]


PERMISSIONS = [
    held(
        "a permission is misspelt",
        ['"kv.raed" is not a permission'],
        ["did you mean kv.read?"],
        permissions=["kv.raed"],
    ),
    held(
        "a permission for an import is missing",
        ["imports env.kv_get, which needs the permission kv.read"],
        ["add it to spec.permissions"],
        wasm=module(KEY),
    ),
    held(
        "query_execute without a source of data",
        ["each query is refused"],
        ["spec.dataSources names no database"],
        wasm=module(QUERY),
        permissions=["query.execute"],
        strict=True,
    ),
    held(
        "http_fetch without egress",
        ["each request is refused"],
        ["spec.egress allows no host"],
        wasm=module(FETCH),
        permissions=["http.fetch"],
        strict=True,
    ),
    held(
        "egress is a URL",
        ["spec.egress[0]"],
        ["must be a mapping with a host, or scheme://host:port"],
        permissions=["http.fetch"],
        egress=["https://api.example.com/v1"],
    ),
    held(
        "config.read is missing",
        ["needs the permission config.read"],
        ["add it to spec.permissions"],
        wasm=module(CONFIG),
        config={"limit": 1},
    ),
    held(
        "a source of data is not there",
        ["query.execute:orders is for no data source"],
        ["spec.dataSources has no 'orders'"],
        permissions=["query.execute:orders"],
        strict=True,
    ),
]
SETTINGS = [
    held(
        "a setting has a wrong type",
        ['found "many"'],
        ["spec.config.limit: expected a whole number"],
        config={"limit": "many"},
        permissions=["config.read"],
    ),
    held(
        "a setting is out of bounds",
        ["found 10"],
        ["spec.config.limit: expected at most 9"],
        config={"limit": 10},
        permissions=["config.read"],
    ),
    held(
        "a setting is misspelt",
        ["'limt' was unexpected"],
        ["did you mean limit?"],
        config={"limt": 1},
        permissions=["config.read"],
    ),
    held(
        "a setting is missing",
        ["so the plugin's schema says"],
        ["spec.config: 'limit' is a required property"],
        config={},
        wasm=module(about=NEEDS),
        permissions=["config.read"],
    ),
    held(
        "settings are a list",
        ["spec.config: is not a mapping"],
        ["write its fields below it"],
        config=["limit"],
        permissions=["config.read"],
    ),
    held(
        "settings are too large",
        ["spec.config: has more than"],
        ["1048576 bytes"],
        config={"token": "x" * 2**20},
        wasm=module(about={"name": "guard"}),
        permissions=["config.read"],
    ),
    held(
        "a Secret is not there",
        ["there is no Secret 's' in the folder"],
        ["put one with the key 'k' there"],
        configFrom=given(),
        permissions=["config.read"],
    ),
    held(
        "a Secret has not the key",
        ["has no key 'k'"],
        ["there are other"],
        secret(other=SECRET),
        configFrom=given(),
        permissions=["config.read"],
    ),
    held(
        "a ConfigMap is not there",
        ["there is no ConfigMap 's' in the folder"],
        ["put one with the key 'k' there"],
        configFrom=given(ref="configMapRef"),
        permissions=["config.read"],
    ),
    held(
        "a value of a Secret is refused",
        ["which may be a Secret's"],
        ["spec.config.token: expected at most 5 characters"],
        secret(k=SECRET),
        configFrom=given(),
        permissions=["config.read"],
    ),
    held(
        "a value of a Secret is no whole number",
        ["which may be a Secret's"],
        ["spec.config.limit: expected a whole number"],
        secret(k=SECRET),
        configFrom=given(path="limit"),
        permissions=["config.read"],
    ),
    held(
        "a value of a Secret for a field that is not there",
        ["'tokn' was unexpected"],
        ["did you mean token?"],
        secret(k=SECRET),
        configFrom=given(path="tokn"),
        permissions=["config.read"],
    ),
    held(
        "a Secret is no base64",
        ["has no key 'k' that is base64"],
        ["encode its value, or write it into stringData"],
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "%%%"}},
        configFrom=given(),
        permissions=["config.read"],
    ),
    Mistake(
        name="settings of the command line are no JSON",
        done=["call", "guard.wasm", "pre_query", "SELECT 1", "--config", "{limit: 1}"],
        files={"guard.wasm": module()},
        cause=["--config is not JSON"],
        step=["line 1, column 2: expecting property name enclosed in double quotes"],
        code=2,
    ),
    Mistake(
        name="settings of the command line are refused",
        done=["call", "guard.wasm", "pre_query", "SELECT 1", "--config", '{"limit": "x"}'],
        files={"guard.wasm": module()},
        cause=['found "x"'],
        step=["config.limit: expected a whole number"],
        code=2,
    ),
]


@rows(PERMISSIONS)
def test_a_mistake_in_permissions_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)


@rows(SETTINGS)
def test_a_mistake_in_settings_is_told(make, mistake):
    """With its cause and the next step, and no value of a Secret."""
    make(mistake)
