"""``hookline inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hookline_cli.frame import Answer, command, registry_options, sized

if TYPE_CHECKING:
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.trust.evidence import Signature
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline inspect guard.wasm
hookline inspect ./guard
hookline inspect registry.example.com/plugins/guard:1.0.0
hookline inspect oci-layout:./mirror/guard:1.0.0 --json
"""
_ALL_KINDS = frozenset({"key", "keyless", "ed25519"})
_PAGE = 65_536


@command(
    "inspect",
    text="""Show what an artifact is, what it asks for, and the resource that would run it.

    TARGET is a .wasm, a .tar.gz, a project that is built, a reference, or oci-layout:FOLDER[:TAG]. Nothing of it is
    run. Signatures are counted and not verified: 'hookline verify' does that.""",
    examples=_EXAMPLES,
    options=[click.Argument(["target"]), *registry_options()],
)
async def INSPECT(*, target: str, insecure: bool, ca: Path | None, docker_config: Path | None) -> Answer:  # noqa: N802
    """Inspect an artifact."""
    from hookline_api.resources import LocalWasmPlugin  # noqa: PLC0415 - --help does without
    from hookline_artifacts.resolve import told  # noqa: PLC0415
    from hookline_cli.registries import Reach, source_of  # noqa: PLC0415

    named = _built(target)
    source, short = source_of(named, insecure=insecure)
    plugin = LocalWasmPlugin.model_validate({"metadata": {"name": short}, "spec": {"source": source}})
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    async with reach.fetcher() as fetcher:
        artifact = await _fetched(plugin, fetcher, reach)
        info, description, believed = await told(artifact, whole=False)
        signatures, unknown = await _signatures(plugin, artifact, fetcher, reach)
        wasm = artifact.path.read_bytes()
    seen = _Seen(
        target=named,
        source=_shown(source, named),
        artifact=artifact,
        info=info,
        description=description,
        is_own=believed == description,
        signatures=signatures,
        unknown=unknown,
        name=description.name if description.name is not None and _is_name(description.name) else short,
        wasm=wasm,
    )
    return Answer(lines=_lines(seen), data=_data(seen))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """All that was found."""

    target: str
    source: dict[str, Any]
    artifact: Artifact
    info: ModuleInfo
    description: PluginDescription
    is_own: bool
    signatures: list[str]
    unknown: str
    """Why it is not known who has signed; empty where it is."""
    name: str
    wasm: bytes


def _built(target: str) -> str:
    """What is built of a project, where a folder is meant."""
    path = Path(target)
    if not path.is_dir():
        return target
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415

    built = read_project(path).built
    if not built.exists():
        raise FetchError(f"{built} is not there: build it with 'hookline build {target}'", transient=False)
    return str(built)


def _is_name(text: str) -> bool:
    from hookline_cli.authoring.project import NAME  # noqa: PLC0415

    return NAME.fullmatch(text) is not None


def _shown(source: dict[str, Any], target: str) -> dict[str, Any]:
    """The source as a resource would have it: of a file, by its name, beside the manifest."""
    if "file" in source:
        return {"file": {"path": Path(target).name}}
    oci = {key: value for key, value in source["oci"].items() if key != "insecure" or value}
    return {"oci": oci}


async def _fetched(plugin: Any, fetcher: Fetcher, reach: Reach) -> Artifact:
    from hookline_artifacts.resolve import fetch  # noqa: PLC0415
    from hookline_cli.reading import Documents  # noqa: PLC0415

    _, artifact = await fetch(plugin, fetcher, Documents(), digest=None, base=Path.cwd(), access=reach.access)
    return artifact


async def _signatures(plugin: Any, artifact: Artifact, fetcher: Fetcher, reach: Reach) -> tuple[list[str], str]:
    """The forms of what was found, and why more is not known."""
    from hookline_artifacts.beside import signatures_beside  # noqa: PLC0415
    from hookline_artifacts.errors import FetchError, VerifyError  # noqa: PLC0415
    from hookline_cli.reading import Documents  # noqa: PLC0415

    found: list[Signature] = []
    try:
        if plugin.spec.source.oci is not None:
            evidence = await fetcher.signatures(
                plugin.spec.source.oci, artifact.digest, access=reach.access, base=Path.cwd()
            )
            found = list(evidence.signatures)
        else:
            found = await signatures_beside(
                plugin.spec.source, _ALL_KINDS, fetcher=fetcher, objects=Documents(), namespace=None, base=Path.cwd()
            )
    except (FetchError, VerifyError) as error:
        return [], str(error)
    packed = ["packed beside the module"] * len(artifact.signatures)
    return [each.form for each in found] + packed, ""


def _lines(seen: _Seen) -> list[str]:
    from hookline_api.abi import HOST_FUNCTIONS  # noqa: PLC0415
    from hookline_api.resources import is_permission  # noqa: PLC0415
    from hookline_api.text import readable  # noqa: PLC0415
    from hookline_cli.authoring import portrait  # noqa: PLC0415

    artifact, info, described = seen.artifact, seen.info, seen.description
    lines = [
        f"{seen.target}",
        f"  {artifact.digest} (layout {artifact.layout})",
        f"  module    sha256:{artifact.sha256}, {sized(artifact.size)}",
    ]
    title = " ".join(filter(None, (described.name, described.version)))
    if title or described.description:
        lines.append(f"  says      {': '.join(filter(None, (title, described.description)))}")
    by = ", ".join(filter(None, (described.author, described.license)))
    lines += [f"  by        {by}"] if by else []
    called = [each.value for each in info.hooks]
    declared = [each.value for each in described.hooks]
    lines.append(f"  hooks     {', '.join(called)}" + (f" (declared: {', '.join(declared)})" if declared else ""))
    for each in info.imports:
        function = HOST_FUNCTIONS.get((each.module, each.name))
        needs = f", needs {function.permission.value}" if function is not None and function.permission else ""
        lines.append(f"  imports   {readable(each.module)}.{readable(each.name)}{needs}")
    wanted = portrait.asks(info, described)
    odd = [each for each in wanted if not is_permission(each)]
    lines.append(f"  asks for  {', '.join(wanted) or 'no permission'}")
    lines += [f"  note      the permission {readable(each, 64)} cannot be granted: there is none" for each in odd]
    least, most = described.resources.min_memory, described.resources.max_memory
    says = ", ".join(f"{w} {sized(v)}" for w, v in (("at least", least), ("at most", most)) if v is not None)
    lines.append(f"  memory    begins with {sized(info.memory_pages * _PAGE)}" + (f"; says {says}" if says else ""))
    for name, kind, required, text in portrait.settings(described.config_schema):
        lines.append(f"  setting   {name} ({kind}{', required' if required else ''}){': ' + text if text else ''}")
    count, why = portrait.cases_in(seen.wasm)
    lines.append(f"  cases     {(why and 'unreadable: ' + why) or ('none' if count is None else count)}")
    signed = ", ".join(f"{seen.signatures.count(form)} {form}" for form in dict.fromkeys(seen.signatures))
    told = f"not known: {seen.unknown}" if seen.unknown else f"{signed}, not verified here" if signed else "none found"
    lines.append(f"  signed    {told}")
    lines += [f"  note      {each}" for each in described.notes]
    if not seen.is_own:
        lines.append("  note      part of this is said by its package, which counts where a signature covers it")
    resource = portrait.resource(seen.name, seen.source, info, described)
    return [*lines, "", "# the resource that would run it, with all that it asks for:", *resource.splitlines()]


def _data(seen: _Seen) -> dict[str, Any]:
    from hookline_cli.authoring import portrait  # noqa: PLC0415

    artifact, info, described = seen.artifact, seen.info, seen.description
    count, why = portrait.cases_in(seen.wasm)
    return {
        "target": seen.target,
        "digest": artifact.digest,
        "layout": artifact.layout,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "name": described.name,
        "version": described.version,
        "description": described.description,
        "author": described.author,
        "license": described.license,
        "hooks": [each.value for each in info.hooks],
        "declaredHooks": [each.value for each in described.hooks],
        "imports": list(info.functions),
        "permissions": portrait.asks(info, described),
        "memory": {
            "initial": info.memory_pages * _PAGE,
            "min": described.resources.min_memory,
            "max": described.resources.max_memory,
        },
        "configSchema": described.config_schema,
        "cases": count,
        "casesProblem": why,
        "signatures": seen.signatures,
        "signaturesProblem": seen.unknown or None,
        "notes": list(described.notes),
        "resource": portrait.resource(seen.name, seen.source, info, described),
    }
