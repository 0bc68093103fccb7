"""What a sidecar says of the bundles that its operator sent."""

from __future__ import annotations

CHANGES = "hookline_bundle_changes_total"
BLOCK = {"action": "block", "value": "guarded"}


def reasons(sidecar):
    """What ``/readyz`` says, in one text."""
    status, body = sidecar.looks("/readyz") or (0, {"reasons": []})
    return f"{status} {' '.join(body['reasons'])}"


def metric(sidecar, name):
    """A metric, by its name with its labels."""
    lines = sidecar.get("/metrics")[1].splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def states(report):
    """The plugins' states by name."""
    return {plugin.name: plugin.state for plugin in report.plugins}
