"""Private keys as commands read them, with their passwords; and cosign's signatures, put beside an artifact."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.targets import EMPTY, described, digest_of
from hookline_artifacts.trust import cosign, private_keys, signing
from hookline_artifacts.trust.collect import collect
from hookline_cli.bounded import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_artifacts.targets import Target
    from hookline_artifacts.trust.evidence import Form, Signature
    from hookline_artifacts.trust.private_keys import PrivateKey

_VARIABLES: Final = ("HOOKLINE_PASSWORD", "COSIGN_PASSWORD")


def given_password() -> bytes | None:
    """The password in the environment; None where there is none, and empty where that is what it is."""
    found = next((os.environ[name] for name in _VARIABLES if name in os.environ), None)
    return None if found is None else found.encode(errors="surrogateescape")


def new_password() -> bytes:
    """A password for a new key: of the environment, or asked for. Raises ConfigError where nobody can be asked."""
    given = given_password()
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(
            "the new key needs a password: set HOOKLINE_PASSWORD or COSIGN_PASSWORD (empty for none), or run this at a "
            "terminal"
        )
    asked: str = click.prompt(
        "Password for the private key (empty for none)", hide_input=True, confirmation_prompt=True, default="",
        show_default=False, err=True,
    )  # fmt: skip
    return asked.encode()


def read_key(path: Path) -> PrivateKey:
    """The key of a file. Raises ConfigError."""
    missing = "; 'hookline keygen' makes a pair of keys"
    data = read_file(path, most=private_keys.MAX_FILE, what="--key", missing=missing)
    password = given_password()
    if password is None and private_keys.needs_password(data) and sys.stdin.isatty():
        asked: str = click.prompt(f"Password for {path}", hide_input=True, default="", show_default=False, err=True)
        password = asked.encode()
    return private_keys.read(data, password, what=f"--key: {path}")


async def sign(target: Target, digest: str, key: PrivateKey, form: Form, repository: str) -> bool:
    """Put a signature of cosign's beside an artifact; False where this key has signed it in that form already."""
    evidence = await collect(target.reader, digest)
    if any(each.form == form and _is_the_same(each, key, digest, repository) for each in evidence.signatures):
        return False
    if form == "simple":
        tag = f"{digest.replace(':', '-')}.sig"
        payload = signing.simple_payload(digest, repository)
        manifest, config = signing.simple_manifest(await target.reader.tagged(tag), payload, key)
        for blob in (payload, config):
            await target.put_blob(digest_of(blob), Cargo.of(blob))
        await target.put_manifest(manifest, tag=tag)
        return True
    bundle = signing.bundle(digest, key)
    manifest = signing.bundle_referrer(bundle, described(evidence.documents[digest]))
    for blob in (bundle, EMPTY):
        await target.put_blob(digest_of(blob), Cargo.of(blob))
    await target.attach(manifest, digest)
    return True


def _is_the_same(signature: Signature, key: PrivateKey, digest: str, repository: str) -> bool:
    """Whether a signature that is there says what another would."""
    try:
        claim = cosign.claim_of(signature, key.public)
    except cosign.NotAClaimError:
        return False
    if claim is None or digest not in claim.digests:
        return False
    return claim.repository in {"", repository} and claim.predicate_type in {"", cosign.SIGN_PREDICATE}
