"""Policies as commands apply them: with their keys read from files, and to plugins that are files too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_api.policies import PluginTrustPolicy
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust.policy import Policy, selected
from hookline_artifacts.trust.requirement import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.resources import WasmPlugin
    from hookline_cli.reading import Documents, Found


async def made(found: Found, documents: Documents, namespace: str | None = None) -> Policy:
    """A policy with its keys read; ``broken`` where they cannot be. ``namespace`` is that of its objects."""
    policy = found.document
    assert isinstance(policy, PluginTrustPolicy)  # noqa: S101 - its caller has only these
    name, spec = policy.metadata.name, policy.spec
    if spec.signatures is None or not spec.signatures.wanted:
        return Policy(name=name, spec=spec)
    try:
        requirement = await load(
            spec.signatures, objects=documents, namespace=namespace, base=found.base, where="spec.signatures"
        )
    except ConfigError as error:
        return Policy(name=name, spec=spec, broken=str(error))
    return Policy(name=name, spec=spec, requirement=requirement)


def applying(policies: Sequence[Policy], plugin: WasmPlugin, documents: Documents) -> list[Policy]:
    """Those that apply to a plugin."""
    name, labels = plugin.metadata.name, plugin.metadata.labels
    around = documents.labels_of(plugin.metadata.namespace)
    return [each for each in policies if selected(each.spec, name=name, labels=labels, namespace_labels=around)]
