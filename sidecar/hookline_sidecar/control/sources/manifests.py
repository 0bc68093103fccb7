"""A folder of manifests as a source of bundles: read whole, each time anything in it changes.

The folder stands in for the Kubernetes API: ``WasmPlugin`` documents, and the Secrets and ConfigMaps that they
refer to, in any number of YAML or JSON files, read as ``kubectl create`` reads them. What cannot be used is a
``Problem`` that names the file and the field; the plugins of such a file keep running as they were.

``scan`` is a function of the folder's content and remembers nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.base import API_VERSION, GROUP, KIND, NAME_PATTERN
from hookline_api.outbound import references
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.beside import paths_beside
from hookline_artifacts.documents import kubernetes_yaml
from hookline_sidecar.control.sources import foreign
from hookline_sidecar.control.sources.source import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NO_MANIFESTS: Final = (".sigstore.json", "trusted_root.json")
"""Signatures and trust roots: what `beside` and `requirement` read."""
_MAX_FILES: Final = 1000
_MAX_PROBLEMS: Final = 5
"""Of one document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One ``WasmPlugin`` document."""

    plugin: LocalWasmPlugin
    file: str
    changed: int
    """When the file was last written, in nanoseconds since 1970."""


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
        manifest = self.manifests[name]
        plugin = manifest.plugin
        digest = hashlib.sha256(plugin.model_dump_json(by_alias=True).encode())
        for each in (*plugin.spec.config_from,):
            reference = each.secret_ref or each.config_map_ref
            objects = self.secrets if each.secret_ref else self.config_maps
            if reference is not None:
                digest.update(repr(sorted(objects.get(reference.name, {}).items())).encode())
        for secret_name in sorted({each.name for _, each in references(plugin.spec)}):
            digest.update(repr(sorted(self.secrets.get(secret_name, {}).items())).encode())
        source = plugin.spec.source
        if source.oci is not None:
            if source.oci.pull_policy == "Always":
                digest.update(str(manifest.changed).encode())  # so that touching the file asks the registry again
            for secret in source.oci.pull_secrets:
                digest.update(repr(sorted(self.secrets.get(secret.name, {}).items())).encode())
            if source.oci.ca_config_map is not None:
                digest.update(repr(self.config_maps.get(source.oci.ca_config_map.name)).encode())
        if source.config_map is not None:
            digest.update(repr(sorted(self.config_maps.get(source.config_map.name, {}).items())).encode())
        if source.file is not None:
            module = folder / source.file.path
            try:
                found = module.stat()
                digest.update(f"{found.st_size} {found.st_mtime_ns} {found.st_ino}".encode())
            except OSError as error:
                digest.update(str(error.errno).encode())
            digest.update(repr([_stamp(path) for path in paths_beside(module)]).encode())
        return digest.hexdigest()


def scan(folder: Path) -> Scan:
    """Read the folder. Raises OSError where the folder itself cannot be read, and nothing else."""
    found = _Found()
    paths = _manifests(folder)
    for path in paths[_MAX_FILES:]:
        found.problem(_shown(path), "", f"not read: the folder has more than {_MAX_FILES} manifests")
    is_chart = foreign.is_chart(folder)
    for path in paths[:_MAX_FILES]:
        if is_chart and foreign.is_of_chart(path.name) and path.name != "Chart.yaml":
            continue  # Helm's: the one sentence about the chart says so
        for document in _documents(path, found):
            _take(document, found)
    _judge_folder(folder, found)
    return found.scan()


def _judge_folder(folder: Path, found: _Found) -> None:
    """Say of a folder for another program what it is, once for all that is in it."""
    told = None if found.has_manifests else foreign.of_folder(folder, described=bool(found.descriptions))
    if told is not None and not found.problems:
        sentence, hides = told
        found.problem(str(folder).encode("utf-8", "replace").decode(), "", sentence, hides=hides)
        return
    for file in found.descriptions:
        found.problem(file, "kind", foreign.description_sentence())


def glance(folder: Path, known: Scan | None) -> object:
    """Differs from the last glance when something may have changed: cheap, for where no events come from.

    That is file systems that have none, a folder that was replaced, and modules and signatures that lie outside of it.
    """
    try:
        paths = [folder, *_manifests(folder)]
    except OSError as error:
        return error.errno
    sources = [manifest.plugin.spec.source.file for manifest in known.manifests.values()] if known else []
    for source in sources:
        if source is not None:
            paths += [folder / source.path, *paths_beside(folder / source.path)]
    return [(path, *_stamp(path)) for path in paths]


def _manifests(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in foreign.SUFFIXES
        and not path.name.startswith(".")
        and not path.name.endswith(_NO_MANIFESTS)
    )


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _shown(path: Path) -> str:
    """A file's name, in characters that can be written."""
    return path.name.encode("utf-8", "replace").decode()


@dataclass(slots=True)
class _Found:
    manifests: dict[str, list[Manifest]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    objects: dict[tuple[str, str], list[tuple[str, Mapping[str, bytes]]]] = field(default_factory=dict)
    """By kind and name: in which file, and what it holds."""
    has_manifests: bool = False
    """Whether any document is meant for Hookline, right or wrong."""
    descriptions: list[str] = field(default_factory=list)
    """Files that describe plugins for HeliosDB-Proxy."""
    file: str = ""
    """Which is being read."""
    changed: int = 0

    def problem(self, file: str, where: str, message: str, plugin: str | None = None, *, hides: bool = True) -> None:
        self.problems.append(Problem(file=file, field=where, message=message[:500], plugin=plugin, hides=hides))

    def scan(self) -> Scan:
        only = {name: manifests[0] for name, manifests in self.manifests.items() if len(manifests) == 1}
        for name, manifests in self.manifests.items():
            for file, others in _several([manifest.file for manifest in manifests]):
                self.problem(file, "metadata.name", f"the plugin '{name}' is there {others}", name)
        for (kind, name), objects in self.objects.items():
            for file, others in _several([file for file, _ in objects]):
                self.problem(file, "metadata.name", f"the {kind} '{name}' is there {others}", hides=False)
        return Scan(
            manifests=only,
            problems=tuple(self.problems),
            secrets=self._only("Secret"),
            config_maps=self._only("ConfigMap"),
        )

    def _only(self, kind: str) -> dict[str, Mapping[str, bytes]]:
        # Of two with one name, which one counts would be an accident: neither does.
        return {
            name: objects[0][1]
            for (its_kind, name), objects in self.objects.items()
            if its_kind == kind and len(objects) == 1
        }


def _several(files: list[str]) -> Iterator[tuple[str, str]]:
    """Each file that has what should be there once, and the words for it; nothing where it is there once."""
    if len(files) > 1:
        different = sorted(set(files))
        for file in different:
            yield file, f"more than once, in {' and '.join(different)}"


def _documents(path: Path, found: _Found) -> Iterator[dict[str, Any]]:
    found.file = _shown(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            found.problem(found.file, "", "not read: it is not a regular file")
            return
        with path.open("rb") as file:
            raw = file.read(kubernetes_yaml.MAX_FILE + 1)
    except FileNotFoundError:
        if path.is_symlink():
            found.problem(found.file, "", "not read: its link leads nowhere")
        return  # or gone between the listing and now: the next scan says so
    except OSError as error:
        found.problem(found.file, "", f"cannot be read: {error.strerror}")
        return
    found.changed = status.st_mtime_ns
    try:
        documents = kubernetes_yaml.read(raw)
    except kubernetes_yaml.UnreadableError as error:
        at = f"line {error.line}: " if error.line is not None else ""
        found.problem(found.file, "", f"{at}this cannot be read: {error}")
        return
    if not documents:
        found.problem(
            found.file, "", "it holds no document; its plugins stay as they were until it does, or is deleted"
        )
    for document in documents:
        if isinstance(document, dict):
            yield document
        else:
            found.problem(found.file, "", "a document must be a mapping")


def _take(document: dict[str, Any], found: _Found) -> None:
    api_version, kind = document.get("apiVersion"), document.get("kind")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    name = name if isinstance(name, str) else None
    # A plugin of a name that nobody can have is found by its file.
    plugin = name if name is not None and re.fullmatch(NAME_PATTERN, name) else None
    theirs = foreign.of_kind(api_version, kind) if isinstance(api_version, str) and isinstance(kind, str) else None
    found.has_manifests |= kind == KIND and theirs is None
    if not isinstance(api_version, str) or not isinstance(kind, str):
        _take_unknown(document, plugin, found)
    elif api_version == API_VERSION and kind == KIND:
        _take_plugin(document, plugin, found)
    elif api_version == "v1" and kind in {"Secret", "ConfigMap"}:
        _take_object(document, kind, name, found)
    elif api_version == "v1" and kind == "List":
        _take_list(document, found)
    elif theirs is not None:
        found.problem(found.file, "kind", f"ignored: {theirs}", hides=kind == KIND)
    elif api_version.split("/")[0] == GROUP or kind == KIND:
        message = f"{api_version} {kind} is unknown; this version reads {API_VERSION} {KIND}"
        found.problem(found.file, "kind" if kind != KIND else "apiVersion", message, plugin)
    else:
        message = f"ignored: {api_version} {kind} is not one of {KIND}, Secret, ConfigMap"
        found.problem(found.file, "kind", message, hides=False)


def _take_unknown(document: dict[str, Any], plugin: str | None, found: _Found) -> None:
    """What does not say what it is."""
    told = foreign.of_file(found.file)
    if told is not None:
        found.problem(found.file, "kind", f"ignored: {told}", hides=not foreign.is_kustomization(found.file))
    elif foreign.is_description(document):
        found.descriptions.append(found.file)
    else:
        found.problem(
            found.file,
            "kind",
            f"a document needs apiVersion and kind; a plugin has apiVersion: {API_VERSION} and kind: {KIND}",
            plugin,
        )


def _take_list(document: dict[str, Any], found: _Found) -> None:
    """What ``kubectl get -o yaml`` writes."""
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        found.problem(found.file, "items", "must be a list of documents")
        return
    if len(items) > kubernetes_yaml.MAX_DOCUMENTS:
        found.problem(found.file, "items", f"has more than {kubernetes_yaml.MAX_DOCUMENTS} documents")
        return
    for item in items:
        _take(item, found)


def _take_plugin(document: dict[str, Any], name: str | None, found: _Found) -> None:
    document.pop("status", None)
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        # Strict about what is ours. What kubectl and other tools leave in metadata is theirs.
        known = ("name", "namespace", "uid", "generation", "labels", "annotations")
        document["metadata"] = {key: metadata[key] for key in known if metadata.get(key) is not None}
    try:
        # Strict, as the API server is: priority: "5" is text there, and insecure: 1 is not true.
        plugin = LocalWasmPlugin.model_validate_json(
            orjson.dumps(document), strict=True, extra="forbid", by_alias=True, by_name=False
        )
    except ValidationError as error:
        for each in sentences.problems(error, most=_MAX_PROBLEMS):
            found.problem(found.file, each.path, each.text, name)
        return
    manifest = Manifest(plugin=plugin, file=found.file, changed=found.changed)
    found.manifests.setdefault(plugin.metadata.name, []).append(manifest)


def _take_object(document: dict[str, Any], kind: str, name: str | None, found: _Found) -> None:
    if name is None:
        found.problem(found.file, "metadata.name", "is missing", hides=False)
        return
    texts, binaries = ("stringData", "data") if kind == "Secret" else ("data", "binaryData")
    data: dict[str, bytes] = {}
    for section, encoded in ((binaries, True), (texts, False)):
        entries = document.get(section) or {}
        if not isinstance(entries, dict):
            found.problem(found.file, section, "must be a mapping", hides=False)
            continue
        for key, value in entries.items():
            try:
                data[key] = base64.b64decode("".join(value.split()), validate=True) if encoded else value.encode()
            except (TypeError, ValueError, AttributeError, binascii.Error):
                wanted = "base64" if encoded else "a string"
                found.problem(found.file, f"{section}.{key}", f"must be {wanted}", hides=False)
    found.objects.setdefault((kind, name), []).append((found.file, data))
