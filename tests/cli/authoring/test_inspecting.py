"""``hookline inspect``: what an artifact is, and the resource that would run it."""

from __future__ import annotations

import asyncio

import pytest

from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.documents import kubernetes_yaml
from local_registry import manifest_of

SCHEMA = {"properties": {"limit": {"type": "integer", "description": "Calls."}, "b": {}}, "required": ["limit"]}
CASES = [{"name": "a", "hook": "custom_hook", "input": 1, "expect": {"action": "empty"}}]
PLUGIN = {
    "name": "keeper", "version": "1.2.0", "description": "Keeps keys.", "author": "Ann", "license": "MIT",
    "hooks": ["custom"], "permissions": ["kv.read", "kv.fly"], "config_schema": SCHEMA,
    "resources": {"min_memory": "96Mi"},
}  # fmt: skip


@pytest.fixture
def module(guests, write):
    """One that says all of itself."""
    return write("keeper.wasm", guests.stored(), plugin=PLUGIN, cases=CASES)


def resource(done):
    """The resource that was printed."""
    (document,) = kubernetes_yaml.read(done.json["resource"].encode())
    return LocalWasmPlugin.model_validate(document)


def test_a_file_is_shown(hookline, module):
    """What it says, what it imports and what that needs, its settings, its cases."""
    lines = {line.strip() for line in hookline("inspect", module).out.splitlines()}
    assert {
        "says      keeper 1.2.0: Keeps keys.",
        "by        Ann, MIT",
        "hooks     custom_hook (declared: custom_hook)",
        "imports   env.kv_get, needs kv.read",
        "asks for  kv.fly, kv.read",
        "note      the permission kv.fly cannot be granted: there is none",
        "memory    begins with 128.0 KiB; says at least 96.0 MiB",
        "setting   limit (integer, required): Calls.",
        "setting   b (any)",
        "cases     1",
        "signed    none found",
    } <= lines


def test_the_resource_can_be_pasted(hookline, module):
    """It is right, and grants all that can be granted; what only its owner knows is a comment."""
    done = hookline("inspect", module, "--json")
    found = resource(done)
    assert found.metadata.name == "keeper"
    assert found.spec.permissions == ["kv.read"]
    assert found.spec.limits.memory == 96 << 20
    assert found.spec.source.file.path == "keeper.wasm"
    assert "# config: it needs limit" in done.json["resource"]
    assert done.json["casesProblem"] is None


def test_signatures_beside_a_file_are_counted(hookline, keys, module):
    """And not verified."""
    assert hookline("sign", module, "--key", "acme.key", "--keep").code in {0, 2}
    done = hookline("sign", module, "--key", "acme.key")
    assert done.code == 0, done.err
    assert "1 ed25519, not verified here" in hookline("inspect", module).out


def test_a_reference_is_shown(hookline, registry, module, tmp_path, keys):
    """Of a registry, with the layout and the signatures that it has there; and what cannot be had is told."""
    wasm = (tmp_path / module).read_bytes()
    asyncio.run(registry.push("plugins/keeper:1.0.0", manifest_of(wasm), wasm))
    reference = f"{registry.host}/plugins/keeper:1.0.0"
    found = hookline("inspect", reference, "--insecure", "--json")
    assert found.code == 0, found.out
    assert found.json["signatures"] == []
    assert resource(found).spec.source.oci.reference == reference
    assert hookline("sign", reference, "--key", "release.key", "--insecure").code == 0
    assert len(hookline("inspect", reference, "--insecure", "--json").json["signatures"]) == 1
    missing = hookline("inspect", f"{registry.host}/plugins/none:1", "--insecure")
    assert missing.code == 3
    assert len(missing.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [(None, 3, "there is no file"), (b"hello", 1, "not"), (b"\0asm\x01\0\0\0", 1, "memory"), (b"", 1, "")],
)
def test_what_is_no_artifact_is_told(hookline, tmp_path, content, code, told):
    """In one sentence."""
    if content is not None:
        (tmp_path / "odd.wasm").write_bytes(content)
    done = hookline("inspect", "odd.wasm")
    assert (done.code, told in done.sentence) == (code, True)


def test_cases_that_cannot_be_read_are_told(hookline, guests, write):
    """The rest is shown."""
    write("odd.wasm", guests.stored(), cases={"no": "list"})
    found = hookline("inspect", "odd.wasm", "--json").json
    assert found["cases"] is None
    assert "list" in found["casesProblem"]
