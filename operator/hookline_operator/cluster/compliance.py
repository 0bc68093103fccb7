"""Whether what is kept of a plugin is what policies allow now, as far as that is known without asking anybody.

Settings are judged from the resource. Signatures were judged when the artifact was resolved: what was met then, by the
fingerprint of what was asked for, is kept with the revision, and so is the evidence, which is judged again here. Pure.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.policy import of_version
from hookline_artifacts.trust.verdict import judge, subject_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hookline_api.bundle import BundleArtifact
    from hookline_artifacts.trust.policy import Asked, Policy
    from hookline_operator.cluster.revisions import Template


class Proven(NamedTuple):
    """What of a revision policies ask about."""

    artifact: BundleArtifact
    met: frozenset[str]
    """Fingerprints of the requirements that were met."""
    audits: Mapping[str, str]
    """By fingerprint, why requirements of policies in Audit were not."""

    @classmethod
    def of(cls, template: Template) -> Proven:
        """From what is kept."""
        return cls(template.artifact, frozenset(template.met), template.audits)


def refusals(
    policies: Collection[Policy], asked: Asked, artifact: BundleArtifact | None
) -> Iterator[tuple[Policy, str]]:
    """What policies forbid of it, enforced or not, by everything but the signatures that they ask for."""
    for policy in policies:
        if policy.broken:
            yield policy, policy.broken
        for why in policy.forbidden(asked):
            yield policy, why
        why_not = of_version(policy.spec, asked.plugin, artifact.version) if artifact is not None else None
        if why_not is not None:
            yield policy, why_not


def unproven(policies: Collection[Policy], met: Collection[str]) -> list[Policy]:
    """The policies that ask for signatures of which it is not known that the artifact has them."""
    return [each for each in policies if each.requirement is not None and each.requirement.fingerprint not in met]


def complies(policies: Collection[Policy], asked: Asked, proven: Proven) -> bool:
    """Whether a revision is all that policies ask for, each by its mode: nothing of it has to be found out anew."""
    enforced = [each for each in policies if each.enforced]
    if next(refusals(enforced, asked, proven.artifact), None) is not None:
        return False
    return all(
        not each.enforced and each.requirement is not None and each.requirement.fingerprint in proven.audits
        for each in unproven(policies, proven.met)
    )


def audits(policies: Collection[Policy], asked: Asked, proven: Proven) -> list[str]:
    """What policies in Audit would forbid, one sentence each."""
    counting = [each for each in policies if not each.enforced]
    found = [audit_note(each, why) for each, why in refusals(counting, asked, proven.artifact)]
    for each in unproven(counting, proven.met):
        why = proven.audits.get(each.requirement.fingerprint) if each.requirement is not None else None
        if why is not None:
            found.append(audit_note(each, why))
    return found


def audit_note(policy: Policy, why: str) -> str:
    """What passes and would not, were the policy enforced."""
    return f"{policy.label} (Audit) would refuse it: {why.removeprefix(f'{policy.label}: ')}"


def proves(policy: Policy, evidence: str, asked: Asked, artifact: BundleArtifact) -> bool:
    """Whether the evidence that is kept of an artifact has the signatures that a policy asks for.

    One over the module's bytes alone counts for nothing here, where these are not at hand.
    """
    if policy.requirement is None:
        return True
    try:
        read = Evidence.read(evidence.encode())
        if read.digest != artifact.digest:
            return False
        subject = subject_of(read, repository=asked.repository, plugin=asked.plugin, module=artifact.sha256)
        judge(policy.requirement, read, subject, whose=policy.label)
    except VerifyError:
        return False
    return True


def with_permissions(asked: Asked, permissions: Collection[str]) -> Asked:
    """The same of a plugin that is granted these."""
    return dataclasses.replace(asked, permissions=sorted(permissions))
