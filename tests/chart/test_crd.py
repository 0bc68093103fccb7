"""The chart's CustomResourceDefinition is the project's, and outlives the chart unless told otherwise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_charts_template_is_fresh():
    """`make crds` would change nothing."""
    spec = importlib.util.spec_from_file_location("write_crds", ROOT / "scripts" / "write_crds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.CHART_TARGET.read_text() == module.render_chart(), "run: make crds"


def test_what_helm_makes_of_it_is_the_very_same_definition(helm):
    """But for the release's labels and the word that keeps it."""
    made = helm.render().one("CustomResourceDefinition")
    assert made["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert made["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert made == yaml.safe_load((ROOT / "crds" / "hookline.dev_wasmplugins.yaml").read_text())


def test_it_can_be_left_out_or_left_to_go(helm):
    """`crds.install` and `crds.keep`."""
    assert helm.render({"crds": {"install": False}}).all("CustomResourceDefinition") == []
    assert "annotations" not in helm.render({"crds": {"keep": False}}).one("CustomResourceDefinition")["metadata"]
