"""Sentences that operator and sidecars both say, so that a person meets one wording everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hookline_api.bundle import LoadCause


def first_load_choice(cause: LoadCause) -> str:
    """What its author may choose for a plugin that has never been loaded and keeps pods from starting.

    Empty for ``verify``: what is not the module that was asked for never opens anything.
    """
    return "" if cause == "verify" else f"spec.failurePolicy.{cause}: Open lets pods start without it"
