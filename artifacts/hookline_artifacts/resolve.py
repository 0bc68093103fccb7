"""From a resource to a bundle's entry: fetched, checked, inspected, with its settings filled in.

Operator and sidecar come through here, so that what one accepts the other can load. Nothing is compiled.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hookline_api.abi import ungranted_imports
from hookline_api.bundle import MAX_ASKS, BundleArtifact, BundlePlugin
from hookline_api.permissions import grants
from hookline_api.resources import LocalSource, OCISource, Source, WasmPlugin
from hookline_api.text import listed
from hookline_artifacts.beside import signatures_beside
from hookline_artifacts.entry import called_hooks, check_entry, check_permissions, make_entry, notes_on
from hookline_artifacts.errors import ConfigError, FetchError, VerifyError, about
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.login.credentials import PullSecret
from hookline_artifacts.login.keychain import MAX_SECRETS
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import ModuleInfo, inspect_file
from hookline_artifacts.module.own_cases import OwnCases, judge_cases, own_cases
from hookline_artifacts.net.urls import foreign, shown
from hookline_artifacts.objects import without_key
from hookline_artifacts.reference import Reference, parse
from hookline_artifacts.settings import settings
from hookline_artifacts.threads import in_thread
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.requirement import load
from hookline_artifacts.trust.trial import NOTHING, Trial, Trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hookline_api.hooks import Hook
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.trust.policy import Policy
    from hookline_artifacts.trust.requirement import Requirement

_HOST: Final = 256
# https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets
_DOCKER_CONFIG: Final = ".dockerconfigjson"
_DOCKER_CFG: Final = ".dockercfg"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """One resource, resolved."""

    entry: BundlePlugin
    artifact: Artifact = field(repr=False)
    """While it is held, the store keeps the module."""
    info: ModuleInfo = field(repr=False)
    description: PluginDescription
    hooks: tuple[Hook, ...]
    """Those that are called where the resource names none."""
    notes: tuple[str, ...] = ()
    """What is legal, and may not be what was meant; one sentence each."""
    unreadable_cases: bool = False
    """Whether its module carries cases that cannot be read, and may run all the same."""
    trust: Trust = NOTHING
    """What was proven of it, and by what."""

    @property
    def asks(self) -> list[str]:
        """The permissions that the plugin asks for, or that its imports are about."""
        return sorted({*self.description.permissions, *self.info.permissions})

    @property
    def wants_self_test(self) -> bool:
        """Whether its module carries cases, and is to be asked them."""
        return self.info.cases is not None and not self.unreadable_cases and self.entry.self_test != "Off"

    @property
    def ungranted_imports(self) -> dict[str, str]:
        """Functions that the module imports and that answer "denied", with the permission that each needs."""
        return ungranted_imports(self.info.functions, self.entry.permissions)

    @property
    def ungranted(self) -> list[str]:
        """Permissions that the plugin asks for, or its imports are about, and the resource does not grant."""
        return sorted(each for each in self.asks if not grants(self.entry.permissions, each))


async def resolve(
    plugin: WasmPlugin,
    *,
    fetcher: Fetcher,
    objects: Objects,
    previous: BundleArtifact | None = None,
    ask_again: bool = False,
    base: Path | None = None,
    origin: str | None = None,
    access: RegistryAccess | None = None,
    prove: bool = False,
    key: bytes | None = None,
    policies: Sequence[Policy] = (),
    pinned: bool = False,
    kept: bytes | None = None,
) -> Resolved:
    """Resolve one resource. Raises FetchError, VerifyError or ConfigError.

    ``previous`` is the artifact that the plugin has now: a tag that it resolved stays resolved unless the pull policy
    is Always or ``ask_again`` says that its ``trackInterval`` is over. ``base`` is the folder of the manifest, for
    file sources; without it there are none. ``access`` stands in for what ``registry_access`` finds; ``prove`` is
    ``Fetcher.fetch_oci``'s. ``key`` is what the entry is sealed with. ``policies`` are those that apply to it.
    ``pinned``: nothing but those has changed, so that its reference means what it did. ``kept`` is the evidence by
    which ``previous`` was verified; where that does, no registry is asked for signatures.
    """
    trial = Trial(plugin, policies, await own_requirement(plugin, objects, base))
    trial.check_settings()
    given = await settings(plugin, objects)
    digest = None if ask_again else _known_digest(plugin.spec.source, previous, pinned=pinned)
    reference, artifact = await tried(
        trial, plugin, fetcher, objects, digest=digest, previous=previous, kept=kept, base=base, access=access,
        prove=prove,
    )  # fmt: skip
    with about(artifact.digest):
        _check_sha256(plugin, artifact)
        info, description, believed = await told(artifact, whole=trial.covers_package)
        cases = await in_thread(own_cases, info)
        of_cases = judge_cases(cases, info, plugin.spec.self_test)
        asks = sorted({*believed.permissions, *info.permissions})
        trial.check_version(believed.version, artifact.digest, previous)
        trial.check_permissions(asks, previous)
        proven = {"evidence": trial.file, "is_component": info.is_component or None}
        found = _found(artifact, reference, believed, asks, cases).model_copy(update=proven)
        hooks = called_hooks(plugin, description, info)
        made = make_entry(plugin, found, hooks=hooks, settings=given, origin=origin, key=key)
        check_entry(made, info)
        check_permissions(plugin, made, info)
    return Resolved(
        entry=made, artifact=artifact, info=info, description=description, hooks=hooks, trust=trial.result(),
        notes=(
            *description.notes, *notes_on(plugin, description, info, size=artifact.size), *of_cases, *trial.notes,
        ),
        unreadable_cases=cases.unreadable is not None,
    )  # fmt: skip


async def _enough(
    trial: Trial, known: Sequence[bytes], digest: str, previous: BundleArtifact | None
) -> Evidence | None:
    """The first of what is known that proves all that is asked, checked; None where nobody knows such."""

    def find() -> Evidence | None:
        for each in known:
            evidence = trial.enough(each, digest, previous)
            if evidence is not None:
                trial.check_beside(evidence)
                return evidence
        return None

    return await in_thread(find) if known else None


async def _signatures(
    trial: Trial, source: OCISource, digest: str, fetcher: Fetcher, *, access: RegistryAccess, base: Path | None
) -> Evidence:
    """Every signature that the registry has. Raises FetchError, unless it is asked for audits alone."""
    try:
        return await fetcher.signatures(source, digest, access=access, base=base, enough=trial.proves)
    except FetchError as error:
        return trial.unanswered(error, digest)


def _check_sha256(plugin: WasmPlugin, artifact: Artifact) -> None:
    wanted = plugin.spec.sha256
    if wanted is not None and artifact.sha256 != wanted:
        raise VerifyError(f"the module's sha256 is {artifact.sha256}, and spec.sha256 asks for {wanted}")


def _found(
    artifact: Artifact, reference: str, description: PluginDescription, asks: list[str], cases: OwnCases
) -> BundleArtifact:
    return BundleArtifact(
        digest=artifact.digest,
        sha256=artifact.sha256,
        size=artifact.size,
        layout=artifact.layout,
        reference=reference,
        version=description.version,
        asks=asks[:MAX_ASKS],
        cases=cases.count,
    )


def _known_digest(source: Source, previous: BundleArtifact | None, *, pinned: bool) -> str | None:
    """What the reference meant before, where that is not asked again."""
    if source.oci is None or previous is None or (_always(source.oci) and not pinned):
        return None
    return previous.digest if previous.reference == source.oci.reference else None


async def own_requirement(plugin: WasmPlugin, objects: Objects, base: Path | None) -> Requirement | None:
    """The signatures that the resource itself asks for; None for none. Raises ConfigError and FetchError."""
    verify = plugin.spec.verify
    if verify is None or not verify.wanted:
        return None
    namespace = plugin.metadata.namespace
    return await load(verify.signatures, objects=objects, namespace=namespace, base=base, where="spec.verify")


def _inspect(path: Path) -> ModuleInfo:
    try:
        return inspect_file(path)
    except OSError as error:
        raise FetchError(f"the module's file in the store cannot be read: {error.strerror}") from error


async def tried(
    trial: Trial,
    plugin: WasmPlugin,
    fetcher: Fetcher,
    objects: Objects,
    *,
    digest: str | None = None,
    previous: BundleArtifact | None = None,
    kept: bytes | None = None,
    base: Path | None = None,
    access: RegistryAccess | None = None,
    prove: bool = False,
) -> tuple[str, Artifact]:
    """What ``fetch`` gives, with every signature that a trial asks for verified. Raises what ``resolve`` does."""
    source = plugin.spec.source
    if source.oci is not None and access is None:
        access = await registry_access(source.oci, plugin.metadata.namespace, objects)
    evidence = None
    if source.oci is not None and access is not None and trial.wants_signatures:
        digest = digest or await fetcher.resolve(source.oci, access=access, base=base)
        with about(digest):
            known = [kept, await fetcher.known_evidence(source.oci, digest, access=access, base=base)]
            evidence = await _enough(trial, [each for each in known if each is not None], digest, previous)
            if evidence is None:
                evidence = await _signatures(trial, source.oci, digest, fetcher, access=access, base=base)
                await in_thread(trial.check_beside, evidence)
    reference, artifact = await fetch(plugin, fetcher, objects, digest=digest, base=base, access=access, prove=prove)
    if source.oci is None and trial.wants_signatures:
        beside = await signatures_beside(
            source, trial.kinds, fetcher=fetcher, objects=objects, namespace=plugin.metadata.namespace, base=base
        )
        evidence = Evidence(digest=artifact.digest, signatures=tuple(beside))
    with about(artifact.digest):
        await in_thread(trial.check_artifact, evidence, artifact)
    proven = trial.evidence
    if source.oci is not None and access is not None and proven is not None:
        await fetcher.keep_evidence(source.oci, artifact.digest, proven, access=access, base=base)
    return reference, artifact


async def told(artifact: Artifact, *, whole: bool) -> tuple[ModuleInfo, PluginDescription, PluginDescription]:
    """What a module is, what it and its package say of it, and what of that is believed. Raises FetchError.

    Also VerifyError.

    ``whole`` says that its package is believed, too: then both descriptions are the same.
    """
    info = await in_thread(_inspect, artifact.path)
    own = PluginDescription() if info.description is None else PluginDescription.from_json(info.description)
    description = own.over(artifact.description)
    return info, description, description if whole else own


async def fetch(
    plugin: WasmPlugin,
    fetcher: Fetcher,
    objects: Objects,
    *,
    digest: str | None,
    base: Path | None = None,
    access: RegistryAccess | None = None,
    prove: bool = False,
) -> tuple[str, Artifact]:
    """The reference as it may be shown, and the artifact. Raises FetchError, VerifyError or ConfigError.

    An OCI source is pinned to ``digest`` where one is given.
    """
    source, namespace = plugin.spec.source, plugin.metadata.namespace
    owner = namespace or ""
    if source.oci is not None:
        if access is None:
            access = await registry_access(source.oci, namespace, objects)
        digest = digest or await fetcher.resolve(source.oci, access=access, base=base)
        with about(digest):
            artifact = await fetcher.fetch_oci(
                source.oci, digest=digest, access=access, base=base, prove=prove, owner=owner
            )
        return source.oci.reference, artifact
    if source.http is not None:
        with about(f"sha256:{source.http.sha256}"):
            artifact = await fetcher.fetch_http(source.http, prove=prove, owner=owner)
        return shown(foreign(source.http.url)), artifact
    if isinstance(source, LocalSource) and source.file is not None:
        if base is None:
            raise ConfigError("source.file is for manifest folders only")
        return f"file:{source.file.path}", await fetcher.fetch_file(base / source.file.path)
    reference = source.config_map
    assert reference is not None  # noqa: S101 - the model has exactly one source
    data = await objects.config_map(namespace, reference.name)
    if data is None or reference.key not in data:
        raise FetchError(without_key("ConfigMap", reference.name, reference.key, data))
    return f"configmap:{reference.name}/{reference.key}", await fetcher.fetch_bytes(data[reference.key], owner=owner)


def asks(source: Source) -> str:
    """Host and port of what has to answer for a source to be fetched; empty where nothing has to. Raises FetchError."""
    if source.oci is not None:
        reference = parse(source.oci.reference)
        return reference.registry if isinstance(reference, Reference) else ""
    try:
        return (urlsplit(source.http.url).netloc.rpartition("@")[2])[:_HOST] if source.http is not None else ""
    except ValueError:  # the brackets hold something other than an address
        return ""


def is_asked_again(source: Source) -> bool:
    """Whether the same source may mean another module at the next look: a tag that is asked each time, or tracked."""
    return source.oci is not None and (_always(source.oci) or source.oci.track_interval is not None)


def _always(source: OCISource) -> bool:
    if source.pull_policy is not None:
        return source.pull_policy == "Always"
    reference = parse(source.reference)
    return reference.digest is None and reference.tag in {None, "latest"}


async def registry_access(
    source: OCISource, namespace: str | None, objects: Objects, more: Sequence[str] = ()
) -> RegistryAccess:
    """With what a registry is asked. Raises FetchError.

    ``more`` are names of further pull secrets, asked after the source's own; one that is not there is passed over.
    A pull secret that is not there or cannot be read is the registry client's to tell, where it was needed.
    """
    configs = []
    own = [reference.name for reference in source.pull_secrets]
    for name in itertools.islice(dict.fromkeys([*own, *more]), MAX_SECRETS + 1):  # of one more, the keychain tells
        data = await objects.secret(namespace, name)
        secret = data or {}
        bare = _DOCKER_CONFIG not in secret and _DOCKER_CFG in secret
        document = secret.get(_DOCKER_CFG if bare else _DOCKER_CONFIG)
        if document is not None or name in own:
            configs.append(
                PullSecret(
                    name=name, namespace=namespace, document=document, bare=bare,
                    keys=listed(secret) if data is not None and document is None else "",
                )
            )  # fmt: skip
    ca_pem = None
    if source.ca_config_map is not None:
        data = await objects.config_map(namespace, source.ca_config_map.name)
        if data is None or "ca.crt" not in data:
            raise FetchError(without_key("ConfigMap", source.ca_config_map.name, "ca.crt", data))
        ca_pem = data["ca.crt"].decode(errors="replace")
    return RegistryAccess(dockerconfigs=tuple(configs), ca_pem=ca_pem)
