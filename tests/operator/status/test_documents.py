"""docs/operate/status.md explains every reason, and docs/operate/monitoring.md every metric of the operator."""

from __future__ import annotations

from pathlib import Path

from hookline_operator.cluster.sight import Sights
from hookline_operator.metrics import Metrics
from hookline_operator.status import reasons, staleness

OPERATE = Path(__file__).parents[3] / "docs" / "operate"
STATUS = (OPERATE / "status.md").read_text()
METRICS = (OPERATE / "monitoring.md").read_text().partition("## Metrics of the operator")[2].partition("\n## ")[0]


def test_every_reason_is_explained():
    """Each constant of ``reasons``, and of what says how old a status is."""
    all_reasons = {
        value
        for name, value in vars(reasons).items()
        if name[0].isupper() and name.isupper() and isinstance(value, str)
    }
    all_reasons |= {staleness.WATCHED, staleness.NOT_OBSERVED}
    assert len(all_reasons) >= 12
    assert sorted(reason for reason in all_reasons if f"`{reason}`" not in STATUS) == []


def test_every_metric_is_explained():
    """Each family that the operator exposes, and no other."""
    metrics = Metrics()
    metrics.see(Sights())
    metrics.watch_policies(list)
    exposed = {
        line.split()[2]
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("# TYPE") and "_created" not in line
    }
    named = {
        word.partition("{")[0]
        for word in METRICS.replace("`", " ").replace(",", " ").split()
        if "hookline_operator_" in word
    }
    assert exposed == named
