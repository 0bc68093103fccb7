"""``hookline keygen``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli.frame import FILE, Answer, UsageError, command

if TYPE_CHECKING:
    from hookline_artifacts.trust.private_keys import KeyType

_EXAMPLES = """
hookline keygen --output release
hookline keygen --type ed25519 --output keys/acme
HOOKLINE_PASSWORD=$(cat password) hookline keygen --output ci --json
"""


@command(
    "keygen",
    text="""Make a pair of keys to sign plugins with.

    Writes PREFIX.key, which signs and stays with you (mode 0600), and PREFIX.pub, which verifies. Keys of type ecdsa
    (P-256) are written as cosign writes its own, and each tool takes the other's. Keys of type ed25519 are HeliosDB's:
    PREFIX.pub has 32 bytes in base64, and PREFIX.key is PKCS#8 in PEM.

    The password of PREFIX.key is HOOKLINE_PASSWORD or COSIGN_PASSWORD of the environment, or asked for. Without one, a
    key of type ed25519 is kept as it is.""",
    examples=_EXAMPLES,
    options=[
        click.Option(
            ["--type", "kind"], type=click.Choice(["ecdsa", "ed25519"]), default="ecdsa", show_default=True,
            help="What the keys are of.",
        ),
        click.Option(
            ["--output", "prefix"], type=FILE, default=Path("hookline"), metavar="PREFIX", show_default=True,
            help="How the files' names begin. Files that are there are not overwritten.",
        ),
    ],
)  # fmt: skip
def KEYGEN(*, kind: KeyType, prefix: Path) -> Answer:  # noqa: N802 - what the decorator makes of it is a constant
    """Make a pair of keys."""
    from hookline_artifacts.trust import private_keys  # noqa: PLC0415
    from hookline_cli.signers import new_password  # noqa: PLC0415

    private, public = (prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("key", "pub"))
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path} is there already; move it away, or choose another --output")
    key = private_keys.generate(kind)
    data = private_keys.write(key, new_password())
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    public.write_text(f"{key.raw_public}\n" if kind == "ed25519" else key.pem_public)
    sealed = private_keys.needs_password(data)
    return Answer(
        lines=[
            f"wrote {private} (private{'' if sealed else ', without a password'}) and {public} (public)",
            f"key id: {key.public.id}",
        ],
        data={
            "type": kind,
            "private": str(private),
            "public": str(public),
            "keyId": key.public.id,
            "encrypted": sealed,
        },
    )
