"""A slot: one plugin that the folder asks for, on its way to the bundle."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from hookline_api.bundle import LoadFailure
from hookline_runtime.errors import ConfigError, FetchError, LoadError

if TYPE_CHECKING:
    from hookline_runtime.artifacts.resolve import Resolved
    from hookline_sidecar.manifests import Manifest

_RETRY_FIRST_S: Final = 2.0
_RETRY_SLOW_S: Final = 20.0
"""For failures that somebody has to mend first: a missing tag, wrong credentials, a bad module."""
_RETRY_LAST_S: Final = 300.0

State = Literal["Running", "Updating", "LastGood", "Closed", "LeftOut"]
"""What the workers do for a plugin now."""

log = logging.getLogger("hookline.supervisor")


@dataclass(slots=True)
class Slot:
    """One plugin that the folder asks for."""

    name: str
    manifest: Manifest | None
    """None where the folder has a problem instead, and for what ran last time until the folder is read."""
    key: str
    resolved: Resolved | None = None
    failure: LoadFailure | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    again: asyncio.TimerHandle | None = field(default=None, repr=False)
    attempts: int = 0
    pause: float = 0.0
    """Seconds until the source is asked again; 0 where only a change helps."""

    @property
    def settled(self) -> bool:
        """Whether it is known how it ended."""
        return self.resolved is not None or self.failure is not None

    def fail(self, error: LoadError) -> None:
        """Take down why it cannot be loaded, say it once, and when to try again."""
        if self.failure is None or self.failure.message != str(error):
            log.warning("plugin '%s' cannot be loaded (%s): %s", self.name, error.cause, error)
        self.failure = LoadFailure(cause=error.cause, message=str(error))
        self.attempts += 1
        self.pause = 0.0
        if isinstance(error, ConfigError):
            return  # it takes a change of the folder, and that is noticed
        first = _RETRY_FIRST_S if isinstance(error, FetchError) and error.transient else _RETRY_SLOW_S
        pause = min(first * 2 ** min(self.attempts - 1, 16), _RETRY_LAST_S) * random.uniform(0.7, 1.0)  # noqa: S311
        self.pause = max(pause, min(getattr(error, "retry_after", None) or 0.0, _RETRY_LAST_S))

    def moved(self, manifest: Manifest | None) -> None:
        """The same plugin as before, perhaps in another file."""
        self.manifest = manifest
        if manifest is not None and self.resolved is not None and self.resolved.entry.origin != manifest.file:
            entry = self.resolved.entry.model_copy(update={"origin": manifest.file})
            self.resolved = dataclasses.replace(self.resolved, entry=entry)

    def cancel(self) -> None:
        """Nothing more comes of it."""
        if self.task is not None:
            self.task.cancel()
        if self.again is not None:
            self.again.cancel()
