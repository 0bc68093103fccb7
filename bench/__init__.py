"""Benchmarks: each figure is a ratio of two things measured in one run. ``python -m bench --help``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "testbed"))  # the real servers that are measured
