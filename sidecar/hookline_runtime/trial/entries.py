"""What of a bundle's entry counts on trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.bundle import BundlePlugin
from hookline_api.outbound import MemoryCache

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hookline_api.hooks import Hook
    from hookline_api.outbound import Cache
    from hookline_api.resources import Limits

_WAIT_MS: Final = 60_000
_LEAST: Final = {"timeout": 1_000, "memory": 64 * 2**20, "input": 16 * 2**20, "output": 16 * 2**20}
"""Milliseconds, and bytes."""
_LEAST_FUEL: Final = 10**10


def case_entry(
    entry: BundlePlugin, *, hooks: Sequence[Hook] | None = None, asks: Collection[str] | None = None
) -> BundlePlugin:
    """What of an entry counts while it is asked a case: limits, isolation and caches, and no setting and no Secret.

    It is called on ``hooks`` and has the permissions ``asks``; its own where they are not given.
    """
    return BundlePlugin(
        name=entry.name,
        artifact=entry.artifact,
        hooks=list(entry.hooks if hooks is None else hooks),
        permissions=sorted(entry.permissions if asks is None else asks),
        caches=own_caches(entry),
        limits=patient(roomy(entry.limits)),
        isolation=entry.isolation,
    )


def own_caches(entry: BundlePlugin) -> list[Cache]:
    """Its caches, each of this process alone."""
    return [each.model_copy(update={"valkey": None, "memory": each.memory or MemoryCache()}) for each in entry.caches]


def roomy(limits: Limits) -> Limits:
    """What a case has that names no limits: a resource with less room than its author had refuses no good version."""
    least = {name: max(value, getattr(limits, name)) for name, value in _LEAST.items()}
    fuel = None if limits.fuel is None else max(limits.fuel, _LEAST_FUEL)
    return limits.model_copy(update={**least, "fuel": fuel})


def patient(limits: Limits) -> Limits:
    """Limits on trial: nobody is waited for, because the answers are there, but a core may be."""
    return limits.model_copy(update={"wait": _WAIT_MS})
