"""Noticing that the plugin folder changed: by the system's events, and by looking where none come.

There are no events from many network and container file systems, from modules outside of the folder, from a folder
that was moved away and replaced, and when the machine has no more watches to give. A look costs one ``stat`` for
each manifest.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import watchfiles

from hookline_sidecar.control.sources.manifests import Scan, glance

if TYPE_CHECKING:
    from pathlib import Path

_LOOK_S: Final = 2.0
_STEP_MS: Final = 50
_DEBOUNCE_MS: Final = 200

log = logging.getLogger("hookline.watch")


class FolderWatch:
    """Sets ``changed`` when the folder may not be what it was."""

    def __init__(self, folder: Path, changed: asyncio.Event) -> None:
        self._folder = folder
        self._changed = changed
        self._known: Scan | None = None
        self._glance: object = None
        self._blind = False

    async def glance(self) -> object:
        """How the folder looks now: what ``remember`` is told, from before the folder is read."""
        return await asyncio.to_thread(glance, self._folder, self._known)

    async def remember(self, found: Scan | None, before: object) -> None:
        """This is what was read, None where it could not be; ``before`` is how the folder looked then.

        A change that came while it was read may bring no event, and would be part of every later look.
        """
        known, self._known = self._known, found or self._known
        self._glance = await self.glance()
        if await asyncio.to_thread(glance, self._folder, known) != before:
            self._changed.set()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            try:
                await self._watch()
            except (OSError, RuntimeError, ExceptionGroup) as error:
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                if not self._blind:
                    log.warning(
                        "the plugin folder %s cannot be watched (%s); it is looked at every %.0f s instead",
                        self._folder, error, _LOOK_S,
                    )  # fmt: skip
                self._blind = True
                await asyncio.sleep(_LOOK_S)
            await self._look()

    async def _watch(self) -> None:
        """Return when the folder was replaced. Raises OSError, RuntimeError, or a group with one of them."""
        watched = await asyncio.to_thread(self._identity)
        async for changes in watchfiles.awatch(
            self._folder,
            watch_filter=None,  # its default knows names that it never reports
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            rust_timeout=int(_LOOK_S * 1000),
            yield_on_timeout=True,
            recursive=True,
        ):
            self._blind = False
            if changes:
                self._changed.set()
            else:
                await self._look()
            if await asyncio.to_thread(self._identity) != watched:
                return

    async def _look(self) -> None:
        if await self.glance() != self._glance:
            self._changed.set()

    def _identity(self) -> tuple[int, int]:
        found = self._folder.stat()
        return found.st_dev, found.st_ino
