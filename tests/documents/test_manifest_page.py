"""docs/manifest.md is what the models say, and its examples are what the models take."""

from __future__ import annotations

import json
import re

import pytest
import yaml

import write_manifest
from hookline_api.resources import LocalWasmPlugin, LocalWasmPluginSpec

PARTS = write_manifest.parts()
SOURCE = {"source": {"configMap": {"name": "guard"}}}


def test_the_page_is_fresh():
    """``make crds`` writes it."""
    assert write_manifest.render() == write_manifest.TARGET.read_text(), "run: make crds"


def test_every_field_of_the_spec_has_a_part():
    """Each with words about it, and with an example."""
    assert set(PARTS) == {each.alias or name for name, each in LocalWasmPluginSpec.model_fields.items()}
    found = dict(re.findall(r"^## spec\.(\w+)(?:\[\])?\n\n(.*)$", write_manifest.TARGET.read_text(), re.MULTILINE))
    assert set(found) == set(PARTS)
    assert all(found.values())


@pytest.mark.parametrize("part", PARTS)
def test_an_example_is_one_that_is_taken(part):
    """As strictly as the API server and a folder take it."""
    for example in PARTS[part]:
        assert part in example
        LocalWasmPluginSpec.model_validate_json(
            json.dumps(SOURCE | example), strict=True, extra="forbid", by_alias=True, by_name=False
        )


def test_every_field_is_in_an_example():
    """By its definition: what stands in several places is shown in one."""
    schema = LocalWasmPluginSpec.model_json_schema(by_alias=True)
    shown, there = set(), set()

    def resolve(node):
        node = next((each for each in node.get("anyOf", ()) if each != {"type": "null"}), node)
        name = node.get("$ref", "").rpartition("/")[2]
        return (name, schema["$defs"][name]) if name else ("", node)

    def look(node, value):
        name, node = resolve(node)
        if isinstance(node.get("items"), dict):
            for each in value if isinstance(value, list) else ():
                look(node["items"], each)
        for field, each in node.get("properties", {}).items():
            if isinstance(value, dict) and field in value:
                shown.add((name, field))
                look(each, value[field])

    for examples in PARTS.values():
        for example in examples:
            look(schema | {"properties": schema["properties"]}, example)
    for name, each in schema["$defs"].items():
        there |= {(name, field) for field in each.get("properties", {})}
    assert there - shown == set()


def test_the_whole_manifest_at_the_top_is_one():
    """The first thing that is copied."""
    text = write_manifest.TARGET.read_text().split("```yaml\n")[1].partition("```")[0]
    assert LocalWasmPlugin.model_validate(yaml.safe_load(text), extra="forbid").metadata.name == "sql-guard"


@pytest.mark.parametrize(
    "row",
    [
        "| `timeout` | duration | `100ms` | 1ms to 1m |", "| `memory` | size | `64Mi` | 64Ki to 1Gi |",
        "| `concurrency` | number | `16` | 1 to 1,024 |", "| `http.url` | text | *required* |",
        "| `mode` | `PerCall` `Pooled` | `PerCall` |", "| `postgres.passwordFrom` | secret |",
    ],
)  # fmt: skip
def test_units_defaults_and_ranges_are_there(row):
    """As people write them."""
    assert row in write_manifest.TARGET.read_text()
