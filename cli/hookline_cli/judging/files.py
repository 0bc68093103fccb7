"""The documents of files and folders with their places, and the objects among them that others refer to."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hookline_api.base import API_VERSION, GROUP, KIND, POLICY_KIND
from hookline_artifacts.documents import kubernetes_yaml
from hookline_cli import reading
from hookline_cli.bounded import read_file
from hookline_cli.judging.findings import Finding, Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_KINDS: Final = (KIND, POLICY_KIND)
_OBJECTS: Final = ("Secret", "ConfigMap", "Namespace")
_OWN: Final = "WasmPluginRevision"
_NO_MANIFESTS: Final = (".sigstore.json", "trusted_root.json")


@dataclass(kw_only=True, slots=True)
class Files:
    """Everything in them."""

    pieces: list[Piece] = field(default_factory=list)
    """Documents of ours."""
    objects: reading.Documents = field(default_factory=reading.Documents)
    findings: list[Finding] = field(default_factory=list)
    """What is wrong before any document can be judged."""
    count: int = 0
    """Files that were read."""


def read(paths: Sequence[Path]) -> Files:
    """Raises ConfigError where a path cannot be read."""
    files = Files()
    for path in paths:
        for file in reading.files(path):
            if not path.is_dir() or not file.name.endswith(_NO_MANIFESTS):
                _read(file, files)
    _same_names(files)
    return files


def _read(file: Path, files: Files) -> None:
    raw = read_file(file, most=kubernetes_yaml.MAX_FILE, what="a manifest")
    files.count += 1
    try:
        found = kubernetes_yaml.read_placed(raw)
    except kubernetes_yaml.UnreadableError as error:
        files.findings.append(
            Finding(
                level="problem", by="file", message=f"this cannot be read: {error}", file=file, line=error.line,
                column=1 if error.line is not None else None,
            )
        )  # fmt: skip
        return
    for placed in found:
        for within, document in _flat(placed.value):
            piece = Piece(
                document=document if isinstance(document, dict) else {}, file=file, placed=placed, within=within
            )
            _take(piece, document, files)


def _flat(document: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """A document, or those in a List, as ``kubectl get -o yaml`` writes it."""
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        for index, item in enumerate(document["items"]):
            yield ("items", index), item
    else:
        yield (), document


def _take(piece: Piece, document: Any, files: Files) -> None:
    if not isinstance(document, dict):
        files.findings.append(piece.finding("problem", "file", "a document must be a mapping"))
        return
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "apiVersion" if not isinstance(version, str) else "kind"
        files.findings.append(
            piece.finding(
                "problem", "schema",
                f"{missing}: is missing; a plugin has apiVersion: {API_VERSION} and kind: {KIND}",
            )
        )  # fmt: skip
    elif version == API_VERSION and kind in _KINDS:
        files.pieces.append(piece)
    elif version.partition("/")[0] == GROUP or kind in _KINDS:
        if (version, kind) == (API_VERSION, _OWN):
            files.findings.append(piece.finding("note", "file", "is the operator's own, and is not judged"))
            return
        near = difflib.get_close_matches(kind, _KINDS, 1, 0.5)
        told = f"did you mean {API_VERSION} {near[0]}?" if near else f"there are {', '.join(_KINDS)}"
        field_ = "kind" if version == API_VERSION else "apiVersion"
        files.findings.append(piece.finding("problem", "schema", f"{field_}: {version} {kind} is unknown; {told}"))
    elif version == "v1" and kind in _OBJECTS:
        reading.take(document, piece.file, files.objects)


def _same_names(files: Files) -> None:
    first: dict[tuple[object, ...], Piece] = {}
    for piece in files.pieces:
        metadata = piece.document.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            continue
        key = (piece.document["kind"], str(metadata.get("namespace")), metadata["name"])
        if key in first:
            other = first[key]
            line = other.placed.place(other.within)
            at = f"{other.file}:{line[0]}" if line is not None else str(other.file)
            files.findings.append(
                piece.finding("warning", "file", f"metadata.name: is there more than once, also in {at}: the last wins")
            )
        else:
            first[key] = piece
