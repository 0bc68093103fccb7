"""What is wrong with a ``PluginTrustPolicy``, and what is legal and risky, from the document alone. Pure.

Strict, unlike the judgement of plugins: a rule that is not understood would not be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.policies import PluginTrustPolicy, PluginTrustPolicySpec
from hookline_api.text import found
from hookline_artifacts.judging.plugins import selector_problems
from hookline_artifacts.judging.signers import Findings, impossible, judge_signatures
from hookline_artifacts.trust.policy import asked_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.trust.policy import Policy

Json = dict[str, Any]

_MAX_WARNINGS: Final = 5
_MAX_SPEC: Final = 512 * 1024
"""Bytes of JSON. A policy that names 64 of everything has less."""
_ASKS: Final = (
    "sources", "repositories", "tags", "signatures", "minimumVersions", "permissions", "permissionsPolicies",
    "selfTests", "egress", "dataSources", "stores", "failurePolicies", "limits",
)  # fmt: skip
"""Every rule but ``references``, which asks for something only where it is not ``Any``."""


class PolicyJudgement(NamedTuple):
    """What was found; each sentence begins with the field's path."""

    problems: list[str]
    warnings: list[str]
    spec: PluginTrustPolicySpec | None
    """None where it cannot be read."""


def read_spec(spec: Any) -> tuple[PluginTrustPolicySpec | None, str]:
    """A policy's rules, and one sentence where they are not understood: then there are none.

    A field that is not known is a rule that would not be kept.
    """
    try:
        if len(orjson.dumps(spec)) > _MAX_SPEC:
            return None, f"it has more than {_MAX_SPEC} bytes"
        read = PluginTrustPolicySpec.model_validate(spec or {}, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        return None, f"this version of the operator does not understand it: {sentences.first(error)}"
    except orjson.JSONEncodeError:
        return None, "it is nested too deeply"
    return read, ""


def judge_by(policies: Sequence[Policy], plugin: WasmPlugin) -> Findings:
    """What these policies, which apply to it, say of a plugin: of its settings alone, not of its signatures."""
    said = Findings()
    asked = asked_by(plugin)
    for policy in policies:
        for why in policy.forbidden(asked):
            if policy.enforced:
                said.problems.append(f"{policy.label} forbids it: {why}")
            else:
                said.warnings.append(f"{policy.label} (Audit) would refuse it: {why}")
        if policy.broken:  # nobody can mend that in the plugin, and it may be mended any moment
            verb = "forbids it for now" if policy.enforced else "(Audit) would refuse it for now"
            said.warnings.append(f"{policy.label} {verb}: {policy.broken}")
    return said


def judge_policy(document: Json, *, local: bool = False) -> PolicyJudgement:
    """What is wrong with a policy, what is legal and risky, and its rules where they can be read.

    ``local`` says that it is for a sidecar with a folder, whose policies may name files.
    """
    given = document.get("spec")
    read, problem = read_spec(given)
    if read is None:
        return PolicyJudgement(_problems(given, problem), [], None)
    problems = selector_problems(_at(given, "namespaceSelector"), "spec.namespaceSelector")
    problems += selector_problems(_at(given, "pluginSelector"), "spec.pluginSelector")
    for index, pattern in enumerate(read.repositories or ()):
        if why := impossible(pattern):
            problems.append(f"spec.repositories[{index}]: {found(pattern)} fits nothing: {why}")
    warnings = _risks(read, given if isinstance(given, dict) else {})
    if read.signatures is not None:
        signatures = judge_signatures(read.signatures, where="spec.signatures", local=local)
        problems += signatures.problems
        warnings += signatures.warnings
    return PolicyJudgement(problems, warnings[:_MAX_WARNINGS], read)


def _problems(spec: Any, problem: str) -> list[str]:
    """Why a policy cannot be read, in a sentence for each mistake; ``problem`` where it is too large for that."""
    try:
        text = orjson.dumps({"metadata": {"name": "unnamed"}, "spec": spec})
        PluginTrustPolicy.model_validate_json(text, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        return [str(each) for each in sentences.problems(error, most=50)]
    except orjson.JSONEncodeError:
        pass
    return [f"spec: {problem}"]


def _risks(spec: PluginTrustPolicySpec, given: Json) -> list[str]:
    warnings = []
    if spec.references == "Any" and all(_at(given, name) in (None, {}) for name in _ASKS):
        warnings.append("spec: asks for nothing, so it forbids nothing")
    for name, allowed in (("sources", spec.sources), ("repositories", spec.repositories), ("tags", spec.tags)):
        if allowed == []:
            warnings.append(f"spec.{name}: is empty, so it forbids every plugin that it selects")
    if spec.repositories and spec.sources is not None and "oci" not in spec.sources:
        warnings.append(
            "spec.sources: has no oci, and repositories allows nothing else: together they forbid every plugin"
        )
    if spec.tags is not None and spec.references == "Digest":
        warnings.append("spec.tags: does nothing, since every reference must have a digest (references: Digest)")
    return warnings


def _at(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, dict) else None
