"""docs/operate/installing.md says what the chart does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
INSTALLING = (ROOT / "docs" / "operate" / "installing.md").read_text()


def test_every_value_that_is_named_exists():
    """In commands and in tables, with its whole path."""
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    named = set(re.findall(r"`([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)(?:=[^`]*)?`", INSTALLING))
    named |= {each.partition("=")[0] for each in re.findall(r"--set '?([\w.]+=)", INSTALLING)}
    named = {each for each in named if each.partition(".")[0] in values}
    assert {"image.repository", "crds.install", "watchNamespaces", "cache.size"} <= named
    for path in named:
        found = values
        for part in path.split("."):
            assert part in found, path
            found = found[part]


def test_each_right_has_its_reason(helm):
    """The table of rights names each resource with all the verbs that the chart gives."""
    rows = [line for line in INSTALLING.splitlines() if line.startswith("| `")]
    roles = helm.render().all("ClusterRole") + helm.render().all("Role")
    for role in roles:
        if any("aggregate-to" in label for label in role["metadata"]["labels"]):
            continue
        for rule in role["rules"]:
            for resource in rule["resources"]:
                described = " ".join(row for row in rows if f"`{resource}`" in row)
                assert set(rule["verbs"]) <= set(re.findall(r"[a-z]+", described)), resource


def test_the_links_lead_somewhere():
    """Files of this repository, relative to the page."""
    for page in (
        ROOT / "docs" / "operate" / "installing.md",
        ROOT / "examples" / "kubernetes" / "README.md",
        ROOT / "helm" / "README.md",
    ):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_first_page_and_the_example_say_how_no_pod_starts_without_its_guard():
    """Where people look first, before the values: they label the namespace before they need it."""
    label = "hookline.dev/require-injection=true"
    assert label in INSTALLING.partition("## Values")[0]
    assert label in (ROOT / "examples" / "kubernetes" / "README.md").read_text().partition("curl")[0]
    assert label in (ROOT / "README.md").read_text()
    assert label in (ROOT / "helm" / "templates" / "NOTES.txt").read_text()
