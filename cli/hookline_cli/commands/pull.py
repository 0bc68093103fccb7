"""``hookline pull``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli.frame import FILE, Answer, Progress, UsageError, command, registry_options, sized

if TYPE_CHECKING:
    from hookline_artifacts.reference import LayoutReference, Reference

_EXAMPLES = """
hookline pull registry.example.com/plugins/guard:1.0.0
hookline pull registry.example.com/plugins/guard@sha256:… -o guard.wasm
hookline pull oci-layout:./mirror/guard:1.0.0 -o guard.wasm
"""


@command(
    "pull",
    text="""Pull a module out of a registry or a folder.

    Every layout that a WasmPlugin may name is understood. Each byte is checked against the digest that its manifest
    says, and the manifest against REFERENCE's digest, or the one that its tag has now. The file is complete or absent.
    Who has signed it is for 'hookline verify'.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["reference"]),
        click.Option(["-o", "--output"], type=FILE, metavar="FILE",
                     help="The file to write. Default: the last part of the repository's name, and .wasm."),
        *registry_options(),
    ],
)  # fmt: skip
async def PULL(  # noqa: N802 - what the decorator makes of it is a constant
    *, reference: str, output: Path | None, insecure: bool, ca: Path | None, docker_config: Path | None
) -> Answer:
    """Pull a module."""
    from hookline_api.resources import OCISource  # noqa: PLC0415
    from hookline_artifacts.reference import parse  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    place = parse(reference)
    file = output if output is not None else Path(f"{_name(place)}.wasm")
    if file.is_dir():
        raise UsageError(f"--output {file} is a folder; name a file in it")
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    progress = Progress(f"pulling {place}")
    try:
        async with reach.fetcher(progress.more) as fetcher:
            source = OCISource(reference=reference, insecure=reach.insecure)
            artifact = await fetcher.fetch_oci(source, access=reach.access, base=Path.cwd())
            _copy(artifact.path, file)
    finally:
        progress.end()
    return Answer(
        lines=[
            f"pulled: {file} ({sized(artifact.size)}, layout {artifact.layout})",
            f"{artifact.digest} (module sha256:{artifact.sha256})",
        ],
        data={
            "reference": str(place),
            "file": str(file),
            "digest": artifact.digest,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "layout": artifact.layout,
        },
    )


def _name(place: Reference | LayoutReference) -> str:
    name: str = getattr(place, "repository", "") or getattr(place, "path", "")
    return name.rstrip("/").rpartition("/")[2].lstrip(".") or "plugin"


def _copy(source: Path, target: Path) -> None:
    from hookline_cli.bounded import replacing  # noqa: PLC0415 - --help does without

    with replacing(target) as temporary, source.open("rb") as file, temporary.open("wb") as copy:
        shutil.copyfileobj(file, copy)
