"""The chart's CustomResourceDefinitions are the project's, and outlive the chart unless told otherwise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_charts_templates_are_fresh():
    """`make crds` would change nothing."""
    spec = importlib.util.spec_from_file_location("write_crds", ROOT / "scripts" / "write_crds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for template, definition in module.DEFINITIONS.values():
        assert (module.TEMPLATES / template).read_text() == module.render_chart(definition), "run: make crds"


def test_what_helm_makes_of_them_are_the_very_same_definitions(helm):
    """But for the release's labels and the word that keeps them."""
    made = helm.render().all("CustomResourceDefinition")
    assert len(made) == 3
    for each in made:
        assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert each["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
        name = f"hookline.dev_{each['spec']['names']['plural']}.yaml"
        assert each == yaml.safe_load((ROOT / "crds" / name).read_text())


def test_they_can_be_left_out_or_left_to_go(helm):
    """`crds.install` and `crds.keep`."""
    assert helm.render({"crds": {"install": False}}).all("CustomResourceDefinition") == []
    for each in helm.render({"crds": {"keep": False}}).all("CustomResourceDefinition"):
        assert "annotations" not in each["metadata"]
