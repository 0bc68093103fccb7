"""Errors of host functions as they are for components: apart from all that a function can answer."""

from __future__ import annotations

from typing import Final

PLAIN: Final = -(2**80)
"""What is added to an error's code; no function of the core ABI answers anything near it."""
