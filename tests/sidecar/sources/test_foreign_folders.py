"""A folder that was made for another program gets one sentence: what it is, and what to write instead."""

from __future__ import annotations

import json

import pytest

from hookline_sidecar.control.sources.manifests import scan
from waiting import PATIENCE_S

_MODULE = b"\0asm\x01\0\0\0"
_YAML = "name: cost-governor\nversion: 0.1.0\nhooks:\n  - pre_query\npermissions:\n  - kv_read\n"
_JSON = json.dumps({"name": "cost-governor", "hooks": ["pre_query"], "permissions": ["kv_read"]})
_TOML = 'name = "cost-governor"\nhooks = ["pre_query"]\npermissions = ["kv_read"]\n'
_MANIFEST = """\
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: guard}
spec: {source: {file: {path: guard.wasm}}}
"""

# https://github.com/HeliosDatabase/HeliosDB-Proxy, src/plugins/loader.rs: modules and archives side by side, each with
# NAME.yaml or NAME.json and NAME.sig; and its plugins' repository, which has a folder with plugin.toml for each.
HELIOSDB = {
    "modules with YAML": {"a.wasm": _MODULE, "a.yaml": _YAML, "b.wasm": _MODULE, "b.yaml": _YAML},
    "modules with JSON": {"a.wasm": _MODULE, "a.json": _JSON, "b.wasm": _MODULE, "b.json": _JSON},
    "one with plugin.yaml": {"a.wasm": _MODULE, "plugin.yaml": _YAML},
    "one with plugin.toml": {"a.wasm": _MODULE, "plugin.toml": _TOML},
    "modules with TOML": {"a.wasm": _MODULE, "a.toml": _TOML, "b.wasm": _MODULE, "b.toml": _TOML},
    "signed modules": {"a.wasm": _MODULE, "a.sig": "c2ln", "trust.pub": "a2V5"},
    "signed archives": {"a.tar.gz": b"\x1f\x8b", "b.tar.gz": b"\x1f\x8b", "a.sig": "c2ln"},
    "an archive unpacked": {"plugin.wasm": _MODULE, "manifest.json": _JSON, "plugin.sig": "c2ln"},
    "folders with plugin.toml": {"a/plugin.wasm": _MODULE, "a/plugin.toml": _TOML, "b/plugin.wasm": _MODULE,
                                 "b/plugin.toml": _TOML},
    "forty modules": {f"{n}.{ending}": _MODULE if ending == "wasm" else _YAML
                      for n in range(40) for ending in ("wasm", "yaml")},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Writes a folder of these files."""

    def make(files):
        made = tmp_path / "plugins"
        made.mkdir()
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return made

    return make


def only(found):
    """The one problem of a scan."""
    assert len(found.problems) == 1, [each.sentence for each in found.problems]
    return found.problems[0]


@pytest.mark.parametrize("case", HELIOSDB)
def test_a_folder_of_heliosdb_gets_one_sentence(folder, tmp_path, case):
    """What these files are, what to write, and where to read on; and nothing that they guard is open meanwhile."""
    problem = only(scan(folder(HELIOSDB[case])))
    assert problem.file == str(tmp_path / "plugins")
    assert problem.hides
    for words in (
        "plugins as HeliosDB-Proxy reads them", "apiVersion: hookline.dev/v1alpha1", "kind: WasmPlugin",
        "metadata.name", "spec.source.file.path: ", "docs/author/heliosdb.md",
    ):  # fmt: skip
        assert words in problem.message
    example = problem.message.partition("spec.source.file.path: ")[2].split()[0]
    assert example.endswith((".wasm", ".tar.gz"))


def test_modules_alone_are_not_taken_for_more_than_they_are(folder):
    """A manifest may be on its way: the sentence says what is missing, and nothing is refused for it."""
    problem = only(scan(folder({"guard.wasm": _MODULE, "other.tar.gz": b"\x1f\x8b"})))
    assert "these are modules (guard.wasm, other.tar.gz), and no manifest says how to run them" in problem.message
    assert not problem.hides


def test_descriptions_without_modules_are_told_once_too(folder):
    """The modules may have been forgotten."""
    problem = only(scan(folder({"a.yaml": _YAML, "b.json": _JSON})))
    assert "descriptions of plugins as HeliosDB-Proxy reads them" in problem.message
    assert problem.hides


def test_with_a_manifest_beside_them_modules_and_archives_are_nobodys_business(folder):
    """A folder of Hookline's, with what was left from before."""
    found = scan(folder({"guard.yaml": _MANIFEST, "guard.wasm": _MODULE, "guard.sig": "c2ln", "plugin.toml": _TOML}))
    assert not found.problems
    assert list(found.manifests) == ["guard"]


def test_a_description_among_manifests_is_told_by_its_file(folder):
    """One was moved over, the other was not."""
    found = scan(folder({"guard.yaml": _MANIFEST, "guard.wasm": _MODULE, "b.wasm": _MODULE, "b.yaml": _YAML}))
    problem = only(found)
    assert (problem.file, problem.hides) == ("b.yaml", True)
    assert "describes a plugin for HeliosDB-Proxy and is not a Kubernetes document" in problem.message
    assert list(found.manifests) == ["guard"]


def test_a_wrong_manifest_is_told_what_is_wrong_with_it(folder):
    """And not that the folder is another program's."""
    wrong = _MANIFEST.replace("path", "paht")
    found = scan(folder({"guard.yaml": wrong, "guard.wasm": _MODULE, "guard.toml": _TOML}))
    assert {each.file for each in found.problems} == {"guard.yaml"}


_KINDS = {
    "extensions.istio.io/v1alpha1 WasmPlugin": ("Istio's WasmPlugin, for modules of the proxy-wasm ABI", True),
    "networking.istio.io/v1alpha3 EnvoyFilter": ("configures Envoy", False),
    "gateway.envoyproxy.io/v1alpha1 EnvoyExtensionPolicy": ("configures Envoy", False),
    "policies.kubewarden.io/v1 ClusterAdmissionPolicy": ("judge requests to the Kubernetes API", False),
    "configuration.konghq.com/v1 KongPlugin": ("Kong's", False),
    "kustomize.config.k8s.io/v1beta1 Kustomization": ("kubectl kustomize DIR > plugins.yaml", False),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_manifests_of_other_programs_are_told_by_name(folder, kind):
    """What it is, and what is read here."""
    api_version, name = kind.split()
    document = {"apiVersion": api_version, "kind": name, "metadata": {"name": "x"}, "spec": {}}
    problem = only(scan(folder({"x.yaml": json.dumps(document)})))
    words, hides = _KINDS[kind]
    assert problem.message.startswith("ignored: ")
    assert words in problem.message
    assert problem.hides == hides
    assert "hookline.dev/v1alpha1 WasmPlugin" in problem.message or "kustomize" in problem.message


def test_a_kustomization_need_not_say_its_kind(folder):
    """Kustomize itself does not ask for it. What lies beside it is read as it is, and that is said."""
    found = scan(folder({"kustomization.yaml": "resources: [guard.yaml]\n", "guard.yaml": _MANIFEST}))
    problem = only(found)
    assert "kubectl kustomize DIR > plugins.yaml" in problem.message
    assert not problem.hides
    assert list(found.manifests) == ["guard"]


def test_a_chart_gets_one_sentence(folder):
    """Its values and its schema are not manifests with mistakes."""
    chart = {"Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\n", "values.yaml": "replicas: 1\n",
             "values.schema.json": "{}", "templates/guard.yaml": "kind: {{ x }}\n"}  # fmt: skip
    problem = only(scan(folder(chart)))
    assert problem.file == "Chart.yaml"
    assert "helm template DIR > plugins.yaml" in problem.message
    assert problem.hides


def test_a_folder_one_too_high_is_told_which_to_give(folder):
    """Subfolders are not read."""
    made = folder({"production/guard.yaml": _MANIFEST})
    problem = only(scan(made))
    assert f"subfolders are not read: give --plugins {made / 'production'}" in problem.message
    assert not problem.hides


def test_an_empty_folder_is_said_to_be_empty(folder):
    """Nothing runs, and nothing guards."""
    problem = only(scan(folder({})))
    assert "the folder is empty: no plugin runs until it holds a manifest" in problem.message
    assert not problem.hides


def test_what_says_nothing_of_itself_is_told_what_a_manifest_says(folder):
    """A YAML file that could be anything."""
    problem = only(scan(folder({"x.yaml": "a: 1\n"})))
    assert problem.message == (
        "a document needs apiVersion and kind; a plugin has apiVersion: hookline.dev/v1alpha1 and kind: WasmPlugin"
    )


def test_other_files_with_a_name_and_a_version_are_nobodys_plugins(folder):
    """npm's, for one."""
    problem = only(scan(folder({"package.json": '{"name": "x", "version": "1.0.0", "scripts": {}}'})))
    assert "HeliosDB" not in problem.message


def test_a_folder_of_which_no_file_is_read_says_how_manifests_are_called(folder):
    """A ConfigMap that is mounted with a key of any name, and what editors and people leave."""
    problem = only(scan(folder({"guard": "a: 1", "guard.yaml.bak": "a: 1", "guard.yaml~": "a: 1", "z": ""})))
    assert problem.message == (
        "no file here is read (guard, guard.yaml.bak, guard.yaml~, …): "
        "the name of a manifest ends in .yaml, .yml, .json"
    )
    assert not problem.hides


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("priority: '5'", "spec.priority: is not a whole number of 64 bits: write it in digits, without quotes"),
        ("source: {oci: {reference: 'a.b/c:1', insecure: 1}}", "insecure: is neither true nor false"),
        (
            "source: {http: {url: 'ftp://h', sha256: 'sha256:00'}}",
            "source.http.url: must be a URL that begins with http://",
        ),
        ("sha256: 'sha256:00'", "spec.sha256: must be a SHA-256 of 64 hex digits in lower case"),
        ("source: {file: {path: 5}}", "spec.source.file.path: is not text: put it in quotes"),
    ],
)
def test_a_value_of_another_type_is_refused_as_kubernetes_refuses_it(folder, text, words):
    """Nothing is made of it by guessing; and the sentence says how to write it."""
    rest = "" if text.startswith("source") else ", source: {file: {path: p.wasm}}"
    head = "apiVersion: hookline.dev/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\n"
    found = scan(folder({"p.yaml": f"{head}spec: {{{text}{rest}}}\n"}))
    assert not found.manifests
    assert words in found.problems[0].sentence


async def test_a_sidecar_that_is_given_heliosdbs_folder_refuses_and_says_it_once(new_sidecar, guests, eventually):
    """In its log and on its admin port; a query is not let through unguarded. Once there is a manifest, it runs."""
    sidecar = new_sidecar()
    for name, content in HELIOSDB["modules with YAML"].items():
        sidecar.folder.write(name, content)
    sidecar.start(wait=False)
    eventually(lambda: (sidecar.looks("/v1/bundle") or [0])[0] == 200, "a bundle")
    problem = sidecar.wait_problem("plugins as HeliosDB-Proxy reads them")
    assert problem["file"] == str(sidecar.folder.path)
    assert sidecar.log.count("plugins as HeliosDB-Proxy reads them") == 1
    assert "a document needs" not in sidecar.log
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["action"] == "block"
    for name in ("b.wasm", "b.yaml"):
        sidecar.folder.remove(name)
    sidecar.folder.plugin("a", guests.answering(pre_query={"action": "block", "value": "seen"}))
    sidecar.wait_plugin("a", state="Running")
    assert sidecar.problems() == []
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["value"] == "seen"


def test_a_file_in_place_of_the_folder_is_told_which_folder_to_give(new_sidecar):
    """``--plugins guard.yaml`` is an easy mistake."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("guard", _MODULE)
    sidecar.start(wait=False, plugins=sidecar.folder.path / "guard.yaml")
    assert sidecar.process.wait(PATIENCE_S) == 2
    sidecar.logs("is not a folder")
    sidecar.logs(f"it is a file, and a folder is read: give --plugins {sidecar.folder.path}")
