"""Documents as commands read them: plugins, policies, and the objects that they refer to, from files and folders.

They are read as Kubernetes reads them, and strictly: a field that is unknown is told, with the one that may be meant.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import BaseModel, ValidationError

from hookline_api import sentences
from hookline_api.base import API_VERSION, KIND, POLICY_KIND
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.documents import kubernetes_yaml
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.judging import structure
from hookline_cli.bounded import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hookline_api.policies import PluginTrustPolicy

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_MAX_FILES: Final = 1000
MAX_PROBLEMS: Final = 100
"""Of one document that are told: to find a name that may be meant takes a while."""
_METADATA: Final = ("name", "namespace", "uid", "generation", "labels", "annotations")
_KINDS: Final = (KIND, POLICY_KIND)
_OF_A_NAMESPACE: Final = "kubernetes.io/metadata.name"
"""The label that each namespace has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One document, and where it stands."""

    file: Path
    document: LocalWasmPlugin | PluginTrustPolicy

    @property
    def base(self) -> Path:
        """The folder that its files are relative to."""
        return self.file.parent


@dataclass(kw_only=True, slots=True)
class Documents:
    """What files hold."""

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong with them, a sentence each that begins with the file."""
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels of namespaces."""
    secrets: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict, repr=False)
    config_maps: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict, repr=False)
    undecoded: set[tuple[str, str, str]] = field(default_factory=set)
    """Kind, name and key of what is not base64 and has to be."""

    @property
    def plugins(self) -> list[Found]:
        """The plugins."""
        return [each for each in self.found if isinstance(each.document, LocalWasmPlugin)]

    @property
    def policies(self) -> list[Found]:
        """The policies."""
        return [each for each in self.found if not isinstance(each.document, LocalWasmPlugin)]

    def labels_of(self, namespace: str | None) -> dict[str, str]:
        """Those of a namespace, as far as they are known."""
        name = namespace or "default"
        return {_OF_A_NAMESPACE: name, **self.namespaces.get(name, {})}

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A Secret's data."""
        return _object(self.secrets, namespace, name)

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A ConfigMap's data."""
        return _object(self.config_maps, namespace, name)


def _object(
    objects: Mapping[tuple[str, str], Mapping[str, bytes]], namespace: str | None, name: str
) -> Mapping[str, bytes] | None:
    """One of a namespace; for who names none, the only one of that name."""
    if namespace is not None:
        return objects.get((namespace, name), objects.get(("", name)))
    named = [data for (_, its), data in objects.items() if its == name]
    return named[0] if len(named) == 1 else None


def read(paths: Sequence[Path]) -> Documents:
    """Everything in these files, and in the manifests of these folders. Raises ConfigError where one is missing."""
    documents = Documents()
    for path in paths:
        for file in files(path):
            _read_file(file, documents)
    return documents


def files(path: Path) -> list[Path]:
    """A file, or the manifests of a folder. Raises ConfigError."""
    if not path.is_dir():
        return [path]
    try:
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES and each.name[0] != ".")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(found) > _MAX_FILES:
        raise ConfigError(f"{path} has {len(found)} manifests, and {_MAX_FILES} are read")
    return found


def _read_file(file: Path, documents: Documents) -> None:
    raw = read_file(file, most=kubernetes_yaml.MAX_FILE, what="a manifest")
    try:
        found = kubernetes_yaml.read(raw)
    except kubernetes_yaml.UnreadableError as error:
        at = f":{error.line}" if error.line is not None else ""
        documents.problems.append(f"{file}{at}: this cannot be read: {error}")
        return
    for document in _flat(found):
        take(document, file, documents)


def _flat(documents: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The documents, and those in a List as ``kubectl get -o yaml`` writes it."""
    for each in documents:
        if not isinstance(each, dict):
            continue
        if each.get("kind") == "List" and isinstance(each.get("items"), list):
            yield from (item for item in each["items"] if isinstance(item, dict))
        else:
            yield each


def take(document: dict[str, Any], file: Path, documents: Documents) -> None:
    """One document of a file, or of a cluster."""
    kind, metadata = document.get("kind"), document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if document.get("apiVersion") == API_VERSION and isinstance(kind, str) and kind in _KINDS:
        _take_ours(document, _model(kind), file, documents)
    elif str(document.get("apiVersion", "")).partition("/")[0] == API_VERSION.partition("/")[0]:
        near = difflib.get_close_matches(str(kind), _KINDS, 1)
        meant = f"; did you mean {API_VERSION} {near[0]}?" if near else ""
        documents.problems.append(f"{file}: {document.get('apiVersion')} {kind} is unknown{meant}")
    elif kind == "Namespace" and isinstance(name, str):
        labels = metadata.get("labels")
        documents.namespaces[name] = {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
    elif kind in {"Secret", "ConfigMap"} and isinstance(name, str):
        objects = documents.secrets if kind == "Secret" else documents.config_maps
        found = _data(document, kind == "Secret", lambda key: documents.undecoded.add((kind, name, key)))
        objects[namespace if isinstance(namespace, str) else "", name] = found


def _model(kind: str) -> type[LocalWasmPlugin | PluginTrustPolicy]:
    if kind == KIND:
        return LocalWasmPlugin
    from hookline_api.policies import PluginTrustPolicy  # noqa: PLC0415 - few files have one

    return PluginTrustPolicy


def _take_ours(
    document: dict[str, Any], model: type[LocalWasmPlugin | PluginTrustPolicy], file: Path, documents: Documents
) -> None:
    document = {key: value for key, value in document.items() if key != "status"}
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        document["metadata"] = {key: metadata[key] for key in _METADATA if metadata.get(key) is not None}
    try:
        made = model.model_validate_json(
            orjson.dumps(document), strict=True, extra="forbid", by_alias=True, by_name=False
        )
    except ValidationError as error:
        name = metadata.get("name") if isinstance(metadata, dict) else None
        told = sentences.problems(error, most=MAX_PROBLEMS)
        for each, wrong in zip(told, error.errors(include_url=False), strict=False):
            near = meant(model, wrong["loc"]) if wrong["type"] == "extra_forbidden" else ""
            documents.problems.append(f"{file}: {model.model_fields['kind'].default} '{name}': {each}{near}")
        return
    documents.found.append(Found(file=file, document=made))


def _data(document: dict[str, Any], secret: bool, undecoded: Callable[[str], None]) -> dict[str, bytes]:  # noqa: FBT001
    """What a Secret or a ConfigMap holds; what cannot be read is left out, and its key told."""
    texts, binaries = ("stringData", "data") if secret else ("data", "binaryData")
    found: dict[str, bytes] = {}
    for section, encoded in ((binaries, True), (texts, False)):
        entries = document.get(section)
        for key, value in (entries if isinstance(entries, dict) else {}).items():
            try:
                found[key] = base64.b64decode("".join(value.split()), validate=True) if encoded else value.encode()
            except (TypeError, ValueError, AttributeError, binascii.Error):
                undecoded(key)
    return found


def meant(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The field that may be meant by one that is not there."""
    at: Any = model
    for part in location[:-1]:
        if isinstance(part, str):
            fields = {each.alias or name: each.annotation for name, each in at.model_fields.items()}
            at = _model_in(fields.get(part))
        if at is None:
            return ""
    names = [each.alias or name for name, each in at.model_fields.items()]
    return structure.meant(str(location[-1]), names)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is about: of ``list[Signer] | None`` it is Signer."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in typing.get_args(annotation) if (found := _model_in(each)) is not None), None)
