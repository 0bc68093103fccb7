"""One document, judged: what the API server refuses, then what the webhook does, or a sidecar with a folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from pydantic import ValidationError

from hookline_api import crd, sentences
from hookline_api.base import KIND
from hookline_api.policies import PluginTrustPolicy
from hookline_api.resources import LocalWasmPlugin, WasmPlugin
from hookline_artifacts.judging import structure
from hookline_artifacts.judging.plugins import judge
from hookline_artifacts.judging.policies import judge_policy
from hookline_cli import reading

if TYPE_CHECKING:
    from hookline_cli.judging.findings import Finding, Judge, Piece

Flavour = Literal["cluster", "folder"]
_METADATA: Final = ("name", "namespace", "uid", "generation", "labels", "annotations")
_NAME: Final = "metadata.name"
_LAYOUT: Final = "oci-layout:"
_IS_NULL: Final = ": is null"


@dataclass(kw_only=True, slots=True)
class Judged:
    """What there is to say of a document, and the document as a model where it can be read."""

    piece: Piece
    flavour: Flavour
    findings: list[Finding] = field(default_factory=list)
    model: WasmPlugin | PluginTrustPolicy | None = None

    def say(self, level: Literal["problem", "warning", "note"], by: Judge, sentence: str) -> None:
        """Say it once."""
        path, _, text = sentence.partition(": ")
        said = [each for each in self.findings if each.level == "problem" or level != "problem"]
        if path == _NAME and any(each.message.startswith(f"{_NAME}: ") for each in said):
            return  # the schema and the model have a sentence each for a name that is none
        if not any(each.message == sentence or _is_same(each.message, path, text) for each in said):
            self.findings.append(self.piece.finding(level, by, sentence))

    @property
    def refused(self) -> bool:
        """Whether anything is wrong with it."""
        return any(each.level == "problem" for each in self.findings)


def _is_same(said: str, path: str, text: str) -> bool:
    """Whether the same field was said to be wrong in the same way by somebody with other words for it."""
    its_path, _, its_text = said.partition(": ")
    if its_path != path:
        return False
    if its_text.startswith(f"{_IS_NULL[2:]};"):
        return True
    return text.startswith(("there is no such field", "is null", "is missing", "must be", "this version of Hookline "))


def flavour_of(document: dict[str, Any]) -> Flavour:
    """A folder's, where it names a file; else both kinds can have it, and a cluster asks more."""
    spec = document.get("spec")
    source = spec.get("source") if isinstance(spec, dict) else None
    if not isinstance(source, dict):
        return "cluster"
    oci = source.get("oci")
    reference = oci.get("reference") if isinstance(oci, dict) else None
    is_layout = isinstance(reference, str) and reference.startswith(_LAYOUT)
    return "folder" if is_layout or "file" in source else "cluster"


def judged(piece: Piece, flavour: Flavour) -> Judged:
    """Everything about it that needs nothing else."""
    found = Judged(piece=piece, flavour=flavour)
    document = {name: value for name, value in piece.document.items() if name != "status"}
    is_plugin, local = document["kind"] == KIND, flavour == "folder"
    strict: type[WasmPlugin | PluginTrustPolicy] = (
        (LocalWasmPlugin if local else WasmPlugin) if is_plugin else PluginTrustPolicy
    )
    by: Judge = "folder" if local else "schema"
    schema = _schema(is_plugin=is_plugin)
    if not local:
        document["spec"], nulls = structure.without_nulls(document.get("spec"), schema["properties"]["spec"])
        for each in nulls:
            found.say("warning", "schema", f"{each}: is null, so it is as if it were not there")
    problems = structure.against_schema(document, schema)
    if local:
        problems = [each for each in problems if not each.startswith("spec.source.file: ")]
    for each in problems:
        if _IS_NULL in each:  # the model has words of its own for it, which say less
            found.say("problem", by, each)
    found.model = _model(strict, document, found, by)
    for each in problems:
        found.say("problem", by, each)
    said = judge(document, local=local) if is_plugin else judge_policy(document, local=local)
    for each in said.problems:
        found.say("problem", "folder" if local else "webhook", each)
    for each in said.warnings:
        found.say("warning", "folder" if local else "webhook", each)
    return found


@functools.cache
def _schema(*, is_plugin: bool) -> dict[str, Any]:
    definition = crd.crd() if is_plugin else crd.policy_crd()
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _model(
    strict: type[WasmPlugin | PluginTrustPolicy], document: dict[str, Any], found: Judged, by: Judge
) -> WasmPlugin | PluginTrustPolicy | None:
    """The document as its model, read as strictly as the API server reads it."""
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        known = {key: metadata[key] for key in _METADATA if metadata.get(key) is not None}
        if "name" not in known and isinstance(metadata.get("generateName"), str):
            known["name"] = f"{metadata['generateName']}x"  # as the API server will end it
        document = {**document, "metadata": known}
    else:
        document = {**document, "metadata": {"name": "unnamed"}}
    text = orjson.dumps({name: value for name, value in document.items() if name in {
        "apiVersion", "kind", "metadata", "spec"}})  # fmt: skip
    try:
        return strict.model_validate_json(text, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        every = error.errors(include_url=False)
        told = sentences.problems(error, most=reading.MAX_PROBLEMS)
        for each, wrong in zip(told, every, strict=False):
            meant = reading.meant(strict, wrong["loc"]) if wrong["type"] == "extra_forbidden" else ""
            found.say("problem", by, f"{each}{meant}")
        if len(every) > len(told):
            found.say("problem", by, f"and {len(every) - len(told)} more, which are not told")
    return None
