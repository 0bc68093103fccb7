"""What policies say of a plugin that is applied: the early word of what the operator enforces always.

A plugin that a policy forbids is refused with the policy's sentence. Its signatures cannot be known here, so nothing is
said of them. Policies select by labels, too: a new label that gets a plugin out of a policy is allowed and told, as
whoever may write labels may also delete the plugin and create it anew; one that makes it forbidden is refused.

Anybody can reach a webhook, and learns here what policies allow. That is what their readers and every author of a
plugin know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hookline_artifacts.judging.policies import judge_by
from hookline_artifacts.judging.signers import Findings
from hookline_artifacts.threads import in_thread, on_behalf_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.trust.policy import Policy
    from hookline_operator.cluster.policies import Policies

_SHARE = "webhooks"


class Change(NamedTuple):
    """What a review says of a plugin that can be read."""

    plugin: WasmPlugin
    namespace: str
    before: Mapping[str, str] | None
    """The labels of the plugin that is stored; None where it is new."""
    is_new: bool
    """Whether it is, or its spec."""


class Gate:
    """Judges plugins by the policies of the cluster."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def __call__(self, change: Change) -> Findings:
        """What stands against a plugin. Raises FetchError where too much is judged at the moment."""
        found = Findings()
        now = self._applying(change, change.plugin.metadata.labels)
        then = now if change.before is None else self._applying(change, change.before)
        for each in then:
            if not _has(now, each) and each.enforced:
                found.warnings.append(f"metadata.labels: {each.label} does not apply to this plugin any more")
        judged = now if change.is_new else [each for each in now if not _has(then, each)]
        if judged:
            with on_behalf_of(_SHARE):
                said = await in_thread(judge_by, judged, change.plugin)
            found.problems += said.problems
            found.warnings += said.warnings
        return found

    def _applying(self, change: Change, labels: Mapping[str, str]) -> list[Policy]:
        # Not by `applying_to`, which keeps what it found: anybody may make up names and labels here.
        name = change.plugin.metadata.name
        return [
            each
            for each in self._policies.in_force()
            if self._policies.selects(each.spec, change.namespace, name, labels)
        ]


def _has(policies: Sequence[Policy], policy: Policy) -> bool:
    return any(each is policy for each in policies)
