# ruff: noqa: A005 - it is bench.operator
"""The operator's figures: the real process with the chart's own rights, at a real API server without nodes.

``rig`` is the ground that every benchmark stands on, ``swarm`` the sidecars that are simulated, in processes of their
own; the other files are one benchmark each.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Where the control plane, the registry and the simulated sidecar of the tests are.
sys.path.insert(0, str(Path(__file__).parents[2] / "testbed"))
