"""What a ``PluginTrustPolicy`` forbids of a resource, from its settings alone. Pure.

Operator, webhook, sidecar and command line judge here. The signatures that a policy asks for are ``verdict``'s.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hookline_api.quantities import format_duration, format_size
from hookline_api.selectors import selects
from hookline_artifacts.errors import FetchError
from hookline_artifacts.reference import Reference, parse
from hookline_artifacts.trust.patterns import matches, matches_any
from hookline_artifacts.trust.versions import is_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import EgressRule, ValkeyServer
    from hookline_api.policies import EgressAllowance, PluginTrustPolicySpec, SourceKind
    from hookline_api.resources import FailurePolicy, KvSettings, Limits, SelfTest, WasmPlugin
    from hookline_artifacts.trust.requirement import Requirement

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_SHOWN: Final[dict[str, Callable[[int], str]]] = {
    "timeout": format_duration,
    "wait": format_duration,
    "memory": format_size,
    "input": format_size,
    "output": format_size,
}
_NOT_OCI: Final = re.compile(r"(file|configmap):|(https?)://")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy that applies to a plugin, with its keys read."""

    name: str
    spec: PluginTrustPolicySpec
    requirement: Requirement | None = None
    """The signatures that it asks for."""
    broken: str = ""
    """Why nothing can be proven to it, in one sentence, such as that its keys cannot be read: then it forbids all."""

    @property
    def enforced(self) -> bool:
        """Whether it keeps plugins from running, and does not only count."""
        return self.spec.mode == "Enforce"

    @property
    def label(self) -> str:
        """For sentences."""
        return f"PluginTrustPolicy '{self.name}'"

    def forbidden(self, asked: Asked) -> list[str]:
        """As ``forbidden``, for whoever asks of thousands of plugins."""
        return [why for rule in self._rules for why in rule(asked)]

    @functools.cached_property
    def _rules(self) -> tuple[_Rule, ...]:
        return _rules_of(self.spec)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a resource asks for, as far as a policy judges it."""

    plugin: str
    kind: SourceKind
    reference: str
    permissions: Sequence[str]
    permissions_policy: str | None
    """None where it is not known any more."""
    egress: Sequence[EgressRule]
    data_source_hosts: Sequence[tuple[str, str]]
    """Name and host of each database."""
    stores: Sequence[tuple[str, ValkeyServer]]
    failure_policy: FailurePolicy
    limits: Limits
    self_test: SelfTest
    mirrors: Sequence[str] = ()
    """Repositories that the resource has asked before the reference's own: they say what a tag means."""

    @functools.cached_property
    def parsed(self) -> Reference | None:
        """The reference; None for a source that is no registry."""
        return _parsed(self.reference) if self.kind == "oci" else None

    @functools.cached_property
    def repository(self) -> str:
        """``registry/repository``; empty for a source that is no registry."""
        found = self.parsed
        return f"{found.registry}/{found.repository}" if found is not None else ""


@functools.lru_cache(4096)  # each policy asks for the same one
def _parsed(reference: str) -> Reference | None:
    try:
        found = parse(reference)
    except FetchError:
        return None
    return found if isinstance(found, Reference) else None


def asked_by(plugin: WasmPlugin, permissions: Sequence[str] | None = None) -> Asked:
    """What a resource asks for; ``permissions`` are those that it is granted, where they are more than it lists."""
    spec, source = plugin.spec, plugin.spec.source
    kinds: dict[SourceKind, str | None] = {
        "oci": source.oci.reference if source.oci is not None else None,
        "http": source.http.url if source.http is not None else None,
        "configMap": f"configmap:{source.config_map.name}/{source.config_map.key}" if source.config_map else None,
    }
    file: tuple[SourceKind, str | None] = ("file", "")
    kind, reference = next(((kind, text) for kind, text in kinds.items() if text is not None), file)
    return Asked(
        plugin=plugin.metadata.name,
        kind=kind,
        reference=reference or "",
        permissions=spec.permissions if permissions is None else permissions,
        permissions_policy=spec.permissions_policy,
        failure_policy=spec.failure_policy,
        limits=spec.limits,
        self_test=spec.self_test,
        egress=spec.egress,
        data_source_hosts=[(each.name, each.postgres.host) for each in spec.data_sources],
        stores=_stores(spec, spec.kv),
        mirrors=[each.removeprefix("http://") for each in source.oci.mirrors] if source.oci is not None else (),
    )


def asked_by_entry(entry: BundlePlugin) -> Asked:
    """The same of a bundle's entry that has an artifact."""
    reference = entry.artifact.reference if entry.artifact is not None else ""
    found = _NOT_OCI.match(reference)
    kind: SourceKind = "oci"
    if found is not None:
        kind = "http" if found[2] else "file" if found[1] == "file" else "configMap"
    return Asked(
        plugin=entry.name,
        kind=kind,
        reference=reference,
        permissions=entry.permissions,
        permissions_policy=None,
        failure_policy=entry.failure_policy,
        limits=entry.limits,
        self_test=entry.self_test,
        egress=entry.egress,
        data_source_hosts=[(each.name, each.postgres.host) for each in entry.data_sources],
        stores=_stores(entry, entry.kv),
    )


def _stores(outbound: object, kv: KvSettings) -> list[tuple[str, ValkeyServer]]:
    caches = getattr(outbound, "caches", [])
    found = [(f"caches.{each.name}", each.valkey) for each in caches if each.valkey is not None]
    return found + ([("kv", kv.valkey)] if kv.valkey is not None else [])


def selected(
    policy: PluginTrustPolicySpec,
    *,
    name: str,
    labels: Mapping[str, str] | None,
    namespace_labels: Mapping[str, str] | None,
) -> bool:
    """Whether a policy's selectors select a plugin. Labels that are not known (None) are selected by all."""
    selector = policy.plugin_selector
    return (
        (not selector.names or any(matches(each, name) for each in selector.names))
        and (labels is None or selects(selector, labels))
        and (namespace_labels is None or selects(policy.namespace_selector, namespace_labels))
    )


def forbidden(policy: PluginTrustPolicySpec, asked: Asked) -> list[str]:
    """What a policy forbids of that, one sentence each that begins with the field's path; empty where nothing."""
    return [why for rule in _rules_of(policy) for why in rule(asked)]


_Rule = Callable[[Asked], Iterator[str]]


def _rules_of(spec: PluginTrustPolicySpec) -> tuple[_Rule, ...]:
    """Those rules of which a policy has one: what is left out is not judged."""
    bounds = [(name, most) for name, most in spec.limits if most is not None]
    references = None if spec.references == "Any" else spec.references
    given: list[tuple[_Rule, tuple[object, ...]]] = [
        (functools.partial(_of_source, spec), (spec.sources, spec.repositories, references, spec.tags)),
        (functools.partial(_of_permissions, spec), (spec.permissions, spec.permissions_policies)),
        (functools.partial(_of_egress, spec), (spec.egress,)),
        (functools.partial(_of_hosts, spec), (spec.data_sources, spec.stores)),
        (functools.partial(_of_failures, spec), (spec.failure_policies,)),
        (functools.partial(_of_limits, bounds), (bounds or None,)),
        (functools.partial(_of_self_test, spec), (spec.self_tests,)),
    ]
    return tuple(rule for rule, asks in given if any(each is not None for each in asks))


def of_version(policy: PluginTrustPolicySpec, plugin: str, version: str | None) -> str | None:
    """Why a version is too low for a policy; None where it is not."""
    if not policy.minimum_versions:
        return None
    lowest = [each.version for each in policy.minimum_versions if any(matches(name, plugin) for name in each.plugins)]
    return next((why for each in lowest if (why := too_low(version, each)) is not None), None)


def too_low(version: str | None, minimum: str) -> str | None:
    """Why a version may not run where this is the lowest that may; None where it may."""
    if version is None:
        return f"the artifact tells no version, and {minimum} is the lowest that may run"
    if is_below(version, minimum):
        return f"the artifact is version {version}, and {minimum} is the lowest that may run"
    return None


def _of_source(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    if policy.sources is not None and asked.kind not in policy.sources:
        yield f"spec.source.{asked.kind}: sources may be {_list(policy.sources)}"
    if policy.repositories is not None and not matches_any(policy.repositories, asked.repository):
        what = asked.repository or "a source that is no registry"
        yield f"spec.source: {what} is not among the repositories that are allowed ({_list(policy.repositories)})"
    if policy.repositories is not None:
        for each in asked.mirrors:
            if not matches_any(policy.repositories, each):
                yield (
                    f"spec.source.oci.mirrors: {each} is not among the repositories that are allowed "
                    f"({_list(policy.repositories)})"
                )
    reference = asked.parsed
    if reference is None:
        if asked.kind == "oci" and (policy.references != "Any" or policy.tags is not None):
            yield "spec.source.oci.reference: names no registry, so its tag and its digest cannot be judged"
        return
    if policy.references == "Digest" and reference.digest is None:
        yield "spec.source.oci.reference: must have a digest (@sha256:…)"
    if policy.references == "Tag" and reference.digest is not None:
        yield "spec.source.oci.reference: must have a tag, and no digest"
    if policy.tags is not None and reference.digest is None:
        tag = reference.tag or "latest"
        if not any(matches(each, tag) for each in policy.tags):
            yield f"spec.source.oci.reference: tags may be {_list(policy.tags)}"


def _of_permissions(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    if policy.permissions is not None:
        allowed = policy.permissions
        more = [each for each in asked.permissions if each not in allowed and each.partition(":")[0] not in allowed]
        if more:
            yield f"spec.permissions: {_list(more)} may not be granted; it may be {_list(allowed)}"
    policies = policy.permissions_policies
    if policies is not None and asked.permissions_policy not in {None, *policies}:
        yield f"spec.permissionsPolicy: may be {_list(policies)}"


def _of_egress(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    if policy.egress is None:
        return
    for number, rule in enumerate(asked.egress):
        if not any(_allows(each, rule) for each in policy.egress):
            where = f"{rule.scheme}://{rule.host}" + (f":{rule.port}" if rule.port else "")
            yield f"spec.egress[{number}]: {where} is not among what is allowed"


def _allows(allowance: EgressAllowance, rule: EgressRule) -> bool:
    port = rule.port or _DEFAULT_PORTS[rule.scheme]
    return (
        rule.scheme in allowance.schemes
        and (not allowance.ports or port in allowance.ports)
        and any(_within(rule.host, each) for each in allowance.hosts)
    )


def _within(host: str, pattern: str) -> bool:
    """Whether each host that a name or a pattern stands for is one of another pattern."""
    host, pattern = host.lower().rstrip("."), pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in {"*", host}


def _of_hosts(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    if policy.data_sources is not None:
        for name, host in asked.data_source_hosts:
            if not any(_within(host, each) for each in policy.data_sources):
                yield f"spec.dataSources.{name}: the host {host} is not among those that are allowed"
    if policy.stores is None:
        return
    for path, server in asked.stores:
        at = _host(server.url) if server.url is not None else None
        if server.url is None:
            yield f"spec.{path}.valkey.urlFrom: a URL from a Secret cannot be judged, and is not allowed"
        elif not at:
            yield f"spec.{path}.valkey.url: names no host, and is not allowed"
        elif not any(_within(at, each) for each in policy.stores):
            yield f"spec.{path}.valkey.url: the host {at} is not among those that are allowed"


def _host(url: str) -> str:
    """Of a URL, as whoever connects reads it; empty where it names none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # the brackets hold something other than an address
        return ""


def _of_failures(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    allowed = policy.failure_policies
    if allowed is None:
        return
    for name in type(asked.failure_policy).model_fields:
        choice = getattr(asked.failure_policy, name)
        if choice is not None and choice not in allowed:
            yield f"spec.failurePolicy.{name}: {choice} is not allowed; it may be {_list(allowed)}"


def _of_self_test(policy: PluginTrustPolicySpec, asked: Asked) -> Iterator[str]:
    if policy.self_tests is not None and asked.self_test not in policy.self_tests:
        yield f"spec.selfTest: {asked.self_test} is not allowed; it may be {_list(policy.self_tests)}"


def _of_limits(bounds: Sequence[tuple[str, int]], asked: Asked) -> Iterator[str]:
    for name, most in bounds:
        given = getattr(asked.limits, name)
        if given is None or given > most:
            shown = _SHOWN.get(name, str)
            has = "is not given" if given is None else f"is {shown(given)}"
            yield f"spec.limits.{name}: {has}, and may be {shown(most)} at the most"


def _list(items: Iterable[str]) -> str:
    found = list(items)
    return ", ".join(found[:8]) + (" …" if len(found) > 8 else "") if found else "none"  # noqa: PLR2004
