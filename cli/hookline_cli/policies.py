"""Policies as commands apply them: with their keys read from files, and to plugins that are files too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_api.policies import PluginTrustPolicy
from hookline_api.selectors import selects
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust.patterns import matches
from hookline_artifacts.trust.policy import Policy
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
    metadata = plugin.metadata
    return [
        each
        for each in policies
        if selects(each.spec.namespace_selector, documents.labels_of(metadata.namespace))
        and selects(each.spec.plugin_selector, metadata.labels)
        and _names(each, metadata.name)
    ]


def _names(policy: Policy, name: str) -> bool:
    names = policy.spec.plugin_selector.names
    return not names or any(matches(each, name) for each in names)
