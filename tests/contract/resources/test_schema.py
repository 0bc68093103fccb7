"""The CRD's schema is structural, and says what the models say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hookline_api.crd import crd, structural
from hookline_api.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]


def _schema() -> Json:
    return crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _nodes(node: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _nodes(node["additionalProperties"], f"{path}{{}}")


def _at(path: str) -> Json:
    return dict(_nodes(_schema()))[path]


def test_every_node_is_typed_and_none_refers_elsewhere():
    """What Kubernetes demands of a structural schema; ``anyOf`` only as its own integer-or-string."""
    allowed = {
        "type", "description", "properties", "required", "items", "additionalProperties", "enum", "pattern",
        "format",
        "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum",
        "maximum", "anyOf",
    }  # fmt: skip
    for path, node in _nodes(_schema()):
        unknown = {key for key in node if not key.startswith("x-kubernetes-")} - allowed
        assert not unknown, (path, unknown)
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
            assert "type" not in node
        else:
            assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
            assert "anyOf" not in node, path


def test_an_object_has_properties_or_values_and_never_both():
    """And one of free form says that its fields are kept."""
    for path, node in _nodes(_schema()):
        if node.get("type") == "object" and path != ".metadata":
            ways = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & set(node)
            assert ways, path
            assert not {"properties", "additionalProperties"} <= ways, path
        if node.get("type") == "array":
            assert "items" in node, path


def test_required_fields_exist():
    """A required field that is not described can never be given."""
    for path, node in _nodes(_schema()):
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path


def test_lists_and_texts_are_bounded_where_rules_walk_them():
    """The API server estimates the cost of a CEL rule from these bounds, and refuses a CRD without them."""
    for path in (".spec.hooks", ".spec.permissions", ".spec.configFrom", ".spec.egress"):
        assert _at(path)["maxItems"] <= 64, path
    for path in (".spec.hooks[]", ".spec.permissions[]"):
        assert _at(path)["maxLength"] <= 64, path


def test_there_are_no_defaults_in_the_schema():
    """The API server would write today's into stored objects."""
    assert all("default" not in node for _, node in _nodes(_schema()))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (".spec.source", "give exactly one of oci, http, configMap"),
        (".spec.configFrom[]", "give exactly one of secretRef, configMapRef"),
        (".spec.hooks", "hooks are authenticate"),
        (".spec", "egress needs the permission http.fetch"),
    ],
)
def test_rules_that_the_models_check_are_rules_of_the_crd_too(path, says):
    """``kubectl apply`` says the same sentence as a manifest folder."""
    rules = _at(path)["x-kubernetes-validations"]
    assert any(rule["message"].startswith(says) for rule in rules)
    assert all(rule["rule"] for rule in rules)


def test_the_rule_about_hooks_knows_every_spelling():
    """All of the twelve, and those that manifests in the field use."""
    (rule,) = _at(".spec.hooks")["x-kubernetes-validations"]
    assert all(f"'{hook.value}'" in rule["rule"] for hook in Hook)
    assert "'prequery'" in rule["rule"]
    assert "lowerAscii" in rule["rule"]


def test_conditions_and_permissions_are_merged_by_key_and_not_by_place():
    """Two writers of conditions do not overwrite each other."""
    assert _at(".status.conditions")["x-kubernetes-list-type"] == "map"
    assert _at(".status.conditions")["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in _at(".status.conditions[]")["required"]
    assert _at(".spec.permissions")["x-kubernetes-list-type"] == "set"


def test_files_are_no_source_in_a_cluster():
    """Only manifest folders have files."""
    assert set(_at(".spec.source")["properties"]) == {"oci", "http", "configMap"}


def test_the_crd_has_its_columns_its_status_and_its_short_name():
    """What ``kubectl get wp`` shows."""
    (version,) = crd()["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "Hooks", "Digest", "Loaded", "Ready", "Reason", "Checked", "Message", "Failed-Digest", "Age",
    ]  # fmt: skip
    assert crd()["spec"]["names"]["shortNames"] == ["wp"]
    assert crd()["metadata"]["name"] == "wasmplugins.hookline.dev"


def test_every_field_of_the_spec_is_explained():
    """``kubectl explain`` reads the docstrings; a field without one explains itself by its type's."""
    for path, node in _nodes(_schema()):
        if path.startswith(".spec.") and path.count(".") == 2 and not path.endswith(("]", "}")):
            assert node.get("description") or "maxItems" in node or node["type"] == "object", path


def test_rewriting_a_schema_leaves_what_it_was_given_alone():
    """Pure: data in, data out."""
    given = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": "string", "title": "A"}},
    }
    before = repr(given)
    assert structural(given) == {"type": "object", "properties": {"a": {"type": "string"}}}
    assert repr(given) == before
