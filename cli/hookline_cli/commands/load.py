"""``hookline load``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hookline_cli.frame import FILE, Answer, Progress, UsageError, command, registry_options, sized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.reference import LayoutReference, Reference
    from hookline_artifacts.targets import Session
    from hookline_artifacts.transfer import Archive, Saved
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline load plugins.tar mirror.example.com/hookline
hookline load plugins.tar --to ./mirror
hookline verify mirror.example.com/hookline/plugins/guard:1.0.0 --key release.pub \\
  --signed-as registry.example.com/plugins/guard
"""


@command(
    "load",
    text="""Load what was saved into a registry or a folder.

    registry.example.com/plugins/guard:1.0.0 of FILE becomes REGISTRY[/PREFIX]/plugins/guard:1.0.0, with its signatures
    and all that refers to it. What is there already is left alone, so a load that was cut off goes on where it stopped.
    An artifact's tag is written last: nobody finds it before its signatures.

    With --to, each repository becomes an OCI layout folder, DIR/registry.example.com/plugins/guard. Keys and trust
    roots of the file are written to DIR/trust, or to --trust-to, and used for nothing.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["file"], type=FILE),
        click.Argument(["prefix"], required=False, metavar="[REGISTRY[/PREFIX]]"),
        click.Option(["--to", "folder"], type=FILE, metavar="DIR", help="Write folders instead."),
        click.Option(["--trust-to"], type=FILE, metavar="DIR", help="Where to write the file's keys and trust roots."),
        *registry_options(),
    ],
)  # fmt: skip
async def LOAD(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    file: Path,
    prefix: str | None,
    folder: Path | None,
    trust_to: Path | None,
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Load a saved file."""
    from hookline_artifacts.limits import FetchLimits  # noqa: PLC0415
    from hookline_artifacts.transfer import unpacked  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    if (prefix is None) == (folder is None):
        raise UsageError("give either REGISTRY[/PREFIX], or --to with a folder")
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    with tempfile.TemporaryDirectory(prefix="hookline-") as spool:
        archive = await unpacked(file, Path(spool), limits=FetchLimits())
        saved = archive.artifacts()
        if not saved:
            raise UsageError(f"{file} holds no artifact with a name; make it with 'hookline save'")
        places = [(each, _place(each, prefix, folder)) for each in saved]
        async with reach.session() as session:
            loaded = [await _load(each, place, archive, reach, session) for each, place in places]
        trust = archive.trust()
        where = trust_to or (folder / "trust" if folder is not None else None)
        kept = _write(where, trust) if trust and where is not None else []
    lines = [
        f"loaded: {each['reference']}@{each['digest']} (from {each['origin']}, {sized(each['sent'])} new)"
        for each in loaded
    ]
    if trust:
        lines.append(
            f"keys and trust roots of the file: {', '.join(trust)}"
            + (f", kept in {where}; compare them before you trust them" if where else "; --trust-to writes them")
        )
    if kept:
        lines.append(
            f"already in {where} with other content, and left alone: {', '.join(kept)}; compare them, and name another "
            "folder by --trust-to"
        )
    return Answer(
        lines=lines,
        data={
            "file": str(file),
            "artifacts": loaded,
            "trust": sorted(trust),
            "trustTo": str(where) if where else None,
            "trustKept": kept,
        },
    )


async def _load(
    saved: Saved, place: Reference | LayoutReference, archive: Archive, reach: Reach, session: Session
) -> dict[str, Any]:
    from hookline_artifacts.transfer import copy, gather  # noqa: PLC0415

    origin = saved.reference
    names = f"{origin.registry}/{origin.repository}:" if origin is not None else ""
    closure = await gather(archive.repository, saved.digest, names=names)
    progress = Progress(f"loading {place}", closure.size)
    try:
        sent = await copy(closure, archive.repository, reach.target(session, place), tag=place.tag, told=progress.more)
    finally:
        progress.end()
    return {
        "origin": saved.name,
        "reference": str(place),
        "digest": saved.digest,
        "size": closure.size,
        "sent": sent,
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write them, and never over what is there: that may be what they are to be compared with. What was left alone."""
    from hookline_cli.bounded import opened  # noqa: PLC0415 - few files have any

    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for name, data in files.items():
        try:
            with (folder / name).open("xb") as file:
                file.write(data)
        except FileExistsError:
            try:
                with opened(folder / name) as file:
                    is_same = file.read(len(data) + 1) == data
            except OSError:
                is_same = False
            kept += [] if is_same else [name]
    return kept


def _place(saved: Saved, prefix: str | None, folder: Path | None) -> Reference | LayoutReference:
    """Where an artifact goes. Raises FetchError where that is no reference."""
    from hookline_artifacts.reference import LayoutReference, parse  # noqa: PLC0415

    origin = saved.reference
    tag = origin.tag if origin is not None else saved.name
    if folder is not None:
        path = folder / origin.registry.replace(":", "_") / origin.repository if origin is not None else folder
        return LayoutReference(path=str(path), tag=tag, digest=None)
    assert prefix is not None  # noqa: S101 - one of both is given
    repository = f"{prefix.rstrip('/')}/{origin.repository}" if origin is not None else prefix
    if "/" not in repository:
        raise UsageError(f"{saved.name} does not tell its repository: give REGISTRY/REPOSITORY")
    return parse(f"{repository}:{tag}")
