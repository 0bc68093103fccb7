"""docs/status.md explains what there is."""

from __future__ import annotations

from pathlib import Path

from hookline_operator import reconcile
from hookline_operator.metrics import Metrics

TEXT = (Path(__file__).parents[2] / "docs" / "status.md").read_text()


def test_every_reason_is_explained():
    """Each constant of ``reconcile``."""
    reasons = [value for name, value in vars(reconcile).items() if name.isupper() and isinstance(value, str)]
    assert len(reasons) >= 12
    assert [reason for reason in reasons if f"`{reason}`" not in TEXT] == []


def test_every_metric_is_explained():
    """Each family that the operator exposes, and no other."""
    exposed = {
        line.split()[2]
        for line in Metrics().exposition().decode().splitlines()
        if line.startswith("# TYPE") and "_created" not in line
    }
    named = {
        word.partition("{")[0]
        for word in TEXT.replace("`", " ").replace(",", " ").split()
        if "hookline_operator_" in word
    }
    assert exposed == {name for name in named if not name.startswith("sum(")}
