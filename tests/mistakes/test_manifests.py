"""Mistakes in manifests: ``hookline check`` says them by the code of the webhook and of a sidecar with a folder."""

from __future__ import annotations

from deliberate import Mistake, local, plugin, rows

API = "hookline.dev/v1alpha1"
TABBED = f"apiVersion: {API}\nkind: WasmPlugin\nmetadata:\n\tname: guard\n"
TWICE = f"apiVersion: {API}\nkind: WasmPlugin\nkind: WasmPlugin\nmetadata: {{name: guard}}\n"


def manifest(name, document, cause, step, **more):
    """A row about one file."""
    return Mistake(name=name, done=["check", "p.yaml"], files={"p.yaml": document}, cause=cause, step=step, **more)


def named(name):
    """A WasmPlugin of another name."""
    return {**plugin(), "metadata": {"name": name}}


MANIFESTS = [
    manifest(
        "a field is misspelt",
        plugin(prioritty=5),
        ["spec.prioritty: there is no such field"],
        ["did you mean priority?"],
    ),
    manifest(
        "a field within another is misspelt",
        plugin(limits={"timout": "20ms"}),
        ["spec.limits.timout: there is no such field"],
        ["did you mean timeout?"],
    ),
    manifest(
        "a field is of the wrong level",
        {**plugin(), "hooks": ["pre_query"]},
        ["hooks: there is no such field"],
        ["there are apiVersion, kind, metadata, spec"],
    ),
    manifest(
        "priority is a text",
        plugin(priority="5"),
        ["spec.priority: is not a whole number"],
        ["write it in digits, without quotes"],
    ),
    manifest(
        "hooks are a text",
        plugin(hooks="pre_query"),
        ["spec.hooks: is not a list"],
        ["write each of its items with - in front"],
    ),
    manifest(
        "a hook is misspelt", plugin(hooks=["pre_quarry"]), ["'pre_quarry' is not a hook"], ["did you mean pre_query?"]
    ),
    manifest(
        "a time has no unit", plugin(limits={"timeout": "20"}), ["'20' is not a duration"], ["write one such as 50ms"]
    ),
    manifest(
        "a time has a wrong unit",
        plugin(limits={"timeout": "20 msec"}),
        ["'20 msec' is not a duration"],
        ["write one such as 50ms"],
    ),
    manifest(
        "a limit is out of range",
        plugin(limits={"timeout": "2h"}),
        ["spec.limits.timeout: 2h"],
        ["not between 1ms and 1m"],
    ),
    manifest(
        "memory has a wrong unit",
        plugin(limits={"memory": "64MB"}),
        ["'64MB' is not a size"],
        ["write one such as 512Ki"],
    ),
    manifest(
        "memory is out of range",
        plugin(limits={"memory": "64Gi"}),
        ["spec.limits.memory: 64Gi"],
        ["not between 64Ki and 1Gi"],
    ),
    manifest(
        "a choice is none",
        plugin(failurePolicy={"trap": "Opened"}),
        ["spec.failurePolicy.trap: "],
        ["'Closed' or 'Open'"],
    ),
    manifest(
        "two sources",
        plugin(
            source={
                "oci": {"reference": "r.example/p:1"},
                "http": {"url": "https://r.example/p.wasm", "sha256": "0" * 64},
            }
        ),
        ["not oci and http"],
        ["give exactly one of oci, http, configMap"],
    ),
    manifest("no source", {**plugin(), "spec": {"hooks": ["pre_query"]}}, ["p.yaml:5:1"], ["spec.source: is missing"]),
    manifest(
        "a source without its reference",
        plugin(source={"oci": {}}),
        ["p.yaml:7:5"],
        ["spec.source.oci.reference: is missing"],
    ),
    manifest(
        "a reference that is none",
        plugin(source={"oci": {"reference": "https://r.example/p:1"}}),
        ["a reference has no https:// in front"],
        ["write registry/repository:tag"],
    ),
    manifest(
        "a module from HTTP without its sha256",
        plugin(source={"http": {"url": "https://r.example/p.wasm"}}),
        ["p.yaml:7:5"],
        ["spec.source.http.sha256: is missing"],
    ),
    manifest(
        "a file that is not there", local(), ["the file guard.wasm cannot be read"], ["put it there, or name another"]
    ),
    manifest("a tab", TABBED, ["p.yaml:4:1"], ["indent with spaces, not with tabs"]),
    manifest("a key is there twice", TWICE, ["the key 'kind' is there twice"], ["leave one of them"]),
    manifest(
        "it is no YAML", "a: b: c\n", ["mapping values are not allowed"], ["put a text with ': ' in it in quotes"]
    ),
    manifest(
        "it is JSON that is cut",
        '{"apiVersion": "hookline.dev/v1alpha1", ',
        ["this cannot be read"],
        ["see whether a bracket or a quote is left open"],
    ),
    manifest(
        "an unknown kind",
        {**plugin(), "kind": "WasmPlugins"},
        ["WasmPlugins is unknown"],
        ["did you mean hookline.dev/v1alpha1 WasmPlugin?"],
    ),
    manifest(
        "a wrong version",
        {**plugin(), "apiVersion": "hookline.dev/v1"},
        ["hookline.dev/v1 WasmPlugin is unknown"],
        ["did you mean hookline.dev/v1alpha1 WasmPlugin?"],
    ),
    manifest("no name", {**plugin(), "metadata": {}}, ["p.yaml:3:1"], ["metadata.name: is missing"]),
    manifest(
        "a name that is no name of DNS",
        named("My_Guard"),
        ['found "My_Guard"'],
        ["must consist of lower-case letters, digits"],
    ),
    manifest(
        "a selector for a label that is none",
        plugin(selector={"matchLabels": {"a b": "c"}}),
        ["'a b' is not a label key"],
        ["write letters, digits"],
    ),
    manifest("a null where a value has to be", plugin(source=None), ["p.yaml:6:3"], ["spec.source: is missing"]),
    manifest(
        "a policy of a mode that is none",
        {"apiVersion": API, "kind": "PluginTrustPolicy", "metadata": {"name": "p"}, "spec": {"mode": "Enforcing"}},
        ["spec.mode: "],
        ["'Enforce' or 'Audit'"],
    ),
    manifest(
        "configFrom at a path that is none",
        plugin(configFrom=[{"secretRef": {"name": "s"}, "key": "k", "path": "a..b"}]),
        ['found "a..b"'],
        ["must be a path such as upstream.token"],
    ),
    manifest(
        "configFrom names two objects",
        plugin(configFrom=[{"secretRef": {"name": "s"}, "configMapRef": {"name": "c"}, "key": "k", "path": "a"}]),
        ["spec.configFrom[0]"],
        ["give exactly one of secretRef, configMapRef"],
    ),
    Mistake(
        name="there is no such file",
        done=["check", "q.yaml"],
        cause=["No such file or directory"],
        step=["a manifest: q.yaml"],
        code=2,
    ),
    Mistake(
        name="there is nothing of ours in it",
        done=["check", "p.yaml"],
        files={"p.yaml": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}},
        cause=["there is no WasmPlugin and no PluginTrustPolicy in p.yaml"],
        step=["name files that have one"],
        code=2,
    ),
]


@rows(MANIFESTS)
def test_a_mistake_in_a_manifest_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
