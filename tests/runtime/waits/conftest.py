"""Guests that wait, on both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asking_guests import Others
from hookline_runtime.guest import calls
from hookline_runtime.host import functions

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(params=["fibers", "threads"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How calls wait: on stacks of their own, or each on a thread."""
    if request.param == "threads":
        monkeypatch.setattr(calls, "_fibers_unfit", "this test is about the other way")
    elif calls._fibers_unfit is not None:
        pytest.skip(f"there are no fibers: {calls._fibers_unfit}")
    return request.param


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    """Whom the guests of this test ask, in place of the network."""
    made = Others()
    last = functions.HttpFunctions

    class Asking(last):  # type: ignore[misc, valid-type]
        def functions(self) -> Mapping[str, Any]:
            return {**super().functions(), "http_fetch": made.fetch}

    monkeypatch.setattr(functions, "HttpFunctions", Asking)
    return made
