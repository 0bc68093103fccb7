"""What one policy says of one plugin, by what is known without asking anybody. Pure.

Settings are judged from the resource. What its artifact's signatures prove is known from its revision, which the
operator has sealed, and from its status, which nobody else writes; else it is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
from pydantic import ValidationError

from hookline_api.resources import granted
from hookline_operator.cluster.compliance import Proven, proves, refusals, with_permissions

if TYPE_CHECKING:
    from hookline_artifacts.trust.policy import Asked, Policy
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.revisions import Revision, Template


class Ruling(NamedTuple):
    """How a policy stands to a plugin that it selects."""

    refused: str = ""
    """Why it forbids the plugin, in one sentence; empty where it does not, as far as is known."""
    unknown: bool = False
    """Whether it asks for signatures that nobody has looked at yet."""


PASSED: Final = Ruling()
UNKNOWN: Final = Ruling(unknown=True)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a plugin."""

    asked: Asked
    proven: Proven | None
    """Of the artifact that its resource asks for now; None where that was not resolved yet."""
    evidence: str = field(default="", repr=False)
    failure: str = ""
    """Why it is not what was asked for, as its status says."""


def known_of(plugin: Plugin, revision: Revision | None) -> Known | None:
    """What is known of a plugin whose current revision this is; None where the resource is not valid."""
    if plugin.facts is None:
        return None
    asked, template = plugin.facts.asked, _template(plugin, revision)
    failure = plugin.failure
    told = failure.message if failure is not None and failure.cause == "verify" else ""
    if template is None:
        return Known(asked, None, failure=told)
    permissions = granted(asked, template.artifact.asks or ())
    return Known(with_permissions(asked, permissions), Proven.of(template), template.evidence, told)


def rule(policy: Policy, known: Known, *, told: bool = True) -> Ruling:
    """What a policy says of a plugin.

    ``told`` says whether the status of the plugin was written under this policy, and not under another of its name.
    """
    proven = known.proven
    for _, why in refusals([policy], known.asked, proven.artifact if proven is not None else None):
        return Ruling(refused=why)
    if told and (why := _told(policy, known.failure)):
        return Ruling(refused=why)
    if policy.requirement is None:
        return PASSED
    if proven is None:
        return UNKNOWN
    if policy.requirement.fingerprint in proven.met:
        return PASSED
    if why := proven.audits.get(policy.requirement.fingerprint, ""):
        return Ruling(refused=why.removeprefix(f"{policy.label}: "))
    kept, artifact = known.evidence, proven.artifact
    return PASSED if kept and proves(policy, kept, known.asked, artifact) else UNKNOWN


def asks_evidence(policy: Policy, known: Known) -> bool:
    """Whether ``rule`` may have to verify signatures, which takes milliseconds: for a thread."""
    asked, proven = policy.requirement, known.proven
    return asked is not None and proven is not None and bool(known.evidence) and asked.fingerprint not in proven.met


def _template(plugin: Plugin, revision: Revision | None) -> Template | None:
    """What is kept of the plugin, if it is of the spec that it has now."""
    if revision is None:
        return None
    try:
        found = revision.parsed()
    except ValidationError:
        return None
    return found if found.spec == orjson.loads(plugin.spec) else None


def _told(policy: Policy, failure: str) -> str:
    """What a plugin's status says of this policy and only its artifact shows; empty where it says nothing of that.

    What the resource shows was judged anew, so that it is not counted for as long as the status is older.
    """
    head = f"{policy.label}: "  # of an artifact that is not signed as it asks
    if policy.requirement is not None and failure.startswith(head):
        return failure.removeprefix(head)
    why = failure.removeprefix(f"{policy.label} forbids it: ")
    if why == failure:
        return ""
    of_version = bool(policy.spec.minimum_versions) and why.startswith("the artifact ")
    of_permissions = policy.spec.permissions is not None and why.startswith("spec.permissions: ")
    return why if of_version or of_permissions else ""
