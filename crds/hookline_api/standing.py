"""What stands in a bundle for a plugin that cannot be fetched: decided here for the operator and the sidecar.

By the failure policy for the cause: with LastGood, what ran before goes on; with Open, nothing stands for it; with
Closed, or LastGood where nothing ran before, a placeholder gives the refusing answer of each deciding hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.bundle import BundlePlugin, LoadFailure, Stage
from hookline_api.hooks import OBSERVERS, Hook

if TYPE_CHECKING:
    from hookline_api.resources import FailurePolicy, LoadPolicy

DECIDING: Final = tuple(hook for hook in Hook if hook not in OBSERVERS)
"""The hooks that a placeholder answers where nobody knows which ones its plugin has."""
STILL_LOADING: Final[dict[Stage, LoadFailure]] = {
    "fetching": LoadFailure(cause="fetch", stage="fetching", message="the plugin is being fetched"),
    "compiling": LoadFailure(cause="fetch", stage="compiling", message="the plugin is being compiled"),
}
"""What a placeholder says while its plugin is loaded for the first time."""


def policy_of(policy: FailurePolicy, failure: LoadFailure | None) -> LoadPolicy:
    """The policy for a failure; LastGood while nothing has failed, so that what runs goes on."""
    if failure is None:
        return "LastGood"
    choice: LoadPolicy = getattr(policy, failure.cause)
    return choice


def stands(
    last: BundlePlugin | None,
    failure: LoadFailure | None,
    policy: LoadPolicy,
    *,
    placeholder: BundlePlugin,
    is_new: bool = False,
    stage: Stage = "fetching",
) -> BundlePlugin | None:
    """The entry that stands for a plugin, or None where it is left out.

    ``last`` is what it was when it could be had. ``is_new`` says that nothing ran before it while others run: with
    LastGood it is left out then. ``stage`` is where it is while nothing has failed.
    """
    if policy == "Open" or (policy == "LastGood" and last is None and is_new):
        return None
    if policy == "LastGood" and last is not None:
        return last.model_copy(update={"failure": failure})
    return placeholder.model_copy(
        update={"failure": failure or STILL_LOADING[stage], "hooks": placeholder.hooks or list(DECIDING)}
    )


def placeholder_of(entry: BundlePlugin) -> BundlePlugin:
    """What refuses in an entry's place: of its settings, only what that takes."""
    return BundlePlugin(
        name=entry.name,
        namespace=entry.namespace,
        generation=entry.generation,
        origin=entry.origin,
        failure=entry.failure,
        hooks=entry.hooks,
        priority=entry.priority,
        match=entry.match,
        probation=entry.probation,
    )
