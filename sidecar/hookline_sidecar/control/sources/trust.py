"""The one door to what may run here: each entry of a bundle is admitted before anything of it is compiled or loaded.

What an operator says of an artifact is its word. So whatever a policy of this machine (``policies``) asks is found out
here: of the settings that came, of the signatures (the artifact's *evidence*, which whoever resolved it sends along),
and of the module's own bytes, to which the evidence has to lead (``hookline_artifacts.trust.derive``). An entry is
judged by its name and by the repository that its reference names: under which name a signed module runs is the
operator's to say, unless a signer is limited to others.

What was found out is kept, so that a restart can verify again with nobody there::

    FOLDER/<sha256>.evidence    as it came; it is known by its sha256
    FOLDER/<name>.derived       that this artifact's module is that one, and its version; authenticated with a key of
                                the sidecar's own

While a policy's file is broken, what was admitted goes on and is judged by what is known, and nothing else is admitted.
At the start nothing has been admitted yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import logging
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

import orjson

from hookline_artifacts.errors import FetchError, LoadError, PolicyError, SignatureError, VerifyError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_module
from hookline_artifacts.threads import in_thread
from hookline_artifacts.trust.derive import derive
from hookline_artifacts.trust.evidence import MAX_EVIDENCE, Evidence
from hookline_artifacts.trust.policy import Policy, asked_by_entry, of_version
from hookline_artifacts.trust.verdict import Proof, judge, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.resolve import Resolved
    from hookline_artifacts.store import ArtifactStore
    from hookline_sidecar.control.sources.policies import FilePolicy, PolicyFiles

_LIMITS: Final = FetchLimits()
_NO_EVIDENCE: Final = (
    "the operator sent no signatures for it: have spec.verify or a PluginTrustPolicy of the cluster ask for them"
)
_MAX_KNOWN: Final = 4096
_MAX_RECORD: Final = 4096
_YOUNG_S: Final = 600.0
SOUGHT_S: Final = 120.0
"""How long after a change of the policies what runs is left alone while its plugin's signatures are looked for."""

_Identity = tuple[str, str, str]
_Verdict = tuple[_Identity, str]

log = logging.getLogger("hookline.trust")


class FetchBlob(Protocol):
    """Where evidence and layers come from."""

    async def __call__(self, sha256: str, into: BinaryIO, *, size: int | None, cap: int, what: str) -> None:
        """Write a blob, checked against its sha256, and its size where that is known. Raises LoadError."""


class Trust:
    """What this machine's policies admit.

    ``folder`` is where evidence is kept; ``key`` authenticates what was found out, and is this sidecar's own.
    """

    def __init__(
        self,
        files: PolicyFiles,
        *,
        folder: Path,
        key: bytes,
        store: ArtifactStore,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._changed = now()
        self.fetch: FetchBlob | None = None
        """Set by a source that can fetch blobs."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """By policy and its mode: what it forbade. The same thing counts once, until the policies change."""
        self._files = files
        self._folder = folder
        self._key = hashlib.blake2b(key=key, person=b"derived").digest()
        self._store = store
        self._proofs: dict[_Verdict, tuple[Proof, ...]] = {}
        self._admitted: dict[_Identity, None] = {}
        self._versions: dict[str, str | None] = {}
        """What modules tell of themselves, by their sha256."""
        self._told: dict[tuple[str, _Identity, str], None] = {}

    @property
    def policies(self) -> list[Policy]:
        """Those that apply to what is resolved here. Raises PolicyError where nothing new may be."""
        if self._files.problems:
            raise self._broken()
        return [replace(each.policy, name=_name(each)) for each in self._files.policies]

    def note_refusal(self, error: LoadError) -> None:
        """Count what one of ``policies`` has refused."""
        for each in self._files.policies:
            if _name(each) in str(error):
                self.refused[each.policy.name, each.policy.spec.mode] += 1

    async def read(self) -> bool:
        """Read the policies; whether they are others than they were."""
        if not self._files.configured:
            return False
        changed = await self._files.read()
        if changed:
            self._told.clear()
            self._proofs.clear()
            self._changed = self._now()
        return changed

    async def changed(self) -> None:
        """Return once the policies may be others than they were; never where there is no place for any."""
        await self._files.changed()

    @property
    def is_broken(self) -> bool:
        """Whether a policy cannot be used, so that nothing new is admitted."""
        return bool(self._files.problems)

    @property
    def configured(self) -> bool:
        """Whether there is a place for policies."""
        return self._files.configured

    # ── judging ──

    def check_settings(self, entry: BundlePlugin) -> None:
        """What can be told from an entry alone, before anything is fetched. Raises PolicyError."""
        if not self.configured:
            return
        identity = _identity(entry)
        if self._files.problems and identity not in self._admitted:
            raise self._broken()
        asked = asked_by_entry(entry)
        for each in self._files.policies:
            for why in each.policy.forbidden(asked):
                error = PolicyError(f"{_label(each)} forbids it: {why}")
                self._note(each, identity, str(error))
                if each.policy.enforced:
                    raise error

    async def admit(self, entry: BundlePlugin, *, offline: bool = False) -> None:
        """Whether an entry may run; its module is in the store. Raises LoadError where it may not.

        ``offline`` asks nobody: what is not kept is missing then.
        """
        if entry.artifact is None or not self.configured:
            return
        self.check_settings(entry)
        identity = _identity(entry)
        # Signatures first: what they cover tells the version.
        for judge_one in (self._check_signatures, self._check_version):
            for each in self._files.policies:
                try:
                    await judge_one(each, entry, identity, offline=offline)
                except LoadError as error:
                    self._note(each, identity, str(error))
                    if each.policy.enforced:
                        raise
        self._admitted.pop(identity, None)
        self._admitted[identity] = None
        while len(self._admitted) > _MAX_KNOWN:
            del self._admitted[next(iter(self._admitted))]

    async def forbidden_in(
        self, bundle: Bundle, *, busy: Container[str] = (), offline: bool = False
    ) -> list[tuple[BundlePlugin, LoadError]]:
        """The entries of a bundle that may not run, and why.

        Of plugins that are ``busy`` the signatures are being looked for: of these only the settings are judged, for
        ``SOUGHT_S`` after the policies have changed. An operator could keep them busy for ever.
        """
        found = []
        busy = busy if self._now() - self._changed < SOUGHT_S else ()
        for entry in bundle.plugins if self.configured else ():
            try:
                if entry.name in busy and entry.artifact is not None:
                    self.check_settings(entry)
                else:
                    await self.admit(entry, offline=offline)
            except LoadError as error:
                found.append((entry, error))
        return found

    async def _check_signatures(
        self, held: FilePolicy, entry: BundlePlugin, identity: _Identity, *, offline: bool
    ) -> None:
        requirement = held.policy.requirement
        if requirement is None or (identity, requirement.fingerprint) in self._proofs:
            return
        assert entry.artifact is not None  # noqa: S101 - a placeholder is never judged
        evidence = await self._evidence(entry.artifact, offline=offline)
        proofs = await in_thread(self._judged, held, evidence, entry)
        if not all(proof.covers_module for proof in proofs):
            await self._derived(evidence, entry.artifact, offline=offline)
        self._proofs[identity, requirement.fingerprint] = proofs
        while len(self._proofs) > _MAX_KNOWN:
            del self._proofs[next(iter(self._proofs))]

    async def _check_version(
        self, held: FilePolicy, entry: BundlePlugin, identity: _Identity, *, offline: bool
    ) -> None:
        spec = held.policy.spec
        if of_version(spec, entry.name, None) is None:
            return
        assert entry.artifact is not None  # noqa: S101 - a placeholder is never judged
        why = of_version(spec, entry.name, await self._version(entry.artifact, identity, offline=offline))
        if why is not None:
            raise PolicyError(f"{_label(held)} forbids it: {why}")

    def _is_signed(self, identity: _Identity) -> bool:
        """Whether a signature that a policy here asks for covers the artifact, and not only its module."""
        asked = (each.policy.requirement for each in self._files.policies)
        found = (self._proofs.get((identity, each.fingerprint), ()) for each in asked if each is not None)
        return any(not proof.covers_module for proofs in found for proof in proofs)

    def _judged(self, held: FilePolicy, evidence: Evidence, entry: BundlePlugin) -> tuple[Proof, ...]:
        assert held.policy.requirement is not None  # noqa: S101 - whoever asks has looked
        assert entry.artifact is not None  # noqa: S101
        sha256 = entry.artifact.sha256

        def read() -> bytes:
            path = self._store.module(sha256)
            if path is None:
                raise FileNotFoundError(sha256)
            return path.read_bytes()

        repository = asked_by_entry(entry).repository
        subject = subject_of(evidence, repository=repository, plugin=entry.name, module=sha256, read=read)
        return judge(held.policy.requirement, evidence, subject, whose=_label(held))

    def _broken(self) -> PolicyError:
        problems = self._files.problems
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        return PolicyError(f"a trust policy of this sidecar is broken, so nothing new is loaded: {problems[0]}{more}")

    def _note(self, held: FilePolicy, identity: _Identity, why: str) -> None:
        """Count and say what a policy forbids, once."""
        known = held.policy.name, identity, why
        if known in self._told:
            return
        self._told[known] = None
        while len(self._told) > _MAX_KNOWN:
            del self._told[next(iter(self._told))]
        self.refused[held.policy.name, held.policy.spec.mode] += 1
        if not held.policy.enforced:
            log.warning("plugin '%s' runs, and would not if the mode were Enforce: %s", identity[0], why)

    # ── what is known of an artifact ──

    async def keep(self, resolved: Resolved) -> None:
        """Keep what was found out while a plugin was resolved here. Raises OSError."""
        artifact, evidence = resolved.entry.artifact, resolved.trust.evidence
        if evidence is None or artifact is None or artifact.evidence is None:
            return
        await in_thread(self._write, f"{artifact.evidence.sha256}.evidence", evidence)
        await self._note_derived(artifact, resolved.description.version)

    async def _evidence(self, artifact: BundleArtifact, *, offline: bool) -> Evidence:
        named = artifact.evidence
        if named is None:
            raise SignatureError(_NO_EVIDENCE)
        data = await in_thread(self._read, f"{named.sha256}.evidence", MAX_EVIDENCE)
        if data is None or hashlib.sha256(data).hexdigest() != named.sha256:
            if offline or self.fetch is None:
                raise FetchError("the file with its signatures is not in the state folder")
            buffer = io.BytesIO()
            if named.size > MAX_EVIDENCE:
                raise VerifyError(f"the file with its signatures has more than {MAX_EVIDENCE} bytes")
            await self.fetch(
                named.sha256, buffer, size=named.size, cap=MAX_EVIDENCE, what="the file with its signatures"
            )
            data = buffer.getvalue()
            await in_thread(self._write, f"{named.sha256}.evidence", data)
        evidence = await in_thread(Evidence.read, data)
        if evidence.digest != artifact.digest:
            raise SignatureError(
                f"the signatures that came are of {evidence.digest}, and the plugin's artifact is {artifact.digest}"
            )
        return evidence

    async def _derived(self, evidence: Evidence, artifact: BundleArtifact, *, offline: bool) -> str | None:
        """Make sure that the module is the artifact's; its version. Raises LoadError where that cannot be."""
        record = await in_thread(self._read, _record(artifact), _MAX_RECORD)
        known = None if record is None else self._opened(record, artifact)
        if known is not None:
            return known["version"]  # type: ignore[no-any-return]

        async def fetch_layer(layer: Descriptor, into: BinaryIO, *, cap: int) -> None:
            if offline or self.fetch is None:
                raise FetchError(
                    "the layers that its module is packed in are not here, so nothing proves that it is signed"
                )
            size = layer.size if layer.size >= 0 else None
            sha256 = layer.digest.removeprefix("sha256:")
            await self.fetch(sha256, into, size=size, cap=cap, what=f"the layer {layer.shown}")

        description = await derive(
            evidence, sha256=artifact.sha256, fetch=fetch_layer, scratch=self._store.scratch, limits=_LIMITS
        )
        version = description.version if description is not None else None
        await self._note_derived(artifact, version)
        return version

    async def _version(self, artifact: BundleArtifact, identity: _Identity, *, offline: bool) -> str | None:
        """The version that the module tells, or else the artifact around it.

        What an operator sends of an artifact counts only where somebody has signed it.
        """
        if artifact.sha256 not in self._versions:
            path = await in_thread(self._store.module, artifact.sha256)
            if path is None:
                raise FetchError("its module in the state folder is gone or damaged")
            self._versions[artifact.sha256] = await in_thread(_own_version, path, artifact.sha256)
            while len(self._versions) > _MAX_KNOWN:
                del self._versions[next(iter(self._versions))]
        own = self._versions[artifact.sha256]
        if own is not None:
            return own
        if self.fetch is not None and not self._is_signed(identity):
            raise SignatureError(
                "its version is not proven: the module tells none, and no signature that is asked for here covers what "
                "the operator says; put the version into the module, or ask for signatures in a policy of this sidecar"
            )
        if artifact.evidence is None:
            return artifact.version  # it was resolved here
        return await self._derived(await self._evidence(artifact, offline=offline), artifact, offline=offline)

    # ── the folder ──

    def forget_others(self, entries: Iterable[BundlePlugin]) -> None:
        """Drop what is kept of other artifacts than these entries have. Raises OSError."""
        artifacts = [entry.artifact for entry in entries if entry.artifact is not None]
        kept = {_record(each) for each in artifacts}
        kept |= {f"{each.evidence.sha256}.evidence" for each in artifacts if each.evidence is not None}
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.lstat().st_mtime > _YOUNG_S:
                        path.unlink()

    async def _note_derived(self, artifact: BundleArtifact, version: str | None) -> None:
        data = orjson.dumps({"digest": artifact.digest, "sha256": artifact.sha256, "version": version})
        seal = hmac.digest(self._key, data, "sha256").hex().encode()
        await in_thread(self._write, _record(artifact), seal + b"\n" + data)

    def _opened(self, record: bytes, artifact: BundleArtifact) -> dict[str, Any] | None:
        """What a record says, where it was written here and is of this artifact."""
        seal, _, data = record.partition(b"\n")
        if not hmac.compare_digest(seal, hmac.digest(self._key, data, "sha256").hex().encode()):
            log.warning("a record of what an artifact holds was not written by this sidecar, and is not used")
            return None
        found: dict[str, Any] = orjson.loads(data)
        return found if (found["digest"], found["sha256"]) == (artifact.digest, artifact.sha256) else None

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(most + 1)
        except OSError:
            return None
        return data if len(data) <= most else None

    def _write(self, name: str, data: bytes) -> None:
        """Complete, or not at all. Raises FetchError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(self._folder / name)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise FetchError(f"what its signatures prove cannot be kept: {error.strerror}; make room") from None

    # ── what is shown ──

    def describe(self) -> dict[str, Any]:
        """For ``/v1/plugins``."""
        return {
            "policies": [
                {
                    "name": each.policy.name,
                    "file": each.file,
                    "mode": each.policy.spec.mode,
                    "refused": self.refused[each.policy.name, each.policy.spec.mode],
                }
                for each in self._files.policies
            ],
            "problems": list(self._files.problems),
        }

    def signers(self, entry: BundlePlugin | None) -> list[dict[str, Any]]:
        """Whose signatures were verified here of what an entry runs."""
        if entry is None or entry.artifact is None or not self._files.policies:
            return []
        identity, found = _identity(entry), []
        for each in self._files.policies:
            requirement = each.policy.requirement
            proofs = self._proofs.get((identity, requirement.fingerprint), ()) if requirement is not None else ()
            found += [
                {
                    "policy": each.policy.name,
                    "signer": proof.signer,
                    "key": proof.key,
                    "identity": proof.identity or None,
                }
                for proof in proofs
            ]
        return found


def _identity(entry: BundlePlugin) -> _Identity:
    """What is judged: other settings, another artifact and other evidence are judged anew."""
    evidence = entry.artifact.evidence if entry.artifact is not None else None
    return entry.name, entry.full_revision, evidence.sha256 if evidence is not None else ""


def _own_version(path: Path, sha256: str) -> str | None:
    """What a module tells, of bytes that are hashed here: its file may be another by now. Raises FetchError."""
    try:
        module = path.read_bytes()
    except OSError:
        module = b""
    if hashlib.sha256(module).hexdigest() != sha256:
        raise FetchError("its module in the state folder is gone or damaged")
    info = inspect_module(module)
    return None if info.description is None else PluginDescription.from_json(info.description).version


def _label(held: FilePolicy) -> str:
    return f"this sidecar's {held.file} ('{held.policy.name}')"


def _name(held: FilePolicy) -> str:
    return f"{held.policy.name} in {held.file}"


def _record(artifact: BundleArtifact) -> str:
    name = hashlib.sha256(f"{artifact.digest} {artifact.sha256}".encode()).hexdigest()
    return f"{name}.derived"
