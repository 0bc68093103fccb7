"""``hookline push``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from hookline_cli.frame import FILE, Answer, Progress, UsageError, command, registry_options, sized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_artifacts.reference import LayoutReference, Reference
    from hookline_artifacts.store import Artifact
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline push guard.wasm registry.example.com/plugins/guard:1.0.0
hookline push guard.wasm oci-layout:./mirror/guard:1.0.0
hookline push guard.wasm registry.example.com/plugins/guard:1.0.0 \\
  --annotation org.opencontainers.image.source=https://github.com/acme/guard
hookline sign registry.example.com/plugins/guard:1.0.0 --key release.key
"""
_MAX_ANNOTATIONS: Final = 64


@command(
    "push",
    text="""Push a module into a registry or a folder.

    FILE is a .wasm, or a package of one as .tar.gz, of which the module is pushed. It is looked into first: what
    Hookline would not load is not pushed. The artifact has the layout that the CNCF describes for WebAssembly. What the
    module says of itself (name, version, description, author, license) becomes annotations.

    REFERENCE needs a tag, registry.example.com/plugins/guard:1.0.0, or is oci-layout:FOLDER:TAG. The digest that is
    printed names this artifact and never another; the same module with the same annotations has the same digest.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["file"], type=FILE),
        click.Argument(["reference"]),
        click.Option(["--annotation", "annotations"], multiple=True, metavar="KEY=TEXT",
                     help="An annotation more, or an other text for one; without a text there is none. May be "
                     "repeated."),
        *registry_options(),
    ],
)  # fmt: skip
async def PUSH(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    file: Path,
    reference: str,
    annotations: Sequence[str],
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Push a module."""
    from hookline_artifacts.errors import VerifyError  # noqa: PLC0415
    from hookline_artifacts.packing import annotations_of  # noqa: PLC0415
    from hookline_artifacts.reference import parse  # noqa: PLC0415
    from hookline_artifacts.resolve import told  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    place = parse(reference)
    if place.digest is not None or place.tag is None:
        instead = "which its bytes tell" if place.digest is not None else "and none is given"
        raise UsageError(f"REFERENCE needs a tag, not a digest, {instead}: {_shown(place)}:1.0.0")
    more = _annotations(annotations)
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    async with reach.fetcher() as fetcher:
        try:
            artifact = await fetcher.fetch_file(file)
            info, description, _ = await told(artifact, whole=True)
        except VerifyError as error:
            raise VerifyError(f"{file}: {error}") from None
        said = {key: text for key, text in {**annotations_of(description), **more}.items() if text}
        digest = await _push(artifact, place, said, reach)
    hooks = ", ".join(hook.value for hook in info.hooks)
    return Answer(
        lines=[
            f"pushed: {place} ({sized(artifact.size)}, hooks {hooks})",
            f"{_shown(place)}@{digest}",
        ],
        data={
            "reference": str(place),
            "digest": digest,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "hooks": [hook.value for hook in info.hooks],
            "annotations": said,
        },
    )


async def _push(
    artifact: Artifact, place: Reference | LayoutReference, annotations: Mapping[str, str], reach: Reach
) -> str:
    from hookline_artifacts import packing  # noqa: PLC0415

    made = packing.packed(artifact, annotations)
    progress = Progress(f"pushing {place}", artifact.size)
    try:
        async with reach.session() as session:
            target = reach.target(session, place)
            await packing.push(target, artifact, made, tag=place.tag, sent=progress.more)
    finally:
        progress.end()
    return made.digest


def _shown(place: Reference | LayoutReference) -> str:
    """It without its tag."""
    from hookline_cli.registries import repository_of  # noqa: PLC0415

    return repository_of(place) or f"oci-layout:{getattr(place, 'path', '')}"


def _annotations(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not key or not equals:
            raise UsageError(f"--annotation {each!r:.80}: write KEY=TEXT")
        found[key] = text
    if len(found) > _MAX_ANNOTATIONS:
        raise UsageError(f"--annotation is given {len(found)} times, and {_MAX_ANNOTATIONS} are taken")
    return found
