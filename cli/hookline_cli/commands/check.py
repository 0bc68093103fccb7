"""``hookline check``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from hookline_cli.frame import (
    FILE,
    REFUSED,
    UNAVAILABLE,
    Answer,
    Progress,
    UsageError,
    command,
    painted,
    registry_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.trust.policy import Policy
    from hookline_cli.judging.documents import Flavour, Judged
    from hookline_cli.judging.files import Files
    from hookline_cli.judging.findings import Finding
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline check wasmplugin.yaml
hookline check deploy/ --pull --strict
hookline check plugins/ --for folder
hookline check deploy/ --output github
helm template chart | hookline check /dev/stdin
"""
_COLOURS: Final = {"problem": "red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    flavour: Flavour | None
    pull: bool
    strict: bool
    output: str


@command(
    "check",
    text="""Judge manifests as a cluster, or a sidecar, would.

    Each PATH is a file or a folder of manifests. WasmPlugin and PluginTrustPolicy documents are judged as the API
    server and Hookline's webhook judge them, by the same code, and all that is wrong is told, each with its file, line
    and column. A WasmPlugin that names a file (source.file, oci-layout:) is judged as a sidecar with a folder would.

    Beside that: Secrets and ConfigMaps of the same files must have the keys that are named; policies of the same files
    are applied; and what does not fit the module is told, where it is a file or, with --pull, in a registry: hooks that
    it does not export, permissions that it needs, settings that its own schema forbids. Signatures are for 'hookline
    verify'.

    What is legal and may be a mistake is a warning, which counts with --strict.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["paths"], nargs=-1, type=FILE, required=True, metavar="PATH..."),
        click.Option(["--for", "flavour"], type=click.Choice(["cluster", "folder"]),
                     help="What the manifests are for. Default: a cluster, but for those that name files."),
        click.Option(["--pull"], is_flag=True, help="Fetch modules from registries and URLs, and check against them."),
        click.Option(["--strict"], is_flag=True, help="Warnings count, too."),
        click.Option(["--output"], type=click.Choice(["text", "github"]), default="text", show_default=True,
                     help="github: as annotations of a workflow."),
        *registry_options(),
    ],
)  # fmt: skip
async def CHECK(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    paths: Sequence[Path],
    flavour: Literal["cluster", "folder"] | None,
    pull: bool,
    strict: bool,
    output: str,
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Judge manifests."""
    from hookline_cli.judging import documents, files  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    wanted = _Wanted(flavour=flavour, pull=pull, strict=strict, output=output)
    found = files.read(paths)
    if not found.pieces and not found.findings:
        raise UsageError(
            f"there is no WasmPlugin and no PluginTrustPolicy in {', '.join(map(str, paths))}: name files that have one"
        )
    judged = [documents.judged(each, flavour or documents.flavour_of(each.document)) for each in found.pieces]
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    unknown = await _more(judged, found, wanted, reach)
    return _answer(found, judged, unknown, wanted)


async def _more(judged: Sequence[Judged], found: Files, wanted: _Wanted, reach: Reach) -> list[Finding]:
    """What other documents, and the modules, say; returned is what could not be found out."""
    from hookline_api.resources import WasmPlugin  # noqa: PLC0415
    from hookline_cli.judging import modules, objects  # noqa: PLC0415

    policies = await _policies(judged, found)
    unknown: list[Finding] = []
    shown: list[Progress] = []

    def received(size: int) -> None:
        shown[-1].more(size)

    async with reach.fetcher(received) as fetcher:
        for each in judged:
            plugin = each.model
            if not isinstance(plugin, WasmPlugin):
                continue
            for sentence in await objects.missing(plugin, found.objects, whole=each.flavour == "folder"):
                each.say("problem", "objects", sentence)
            _apply(policies, each, plugin, found)
            if not modules.is_here(plugin, found.objects) and not wanted.pull:
                continue
            shown.append(Progress(f"fetching the module of {each.piece.label}"))
            try:
                asked = _by_http(plugin) if reach.insecure else plugin
                why = await modules.judge(asked, each, found.objects, fetcher, reach.access)
            finally:
                shown[-1].end()
            if why is not None:
                unknown.append(each.piece.finding("note", "module", f"spec.source: {why}"))
    return unknown


def _by_http(plugin: WasmPlugin) -> WasmPlugin:
    """It, with a registry of plain HTTP."""
    spec = plugin.spec
    oci = spec.source.oci
    if oci is None:
        return plugin
    source = spec.source.model_copy(update={"oci": oci.model_copy(update={"insecure": True})})
    return plugin.model_copy(update={"spec": spec.model_copy(update={"source": source})})


async def _policies(judged: Sequence[Judged], found: Files) -> list[Policy]:
    """The policies of these files that can be read, with their keys."""
    from hookline_api.policies import PluginTrustPolicy  # noqa: PLC0415
    from hookline_cli import reading  # noqa: PLC0415
    from hookline_cli.policies import made  # noqa: PLC0415

    return [
        await made(reading.Found(file=each.piece.file, document=each.model), found.objects)
        for each in judged
        if isinstance(each.model, PluginTrustPolicy)
    ]


def _apply(policies: Sequence[Policy], judged: Judged, plugin: object, found: Files) -> None:
    from hookline_api.resources import WasmPlugin  # noqa: PLC0415
    from hookline_artifacts.judging.policies import judge_by  # noqa: PLC0415
    from hookline_cli.policies import applying  # noqa: PLC0415

    assert isinstance(plugin, WasmPlugin)  # noqa: S101 - its caller has only these
    said = judge_by(applying(policies, plugin, found.objects), plugin)
    for each in said.problems:
        judged.say("problem", "policy", each)
    for each in said.warnings:
        judged.say("warning", "policy", each)


def _answer(found: Files, judged: Sequence[Judged], unknown: Sequence[Finding], wanted: _Wanted) -> Answer:
    said = [*found.findings, *(finding for each in judged for finding in each.findings)]
    said.sort(key=lambda each: (str(each.file), each.line or 0, each.column or 0))
    problems = sum(each.level == "problem" for each in said)
    warnings = sum(each.level == "warning" for each in said)
    total = (
        f"{len(judged)} {'document' if len(judged) == 1 else 'documents'} in {found.count} "
        f"{'file' if found.count == 1 else 'files'}: {_many(problems, 'problem')}, {_many(warnings, 'warning')}"
        + (f", {len(unknown)} not checked against the module" if unknown else "")
    )
    if wanted.output == "github":
        lines = [each.github() for each in (*said, *unknown)]
    else:
        lines = [f"{each.where}: {painted(each.level, _COLOURS[each.level])}: {each.text}" for each in said]
        lines += [f"{each.where}: {painted('unknown', 'yellow')}: {each.text}" for each in unknown]
    refused = problems or (wanted.strict and warnings)
    return Answer(
        lines=[*lines, total],
        data={
            "files": found.count,
            "documents": [
                {
                    "document": each.piece.label,
                    "file": str(each.piece.file),
                    "for": each.flavour,
                    "refused": each.refused,
                }
                for each in judged
            ],
            "problems": problems,
            "warnings": warnings,
            "findings": [each.data() for each in said],
            "unknown": [each.data() for each in unknown],
        },
        code=REFUSED if refused else UNAVAILABLE if unknown else 0,
    )


def _many(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
