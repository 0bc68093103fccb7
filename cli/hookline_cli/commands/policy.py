"""``hookline policy check``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from hookline_cli.frame import FILE, REFUSED, UNAVAILABLE, USAGE, Answer, UsageError, command, registry_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.resources import LocalWasmPlugin
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.trust.policy import Policy
    from hookline_cli.reading import Documents, Found
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline policy check policy.yaml
hookline policy check policy.yaml plugins/ --signatures
hookline policy check policies/ guard.yaml namespaces.yaml --json
hookline policy check new-policy.yaml --kubeconfig ~/.kube/config
"""
_SHOWN: Final = "PluginTrustPolicy '{}'"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    """What one policy, or the resource itself, says of one plugin."""

    plugin: str
    file: str
    policy: str
    enforced: bool
    message: str


@command(
    "check",
    text="""Tell what policies would refuse of manifests or of a cluster.

    Each PATH is a file or a folder of manifests. PluginTrustPolicy documents are checked strictly, and every WasmPlugin
    is judged by those whose selectors select it, as the operator judges it. Documents of kind Namespace tell the labels
    of namespaces; Secrets and ConfigMaps hold keys that policies name.

    With --kubeconfig, the plugins of a cluster are judged, and its own policies beside those of PATHs: what a new one
    would stop is known before it is applied. With --signatures, registries are asked too.

    A refusal by a policy in Audit is told, and does not count for the exit code.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["paths"], nargs=-1, type=FILE, required=True, metavar="PATH..."),
        click.Option(["--signatures"], is_flag=True, help="Fetch each artifact, and verify its signatures."),
        click.Option(["--kubeconfig"], type=FILE, metavar="FILE", help="Judge the plugins of this cluster."),
        click.Option(["--context"], metavar="NAME", help="Of the kubeconfig. Default: the current one."),
        click.Option(["--namespace"], default="hookline-system", show_default=True, metavar="NAME",
                     help="The operator's, where the keys of policies are."),
        *registry_options(),
    ],
)  # fmt: skip
async def CHECK(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    paths: Sequence[Path],
    signatures: bool,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str,
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Judge plugins by policies."""
    from hookline_cli import reading  # noqa: PLC0415
    from hookline_cli.policies import made  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    documents = reading.read(paths)
    if kubeconfig is not None:
        from hookline_artifacts.threads import in_thread  # noqa: PLC0415
        from hookline_cli import clusters  # noqa: PLC0415

        await in_thread(clusters.add, documents, kubeconfig, context, namespace)
    if not documents.policies and not documents.problems:
        raise UsageError(f"there is no PluginTrustPolicy in {', '.join(map(str, paths))}")
    policies = [await made(each, documents, namespace) for each in documents.policies]
    broken = [f"{_SHOWN.format(each.name)}: its keys cannot be read: {each.broken}" for each in policies if each.broken]
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    verdicts: list[_Verdict] = []
    unknown: list[str] = []
    async with reach.fetcher() as fetcher:
        for each in documents.plugins:
            found, why = await _judged(each, policies, documents, fetcher if signatures else None, reach)
            verdicts += found
            unknown += [why] if why else []
    return _answer(documents, policies, verdicts, [*documents.problems, *broken], unknown)


async def _judged(
    found: Found, policies: Sequence[Policy], documents: Documents, fetcher: Fetcher | None, reach: Reach
) -> tuple[list[_Verdict], str]:
    """What is refused of one plugin, and why more is not known."""
    from hookline_api.resources import LocalWasmPlugin  # noqa: PLC0415
    from hookline_artifacts.errors import ConfigError, FetchError, VerifyError  # noqa: PLC0415
    from hookline_artifacts.trust.policy import asked_by  # noqa: PLC0415
    from hookline_cli.policies import applying  # noqa: PLC0415

    assert isinstance(found.document, LocalWasmPlugin)  # noqa: S101 - its caller has only these
    plugin = found.document
    metadata = plugin.metadata
    name = f"{metadata.namespace or 'default'}/{metadata.name}"

    def verdict(policy: Policy | None, message: str) -> _Verdict:
        return _Verdict(
            plugin=name,
            file=str(found.file),
            policy=policy.name if policy is not None else "",
            enforced=policy is None or policy.enforced,
            message=message,
        )

    applied = applying(policies, plugin, documents)
    asked = asked_by(plugin)
    verdicts = [verdict(policy, why) for policy in applied for why in policy.forbidden(asked)]
    verdicts += [verdict(each, f"its keys cannot be read: {each.broken}") for each in applied if each.broken]
    if fetcher is None:
        return verdicts, ""
    for policy in applied:
        if not _is_about_artifacts(policy, plugin):
            continue
        try:
            await _tried(plugin, policy, documents, fetcher, found.base, reach)
        except VerifyError as error:
            verdicts.append(verdict(policy, str(error).removeprefix(f"{policy.label}: ")))
        except (FetchError, ConfigError) as error:
            return verdicts, f"{name}: {error}"
    return verdicts, ""


def _is_about_artifacts(policy: Policy, plugin: LocalWasmPlugin) -> bool:
    """Whether a policy asks what only the artifact tells."""
    follows = plugin.spec.permissions_policy == "FollowArtifact" and policy.spec.permissions is not None
    return policy.requirement is not None or bool(policy.spec.minimum_versions) or follows


async def _tried(
    plugin: LocalWasmPlugin, policy: Policy, documents: Documents, fetcher: Fetcher, base: Path, reach: Reach
) -> None:
    """What one policy says of the artifact, enforced alone. Raises VerifyError, FetchError and ConfigError."""
    from dataclasses import replace  # noqa: PLC0415

    from hookline_api.policies import PluginTrustPolicySpec  # noqa: PLC0415
    from hookline_artifacts.errors import FetchError, VerifyError  # noqa: PLC0415
    from hookline_artifacts.resolve import told, tried  # noqa: PLC0415
    from hookline_artifacts.trust.trial import Trial  # noqa: PLC0415

    spec = PluginTrustPolicySpec(
        permissions=policy.spec.permissions, minimum_versions=policy.spec.minimum_versions, mode="Enforce"
    )
    trial = Trial(plugin, [replace(policy, spec=spec)], None)
    _, artifact = await tried(trial, plugin, fetcher, documents, base=base, access=reach.access)
    follows = plugin.spec.permissions_policy == "FollowArtifact"
    if not follows and not policy.spec.minimum_versions:
        return
    try:
        info, _, description = await told(artifact, whole=trial.covers_package)
        asks = sorted({*description.permissions, *info.permissions})
    except VerifyError as error:  # of no policy's making
        raise FetchError(str(error), transient=False) from None
    trial.check_version(description.version, artifact.digest, None)
    if follows:
        trial.check_permissions(asks, None)


def _answer(
    documents: Documents, policies: Sequence[Policy], verdicts: Sequence[_Verdict], wrong: list[str], unknown: list[str]
) -> Answer:
    refused = [each for each in verdicts if each.enforced]
    lines = [f"wrong: {each}" for each in wrong]
    lines += [
        f"{'refused' if each.enforced else 'would be refused (Audit)'}: {each.plugin} ({each.file}) by "
        f"{_SHOWN.format(each.policy)}: {each.message}"
        for each in verdicts
    ]
    lines += [f"unknown: {each}" for each in unknown]
    names = {(each.plugin, each.file) for each in refused}
    lines.append(
        f"{len(documents.plugins)} plugins, {len(policies)} policies: {len(names)} refused, "
        f"{len({(each.plugin, each.file) for each in verdicts} - names)} would be, {len(unknown)} unknown"
    )
    code = USAGE if wrong else REFUSED if refused else UNAVAILABLE if unknown else 0
    return Answer(
        lines=lines,
        data={
            "plugins": len(documents.plugins),
            "policies": [each.name for each in policies],
            "problems": wrong,
            "refusals": [
                {
                    "plugin": each.plugin,
                    "file": each.file,
                    "policy": each.policy,
                    "mode": "Enforce" if each.enforced else "Audit",
                    "message": each.message,
                }
                for each in verdicts
            ],
            "unknown": unknown,
        },
        code=code,
    )
