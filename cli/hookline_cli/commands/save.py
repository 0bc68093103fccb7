"""``hookline save``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import FILE, Answer, Progress, UsageError, command, registry_options, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_artifacts.reference import Reference
    from hookline_artifacts.targets import Session
    from hookline_artifacts.transfer import Archive
    from hookline_cli.registries import Reach

_EXAMPLES = """
hookline save registry.example.com/plugins/guard:1.0.0 -o guard.tar
hookline save registry.example.com/plugins/guard:1.0.0 registry.example.com/plugins/mask:2.1.0 -o plugins.tar \\
  --with-key release.pub --with-trust-root trusted_root.json
"""
_MAX_TRUST: Final = 1 << 20
_ROOT: Final = "trusted_root.json"


@command(
    "save",
    text="""Save artifacts with their signatures into one file.

    What belongs to each REFERENCE goes along: all of an index, cosign's signatures, attestations and SBOMs under tags,
    and whatever refers to it, to any depth that makes sense. Every byte is checked against its digest. The file is a
    tar of an OCI layout folder, which skopeo (oci-archive:) and others read too.

    Keys and trust roots that are saved with it say what the file's maker trusts. Compare them with what you have from
    elsewhere before you verify by them.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["references"], nargs=-1, required=True, metavar="REFERENCE..."),
        click.Option(["-o", "--output"], type=FILE, required=True, metavar="FILE", help="The file to write."),
        click.Option(["--with-trust-root", "trust_root"], type=FILE, metavar="FILE",
                     help="Sigstore's trusted_root.json to put into it."),
        click.Option(["--with-key", "keys"], multiple=True, type=FILE, metavar="FILE",
                     help="A public key (*.pub) to put into it. May be repeated."),
        *registry_options(),
    ],
)  # fmt: skip
async def SAVE(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    references: Sequence[str],
    output: Path,
    trust_root: Path | None,
    keys: Sequence[Path],
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Save artifacts into a file."""
    from hookline_artifacts.limits import FetchLimits  # noqa: PLC0415
    from hookline_artifacts.threads import in_thread  # noqa: PLC0415
    from hookline_artifacts.transfer import MAX_REFERENCES, Archive  # noqa: PLC0415
    from hookline_cli.bounded import is_special  # noqa: PLC0415
    from hookline_cli.registries import Reach  # noqa: PLC0415

    if is_special(output):
        raise UsageError(f"--output {output} is a device, or a pipe: name a file")
    origins = [_origin(each) for each in references]
    if len(origins) > MAX_REFERENCES:
        raise UsageError(f"{len(origins)} references, and {MAX_REFERENCES} go into one file")
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    trust = _trust(trust_root, keys)
    with tempfile.TemporaryDirectory(prefix=".hookline-", dir=_folder_of(output)) as folder:
        archive = Archive(Path(folder), limits=FetchLimits())
        for name, data in trust.items():
            archive.add_trust(name, data)
        async with reach.session() as session:
            saved = [await _save(each, archive, reach, session) for each in origins]
        size = await in_thread(archive.pack, output)
    lines = [
        f"saved: {each['reference']}@{each['digest']} ({each['manifests']} manifests, {each['signatures']} tags of "
        f"signatures, {each['referrers']} referrers, {sized(each['size'])})"
        for each in saved
    ]
    return Answer(
        lines=[*lines, f"wrote {output} ({sized(size)})"],
        data={"file": str(output), "size": size, "artifacts": saved, "trust": sorted(trust)},
    )


async def _save(origin: Reference, archive: Archive, reach: Reach, session: Session) -> dict[str, Any]:
    from hookline_artifacts.transfer import copy, gather  # noqa: PLC0415

    source = reach.target(session, origin).reader
    digest = await source.resolve()
    closure = await gather(source, digest)
    progress = Progress(f"saving {origin}", closure.size)
    try:
        await copy(closure, source, archive.target(origin), tag=_tag(origin, digest), told=progress.more)
    finally:
        progress.end()
    return {
        "reference": f"{origin.registry}/{origin.repository}:{origin.tag}" if origin.tag else str(origin),
        "digest": digest,
        "manifests": len(closure.manifests),
        "signatures": len(closure.tags),
        "referrers": len(closure.subjects),
        "size": closure.size,
    }


def _folder_of(output: Path) -> Path:
    """Where the file will be: what goes into it is collected beside it, on the same disk."""
    return output.absolute().parent


def _tag(origin: Reference, digest: str) -> str:
    """Under which tag it is kept: one that was named by its digest alone gets one made of that."""
    return origin.tag or f"digest-{digest.removeprefix('sha256:')[:32]}"


def _origin(text: str) -> Reference:
    from hookline_artifacts.reference import Reference, parse  # noqa: PLC0415

    found = parse(text)
    if not isinstance(found, Reference):
        raise UsageError(f"{text} is a folder already; pack it with tar, or name a registry")
    return found


def _trust(root: Path | None, keys: Sequence[Path]) -> dict[str, bytes]:
    from hookline_artifacts.transfer import is_trust_name  # noqa: PLC0415
    from hookline_artifacts.trust.keys import read_pem, read_raw  # noqa: PLC0415
    from hookline_cli.bounded import read_file  # noqa: PLC0415

    found: dict[str, bytes] = {}
    if root is not None:
        found[_ROOT] = read_file(root, most=_MAX_TRUST, what="--with-trust-root")
    for path in keys:
        data = read_file(path, most=_MAX_TRUST, what="--with-key")
        text, what = data.decode(errors="replace"), f"--with-key: {path}"
        # A private key, or what is none, never goes into a file that is handed on.
        _ = read_pem(text, what=what) if "-----BEGIN" in text else read_raw(text, what=what)
        if path.suffix != ".pub" or not is_trust_name(path.name) or path.name in found:
            raise UsageError(
                f"--with-key: {path} must have a name of its own that begins with no '-' or '.' and ends in .pub"
            )
        found[path.name] = data
    return found
