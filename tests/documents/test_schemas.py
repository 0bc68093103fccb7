"""docs/schemas: what an editor says of a manifest is what the API server and a sidecar would say."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

import write_schemas
from hookline_api.crd import crd
from hookline_api.hooks import Hook, hook_spellings
from hookline_api.manifest_schema import FLAVOURS, schema
from hookline_api.resources import LocalWasmPlugin, WasmPlugin

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("**/wasmplugin.yaml") if "node_modules" not in path.parts)
MODELS = {"wasmplugin": WasmPlugin, "local-wasmplugin": LocalWasmPlugin}
GOOD = {
    "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p", "labels": {"a": "b"}},
    "spec": {
        "source": {"oci": {"reference": "r/p:1"}}, "hooks": ["pre_query", "PreQuery".lower(), "AUTH"],
        "limits": {"timeout": "50ms", "memory": "4Mi", "input": 512}, "config": {"any": [{"thing": None}]},
        "permissions": ["kv.read", "http.fetch", "query.execute:orders", "custom.x"], "mode": "Shadow",
        "rollout": {"probation": {"for": "1m"}}, "egress": [{"host": "example.com"}],
    },
}  # fmt: skip


def wrong(flavour, document):
    """What an editor would underline: the paths."""
    found = jsonschema.Draft202012Validator(schema(flavour)).iter_errors(document)
    return [each.json_path for each in found]


def with_spec(**changes):
    """The good manifest with another spec."""
    made = copy.deepcopy(GOOD)
    made["spec"] |= changes
    return made


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_file_is_fresh(flavour):
    """``make crds`` writes it."""
    assert write_schemas.render(flavour) == (write_schemas.FOLDER / f"{flavour}.json").read_text(), "run: make crds"
    jsonschema.Draft202012Validator.check_schema(schema(flavour))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_names_its_schema_and_fits_it(path):
    """By a path from its own folder, so that it holds in a clone without a network."""
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert named is not None
    target = (path.parent / named[1]).resolve()
    assert target.parent == write_schemas.FOLDER
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents[0]["kind"] == "WasmPlugin"
    for document in documents:
        assert wrong(target.stem, document) == []


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_the_model_takes_is_right(flavour):
    """Every form of a field that has two, too."""
    assert wrong(flavour, GOOD) == []
    MODELS[flavour].model_validate(GOOD, extra="forbid")
    assert wrong(flavour, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {}}) == []
    for hook in sorted(hook_spellings() | {each.upper() for each in Hook}):
        assert wrong(flavour, with_spec(hooks=[hook])) == []


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    "changes",
    [
        {"sourec": {}}, {"limits": {"timeuot": "1s"}}, {"limits": {"timeout": 5}}, {"limits": {"memory": "4 MB"}},
        {"hooks": ["pre_quarry"]}, {"permissions": ["kv_read"]}, {"mode": "shadow"}, {"source": {}},
        {"source": {"oci": {"reference": "a"}, "configMap": {"name": "b"}}}, {"source": {"http": {"url": "https://x"}}},
        {"configFrom": [{"key": "k"}]}, {"rollout": {"probation": {"for_": "1m"}}}, {"priority": "high"},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_model_refuses_is_underlined(flavour, changes):
    """A misspelt field above all: elsewhere it is found at the first apply."""
    assert wrong(flavour, with_spec(**changes))
    with pytest.raises(ValueError, match="validation error"):
        MODELS[flavour].model_validate_json(
            json.dumps(with_spec(**changes)), strict=True, extra="forbid", by_alias=True, by_name=False
        )


@pytest.mark.parametrize("missing", ["apiVersion", "kind", "metadata", "spec"])
def test_what_every_manifest_has_is_missed(missing):
    """The model has defaults for some of it; the API server has none."""
    assert wrong("wasmplugin", {name: value for name, value in GOOD.items() if name != missing})


def test_a_file_is_a_source_in_a_folder_alone():
    """There is nothing beside a manifest in a cluster."""
    beside = with_spec(source={"file": {"path": "p.wasm"}})
    assert wrong("local-wasmplugin", beside) == []
    assert wrong("wasmplugin", beside)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_field_of_the_definition_is_there_with_its_text(flavour):
    """As ``kubectl explain`` has it."""
    made = schema(flavour)

    def resolved(node):
        return made["$defs"][node["$ref"].rpartition("/")[2]] | node if "$ref" in node else node

    def compare(ours, theirs, path):
        ours = resolved(ours)
        for name, each in theirs.get("properties", {}).items():
            here = f"{path}.{name}"
            assert name in ours["properties"], here
            said = resolved(ours["properties"][name]).get("description", "")
            assert bool(said) == bool(each.get("description")), here
            compare(ours["properties"][name], each, here)
        if "properties" in theirs:
            assert ours["additionalProperties"] is False, path
            more = {"file"} if path == "spec.source" and flavour == "local-wasmplugin" else set()
            assert set(ours["properties"]) == set(theirs["properties"]) | more, path
        if isinstance(theirs.get("items"), dict):
            compare(ours.get("items", {}), theirs["items"], f"{path}[]")

    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    compare(made["$defs"]["WasmPlugin"]["properties"]["spec"], spec, "spec")
