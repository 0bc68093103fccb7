"""``hookline inspect``."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import Answer, UsageError, command, registry_options, sized, words
from hookline_cli.inquiry.options import Asked, cluster_options, sidecar_options

if TYPE_CHECKING:
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.module.inspection import ModuleInfo
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.trust.evidence import Signature
    from hookline_cli.inquiry.running import Running
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline inspect guard.wasm
hookline inspect ./guard
hookline inspect registry.example.com/plugins/guard:1.0.0
hookline inspect oci-layout:./mirror/guard:1.0.0 --json
hookline inspect pod/web-7d9f8 guard -n shop
hookline inspect guard --state ~/.local/state/hookline
"""
_ALL_KINDS = frozenset({"key", "keyless", "ed25519"})
_PAGE = 65_536
_POD: Final = "pod/"


@command(
    "inspect",
    text="""Show what an artifact is, what it asks for, and the resource that would run it.

    TARGET is a .wasm, a .tar.gz, a project that is built, a reference, or oci-layout:FOLDER[:TAG]. Nothing of it is
    run. Signatures are counted and not verified: 'hookline verify' does that.

    TARGET is pod/NAME for what runs in a pod, all of it or PLUGIN, and what of it was granted and verified there. With
    --admin or --state it is a plugin of that sidecar.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"]),
        click.Argument(["plugin"], required=False),
        *registry_options(),
        *cluster_options(),
        *sidecar_options(),
    ],
)
async def INSPECT(  # noqa: N802 - what the decorator makes of it is a constant
    *, target: str, plugin: str | None, insecure: bool, ca: Path | None, docker_config: Path | None, **given: Any
) -> Answer:
    """Inspect an artifact, or what runs."""
    asked = Asked(**given)
    sidecar = asked.sidecar()
    if sidecar is None and not target.startswith(_POD):
        if plugin is not None or asked != Asked():
            options = "--namespace, --context and --kubeconfig are"
            what = options if plugin is None else f"the second argument, {plugin}, is"
            raise UsageError(
                f"{what} for what runs in a pod, and {target} is an artifact: inspect pod/NAME, or it alone"
            )
        seen = await _artifact(target, insecure=insecure, ca=ca, docker_config=docker_config)
        return Answer(lines=_lines(seen), data=_data(seen))
    if insecure or ca is not None or docker_config is not None:
        raise UsageError("--insecure, --ca and --docker-config are for a registry, and a sidecar is asked")
    if sidecar is not None and (plugin is not None or target.startswith(_POD)):
        raise UsageError("--admin and --state name a sidecar, so TARGET is a plugin of it, and there is no PLUGIN")
    from hookline_cli.inquiry import running  # noqa: PLC0415 - --help does without

    if sidecar is not None:
        found = await asyncio.to_thread(running.of_admin(sidecar).running, target)
    else:
        pod = running.of_pod(asked.cluster(), target.removeprefix(_POD))
        found = await asyncio.to_thread(pod.running, plugin)
    everything = [_running(each) for each in found]
    lines = [line for each in everything for line in (*_lines(each), "")][:-1] or ["no plugin runs"]
    return Answer(lines=lines, data={"target": target, "plugins": [_data(each) for each in everything]})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """All that was found."""

    target: str
    source: dict[str, Any]
    digest: str
    layout: str
    info: ModuleInfo
    description: PluginDescription
    is_own: bool
    signatures: list[str]
    unknown: str
    """Why it is not known who has signed; empty where it is."""
    name: str
    wasm: bytes
    running: Running | None = None


async def _artifact(target: str, *, insecure: bool, ca: Path | None, docker_config: Path | None) -> _Seen:
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
    return _Seen(
        target=named,
        source=_shown(source, named),
        digest=artifact.digest,
        layout=artifact.layout,
        info=info,
        description=description,
        is_own=believed == description,
        signatures=signatures,
        unknown=unknown,
        name=description.name if description.name is not None and _is_name(description.name) else short,
        wasm=wasm,
    )


def _running(found: Running) -> _Seen:
    """What runs, by the bytes of its module."""
    from hookline_artifacts.module.describe import PluginDescription  # noqa: PLC0415
    from hookline_artifacts.module.inspection import inspect_module  # noqa: PLC0415

    info = inspect_module(found.wasm)
    described = info.description
    is_file = found.layout == "file"
    return _Seen(
        target=f"{found.name} ({found.reference})",
        source={"file": {"path": Path(found.reference).name}} if is_file else {"oci": {"reference": found.reference}},
        digest=found.digest,
        layout=found.layout,
        info=info,
        description=PluginDescription() if described is None else PluginDescription.from_json(described),
        is_own=True,
        signatures=[],
        unknown="",
        name=found.name,
        wasm=found.wasm,
        running=found,
    )


def _built(target: str) -> str:
    """What is built of a project, where a folder is meant."""
    path = Path(target)
    if not path.is_dir():
        return target
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415

    built = read_project(path).built
    if not built.exists():
        raise FetchError(f"{built} is not there: build it with '{words('build', path)}'", transient=False)
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
    from hookline_api.permissions import is_permission  # noqa: PLC0415
    from hookline_api.text import readable  # noqa: PLC0415
    from hookline_cli.authoring import portrait  # noqa: PLC0415

    info, described = seen.info, seen.description
    lines = [
        f"{seen.target}",
        f"  {seen.digest} (layout {seen.layout})",
        f"  module    sha256:{_sha256(seen.wasm)}, {sized(len(seen.wasm))}",
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
    if seen.running is not None:
        granted = seen.running.granted
        lacks = [each for each in wanted if each not in granted and each not in odd]
        lines.append(f"  granted   {', '.join(granted) or 'no permission'}" + _if(", not granted: ", ", ".join(lacks)))
    lines += [f"  note      the permission {readable(each, 64)} cannot be granted: there is none" for each in odd]
    least, most = described.resources.min_memory, described.resources.max_memory
    says = ", ".join(f"{w} {sized(v)}" for w, v in (("at least", least), ("at most", most)) if v is not None)
    lines.append(f"  memory    begins with {sized(info.memory_pages * _PAGE)}" + (f"; says {says}" if says else ""))
    for name, kind, required, text in portrait.settings(described.config_schema):
        lines.append(f"  setting   {name} ({kind}{', required' if required else ''}){': ' + text if text else ''}")
    count, why = portrait.cases_in(seen.wasm)
    lines.append(f"  cases     {(why and 'unreadable: ' + why) or ('none' if count is None else count)}")
    lines += _signed(seen)
    lines += [f"  note      {each}" for each in described.notes]
    if not seen.is_own:
        lines.append("  note      part of this is said by its package, which counts where a signature covers it")
    resource = portrait.resource(seen.name, seen.source, info, described)
    return [*lines, "", "# the resource that would run it, with all that it asks for:", *resource.splitlines()]


def _signed(seen: _Seen) -> list[str]:
    if seen.running is not None:
        return [f"  verified  {each}" for each in seen.running.verified] or [
            "  verified  no policy of the sidecar's own asks for signatures"
        ]
    signed = ", ".join(f"{seen.signatures.count(form)} {form}" for form in dict.fromkeys(seen.signatures))
    told = f"not known: {seen.unknown}" if seen.unknown else f"{signed}, not verified here" if signed else "none found"
    return [f"  signed    {told}"]


def _if(before: str, text: str) -> str:
    return before + text if text else ""


def _sha256(wasm: bytes) -> str:
    return hashlib.sha256(wasm).hexdigest()


def _data(seen: _Seen) -> dict[str, Any]:
    from hookline_cli.authoring import portrait  # noqa: PLC0415

    info, described = seen.info, seen.description
    count, why = portrait.cases_in(seen.wasm)
    return {
        "target": seen.target,
        "digest": seen.digest,
        "layout": seen.layout,
        "sha256": _sha256(seen.wasm),
        "size": len(seen.wasm),
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
        **_as_it_runs(seen.running),
    }


def _as_it_runs(running: Running | None) -> dict[str, Any]:
    return {} if running is None else {"granted": list(running.granted), "verified": list(running.verified)}
