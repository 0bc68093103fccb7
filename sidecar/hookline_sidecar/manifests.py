"""A folder of manifests as a source of bundles: read whole, each time anything in it changes.

The folder stands in for the Kubernetes API: ``WasmPlugin`` documents, and the Secrets and ConfigMaps that they
refer to, in any number of YAML or JSON files. What cannot be used is a ``Problem`` that names the file and the
field; the plugins of such a file keep running as they were.

``scan`` is a function of the folder's content and remembers nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import yaml
from pydantic import ValidationError

from hookline_api.resources import API_VERSION, GROUP, KIND, LocalWasmPlugin

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_MAX_FILE: Final = 4 * 2**20
_MAX_FILES: Final = 1000
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something in the folder that cannot be used."""

    file: str
    field: str
    """A path into the document such as ``spec.limits.timeout``, or empty."""
    message: str
    plugin: str | None = None
    """The plugin that it is about, where the document says so much."""
    hides: bool = True
    """Whether a plugin may be behind it: then what is missing must not fail open."""

    @property
    def sentence(self) -> str:
        """For a person: where and what."""
        return f"{self.file}: {self.field + ': ' if self.field else ''}{self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One ``WasmPlugin`` document."""

    plugin: LocalWasmPlugin
    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """Everything in the folder at one moment."""

    manifests: Mapping[str, Manifest]
    """By the plugin's name."""
    problems: tuple[Problem, ...]
    secrets: Mapping[str, Mapping[str, bytes]] = field(repr=False)
    config_maps: Mapping[str, Mapping[str, bytes]] = field(repr=False)

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:  # noqa: ARG002
        """A Secret's data; the folder is one namespace."""
        return self.secrets.get(name)

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:  # noqa: ARG002
        """A ConfigMap's data; the folder is one namespace."""
        return self.config_maps.get(name)

    def key(self, name: str, folder: Path) -> str:
        """Changes when anything changes that a plugin is resolved from: its spec, its objects, its file."""
        plugin = self.manifests[name].plugin
        digest = hashlib.sha256(plugin.model_dump_json(by_alias=True).encode())
        for each in (*plugin.spec.config_from,):
            reference = each.secret_ref or each.config_map_ref
            objects = self.secrets if each.secret_ref else self.config_maps
            if reference is not None:
                digest.update(repr(sorted(objects.get(reference.name, {}).items())).encode())
        source = plugin.spec.source
        if source.oci is not None:
            for secret in source.oci.pull_secrets:
                digest.update(repr(sorted(self.secrets.get(secret.name, {}).items())).encode())
            if source.oci.ca_config_map is not None:
                digest.update(repr(self.config_maps.get(source.oci.ca_config_map.name)).encode())
        if source.config_map is not None:
            digest.update(repr(sorted(self.config_maps.get(source.config_map.name, {}).items())).encode())
        if source.file is not None:
            try:
                found = (folder / source.file.path).stat()
                digest.update(f"{found.st_size} {found.st_mtime_ns} {found.st_ino}".encode())
            except OSError as error:
                digest.update(str(error.errno).encode())
        return digest.hexdigest()


def scan(folder: Path) -> Scan:
    """Read the folder. Raises OSError where the folder itself cannot be read, and nothing else."""
    found = _Found()
    paths = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.name.startswith("."))
    for path in paths[_MAX_FILES:]:
        found.problem(path.name, "", f"not read: the folder has more than {_MAX_FILES} manifests")
    for path in paths[:_MAX_FILES]:
        for document in _documents(path, found):
            _take(path.name, document, found)
    return found.scan()


@dataclass(slots=True)
class _Found:
    manifests: dict[str, list[Manifest]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    secrets: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    config_maps: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    def problem(
        self, file: str, where: str, message: str, plugin: str | None = None, *, hides: bool = True
    ) -> None:
        self.problems.append(Problem(file=file, field=where, message=message[:500], plugin=plugin, hides=hides))

    def scan(self) -> Scan:
        only: dict[str, Manifest] = {}
        for name, manifests in self.manifests.items():
            if len(manifests) == 1:
                only[name] = manifests[0]
                continue
            files = " and ".join(sorted({manifest.file for manifest in manifests}))
            for file in sorted({manifest.file for manifest in manifests}):
                self.problem(
                    file, "metadata.name", f"the plugin '{name}' is there more than once, in {files}", name
                )
        return Scan(
            manifests=only,
            problems=tuple(self.problems),
            secrets=self.secrets,
            config_maps=self.config_maps,
        )


def _documents(path: Path, found: _Found) -> Iterator[dict[str, Any]]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            found.problem(path.name, "", "not read: it is no regular file")
            return
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return  # gone between the listing and now: the next scan says so
    except OSError as error:
        found.problem(path.name, "", f"cannot be read: {error.strerror}")
        return
    if len(raw) > _MAX_FILE:
        found.problem(path.name, "", f"not read: it has more than {_MAX_FILE} bytes")
        return
    try:
        documents = _parse(raw)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        where = getattr(error, "problem_mark", None)
        at = f"line {where.line + 1}: " if where is not None else ""
        reason = getattr(error, "problem", None) or str(error)
        found.problem(path.name, "", f"{at}this is no YAML: {' '.join(str(reason).split())}")
        return
    if not documents:
        found.problem(path.name, "", "it holds no document; if it is being written, the next change is read")
    for document in documents:
        if isinstance(document, dict):
            yield document
        else:
            found.problem(path.name, "", "a document is no mapping")


def _parse(raw: bytes) -> list[Any]:
    text = raw.decode()
    # An alias makes a few bytes mean gigabytes. Anchors alone are harmless, and pointless.
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader)):
        raise ValueError("it has a YAML alias (*name), and those are not read: write the value out")
    documents = [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
    # Through JSON: what YAML has and Kubernetes has not (dates, keys of any type) ends here.
    normal: list[Any] = orjson.loads(orjson.dumps(documents, option=orjson.OPT_NON_STR_KEYS))
    return normal


def _take(file: str, document: dict[str, Any], found: _Found) -> None:
    api_version, kind = document.get("apiVersion"), document.get("kind")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    name = name if isinstance(name, str) else None
    if api_version == API_VERSION and kind == KIND:
        _take_plugin(file, document, name, found)
    elif api_version == "v1" and kind in {"Secret", "ConfigMap"}:
        _take_object(file, document, name, found)
    elif isinstance(api_version, str) and api_version.split("/")[0] == GROUP:
        found.problem(
            file, "kind", f"{api_version} {kind} is unknown; this version reads {API_VERSION} {KIND}", name
        )
    else:
        found.problem(
            file, "kind", f"ignored: {api_version} {kind} is none of {KIND}, Secret, ConfigMap", hides=False
        )


def _take_plugin(file: str, document: dict[str, Any], name: str | None, found: _Found) -> None:
    document.pop("status", None)
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        # Strict about what is ours. What kubectl and other tools leave in metadata is theirs.
        known = ("name", "namespace", "uid", "generation", "labels", "annotations")
        document["metadata"] = {key: metadata[key] for key in known if metadata.get(key) is not None}
    try:
        plugin = LocalWasmPlugin.model_validate(document, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False)[:5]:
            where = ".".join(str(part) for part in each["loc"])
            message = "there is no such field" if each["type"] == "extra_forbidden" else each["msg"]
            found.problem(file, where, message.removeprefix("Value error, "), name)
        return
    found.manifests.setdefault(plugin.metadata.name, []).append(Manifest(plugin=plugin, file=file))


def _take_object(file: str, document: dict[str, Any], name: str | None, found: _Found) -> None:
    if name is None:
        found.problem(file, "metadata.name", "is missing", hides=False)
        return
    texts, binaries = ("stringData", "data") if document["kind"] == "Secret" else ("data", "binaryData")
    data: dict[str, bytes] = {}
    for section, encoded in ((binaries, True), (texts, False)):
        for key, value in (document.get(section) or {}).items():
            try:
                data[key] = base64.b64decode(value, validate=True) if encoded else value.encode()
            except (TypeError, ValueError, AttributeError, binascii.Error):
                kind = "base64" if encoded else "a string"
                found.problem(file, f"{section}.{key}", f"is not {kind}", hides=False)
    (found.secrets if document["kind"] == "Secret" else found.config_maps)[name] = data
