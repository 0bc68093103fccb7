"""Everything that can go wrong between a resource and checked bytes; the first half of the one tree of errors.

    HooklineError
    ├── LoadError                   a plugin cannot be loaded; ``cause`` is fetch, verify or config
    │   ├── FetchError                the module cannot be had; ``transient`` says whether to try again
    │   ├── VerifyError               the module is not what was asked for
    │   │   ├── SignatureError          it is not signed as it has to be
    │   │   ├── PolicyError             a PluginTrustPolicy forbids it
    │   │   ├── SelfTestError           it does not answer its own cases as they say, or lacks them
    │   │   └── WrongBytesError         who was asked gave other bytes; another may give the right ones
    │   └── ConfigError               the settings are wrong
    │       └── NotGrantedError         the module imports what the resource does not grant
    │           └── IncreasedError        … and the version before it did not
    └── CallError                   a call failed: ``hookline_runtime.errors``

The message of each is one sentence for a person: what happened, why, and what to do about it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar, Literal

from hookline_api.text import readable

if TYPE_CHECKING:
    from collections.abc import Iterator


class HooklineError(Exception):
    """Base of every error of the runtime.

    Its sentence may quote what strangers wrote, and ends in logs, Events and statuses: it is cut, and what is not
    printable is escaped, here, for all of them.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(readable(message))


class LoadError(HooklineError):
    """A plugin cannot be loaded as its resource asks."""

    cause: ClassVar[Literal["fetch", "verify", "config"]]
    digest: str | None = None
    """Of what the source means, where that was known when it failed: ``about`` notes it."""


@contextlib.contextmanager
def about(digest: str | None) -> Iterator[None]:
    """Whatever fails to load in here is about this artifact."""
    try:
        yield
    except LoadError as error:
        error.digest = error.digest or digest
        raise


class FetchError(LoadError):
    """The module cannot be had.

    ``transient`` is true where trying again later may help (a time-out, a 5xx, a refused connection), and
    false where somebody has to change something first (a 404, wrong credentials, a size over the cap).
    ``retry_after`` is in seconds, where the registry asked for a pause.
    """

    cause = "fetch"

    def __init__(self, message: str, *, transient: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class VerifyError(LoadError):
    """The module is not what was asked for: its digest, its form, its imports or its exports."""

    cause = "verify"
    policy = ""
    """The name of the ``PluginTrustPolicy`` that refuses it, where one does."""


class SignatureError(VerifyError):
    """The artifact is not signed as it has to be."""


class PolicyError(VerifyError):
    """A ``PluginTrustPolicy`` forbids what the resource asks for."""


class SelfTestError(VerifyError):
    """The module does not answer its own cases as they say, or has none where ``spec.selfTest`` asks for them."""


class WrongBytesError(VerifyError):
    """Who was asked gave other bytes than those of the digest. Another may give the right ones."""


class ConfigError(LoadError):
    """The settings are wrong: a manifest, a reference to a Secret, or a value that the plugin's schema refuses."""

    cause = "config"


class NotGrantedError(ConfigError):
    """The module imports functions whose permissions the resource does not grant."""


class IncreasedError(NotGrantedError):
    """A new version asks for more than is granted, and than the version before it asked for."""
