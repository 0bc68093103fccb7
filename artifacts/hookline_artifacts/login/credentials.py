"""What can be shown to a registry, and what was to hold it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A user name with a password, an identity token to change for access tokens, or an access token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)
    source: str = field(default="", compare=False)
    """Where they were found, for a person."""

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode(errors="surrogateescape")).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A source that was to have credentials, or an entry for this registry, that cannot be used."""

    why: str
    """For a person, without any secret: what, why, and what to do."""
    transient: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PullSecret:
    """A Secret that was named as a pull secret."""

    name: str
    namespace: str | None = None
    document: str | bytes | None = field(repr=False)
    """Its docker configuration, unparsed; None where there is none."""
    bare: bool = False
    """Whether it is a ``.dockercfg``: the entries themselves, without ``auths`` around them."""
    keys: str = ""
    """The names of its keys, for people, where none of them is a docker configuration."""

    @property
    def label(self) -> str:
        """``the Secret 'NAMESPACE/NAME'``."""
        return f"the Secret '{self.namespace}/{self.name}'" if self.namespace else f"the Secret '{self.name}'"
