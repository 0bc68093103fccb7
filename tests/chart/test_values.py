"""Values: a typing error is refused with its place, and what is in values.yaml is described."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
SCHEMA = json.loads((ROOT / "helm" / "values.schema.json").read_text())
# Kubernetes' own shapes, which the API server checks, and maps with keys of the user's choice.
FREE = {
    "affinity", "grafanaDashboard.annotations", "grafanaDashboard.labels", "nodeSelector", "podAnnotations",
    "podLabels", "podMonitor.labels", "prometheusRule.labels", "resources",
    "serviceAccount.annotations", "serviceMonitor.labels", "sidecar.resources",
}  # fmt: skip


def generator():
    """scripts/write_values.py."""
    spec = importlib.util.spec_from_file_location("write_values", ROOT / "scripts" / "write_values.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(values, prefix=""):
    """The paths of what a user sets."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in FREE:
            yield from leaves(value, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"sidecar": {"image": {"name": "x"}}}, "at '/sidecar/image': additional properties 'name' not allowed"),
        ({"sidecar": {"resources": {"requests": {"disk": 1}}}}, "additional properties 'disk' not allowed"),
        ({"watchNamespace": "shop"}, "additional properties 'watchNamespace' not allowed"),
        ({"watchNamespaces": "shop"}, "at '/watchNamespaces': got string, want array"),
        ({"watchNamespaces": ["Shop"]}, "at '/watchNamespaces/0': 'Shop' does not match pattern"),
        ({"watchNamespaces": ["kube-system"]}, "the pods of kube-system never get a sidecar"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"logLevel": "loud"}, "at '/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ({"image": {"tag": 1.1}}, "at '/image/tag': got number, want string"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match pattern"),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory': '1 GB' does not match pattern"),
        ({"webhooks": {"timeoutSeconds": 31}}, "at '/webhooks/timeoutSeconds': maximum: got 31, want 30"),
        ({"crds": {"keep": "yes"}}, "at '/crds/keep': got string, want boolean"),
        ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
        ({"extraEnv": [{"value": "b"}]}, "at '/extraEnv/0': missing property 'name'"),
        ({"tolerations": [{"effects": "NoSchedule"}]}, "additional properties 'effects' not allowed"),
    ],
)
def test_what_is_no_value_is_refused_with_its_place(helm, values, sentence):
    """Typing errors and wrong types, before anything reaches the cluster."""
    with pytest.raises(Exception, match="hookline") as refused:
        helm.template(values)
    assert type(refused.value).__name__ == "HelmError"
    assert sentence in str(refused.value)


def test_the_chart_can_be_a_part_of_another(helm):
    """Helm hands a subchart `global`, which is not a typing error."""
    assert helm.render({"global": {"anything": True}}).objects


def test_values_of_an_older_chart_are_enough(helm):
    """``helm upgrade --reuse-values`` knows nothing that came later: then it is as its default says."""
    older = {"migration": None, "prometheusRule": None, "registries": None, "sidecar": {"networkPolicy": None}}
    assert helm.render(older).objects == helm.render({}).objects


def test_the_schema_is_one_and_knows_each_value_with_its_default():
    """And nothing that values.yaml does not have."""
    Draft7Validator.check_schema(SCHEMA)
    Draft7Validator(SCHEMA).validate(VALUES)
    known = set()

    def walk(schema, prefix):
        for key, part in schema.get("properties", {}).items():
            path = f"{prefix}{key}"
            if "properties" in part and path not in FREE:
                assert part["additionalProperties"] is False, path
                walk(part, f"{path}.")
            else:
                known.add(path)

    assert SCHEMA["additionalProperties"] is False
    walk(SCHEMA, "")
    assert known == set(leaves(VALUES)) | {"global"}


def test_every_value_is_described_and_the_table_is_fresh():
    """`python scripts/write_values.py` would change nothing."""
    module = generator()
    described = {path for path, comment in module.described() if comment}
    assert described == set(leaves(VALUES))
    assert module.TARGET.read_text() == module.render(), "run: python scripts/write_values.py"
