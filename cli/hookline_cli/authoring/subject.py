"""What a command line names, a module or a project with one in it, and the entry of a bundle that it is called by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_api.cases import SECTION
from hookline_api.config import Config
from hookline_api.outbound import MemoryCache
from hookline_api.permissions import is_permission
from hookline_api.resources import KvSettings, Limits
from hookline_artifacts.errors import ConfigError, FetchError, LoadError, VerifyError
from hookline_artifacts.module.annotate import custom_sections
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import ModuleInfo, inspect_module
from hookline_cli import frame
from hookline_cli.authoring import sources, texts
from hookline_cli.authoring.project import CASES, MANIFEST, NAME, Project, named_by, read_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.cases import Case
    from hookline_api.resources import LocalWasmPlugin

MAX_MODULE: Final = 64 * 2**20
_FUEL: Final = 2**53
"""Where fuel is to be counted and nothing bounds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One module."""

    path: Path
    wasm: bytes
    info: ModuleInfo
    description: PluginDescription
    project: Project | None

    @property
    def name(self) -> str:
        """What the plugin is called here: as it calls itself, where a resource may be called so."""
        own = self.description.name
        return own if own is not None and NAME.fullmatch(own) else named_by(self.path.with_suffix(""), "plugin")

    @property
    def asks(self) -> list[str]:
        """The permissions that it asks for, or its imports are about, as far as a resource can grant them."""
        return sorted(filter(is_permission, {*self.info.permissions, *self.description.permissions}))

    def own_cases(self) -> bytes | None:
        """The cases that the module carries."""
        return custom_sections(self.wasm).get(SECTION)


def read_subject(target: Path) -> Subject:
    """A ``.wasm``, or what was built of a project. Raises FetchError, VerifyError and ConfigError."""
    project = None
    path = target
    if target.is_dir():
        project = read_project(target)
        path = project.built
        if not path.exists():
            raise FetchError(f"{path} is not there: build it with '{frame.words('build', target)}'", transient=False)
        changed = sources.newer(project.folder, path)
        if changed is not None:
            frame.note(f"{changed} is newer than {path}: '{frame.words('build', target)}' builds it again")
    wasm = texts.read(path, most=MAX_MODULE, what="the module")
    try:
        info = inspect_module(wasm)
    except VerifyError as error:
        raise VerifyError(f"{path}: {error}") from None
    described = info.description
    description = PluginDescription() if described is None else PluginDescription.from_json(described)
    return Subject(path=path, wasm=wasm, info=info, description=description, project=project)


def cases_for(subject: Subject, given: Path | None) -> tuple[list[Case], str]:
    """The cases of a file, of the project, or of the module itself, and where they are. Raises LoadError."""
    path = given
    if path is None and subject.project is not None and (subject.project.folder / CASES).exists():
        path = subject.project.folder / CASES
    if path is not None:
        return texts.cases_of(texts.read(path, most=2**20, what="the cases"), what=str(path)), str(path)
    raw = subject.own_cases()
    if raw is None:
        raise FetchError(
            f"{subject.path} carries no cases: give --cases FILE, or put them in with '"
            f"{frame.words('annotate', subject.path, '--cases', 'cases.json')}'",
            transient=False,
        )
    where = f"the section {SECTION} of {subject.path}"
    return texts.cases_of(raw, what=where), where


def manifest_for(subject: Subject, given: Path | None) -> Path | None:
    """The manifest that counts: the given one, or else the project's own; None where there is neither."""
    if given is not None or subject.project is None:
        return given
    own = subject.project.folder / MANIFEST
    return own if own.exists() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How a plugin is to be called: what a resource would say."""

    config: dict[str, Any] | None = None
    permissions: Sequence[str] | None = None
    """None for all that it asks for."""
    limits: Mapping[str, str] | None = None
    manifest: Path | None = None
    fuel: bool = False


async def entry_for(subject: Subject, wanted: Wanted) -> BundlePlugin:
    """The entry of a bundle. Raises ConfigError and FetchError; nothing of the settings is checked by the schema."""
    entry = _plain(subject) if wanted.manifest is None else await _by_manifest(subject, wanted.manifest, wanted)
    update: dict[str, Any] = {}
    if wanted.config is not None:
        update["config"] = Config(wanted.config)
    if wanted.permissions is not None:
        update["permissions"] = list(wanted.permissions)
    limits = limits_of(wanted.limits or {}, entry.limits)
    if wanted.fuel and limits.fuel is None:
        limits = limits.model_copy(update={"fuel": _FUEL})
    return entry.model_copy(update={**update, "limits": limits})


def limits_of(given: Mapping[str, str], base: Limits) -> Limits:
    """Limits with some of them given by name. Raises ConfigError."""
    from pydantic import ValidationError  # noqa: PLC0415 - few calls give any

    from hookline_api.sentences import first  # noqa: PLC0415

    if not given:
        return base
    for name in given:
        if name not in Limits.model_fields:
            more = texts.did_you_mean(name, Limits.model_fields) or f"; there are {', '.join(Limits.model_fields)}"
            raise ConfigError(f"--limit {name}: there is no such limit{more}")
    numbers = {name: int(value) if value.isdecimal() else value for name, value in given.items()}
    try:
        return Limits.model_validate({**base.model_dump(by_alias=True), **numbers})
    except ValidationError as error:
        raise ConfigError(f"--limit {first(error)}") from None


def _plain(subject: Subject) -> BundlePlugin:
    """As a resource without settings that grants all that is asked for."""
    called = [hook for hook in subject.info.hooks if hook in subject.description.hooks]
    return BundlePlugin(
        name=subject.name,
        artifact=_artifact(subject),
        hooks=called or list(subject.info.hooks),
        permissions=subject.asks,
    )


def _artifact(subject: Subject) -> BundleArtifact:
    import hashlib  # noqa: PLC0415 - 5 ms

    digest = hashlib.sha256(subject.wasm).hexdigest()
    return BundleArtifact(
        digest=f"sha256:{digest}",
        sha256=digest,
        size=len(subject.wasm),
        layout="file",
        reference=f"file:{subject.path}",
        asks=subject.asks[:64],
    )


async def _by_manifest(subject: Subject, manifest: Path, wanted: Wanted) -> BundlePlugin:
    from hookline_api.resources import LocalWasmPlugin  # noqa: PLC0415 - few calls have one
    from hookline_artifacts.entry import called_hooks, check_entry, check_permissions, make_entry  # noqa: PLC0415
    from hookline_artifacts.settings import settings  # noqa: PLC0415
    from hookline_cli import reading  # noqa: PLC0415

    documents = reading.read([manifest])
    if documents.problems:
        raise ConfigError(documents.problems[0])
    found = [each.document for each in documents.plugins]
    meant = [each for each in found if each.metadata.name == subject.name] if len(found) > 1 else found
    if len(meant) != 1:
        raise ConfigError(f"{manifest} has {len(found)} WasmPlugins, and one of the name '{subject.name}' is wanted")
    plugin = meant[0]
    assert isinstance(plugin, LocalWasmPlugin)  # noqa: S101 - documents.plugins has only these
    plugin = _at_a_desk(plugin)
    try:
        given = await settings(plugin, documents)
    except LoadError as error:
        raise ConfigError(f"{error}; put the object that configFrom names into {manifest}, too") from None
    hooks = called_hooks(plugin, subject.description, subject.info)
    entry = make_entry(plugin, _artifact(subject), hooks=hooks, settings=given)
    try:
        if wanted.permissions is None:  # else they are given instead, and what is not is denied
            check_permissions(plugin, entry, subject.info)
        check_entry(entry, subject.info)
    except ConfigError as error:
        raise ConfigError(f"{manifest}: {error}") from None
    return entry


def _at_a_desk(plugin: LocalWasmPlugin) -> LocalWasmPlugin:
    """Without what asks somebody else: that is answered by a case, and needs no Secret."""
    spec = plugin.spec
    update = {
        "data_sources": [],
        "egress": [],
        "caches": [
            each.model_copy(update={"valkey": None, "memory": each.memory or MemoryCache()}) for each in spec.caches
        ],
        "kv": KvSettings(initial=spec.kv.initial),
    }
    return plugin.model_copy(update={"spec": spec.model_copy(update=update)})


async def check_config(subject: Subject, config: dict[str, Any]) -> None:
    """Whether the plugin's own schema takes the settings. Raises ConfigError, with the path."""
    schema = subject.description.config_schema
    if schema is None or (not config and _takes_nothing(schema)):
        return
    from hookline_cli.authoring import forked  # noqa: PLC0415 - it starts a process

    await forked.check(config, schema)


_HARMLESS: Final = {"$schema", "$id", "title", "description", "type", "properties", "additionalProperties"}


def _takes_nothing(schema: dict[str, Any]) -> bool:
    """Whether it is plain that a schema takes an empty object: no process need be asked."""
    return schema.keys() <= _HARMLESS and schema.get("type", "object") == "object"
