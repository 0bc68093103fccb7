"""The clusters as pytest fixtures, for every folder of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster.control_plane import ControlPlane
from cluster.errors import NotPossibleHereError


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One real API server with its controllers and no node, for all tests of a run. Use a namespace of your own."""
    try:
        plane = ControlPlane()
    except NotPossibleHereError as error:
        missing(error)
    with plane:
        yield plane


def missing(error: NotPossibleHereError) -> None:
    """Skip, or under CI fail: there everything has to be proven."""
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))
