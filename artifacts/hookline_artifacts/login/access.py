"""What one plugin may show to a registry, and what to do where that was nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.login.credentials import PullSecret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.reference import Reference

_MOST_NAMED: Final = 4
"""Secrets that one sentence names."""


@dataclass(frozen=True, kw_only=True)
class RegistryAccess:
    """How to reach a registry as one plugin may: its pull secrets and its own certificate authority."""

    dockerconfigs: tuple[Mapping[str, Any] | str | PullSecret, ...] = field(default=(), repr=False)
    """Pull secrets or contents of ``.dockerconfigjson``, tried in order, before the machine's own configuration."""
    ca_pem: str | None = None
    """Trusted beside the system's authorities."""
    by_hand: bool = False
    """A person asks, at a command line: what can be done about a refusal is told in its words."""

    @property
    def secrets(self) -> str:
        """The Secrets among them, by their names, as a sentence has them; empty where there are none."""
        found = [each.label for each in self.dockerconfigs if isinstance(each, PullSecret)]
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        return ", ".join(found[:_MOST_NAMED]) + more

    @cached_property
    def fingerprint(self) -> str:
        """Differs where the access differs; tells nothing about the secrets.

        Of the bytes as they are, and once: sixteen Secrets have 16 MiB, and written as text they took ten times that.
        """
        made = hashlib.sha256()
        parts = [part for document in self.dockerconfigs for part in _parts(document)]
        for part in (*parts, b"ca" if self.ca_pem is not None else b"", _bytes(self.ca_pem or "")):
            made.update(len(part).to_bytes(8))
            made.update(part)
        return made.hexdigest()


def _parts(document: Mapping[str, Any] | str | PullSecret) -> tuple[bytes, ...]:
    """What makes one document another, each by itself."""
    if isinstance(document, PullSecret):
        text = document.document
        kind = f"{document.bare} {type(text).__name__}".encode()
        return kind, document.name.encode(), text if isinstance(text, bytes) else _bytes(text or "")
    if isinstance(document, str):
        return b"text", _bytes(document)
    return b"parsed", json.dumps(document, sort_keys=True, default=dict).encode()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def advice_without_login(access: RegistryAccess, reference: Reference) -> str:
    """What a person may do where a registry wants a login, and none was found for it."""
    if access.dockerconfigs:
        given = access.secrets or "the pull secrets"
        return f"{given} gave it nothing that it takes: one of them needs an entry for {reference.registry}"
    if access.by_hand:
        return (
            f"no login for {reference.registry} was found in the docker configuration: log in with 'docker login' or "
            "'crane auth login', or name the file with --docker-config"
        )
    return (
        "no pull secret was configured: name one in spec.source.oci.pullSecrets, or in imagePullSecrets of the "
        "namespace's service account 'default' (a folder's sidecar: give a docker configuration), with an entry for "
        f"{reference.registry}"
    )
