"""A ``WasmPlugin`` is read leniently by machines and strictly where a person wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hookline_api.hooks import Hook, hook_spellings, parse_hook
from hookline_api.permissions import Permission
from hookline_api.resources import LocalWasmPlugin, WasmPlugin

_SHA = "a" * 64


def _manifest(**spec: object) -> dict[str, object]:
    spec.setdefault("source", {"oci": {"reference": "registry/plugin:1"}})
    return {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}, "spec": spec}


def _errors(manifest: dict[str, object], model: type[WasmPlugin] = WasmPlugin) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(manifest, extra="forbid")
    return [(".".join(str(part) for part in error["loc"]), error["msg"]) for error in refused.value.errors()]


@pytest.mark.parametrize(
    ("spelling", "hook"),
    [
        ("prequery", Hook.PRE_QUERY), ("postquery", Hook.POST_QUERY), ("auth", Hook.AUTHENTICATE),
        ("cacheget", Hook.CACHE_GET), ("cacheset", Hook.CACHE_SET), ("routing", Hook.ROUTE),
        ("connect", Hook.ON_CONNECT), ("disconnect", Hook.ON_DISCONNECT), ("custom", Hook.CUSTOM),
        *((hook.value, hook) for hook in Hook),
    ],
)  # fmt: skip
def test_every_spelling_of_a_hook_is_read_in_any_case(spelling, hook):
    """As manifests in the field write them."""
    for text in (spelling, spelling.upper(), spelling.title()):
        assert parse_hook(text) is hook
        assert WasmPlugin.model_validate(_manifest(hooks=[text])).spec.hooks == [hook]
    assert spelling in hook_spellings()


@given(st.text(max_size=20) | st.none() | st.integers())
def test_anything_else_is_no_hook_and_the_error_lists_the_twelve(name):
    """A misspelt hook is told what there is."""
    if isinstance(name, str) and name.lower() in hook_spellings():
        return
    with pytest.raises(ValueError, match="the hooks are") as refused:
        parse_hook(name)
    assert all(hook in str(refused.value) for hook in Hook)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"fooBar": 1}, "spec.fooBar"),
        ({"limits": {"timeot": "1s"}}, "spec.limits.timeot"),
        ({"source": {"oci": {"reference": "r", "pullPolizy": "Always"}}}, "spec.source.oci.pullPolizy"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "x": 1}]}},
         "spec.selector.matchExpressions.0.x"),
        ({"configFrom": [{"secretRef": {"name": "s", "namespace": "n"}, "key": "k", "path": "a"}]},
         "spec.configFrom.0.secretRef.namespace"),
        ({"verify": {"keyless": [{"issuer": "i", "subject": "s", "subjekt": "s"}]}},
         "spec.verify.keyless.0.subjekt"),
        ({"failurePolicy": {"traps": "Open"}}, "spec.failurePolicy.traps"),
        ({"isolation": {"mode": "PerCall", "pool": 3}}, "spec.isolation.pool"),
        ({"match": {"database": ["x"]}}, "spec.match.database"),
    ],
)  # fmt: skip
def test_a_misspelt_field_is_refused_with_its_path_and_read_over_by_machines(spec, path):
    """In whatever depth; a newer resource still loads where nobody typed it."""
    manifest = _manifest(**spec)
    assert path in [where for where, _ in _errors(manifest)]
    assert WasmPlugin.model_validate(manifest).metadata.name == "p"


@pytest.mark.parametrize(
    "source",
    [{}, {"oci": {"reference": "r"}, "http": {"url": "http://x", "sha256": _SHA}},
     {"http": {"url": "http://x", "sha256": _SHA}, "configMap": {"name": "c"}}],
)  # fmt: skip
def test_a_plugin_has_exactly_one_source(source):
    """None and two are told the choice."""
    (error,) = _errors(_manifest(source=source))
    assert error[0] == "spec.source"
    assert "give exactly one of oci, http, configMap" in error[1]


def test_a_file_is_a_source_in_a_manifest_folder_only():
    """The cluster has no files."""
    manifest = _manifest(source={"file": {"path": "p.wasm"}})
    assert LocalWasmPlugin.model_validate(manifest, extra="forbid").spec.source.file.path == "p.wasm"
    assert any("exactly one" in message for _, message in _errors(_manifest(source={})))
    with pytest.raises(ValidationError):
        WasmPlugin.model_validate(manifest)
    both = _manifest(source={"file": {"path": "p.wasm"}, "oci": {"reference": "r"}})
    assert _errors(both, LocalWasmPlugin)


def test_a_setting_comes_from_exactly_one_place():
    """A Secret or a ConfigMap."""
    place = {"key": "k", "path": "a.b"}
    for given_ in ({}, {"secretRef": {"name": "s"}, "configMapRef": {"name": "c"}}):
        ((where, message),) = _errors(_manifest(configFrom=[{**place, **given_}]))
        assert where == "spec.configFrom.0"
        assert "exactly one of secretRef, configMapRef" in message


@pytest.mark.parametrize("permission", [*Permission, "custom.x", "custom.a.b-c_9"])
def test_known_and_custom_permissions_are_taken(permission):
    """What a plugin may ask of its host."""
    assert WasmPlugin.model_validate(_manifest(permissions=[permission])).spec.permissions == [permission]


@pytest.mark.parametrize(
    "permission",
    ["kv", "kv.*", "kv.read ", "kv.read\n", "KV.READ", "kvxread", "custom.", "custom", "custom.A", "*", "",
     "xkv.read",
     "custom." + "a" * 57],
)  # fmt: skip
def test_any_other_permission_is_refused(permission):
    """A misspelt one would silently not be granted; one that matches by accident would be."""
    assert _errors(_manifest(permissions=[permission]))[0][0] == "spec.permissions.0"


@pytest.mark.parametrize("egress", ["http://*:80", "https://api.example.com", "https://api.example.com:8443"])
def test_egress_needs_the_permission_to_fetch(egress):
    """A list of hosts without it is a mistake."""
    assert "egress needs the permission http.fetch" in _errors(_manifest(egress=[egress]))[0][1]
    WasmPlugin.model_validate(_manifest(egress=[egress], permissions=["http.fetch"]))


@pytest.mark.parametrize(
    "spec",
    [
        {"failurePolicy": {"verify": "Open"}}, {"failurePolicy": {"trap": "LastGood"}}, {"mode": "shadow"},
        {"priority": 10**7}, {"priority": "high"}, {"hooks": ["nonsense"]}, {"sha256": "A" * 64},
        {"sha256": "a" * 63},
        {"match": {"queryClasses": ["drop"]}}, {"match": {"databases": [""]}}, {"limits": None}, {"source": None},
        {"config": []}, {"configFrom": [{"secretRef": {"name": "s"}, "key": "k", "path": "a..b"}]},
    ],
)  # fmt: skip
def test_a_value_that_means_nothing_is_refused_with_its_path(spec):
    """Among them: what is not what was asked for never runs, so ``verify`` cannot be Open."""
    where, _ = _errors(_manifest(**spec))[0]
    assert where.startswith("spec." + next(iter(spec)))


@pytest.mark.parametrize("name", ["", "P", "a_b", "-a", "a-", "a/b", "..", "a" * 254, "a\n", "a b"])
def test_a_name_is_a_kubernetes_name(name):
    """It becomes a namespace of the store, a label and a part of messages."""
    manifest = _manifest() | {"metadata": {"name": name}}
    assert _errors(manifest)[0][0] == "metadata.name"


@pytest.mark.parametrize("field", ["apiVersion", "kind"])
def test_another_kind_of_resource_is_refused(field):
    """A folder may hold anything."""
    assert _errors(_manifest() | {field: "v1"})[0][0] == field


def test_the_defaults_are_those_of_the_documentation():
    """Without any of them given."""
    spec = WasmPlugin.model_validate(_manifest()).spec
    assert spec.limits.model_dump(mode="json") == {
        "timeout": "100ms", "wait": "1s", "memory": "64Mi", "fuel": None, "input": "256Ki", "output": "1Mi",
        "concurrency": 16,
    }  # fmt: skip
    assert (spec.isolation.mode, spec.mode, spec.priority) == ("PerCall", "Enforce", 0)
    policy = spec.failure_policy
    assert {policy.fetch, policy.verify, policy.config} == {"LastGood"}
    assert {policy.trap, policy.timeout, policy.result, policy.overload, policy.store} == {None}
    assert not spec.permissions


def test_a_resource_that_was_written_reads_the_same():
    """Write strictly: what comes out is accepted with unknown fields forbidden."""
    manifest = _manifest(hooks=["auth"], limits={"timeout": "2s"}, config={"a": {"b": [1, None]}}, priority=5)
    plugin = WasmPlugin.model_validate(manifest)
    written = plugin.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert WasmPlugin.model_validate(written, extra="forbid") == plugin
