"""docs/reference/hooks.md and openapi.json say what the contract says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import write_hooks
import write_openapi
from hookline_api.hooks import ATTRIBUTES, INPUTS, Hook, HookContext, Identity
from hookline_runtime.call.inputs import read_call
from hookline_runtime.call.looks import FACTS_AT
from hookline_sidecar.hooks import question

ROOT = Path(__file__).parents[2]


def test_the_tables_are_fresh():
    """``make crds`` writes them."""
    page = write_hooks.TARGET.read_text()
    assert write_hooks.render(page) == page, "run: make crds"
    assert all(f"| `{name}` |" in page for name in (*ATTRIBUTES, *Identity.model_fields))


def test_the_specification_is_fresh():
    """Also without a sidecar at hand: ``make crds`` writes it."""
    assert write_openapi.render() == write_openapi.TARGET.read_text(), "run: make crds"
    paths = json.loads(write_openapi.TARGET.read_text())["paths"]
    assert {f"/v1/hooks/{hook}" for hook in Hook} < set(paths)
    assert {"/v1/hooks:batch", "/v1/auth", "/v1/plugins", "/metrics"} < set(paths)


def test_what_hookline_reads_and_writes_is_among_the_attributes():
    """What a rewrite adds, what a match reads, and what a subrequest tells."""
    call = read_call(Hook.PRE_QUERY, b'{"query": "select 1"}')
    call.rewrite("select 2", "guard")
    who = question.read_who(
        b'{"action":"success","identity":{"user_id":"1","username":"u","roles":["r"],"tenant_id":"t","claims":{}}'
    )
    asked = json.loads(question.authorization("GET", "/", "r-1", "::1", who))["hook_context"]["attributes"]
    told = json.loads(question.authentication({}, "::1", "r-1"))["hook_context"]["attributes"]
    read = {name for where, name in FACTS_AT if where == "attributes"}
    named = {*json.loads(call.data)["hook_context"]["attributes"], *asked, *told, *read}
    assert named == {name for name in ATTRIBUTES if name in named}
    assert {"tenant_id", "identity.roles", "client_ip", "application_name", "hookline.rewritten_by"} <= named


def test_what_the_examples_read_is_among_the_attributes():
    """Whoever copies one finds in the table what it needs of a proxy."""
    found = set()
    for path in (ROOT / "examples" / "plugins").glob("*/**/*"):
        if path.suffix in {".c", ".rs", ".go", ".ts"} and not {"node_modules", "target"} & set(path.parts):
            found |= set(re.findall(r"attribute\((?:\w+, )?\"([\w.]+)\"\)", path.read_text()))
    assert {"tenant_id", "identity.roles", "helios.region"} <= found <= set(ATTRIBUTES)


def test_the_examples_of_attributes_are_taken():
    """Each is text, and an input with all of them is complete."""
    context = HookContext(request_id="r-1", attributes={name: each.example for name, each in ATTRIBUTES.items()})
    raw = INPUTS[Hook.METRICS](hook_context=context).model_dump_json().encode()
    assert read_call(Hook.METRICS, raw).data == raw
