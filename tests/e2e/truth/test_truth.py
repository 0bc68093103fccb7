"""What kubectl says is true, soon, says what to do, and costs no request: docs/operate/truth.md is the table of it."""

from __future__ import annotations

import os

import pytest

from truth.lanes import ALONE, BRIEF, TOGETHER

ROWS = set(BRIEF if os.environ.get("HOOKLINE_TRUTH") == "brief" else (*TOGETHER, *ALONE))
"""Those that are played: all, unless HOOKLINE_TRUTH=brief."""


@pytest.mark.parametrize("name", [name for name in TOGETHER if name in ROWS])
def test_a_plugin_that_is_broken_says_so(playing, name):
    """In its own namespace, under load; and it says that it is mended."""
    figure = playing.figure(name)
    assert not figure.problems, "\n".join(figure.problems)


@pytest.mark.parametrize("name", [name for name in ALONE if name in ROWS])
def test_a_cluster_that_is_broken_says_so(alone, name):
    """What all share: replicas, definitions, rights, the API server, the release."""
    figure = alone.figure(name)
    assert not figure.problems, "\n".join(figure.problems)
