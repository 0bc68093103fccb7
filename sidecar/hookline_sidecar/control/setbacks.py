"""Setbacks: what was loaded and then fails. A worker refuses it, or it fails on probation.

Each is handled between two bundles, one after the other, and another bundle is assembled afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from hookline_api.bundle import Bundle, LoadFailure
from hookline_artifacts.errors import LoadError
from hookline_sidecar.control.deployment import Deployment, find, with_placeholder
from hookline_sidecar.control.probation import LOOK_S
from hookline_sidecar.control.workers import LoadRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_sidecar.control.probation import Probations
    from hookline_sidecar.control.slots import Slots
    from hookline_sidecar.control.workers import Workers

_LEISURE: Final = 10
"""It rests so many times as long as a look at probation took: 256 plugins and four workers take some 50 ms."""

log = logging.getLogger("hookline.supervisor")


class Setbacks:
    """Those of one sidecar. ``came`` is called when one waits to be handled, ``changed`` when something else is true.

    ``fetch`` has the slots taken once more, so that a module that is damaged is fetched again.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        slots: Slots,
        probations: Probations,
        workers: Workers,
        came: Callable[[], None],
        changed: Callable[[], None],
        fetch: Callable[[], None],
    ) -> None:
        self._deployment = deployment
        self._slots = slots
        self._probations = probations
        self._workers = workers
        self._came = came
        self._changed = changed
        self._fetch = fetch
        self._refusals: list[tuple[LoadRefusedError, Bundle]] = []
        self._going_back: list[str] = []
        """Plugins that have failed on probation."""

    async def handle(self) -> None:
        """Handle those that have come."""
        while self._refusals:
            await self.take_refusal(*self._refusals.pop())
        while self._going_back:
            await self._go_back(self._going_back.pop())

    async def watch_probation(self) -> None:
        """Look who has proven themselves, and who goes back, for ever."""
        spent = 0.0
        while True:
            await asyncio.sleep(max(LOOK_S, _LEISURE * spent))
            begin = time.thread_time()
            proven, back = self._probations.look(self._deployment.bundle)
            if proven:
                self._workers.prove(proven)
                self._changed()
            if back:
                self._going_back = back
                self._came()
            spent = time.thread_time() - begin

    async def _go_back(self, name: str) -> None:
        """Run the version before one that has failed on probation, whatever is wanted or held meanwhile."""
        bundle, running, slot = self._deployment.bundle, self._deployment.entry(name), self._slots.get(name)
        # Where something else is wanted by now, that wish is not what asked for it.
        asked = running and slot and slot.resolved and slot.resolved.entry.revision == running.revision
        before = self._probations.refuse(running, slot.wanted.key if slot and asked else "") if running else None
        if before is None or bundle is None:
            return
        before = before.model_copy(update={"failure": self._probations.refused[name].failure})
        await self._run_again(Bundle.of([before if each is running else each for each in bundle.plugins]))
        self._slots.judge_all()  # also where another plugin could not be loaded with it: it is in the next bundle

    async def _run_again(self, bundle: Bundle) -> None:
        try:
            await self._deployment.run(bundle)
        except LoadRefusedError as error:
            await self.take_refusal(error, bundle)
        else:
            await self._deployment.keep()

    def note_refusal(self, error: LoadRefusedError, bundle: Bundle) -> None:
        """A worker that was started later cannot load what the others have: this is handled with the next bundle."""
        self._refusals.append((error, bundle))
        self._came()

    async def take_refusal(self, error: LoadRefusedError, bundle: Bundle) -> None:
        """A worker cannot load a plugin of that bundle, which resolved and compiled.

        A compiled form that may be damaged is made again, once. Otherwise the plugin stands as failed.
        """
        refused = find(bundle, error.plugin)
        if refused is None or refused.artifact is None:
            return  # it was replaced meanwhile
        running = self._deployment.entry(error.plugin)
        runs = running is not None and running.revision == refused.revision
        cause, message, passing, is_mended = error.cause, str(error), error.passing, False
        try:
            if error.damaged:
                is_mended = await self._deployment.mend(refused, why=message)
        except LoadError as why:
            cause, message, passing = why.cause, str(why), False
        if is_mended:
            if runs and self._deployment.bundle is not None:
                await self._run_again(self._deployment.bundle)
            return
        log.warning("plugin '%s' cannot be loaded (%s): %s", refused.name, cause, message)
        failure = LoadFailure(cause=cause, message=message)
        self._slots.take_refusal(refused, failure, passing=passing)
        self._came()
        if not runs and self._probations.give_up(refused):  # it would be tried again at once, and for ever
            self._slots.judge_all()
            if running is not None:
                self._workers.prove({running.name: running.revision})
        if not runs or self._deployment.bundle is None or running is None:
            return
        # What runs, or what was the last good one, is what does not load.
        bundle = with_placeholder(self._deployment.bundle, running, failure)
        self._deployment.adopt(bundle)
        await self._run_again(bundle)
        if error.damaged and self._slots.fetch_anew(refused.name):
            self._fetch()
