"""The chart's alerts, and the pages about them, ask for metrics that are there, in running programs."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import yaml

from exposition import families, names, of_a_sidecar
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
# The kubelet's own, which every Prometheus of a cluster has.
OF_OTHERS = {"container_memory_working_set_bytes", "container_spec_memory_limit_bytes"}


def metrics_in(text):
    """The names of metrics in an expression, or in a page."""
    return set(re.findall(r"\b(?:hookline|container)_\w+", text))


def test_every_metric_that_is_asked_for_exists(operator, tmp_path):
    """In their own words: an operator's, those of a sidecar of an operator, and those of one of a folder."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.health}/metrics", timeout=PATIENCE_S) as answer:
        known = names(families(answer.read().decode())) | OF_OTHERS
    token = tmp_path / "token"
    token.write_text("of nobody")
    for name, source in {
        "folder": ["--plugins", tmp_path / "plugins"],
        "operator": ["--operator", f"https://127.0.0.1:{operator.port}", "--operator-token", token],
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / "plugins").mkdir(exist_ok=True)
        known |= names(of_a_sidecar(tmp_path / name, source))
    asked = {}
    for group in yaml.safe_load((ROOT / "helm" / "alerts" / "hookline.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            asked[rule["alert"]] = metrics_in(rule["expr"])
            assert asked[rule["alert"]], rule
    for page in (ROOT / "docs" / "operate" / "runbooks").glob("*.md"):
        asked[page.name] = metrics_in(page.read_text())
    assert {where: wanted - known for where, wanted in asked.items() if wanted - known} == {}
