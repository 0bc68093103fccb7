"""Nobody on the network, no registry and no plugin ends a sidecar, or costs an honest proxy an answer."""

from __future__ import annotations

import pytest

from exhaustion.attacks import attacks, brief


@pytest.mark.parametrize("name", brief("sidecar"))
async def test_a_sidecar_withstands(name, sidecar_program, withstands):
    """In the chart's own memory: no process dies, no honest call is lost, and an honest plugin is still loaded."""
    await withstands(sidecar_program, attacks()[name])
