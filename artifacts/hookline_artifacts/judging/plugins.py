"""What is wrong with a ``WasmPlugin``, and what is legal and risky, from the document alone. Pure."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from hookline_api import json_cost, sentences
from hookline_api.config import MAX_CONFIG, MAX_CONFIG_VALUES, Config
from hookline_api.hooks import parse_hook
from hookline_api.resources import LocalWasmPlugin, WasmPlugin
from hookline_api.sources import idle_parts, in_the_clear
from hookline_api.trust import Verify
from hookline_artifacts.errors import FetchError
from hookline_artifacts.judging.signers import Findings, judge_signatures
from hookline_artifacts.reference import LayoutReference, Reference
from hookline_artifacts.reference import parse as parse_reference

Json = dict[str, Any]

_MAX_WARNINGS: Final = 5
_MAX_PROBLEMS: Final = 50
_MAX_VALUES: Final = 20_000
_METADATA: Final = ("name", "namespace", "uid", "generation", "labels", "annotations")
_LABEL_PREFIX: Final = re.compile(r"(?=.{1,253}/)[a-z0-9]([-a-z0-9.]*[a-z0-9])?/")
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class Judgement(NamedTuple):
    """What ``judge`` found; each problem and each warning is one sentence that begins with the field's path."""

    problems: list[str]
    """What keeps it from being stored."""
    warnings: list[str]
    """What is legal, and may not be what was meant; at most five."""
    plugin: WasmPlugin | None
    """None where it cannot be read."""


def judge(document: Json, *, name: str = "unnamed", local: bool = False) -> Judgement:
    """What is wrong with a ``WasmPlugin``, what is legal and risky, and the plugin itself where it can be read.

    Each is one sentence that begins with the field's path. Unknown fields are warnings: only a definition that is
    newer than this operator lets them come this far. ``name`` stands in where the document has none yet.
    ``local`` says that it is for a manifest folder, which may name files.
    """
    metadata = document.get("metadata")
    known = (
        {key: metadata[key] for key in _METADATA if metadata.get(key) is not None} if isinstance(metadata, dict) else {}
    )
    if _is_vast(document):
        return Judgement([f"spec: holds more than {_MAX_VALUES} values beside config"], [], None)
    # Through JSON: a model built in Python takes a bare number for a duration.
    spec = document.get("spec")
    config = spec.get("config") if isinstance(spec, dict) else None
    small = {**spec, "config": {}} if isinstance(spec, dict) and isinstance(config, dict) else spec
    text = orjson.dumps({**document, "spec": small, "metadata": {"name": name, **known}, "status": None})
    plugin: WasmPlugin | None = None
    problems: list[str] = []
    try:
        plugin = _model(local=local).model_validate_json(text, by_alias=True, by_name=False)
        if isinstance(config, dict):
            plugin = _with_config(plugin, config, problems)
    except ValidationError as error:
        problems += map(str, sentences.problems(error, most=_MAX_PROBLEMS))
    warnings = _unknown_fields(text, local=local)
    if isinstance(spec, dict):
        problems += _more_problems(spec, local=local)
        signatures = _signatures(spec, name=known.get("name", name), local=local)
        problems += signatures.problems
        warnings += [*signatures.warnings, *_risks(spec)]
    if plugin is not None:
        found = idle_parts(plugin.spec, plugin.spec.permissions) + in_the_clear(plugin.spec, plugin.spec.kv.valkey)
        warnings += [f"spec.{each}" for each in found]
    return Judgement(problems, warnings[:_MAX_WARNINGS], plugin)


def _with_config(plugin: WasmPlugin, settings: Json, problems: list[str]) -> WasmPlugin:
    """With its settings, which the model would parse once more; what is wrong with their size is a problem."""
    try:
        config = Config(settings)
        if len(config.data) > MAX_CONFIG:
            problems.append(f"spec.config: has more than {MAX_CONFIG} bytes")
        json_cost.check(config.data, what="spec.config:", max_values=MAX_CONFIG_VALUES)
    except json_cost.CostError as error:
        problems.append(str(error))
    except ValueError as error:
        problems.append(f"spec.config: {error}")
        return plugin
    return plugin.model_copy(update={"spec": plugin.spec.model_copy(update={"config": config})})


def _is_vast(document: Json) -> bool:
    """Whether it is so large that a sentence for each of its mistakes would be a danger of its own."""
    spec = document.get("spec")
    left: list[Any] = [document.get("metadata"), {**spec, "config": None} if isinstance(spec, dict) else spec]
    count = 0
    while left:
        node = left.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        count += len(children)
        if count > _MAX_VALUES:
            return True
        left.extend(children)
    return False


def _model(*, local: bool) -> type[WasmPlugin]:
    return LocalWasmPlugin if local else WasmPlugin


def _unknown_fields(text: bytes, *, local: bool) -> list[str]:
    try:
        _model(local=local).model_validate_json(text, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        return [
            f"{where}: this version of Hookline knows no such field, and does nothing with it"
            for where in sentences.unknown_fields(error)
            if where != "spec.source.file"
        ]
    return []


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _items(node: Any, *names: str) -> list[Any]:
    found = _at(node, *names)
    return found if isinstance(found, list) else []


def _more_problems(spec: Json, *, local: bool) -> list[str]:
    """What the model does not say, because it also reads what machines wrote, and manifest folders."""
    problems = []
    if not local and _at(spec, "source", "file") is not None:
        problems.append("spec.source.file: is for manifest folders only; a cluster has no files")
    reference = _at(spec, "source", "oci", "reference")
    if isinstance(reference, str) and reference:
        try:
            if isinstance(parse_reference(reference), LayoutReference) and not local:
                problems.append("spec.source.oci.reference: oci-layout: is for manifest folders only")
        except FetchError as error:
            problems.append(f"spec.source.oci.reference: {error}")
    url = _at(spec, "source", "http", "url")
    if isinstance(url, str) and not _has_host(url):
        problems.append("spec.source.http.url: names no host")
    for index, mirror in enumerate(_items(spec, "source", "oci", "mirrors")):
        why = _mirror_problem(mirror) if isinstance(mirror, str) and mirror else ""
        if why:
            problems.append(f"spec.source.oci.mirrors[{index}]: {why}")
    return problems + selector_problems(_at(spec, "selector"), "spec.selector")


def _mirror_problem(mirror: str) -> str:
    try:
        parsed = parse_reference(mirror)
    except FetchError as error:
        return str(error)
    if not isinstance(parsed, Reference):
        return "a mirror is in a registry: write registry/repository"
    if "@" in mirror or ":" in mirror.rpartition("/")[2]:
        return f"a mirror is a repository, without a tag or a digest: write {parsed.registry}/{parsed.repository}"
    return ""


def _signatures(spec: Json, *, name: Any, local: bool) -> Findings:
    """What is to be said of ``spec.verify``, as far as it can be read: a document that is wrong elsewhere has it, too.

    What keeps it from being read, the model says.
    """
    given = _at(spec, "verify")
    if not isinstance(given, dict):
        return Findings()
    try:
        verify = Verify.model_validate_json(orjson.dumps(given), by_alias=True, by_name=False)
    except ValidationError:
        return Findings()
    repository: str | None = ""
    if _at(spec, "source", "oci") is not None:
        repository = _repository(_at(spec, "source", "oci", "reference"))
    plugin = name if isinstance(name, str) else None
    return judge_signatures(verify, where="spec.verify", plugin=plugin, repository=repository, local=local)


def _repository(reference: Any) -> str | None:
    """``registry/repository`` of a reference; None where it is none."""
    try:
        parsed = parse_reference(reference) if isinstance(reference, str) else None
    except FetchError:
        return None
    return f"{parsed.registry}/{parsed.repository}" if isinstance(parsed, Reference) else None


def selector_problems(selector: Any, where: str) -> list[str]:
    """What Kubernetes has against a label selector that stands at ``where``, whatever that is."""
    labels = _at(selector, "matchLabels")
    problems = [_key_problem(f"{where}.matchLabels", key) for key in (labels if isinstance(labels, dict) else {})]
    for index, requirement in enumerate(_items(selector, "matchExpressions")):
        at = f"{where}.matchExpressions[{index}]"
        problems.append(_key_problem(f"{at}.key", _at(requirement, "key")))
        operator, values = _at(requirement, "operator"), _items(requirement, "values")
        # Tuples: the value may be of a type that cannot be hashed.
        if operator in ("In", "NotIn") and not values:
            problems.append(f"{at}.values: {operator} needs at least one value")
        if operator in ("Exists", "DoesNotExist") and values:
            problems.append(f"{at}.values: {operator} takes no values")
    return [problem for problem in problems if problem is not None]


def _key_problem(where: str, key: Any) -> str | None:
    if not isinstance(key, str) or _is_label_key(key):
        return None
    return f"{where}: {key!r:.80} is not a label key: write letters, digits, '-', '_' and '.', with PREFIX/ or without"


def _is_label_key(key: str) -> bool:
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    prefix = _LABEL_PREFIX.match(key)
    return _LABEL_NAME.fullmatch(key, prefix.end() if prefix else 0) is not None


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _risks(spec: Json) -> list[str]:
    warnings = []
    oci = _at(spec, "source", "oci")
    reference = _at(oci, "reference")
    if _at(oci, "insecure") is True:
        warnings.append(
            "spec.source.oci.insecure: the registry is spoken to in plain HTTP: whoever is on the way reads the "
            "credentials, and can change what a tag names"
        )
    if isinstance(reference, str) and _at(oci, "trackInterval") is None and _is_latest(reference):
        warnings.append(
            "spec.source.oci.reference: 'latest' is looked up when the resource changes, and not by itself; "
            "set trackInterval, or write a version"
        )
    warnings += [
        f"spec.failurePolicy.{cause}: with Open, a hook that decides lets calls pass unchecked"
        for cause in ("fetch", "config", "trap", "timeout", "result", "overload", "store")
        if _at(spec, "failurePolicy", cause) == "Open" and not _only_observes(_items(spec, "hooks"))
    ]
    if _at(spec, "permissionsPolicy") == "Lenient":
        warnings.append(
            "spec.permissionsPolicy: with Lenient, a plugin runs without what it is not granted, and may decide "
            "without what it wanted to know"
        )
    if _at(spec, "permissionsPolicy") == "FollowArtifact":
        warnings.append(
            "spec.permissionsPolicy: with FollowArtifact, a new version has every permission that it asks for; only a "
            "PluginTrustPolicy keeps one from it"
        )
    return warnings


def _only_observes(hooks: list[Any]) -> bool:
    try:
        return bool(hooks) and all(parse_hook(hook).observes for hook in hooks)
    except ValueError:
        return False


def _is_latest(reference: str) -> bool:
    try:
        parsed = parse_reference(reference)
    except FetchError:
        return False
    return parsed.digest is None and parsed.tag == "latest"
