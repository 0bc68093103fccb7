"""Slots: each plugin that the source asks for, on its way to the bundle.

A slot resolves its plugin in a task of its own (fetch, check, inspect, compile, ask its own cases), so what is slow
for one plugin holds up no other; and tries again, later each time, what failed and may pass.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hookline_api.abi import permission_warning
from hookline_api.bundle import BundlePlugin, LoadFailure, Stage
from hookline_api.quantities import format_size
from hookline_api.standing import placeholder_of
from hookline_artifacts import patience
from hookline_artifacts.errors import LoadError, VerifyError
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_sidecar.control.sources.source import Wanted
from hookline_sidecar.control.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hookline_artifacts.resolve import Resolved
    from hookline_runtime.trial.self_test import SelfTests
    from hookline_sidecar.control.probation import RolledBackPlugin

log = logging.getLogger("hookline.supervisor")


@dataclass(slots=True)
class Slot:
    """One plugin that the source asks for."""

    wanted: Wanted
    key: str
    """The wanted key that this is about; empty to resolve anew."""
    resolved: Resolved | None = None
    failure: LoadFailure | None = None
    stage: Stage = "fetching"
    """How far it is, while its task runs."""
    refused: RolledBackPlugin | None = None
    """Why what resolved is not to run here: it failed on probation."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    again: asyncio.TimerHandle | None = field(default=None, repr=False)
    attempts: int = 0
    pause: float | None = None
    """Seconds until the source is asked again; None where only a change helps."""
    steps: Steps = field(default_factory=Steps, repr=False)
    """Its fetch and its compilation, as they last were."""
    owed: bool = False
    """Whether its source has to be asked once more: what it was before a change could not be had."""

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.wanted.name

    @property
    def settled(self) -> bool:
        """Whether it is known how it ended."""
        return self.resolved is not None or self.failure is not None

    @property
    def missed(self) -> bool:
        """Whether its source was asked in vain, or will be because of a change before."""
        failed = self.failure is not None and self.failure.cause != "config" and self.wanted.resolve is not None
        return self.owed or failed

    def loaded(self, resolved: Resolved) -> None:
        """It is fetched, checked and compiled."""
        self.resolved, self.attempts, self.pause = resolved, 0, None
        self.moved(self.wanted)
        if resolved.ungranted_imports:
            log.warning("plugin '%s': %s", self.name, permission_warning(resolved.ungranted_imports))
        elif resolved.ungranted:
            log.info(
                "plugin '%s' asks for permissions that it is not granted: %s",
                self.name, ", ".join(resolved.ungranted),
            )  # fmt: skip
        unread = resolved.description.notes
        for note in resolved.notes:
            log.log(logging.WARNING if note in unread else logging.INFO, "plugin '%s': %s", self.name, note)

    def fail(self, error: LoadError) -> None:
        """Take down why it cannot be loaded, say it once, and when to try again."""
        if self.failure is None or self.failure.message != str(error):
            log.warning("plugin '%s' cannot be loaded (%s): %s", self.name, error.cause, error)
        self.failure = LoadFailure(cause=error.cause, message=str(error), digest=error.digest)
        self.attempts += 1
        self.pause = patience.pause(error, self.attempts)

    def moved(self, wanted: Wanted) -> None:
        """The same plugin as before; perhaps in another file, or with another failure beside it."""
        self.wanted = wanted
        if self.resolved is None:
            return
        told = {name: getattr(wanted.placeholder, name) for name in ("origin", "generation", "probation")}
        if any(getattr(self.resolved.entry, name) != value for name, value in told.items()):
            entry = self.resolved.entry.model_copy(update=told)
            self.resolved = dataclasses.replace(self.resolved, entry=entry)
        if not self.attempts:
            self.failure = wanted.failure

    def cancel(self) -> None:
        """Nothing more comes of it."""
        if self.task is not None:
            self.task.cancel()
        if self.again is not None:
            self.again.cancel()


class Slots(dict[str, Slot]):
    """The slots by name. ``running`` tells a plugin's entry in the running bundle; ``settled`` is called at ends.

    ``refused`` says of what resolved, by a wish of that key, whether it failed on probation.
    """

    def __init__(
        self,
        compiler: Compiler,
        self_tests: SelfTests,
        *,
        running: Callable[[str], BundlePlugin | None],
        refused: Callable[[BundlePlugin, str], RolledBackPlugin | None],
        settled: Callable[[], None],
    ) -> None:
        """``settled`` is called where one has another stage, too."""
        super().__init__()
        self._compiler = compiler
        self._self_tests = self_tests
        self._running = running
        self._refused = refused
        self._on_settled = settled

    def restore(self, entries: Iterable[BundlePlugin], *, from_files: bool) -> None:
        """Of the last good bundle, until the source says what it wants."""
        for entry in entries:
            wanted = Wanted(
                key="", placeholder=placeholder_of(entry), readable=False, file=entry.origin if from_files else None
            )
            self[entry.name] = Slot(wanted=wanted, key="")

    def blame(self, failure: LoadFailure | None) -> None:
        """Why of what was restored nothing newer is known."""
        for slot in self.values():
            if not slot.wanted.key:
                slot.failure = failure

    def take(self, plugins: Mapping[str, Wanted]) -> None:
        """Make the slots what the source asks for."""
        for name in self.keys() - plugins.keys():
            self.pop(name).cancel()
        for name, wanted in plugins.items():
            slot = self.get(name)
            if slot is not None and slot.key == wanted.key:
                slot.moved(wanted)
                self.judge(slot)
                continue
            if slot is not None:
                slot.cancel()
            if slot is not None and slot.wanted.key == wanted.key and wanted.resolve is not None:
                # Nothing changed, and what is known of it, its failure too, is true until the source said otherwise.
                slot.key = wanted.key
                slot.moved(wanted)
                self.judge(slot)
                self._begin(slot, ask_again=slot.failure is not None or wanted.again is not None)
                continue
            owed = slot is not None and slot.missed
            slot = self[name] = Slot(wanted=wanted, key=wanted.key, owed=owed)
            if wanted.resolve is not None:
                self._begin(slot)
            else:
                slot.failure = wanted.failure

    @property
    def settled(self) -> bool:
        """Whether it is known of each how it ended."""
        return all(slot.settled for slot in self.values())

    def entries(self) -> list[BundlePlugin]:
        """What is resolved."""
        return [slot.resolved.entry for slot in self.values() if slot.resolved]

    @property
    def busy(self) -> set[str]:
        """The plugins that are being resolved, again or for the first time."""
        return {name for name, slot in self.items() if slot.task is not None}

    def anew(self) -> None:
        """Resolve all again at the next ``take``.

        The sources of what failed are asked, and what tracked tags and those that are always asked for mean now.
        """
        for slot in self.values():
            slot.key = ""

    def judge_all(self) -> None:
        """``judge`` each: something may have failed."""
        for slot in self.values():
            self.judge(slot)

    def judge(self, slot: Slot) -> None:
        """Take down whether what resolved has failed on probation."""
        was = slot.refused
        slot.refused = None if slot.resolved is None else self._refused(slot.resolved.entry, slot.wanted.key)
        if slot.refused is not None:
            slot.failure = slot.refused.failure
        elif was is not None and slot.failure == was.failure:
            slot.failure = slot.wanted.failure

    def take_refusal(self, entry: BundlePlugin, failure: LoadFailure, *, passing: bool) -> None:
        """What resolved to this entry does not load: it has failed; ``passing``, and is tried again in a while."""
        slot = self.get(entry.name)
        if slot is None or slot.resolved is None or slot.resolved.entry.revision != entry.revision:
            return
        slot.resolved, slot.failure = None, failure
        if passing:
            self.try_again(slot)

    def fetch_anew(self, name: str) -> bool:
        """Resolve one plugin again at the next ``take``; whether there is such a plugin."""
        slot = self.get(name)
        if slot is not None:
            slot.key = ""
        return slot is not None

    def try_again(self, slot: Slot) -> None:
        """Load it once more in a while, although nothing of it changes: there may be room for it then."""
        slot.attempts = max(slot.attempts, 1)
        slot.pause = patience.SLOW_S
        if slot.again is not None:
            slot.again.cancel()
        self._plan(slot)

    def cancel(self) -> None:
        """Nothing more comes of any."""
        for slot in self.values():
            slot.cancel()

    def _begin(self, slot: Slot, *, ask_again: bool = False) -> None:
        slot.stage = "fetching"
        slot.task = asyncio.get_running_loop().create_task(
            self._resolve(slot, ask_again=ask_again), name=f"resolve {slot.name}"
        )

    async def _resolve(self, slot: Slot, *, ask_again: bool) -> None:
        wanted = slot.wanted
        assert wanted.resolve is not None  # noqa: S101 - a slot without it is never begun
        try:
            now = slot.resolved.entry if slot.resolved else self._running(slot.name)
            slot.steps.clear()
            with slot.steps.taken("fetch"):
                resolved = await wanted.resolve(previous=now.artifact if now else None, ask_again=ask_again)
            await self._compile(slot, resolved, checked=wanted.checked)
            slot.loaded(resolved)
            self.judge(slot)
            if ask_again or now is None:
                slot.owed = False
        except LoadError as error:
            slot.fail(error)
        except Exception as error:  # a defect of ours must be seen as this plugin's failure, not as silence
            log.exception("plugin '%s' could not be resolved", slot.name)
            # Without its text, which may quote anything: the status of the plugin is read by many.
            slot.fail(VerifyError(f"the sidecar failed: {type(error).__name__}; its log says more"))
        slot.task = None
        slot.stage = "fetching"
        self._plan(slot)
        self._on_settled()

    async def _compile(self, slot: Slot, resolved: Resolved, *, checked: bool) -> None:
        """Make its compiled form where there is none, and say so; ask it its own cases. Raises LoadError."""
        fuel, begin = resolved.entry.limits.fuel is not None, None
        if not await asyncio.to_thread(self._compiler.has, resolved.artifact.sha256, fuel=fuel):
            slot.stage, begin = "compiling", time.monotonic()
            log.info("plugin '%s': compiling its module of %s", slot.name, format_size(resolved.artifact.size))
            self._on_settled()
        job = Job(
            wasm=resolved.artifact.path,
            sha256=resolved.artifact.sha256,
            fuel=fuel,
            schema=None if checked else resolved.description.config_schema,
            config=resolved.entry.config,
            secret_paths=resolved.entry.secret_paths,
            plugin=slot.name,
        )
        with slot.steps.taken("compile"):
            await self._compiler.prepare(job)
        if begin is not None:
            log.info("plugin '%s': compiled in %.1f s", slot.name, time.monotonic() - begin)
        if resolved.wants_self_test:
            with slot.steps.taken("self-test"):
                await self._self_tests.hold(
                    resolved.entry, resolved.artifact.path, hooks=resolved.info.hooks, asks=resolved.asks
                )

    def _plan(self, slot: Slot) -> None:
        """Ask the source again: after a failure, or when the time of a tracked tag is over."""
        if slot.owed and slot.failure is None:
            # The change is in, with what is here; and whether the source can be had again is asked now.
            slot.owed = False
            self._begin(slot, ask_again=True)
            return
        pause = slot.pause if slot.failure is not None else None
        if pause is None and slot.wanted.again is not None:
            pause = patience.pause_of_tag(slot.wanted.again)
        if pause is not None:
            slot.again = asyncio.get_running_loop().call_later(pause, lambda: self._begin(slot, ask_again=True))
