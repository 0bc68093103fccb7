"""The dashboard and the monitors ask for what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from exposition import families, names
from hookline_operator.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "helm" / "dashboards" / "hookline.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# What the operator exposes.
OPERATOR = {
    "hookline_operator_leader": "gauge",
    "hookline_operator_plugins": "gauge",
    "hookline_operator_connected_sidecars": "gauge",
    "hookline_operator_resolves": "counter",
    "hookline_operator_resolve_seconds": "histogram",
    "hookline_operator_api_writes": "counter",
    "hookline_operator_switch_seconds": "histogram",
    "hookline_operator_injections": "counter",
    "hookline_operator_admissions": "counter",
}


def expressions():
    """All that the dashboard asks Prometheus."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_every_metric_of_the_dashboard_exists(of_sidecars):
    """In a running sidecar's own words, or in the operator's list."""
    known = names(of_sidecars) | names(OPERATOR)
    asked = {name for expression in expressions() for name in re.findall(r"\bhookline_\w+", expression)}
    assert asked - known == set()


def test_the_dashboard_uses_each_metric_of_the_operator():
    """None is kept for nobody to see."""
    asked = " ".join(expressions())
    assert [name for name in OPERATOR if not re.search(rf"\b{name}", asked)] == []


def test_the_operator_exposes_what_the_dashboard_asks_for():
    """In its own words, names and kinds."""
    assert families(Metrics().exposition().decode()).items() >= OPERATOR.items()


def test_what_is_red_at_night_says_what_to_do():
    """Each panel of the first row explains itself; no two panels share an id or a place."""
    first = [panel for panel in PANELS if panel["gridPos"]["y"] < 11]
    assert len(first) == 7
    for panel in first:
        assert "What to do: " in panel["description"], panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_and_the_monitors_are_there_only_if_asked_for(helm):
    """A cluster without Prometheus' operator does not know their kinds."""
    assert not {each["kind"] for each in helm.render().objects} & {"ServiceMonitor", "PodMonitor", "ConfigMap"}
    values = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "grafanaDashboard")}
    rendered = helm.render(values)
    dashboard = rendered.one("ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["hookline.json"]) == DASHBOARD
    sidecars = rendered.one("PodMonitor")["spec"]
    assert sidecars["selector"] == {"matchLabels": {"hookline.dev/sidecar": "true"}}
    assert [endpoint["port"] for endpoint in sidecars["podMetricsEndpoints"]] == ["hookline-health", "hookline-admin"]
    assert sidecars["namespaceSelector"] == {"any": True}
    watched = helm.render(values | {"watchNamespaces": ["shop"]}).one("PodMonitor")["spec"]
    assert watched["namespaceSelector"] == {"matchNames": ["shop"]}
