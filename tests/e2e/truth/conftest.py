"""The table is played once for all tests that were chosen; its figures are written where that is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cluster import Cluster, ClusterError, NotPossibleHereError
from truth import lanes, outages, releases, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installation import Installation
    from truth.row import Figure


@pytest.fixture(scope="session")
def hookline(installation: Installation) -> Installation:
    """Installed, also where a test before these has taken it away."""
    if not isinstance(installation.cluster, Cluster):
        raise NotPossibleHereError("somebody else's cluster is not ours to break")
    try:
        installation.helm("status")
    except ClusterError:
        installation.install()
    installation.rolled_out()
    return installation


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, Figure]]:
    """Of the rows that were played. HOOKLINE_TRUTH_WRITE=1 writes those that are true into the document."""
    played: dict[str, Figure] = {}
    yield played
    if os.environ.get("HOOKLINE_TRUTH_WRITE"):
        true = {name: each.as_json() for name, each in played.items() if not each.problems}
        table.write(table.DOCUMENT, table.keep(true, lanes.ORDER))


@pytest.fixture(scope="session")
def playing(
    hookline: Installation, figures: dict[str, Figure], request: pytest.FixtureRequest
) -> Iterator[lanes.Playing]:
    """The rows of all lanes that were chosen, under way."""
    chosen = [
        item.callspec.params["name"]
        for item in request.session.items
        if "playing" in getattr(item, "fixturenames", ()) and "alone" not in item.fixturenames
    ]
    with lanes.Playing(hookline, chosen) as found:
        found.figures = figures
        yield found


@pytest.fixture(scope="session")
def alone(hookline: Installation, figures: dict[str, Figure], playing: lanes.Playing) -> Iterator[lanes.Alone]:
    """A namespace for rows that break what all share, once nobody else plays."""
    playing.wait()
    with lanes.scene_of("alone", outages.prepare, hookline) as scene, releases.DETOUR.taken(scene):
        yield lanes.Alone(scene, figures)
