"""Mistakes in manifests: ``hookline check`` says them by the code of the webhook and of a sidecar with a folder."""

from __future__ import annotations

from deliberate import SECRET, Mistake, local, plugin, rows

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
    manifest("a field is misspelt", plugin(prioritty=5), (), ()),
    manifest("a field within another is misspelt", plugin(limits={"timout": "20ms"}), (), ()),
    manifest("a field is of the wrong level", {**plugin(), "hooks": ["pre_query"]}, (), ()),
    manifest("priority is a text", plugin(priority="5"), (), ()),
    manifest("hooks are a text", plugin(hooks="pre_query"), (), ()),
    manifest("a hook is misspelt", plugin(hooks=["pre_quarry"]), (), ()),
    manifest("a hook is there twice", plugin(hooks=["pre_query", "preQuery"]), (), ()),
    manifest("a time has no unit", plugin(limits={"timeout": "20"}), (), ()),
    manifest("a time has a wrong unit", plugin(limits={"timeout": "20 msec"}), (), ()),
    manifest("a limit is out of range", plugin(limits={"timeout": "2h"}), (), ()),
    manifest("memory has a wrong unit", plugin(limits={"memory": "64MB"}), (), ()),
    manifest("memory is out of range", plugin(limits={"memory": "64Gi"}), (), ()),
    manifest("a choice is none", plugin(failurePolicy="Opened"), (), ()),
    manifest("two sources", plugin(source={"oci": {"reference": "r.example/p:1"}, "http": {
        "url": "https://r.example/p.wasm", "sha256": "0" * 64}}), (), ()),
    manifest("no source", {**plugin(), "spec": {"hooks": ["pre_query"]}}, (), ()),
    manifest("a source without its reference", plugin(source={"oci": {}}), (), ()),
    manifest("a reference that is none", plugin(source={"oci": {"reference": "https://r.example/p:1"}}), (), ()),
    manifest("a module from HTTP without its sha256", plugin(source={"http": {"url": "https://r.example/p.wasm"}}), (), ()),
    manifest("a file for a cluster", local(), (), (), ),
    manifest("a tab", TABBED, (), ()),
    manifest("a key is there twice", TWICE, (), ()),
    manifest("it is no YAML", "a: b: c\n", (), ()),
    manifest("it is JSON that is cut", '{"apiVersion": "hookline.dev/v1alpha1", ', (), ()),
    manifest("an unknown kind", {**plugin(), "kind": "WasmPlugins"}, (), ()),
    manifest("a wrong version", {**plugin(), "apiVersion": "hookline.dev/v1"}, (), ()),
    manifest("no name", {**plugin(), "metadata": {}}, (), ()),
    manifest("a name that is no name of DNS", named("My_Guard"), (), ()),
    manifest("a selector for a label that is none", plugin(selector={"matchLabels": {"a b": "c"}}), (), ()),
    manifest("a null where a value has to be", plugin(source=None), (), ()),
    manifest("a policy that names no key", {"apiVersion": API, "kind": "PluginTrustPolicy", "metadata": {"name": "p"},
                                            "spec": {"signatures": {"keys": []}}}, (), ()),
    manifest("configFrom at a path that is none", plugin(configFrom=[
        {"secretRef": {"name": "s"}, "key": "k", "path": "a..b"}]), (), ()),
    manifest("configFrom names two objects", plugin(configFrom=[
        {"secretRef": {"name": "s"}, "configMapRef": {"name": "c"}, "key": "k", "path": "a"}]), (), ()),
    Mistake(name="there is no such file", done=["check", "q.yaml"], cause=(), step=(), code=3),
    Mistake(name="there is nothing of ours in it", done=["check", "p.yaml"], files={"p.yaml": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}}, cause=(), step=(), code=2),
]


@rows(MANIFESTS)
def test_a_mistake_in_a_manifest_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
