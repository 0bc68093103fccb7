"""``hookline sign``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from hookline_cli.frame import FILE, Answer, UsageError, command, registry_options

if TYPE_CHECKING:
    from hookline_artifacts.reference import LayoutReference, Reference
    from hookline_artifacts.trust.private_keys import PrivateKey
    from hookline_cli.registries import Reach

Form = Literal["bundle", "simple", "ed25519"]

_EXAMPLES = """
hookline sign registry.example.com/plugins/guard:1.0.0 --key release.key
hookline sign registry.example.com/plugins/guard@sha256:… --key release.key --form simple
hookline sign oci-layout:./guard:1.0.0 --key release.key
hookline sign plugin.wasm --key release.key              # writes plugin.wasm.sigstore.json
hookline sign plugin.wasm --key acme.key                 # with a key of ed25519: writes plugin.sig
hookline sign guard-1.0.0.tar.gz --key acme.key          # puts plugin.sig into it
"""


@command(
    "sign",
    text="""Sign an artifact in a registry, in a folder, or a file.

    TARGET is a reference, oci-layout:FOLDER[:TAG], a .wasm, or a .tar.gz. What a tag means now is signed by its
    digest, and the signature is put beside the artifact, which stays as it is. An artifact that this key has signed
    already in that form is left alone.

    \b
    bundle   Sigstore's bundle as a referrer, as cosign 3 writes it (default for keys of cosign)
    simple   simple signing under the tag sha256-….sig, as cosign 2 writes it
    ed25519  Hookline's detached signature over the module and what describes it (default for keys of ed25519)

    Beside a file, a bundle is FILE.sigstore.json, as 'cosign sign-blob' writes it, and a signature of ed25519 is
    plugin.sig; in a .tar.gz it is inside, and the package is written anew.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"]),
        click.Option(["--key"], type=FILE, required=True, metavar="FILE", help="The private key."),
        click.Option(["--form"], type=click.Choice(["bundle", "simple", "ed25519"]), help="What kind of signature."),
        click.Option(
            ["--legacy"], is_flag=True,
            help="With ed25519: sign the module's bytes alone, as HeliosDB's tool does.",
        ),
        *registry_options(),
    ],
)  # fmt: skip
async def SIGN(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    target: str,
    key: Path,
    form: Form | None,
    legacy: bool,
    insecure: bool,
    ca: Path | None,
    docker_config: Path | None,
) -> Answer:
    """Sign an artifact."""
    from hookline_cli.registries import Reach, target_of  # noqa: PLC0415
    from hookline_cli.signers import read_key  # noqa: PLC0415

    place = target_of(target)
    private = read_key(key)
    chosen: Form = form or ("ed25519" if private.is_ed25519 else "bundle")
    if chosen == "ed25519" and not private.is_ed25519:
        raise UsageError("--form ed25519 takes a key of ed25519: hookline keygen --type ed25519")
    if legacy and chosen != "ed25519":
        raise UsageError("--legacy is for --form ed25519")
    if isinstance(place, Path):
        if chosen == "simple":
            raise UsageError("simple signing is for artifacts in registries; a file takes --form bundle or ed25519")
        from hookline_cli import detached  # noqa: PLC0415

        where = detached.sign_file(place, private, legacy=legacy, form=chosen)
        return _told(target, chosen, private, where)
    reach = Reach.of(insecure=insecure, ca=ca, docker_config=docker_config)
    return await _sign_reference(target, place, private, chosen, reach, legacy=legacy)


async def _sign_reference(
    text: str, reference: Reference | LayoutReference, key: PrivateKey, form: Form, reach: Reach, *, legacy: bool
) -> Answer:
    from hookline_api.resources import OCISource  # noqa: PLC0415
    from hookline_cli import detached, signers  # noqa: PLC0415
    from hookline_cli.registries import repository_of  # noqa: PLC0415

    async with reach.session() as session:
        target = reach.target(session, reference)
        digest = await target.reader.resolve()
        if form == "ed25519":
            # What is signed is the module, and what describes it.
            async with reach.fetcher() as fetcher:
                source = OCISource(reference=text, insecure=reach.insecure)
                artifact = await fetcher.fetch_oci(source, digest=digest, access=reach.access, base=Path.cwd())
                new = await detached.attach(target, digest, artifact, key, legacy=legacy)
        else:
            new = await signers.sign(target, digest, key, form, repository_of(reference))
    return _told(text, form, key, digest, new=new)


def _told(target: str, form: Form, key: PrivateKey, what: str, *, new: bool = True) -> Answer:
    return Answer(
        lines=[f"{'signed' if new else 'had signed already'}: {what} ({form}, key {key.public.id})"],
        data={"target": target, "signed": what, "form": form, "keyId": key.public.id, "new": new},
    )
