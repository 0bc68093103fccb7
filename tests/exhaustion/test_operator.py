"""Nobody on the network, no tenant and no stolen sidecar ends an operator, or costs an honest caller an answer."""

from __future__ import annotations

import pytest

from exhaustion.attacks import attacks, brief


@pytest.mark.parametrize("name", brief("operator"))
async def test_an_operator_withstands(name, operator_program, withstands):
    """In the chart's own memory: it does not die, no honest call is lost, and an honest plugin is still handed out."""
    await withstands(operator_program(), attacks()[name])
