"""The trial of one plugin: everything that its resource and the policies ask, in the order in which it can be known.

First the settings, before anybody is asked for anything; then the signatures, before the artifact is unpacked where
they are beside it; then the version and the permissions, which the artifact tells. What a policy in Audit would forbid
is taken down and passes.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import EvidenceFile
from hookline_api.permissions import grants, is_permission
from hookline_api.resources import granted
from hookline_artifacts.errors import IncreasedError, PolicyError, SignatureError, VerifyError
from hookline_artifacts.trust.detached import completed
from hookline_artifacts.trust.evidence import MAX_EVIDENCE, Evidence
from hookline_artifacts.trust.policy import asked_by, of_version, too_low
from hookline_artifacts.trust.verdict import Reading, judge, subject_of
from hookline_artifacts.trust.versions import is_below

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hookline_api.bundle import BundleArtifact
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.errors import FetchError
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.trust.policy import Policy
    from hookline_artifacts.trust.requirement import Requirement
    from hookline_artifacts.trust.verdict import Proof, Subject

_OWN: Final = "spec.verify"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """How a trial ended that was passed."""

    proofs: tuple[tuple[str, Proof], ...] = ()
    """The signatures that count, with who asked for each: ``spec.verify``, or a policy."""
    met: frozenset[str] = frozenset()
    """``Requirement.fingerprint`` of each requirement that was met."""
    audits: tuple[tuple[str, str], ...] = ()
    """What policies in Audit would have refused: the policy's name, and one sentence."""
    seconds: float = 0.0
    """How long signatures were verified."""
    evidence: bytes | None = field(default=None, repr=False)
    """By which whoever runs the module can verify it again."""

    @property
    def notes(self) -> list[str]:
        """What passes and would not, were each policy enforced; one sentence each."""
        return [f"PluginTrustPolicy '{name}' (Audit) would refuse it: {why}" for name, why in self.audits]


NOTHING: Final = Trust()
"""Of what nobody asked."""


class Trial:
    """One plugin before its resource and the policies. Every check raises VerifyError or ConfigError."""

    def __init__(self, plugin: WasmPlugin, policies: Sequence[Policy], own: Requirement | None) -> None:
        self._plugin = plugin
        self._policies = policies
        self._own = own
        self._proofs: list[tuple[str, Proof]] = []
        self._met: set[str] = set()
        self._audits: list[tuple[str, str]] = []
        self._evidence: bytes | None = None
        self._checked = False
        """Whether the signatures were."""
        self._seconds = 0.0

    @property
    def wants_signatures(self) -> bool:
        """Whether anybody asks for one."""
        return bool(self._requirements())

    @property
    def needs_module(self) -> bool:
        """Whether a signature may be in the artifact itself, or cover the module's bytes."""
        return "ed25519" in self.kinds

    @property
    def kinds(self) -> frozenset[str]:
        """Which kinds of signers are asked for (``Authority.kind``)."""
        return frozenset(each.kind for _, _, asked in self._requirements() for each in asked.authorities)

    @property
    def notes(self) -> list[str]:
        """What passes and would not, were each policy enforced; one sentence each."""
        return self.result().notes

    @property
    def covers_package(self) -> bool:
        """Whether what stands around the module is signed for everybody who asks for signatures and has some.

        Else whoever may push writes there what he likes: another version, or permissions.
        """
        by: dict[str, bool] = {}
        for whose, proof in self._proofs:
            by[whose] = by.get(whose, False) or not proof.module_alone
        return all(by.values())

    @property
    def evidence(self) -> bytes | None:
        """By which whoever runs the module can verify it again; None where nothing was proven."""
        return self._evidence

    @property
    def file(self) -> EvidenceFile | None:
        """What the evidence will be known by."""
        data = self._evidence
        return None if data is None else EvidenceFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def result(self) -> Trust:
        """What was proven."""
        return Trust(
            proofs=tuple(self._proofs),
            met=frozenset(self._met),
            audits=tuple(self._audits),
            seconds=self._seconds,
            evidence=self._evidence,
        )

    def check_settings(self) -> None:
        """What can be told from the resource alone."""
        asked = asked_by(self._plugin)
        for policy in self._policies:
            for why in policy.forbidden(asked):
                self._refuse(policy, why)
            if policy.broken:
                self._refuse(policy, policy.broken)

    def enough(self, kept: bytes | None, digest: str, previous: BundleArtifact | None = None) -> Evidence | None:
        """Evidence that is kept of an artifact, where it proves all that is asked: then nobody has to be asked."""
        if kept is None:
            return None
        try:
            evidence = Evidence.read(kept)
        except VerifyError:
            return None
        module = previous.sha256 if previous is not None and previous.digest == digest else ""
        return evidence if evidence.digest == digest and self.proves(evidence, module=module) else None

    def proves(self, evidence: Evidence, *, module: str = "") -> bool:
        """Whether evidence proves all that is asked, as far as that is known without the module's bytes."""
        try:
            subject = self._subject(evidence, module=module)
            reading = Reading(evidence, subject)
            for whose, _, requirement in self._requirements():
                judge(requirement, evidence, subject, whose=whose, reading=reading)
        except VerifyError:
            return False
        return True

    def unanswered(self, error: FetchError, digest: str) -> Evidence:
        """What is known of signatures that cannot be had: nothing. Raises the error, unless they are for audits alone.

        A policy that only counts keeps no plugin from running because of a registry that does not tell.
        """
        if any(policy is None or policy.enforced for _, policy, _ in self._requirements()):
            raise error
        return Evidence(digest=digest, notes=(f"its signatures cannot be had: {error}"[:90],))

    def check_beside(self, evidence: Evidence) -> None:
        """What the signatures beside the artifact prove, before a byte of it is unpacked."""
        if not self.needs_module:
            self._check_signatures(evidence, None)

    def check_artifact(self, evidence: Evidence | None, artifact: Artifact) -> None:
        """What is to be proven still, once the artifact is here. ``evidence`` is what was found beside it.

        Reads the module where a signature may cover its bytes alone: for a thread.
        """
        if self.wants_signatures and not self._checked:
            self._check_signatures(completed(evidence or Evidence(digest=artifact.digest), artifact), artifact)

    def _subject(self, evidence: Evidence, *, module: str = "", read: Callable[[], bytes] | None = None) -> Subject:
        repository, name = asked_by(self._plugin).repository, self._plugin.metadata.name
        return subject_of(evidence, repository=repository, plugin=name, module=module, read=read)

    def _check_signatures(self, evidence: Evidence, artifact: Artifact | None) -> None:
        self._checked = True
        began, subject = time.perf_counter(), self._subject(evidence)
        if artifact is not None:
            subject = self._subject(evidence, module=artifact.sha256, read=artifact.path.read_bytes)
        used, reading = [], Reading(evidence, subject)
        for whose, policy, requirement in self._requirements():
            try:
                proofs = judge(requirement, evidence, subject, whose=whose, reading=reading)
            except SignatureError as error:
                if policy is None or policy.enforced:
                    error.policy = policy.name if policy is not None else ""
                    raise
                self._audits.append((policy.name, str(error)))
                continue
            self._met.add(requirement.fingerprint)
            self._proofs += [(whose, each) for each in proofs]
            used += [each.signature for each in proofs]
        self._seconds += time.perf_counter() - began
        written = evidence.only(used).write()
        # What does not fit is not carried: who asks for it then, refuses.
        self._evidence = written if used and len(written) <= MAX_EVIDENCE else None

    def check_version(self, version: str | None, digest: str, previous: BundleArtifact | None) -> None:
        """Whether the artifact is new enough."""
        verify = self._plugin.spec.verify
        if verify is not None and verify.minimum_version is not None:
            why = too_low(version, verify.minimum_version)
            if why is not None:
                raise VerifyError(f"spec.verify.minimumVersion: {why}")
        for policy in self._policies:
            why = of_version(policy.spec, self._plugin.metadata.name, version)
            if why is not None:
                self._refuse(policy, why)
        if previous is None or previous.digest == digest or previous.version is None:
            return
        source = self._plugin.spec.source.oci
        moved = source is not None and source.reference == previous.reference
        allowed = verify is not None and verify.allow_downgrade
        if moved and not allowed and (version is None or is_below(version, previous.version)):
            now = f"version {version}" if version is not None else "an artifact without a version"
            raise VerifyError(
                f"the tag now names {now}, and version {previous.version} ran before: name the version that you want "
                "in spec.source.oci.reference, or set spec.verify.allowDowngrade"
            )

    def check_permissions(self, asks: Sequence[str], previous: BundleArtifact | None) -> None:
        """Whether an artifact that asks for these permissions may have them, or go without."""
        spec = self._plugin.spec
        if spec.permissions_policy == "FollowArtifact":
            asked = asked_by(self._plugin, granted(spec, asks))
            for policy in self._policies:
                for why in policy.forbidden(asked):
                    self._refuse(policy, why)
            return
        if previous is None or previous.asks is None:
            return
        new = [each for each in asks if each not in previous.asks and is_permission(each)]
        more = [each for each in new if not grants(spec.permissions, each)]
        if more:
            raise IncreasedError(
                f"the new version asks for {', '.join(more)}, which the one before it did not: add "
                f"{'it' if len(more) == 1 else 'them'} to spec.permissions, or set spec.permissionsPolicy to "
                "FollowArtifact"
            )

    def _requirements(self) -> list[tuple[str, Policy | None, Requirement]]:
        """Who asks for signatures, and for which."""
        found: list[tuple[str, Policy | None, Requirement]] = []
        if self._own is not None:
            found.append((_OWN, None, self._own))
        found += [(each.label, each, each.requirement) for each in self._policies if each.requirement is not None]
        return found

    def _refuse(self, policy: Policy, why: str) -> None:
        if policy.enforced:
            error = PolicyError(f"{policy.label} forbids it: {why}")
            error.policy = policy.name
            raise error
        if (policy.name, why) not in self._audits:
            self._audits.append((policy.name, why))
