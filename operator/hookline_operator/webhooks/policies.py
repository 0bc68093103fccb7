"""What is wrong with a ``PluginTrustPolicy``, and what is legal and risky, from the document alone. Pure.

Strict, unlike the judgement of plugins: a rule that is not understood would not be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.policies import PluginTrustPolicy
from hookline_api.text import found
from hookline_operator.cluster.policies import read_spec
from hookline_operator.webhooks.judge import selector_problems
from hookline_operator.webhooks.signers import impossible, judge_signatures

if TYPE_CHECKING:
    from hookline_api.policies import PluginTrustPolicySpec

Json = dict[str, Any]

_MAX_WARNINGS: Final = 5
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


def judge_policy(document: Json) -> PolicyJudgement:
    """What is wrong with a policy, what is legal and risky, and its rules where they can be read."""
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
        signatures = judge_signatures(read.signatures, where="spec.signatures")
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
