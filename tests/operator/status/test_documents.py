"""docs/status.md explains what there is."""

from __future__ import annotations

from pathlib import Path

from hookline_operator.cluster.sight import Sights
from hookline_operator.metrics import Metrics
from hookline_operator.status import reasons, staleness

TEXT = (Path(__file__).parents[3] / "docs" / "status.md").read_text()


def test_every_reason_is_explained():
    """Each constant of ``reasons``, and of what says how old a status is."""
    all_reasons = {
        value
        for name, value in vars(reasons).items()
        if name[0].isupper() and name.isupper() and isinstance(value, str)
    }
    all_reasons |= {staleness.WATCHED, staleness.NOT_OBSERVED}
    assert len(all_reasons) >= 12
    assert sorted(reason for reason in all_reasons if f"`{reason}`" not in TEXT) == []


def test_every_metric_is_explained():
    """Each family that the operator exposes, and no other."""
    metrics = Metrics()
    metrics.see(Sights())
    exposed = {
        line.split()[2]
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("# TYPE") and "_created" not in line
    }
    named = {
        word.partition("{")[0]
        for word in TEXT.replace("`", " ").replace(",", " ").split()
        if "hookline_operator_" in word
    }
    assert exposed == {name for name in named if not name.startswith(("sum(", "max("))}
