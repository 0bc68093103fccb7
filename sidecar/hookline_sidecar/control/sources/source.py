"""The seam between where bundles come from, a folder or the operator, and what is done with them.

A source says what it *wants* by name, and sets ``changed`` when that is no longer what it was. How a plugin gets
from there into a bundle (fetched, compiled, retried, replaced where it fails) is the same for both, and not a
source's business: ``slots`` and ``supervisor``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hookline_api.resources import FailurePolicy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from hookline_api.bundle import BundleArtifact, BundlePlugin, LoadFailure
    from hookline_artifacts.resolve import Resolved

_LAST_GOOD: Final = FailurePolicy()


STAND_IN: Final = "unreadable."
"""How the name begins of what refuses for a file of which nothing is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A connection to an operator."""

    connected: bool
    connections: int
    """Connections that were made, ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something in a source that cannot be used."""

    file: str
    """Where: a file of the folder, or the operator's address."""
    field: str
    """A path into the document such as ``spec.limits.timeout``, or empty."""
    message: str
    plugin: str | None = None
    """The plugin that it is about, where the document says so much."""
    hides: bool = True
    """Whether a plugin may be behind it: then what is missing must not fail open."""

    @property
    def sentence(self) -> str:
        """For a person: where and what."""
        return f"{self.file}: {self.field + ': ' if self.field else ''}{self.message}"


class Resolve(Protocol):
    """How a plugin that is wanted becomes an entry with a module in the store."""

    async def __call__(self, *, previous: BundleArtifact | None, ask_again: bool) -> Resolved:
        """Raises FetchError, VerifyError or ConfigError. ``previous`` is the artifact that the plugin has now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One plugin that a source asks for."""

    key: str
    """Changes when anything changes that it is resolved from; never empty."""
    placeholder: BundlePlugin
    """What fails closed in its place: its name, hooks, priority and match. No hooks: those that it has now, or all."""
    failure_policy: FailurePolicy = _LAST_GOOD
    resolve: Resolve | None = None
    """None where the source knows already that it cannot be had: see ``failure``."""
    failure: LoadFailure | None = None
    """Without ``resolve``, why it cannot be had; beside it, why what is resolved is not what was asked for."""
    readable: bool = True
    """False where the source cannot say what it asks for: what runs is all that is known of it."""
    checked: bool = False
    """Whether somebody has checked the settings against the plugin's schema already."""
    file: str | None = None
    """The manifest, where there is one."""
    again: float | None = None
    """Seconds after which the source is asked again although all is well: of a tag that is tracked."""

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.placeholder.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Wants:
    """Everything that a source asks for at one moment."""

    plugins: Mapping[str, Wanted]
    """By name."""
    version: str | None = None
    """The operator's word for it in reports."""
    held: bool = False
    """Whether it is prepared only, until the source says otherwise."""


class Source(Protocol):
    """Where bundles come from."""

    changed: asyncio.Event
    """Set when ``wants``, ``problems`` or ``failure`` may be others than they were."""

    @property
    def wants(self) -> Wants | None:
        """What it last asked for; None where that cannot be had (yet, or now): then nothing changes."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What cannot be used now."""

    @property
    def failure(self) -> LoadFailure | None:
        """While there is nothing in ``wants``: why all that is known is what ran last time."""

    @property
    def waiting(self) -> str:
        """Why nothing is wanted yet, for ``/readyz``."""

    @property
    def link(self) -> Link | None:
        """The connection to an operator; None for a source without one."""

    async def run(self) -> None:
        """Follow the source for ever."""

    def reread(self) -> None:
        """Look now."""

    def tell(self) -> None:
        """What is true of this sidecar may have changed, for a source that wants to know."""

    def describe(self) -> dict[str, Any]:
        """What ``/v1/plugins`` says of it."""

    async def close(self) -> None:
        """Give back what it holds."""
