"""Models that are built when they are first used, and at the start of what runs for long."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import hookline_api.bundle
import hookline_api.resources
from hookline_api.base import Resource, build_models

def whole(model):
    return model.__pydantic_complete__ and all(whole(each) for each in model.__subclasses__())

assert not whole(Resource)
build_models()
assert whole(Resource)
"""


def test_a_program_that_runs_for_long_builds_all_of_them_at_once():
    """None is left for an event loop."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
