"""The supervisor's view of its workers: every bundle reaches all of them in two steps, or none.

All prepare, then all commit; between the two a bundle may be *held* for as long as it takes, while the one before it
runs on. A worker that comes later (or again) gets the bundle that the others run, and prepares the held one. A worker
that refuses a bundle stops it for all: what one cannot load, the next start could not either.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hookline_sidecar import messages, sockets
from hookline_sidecar.messages import (
    Commit,
    Committed,
    Discard,
    Hello,
    LoadRefused,
    Missing,
    Prepare,
    Prepared,
    Proven,
    Report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
    from hookline_runtime.plugin.budget import Plan
    from hookline_sidecar.messages import PluginFacts

_PREPARE_S: Final = 60.0

log = logging.getLogger("hookline.workers")


class LoadRefusedError(Exception):
    """A worker, or the store, cannot take one plugin of a bundle."""

    def __init__(self, refused: LoadRefused) -> None:
        super().__init__(refused.message)
        self.plugin = refused.plugin
        self.cause = refused.cause
        self.damaged = refused.damaged
        self.passing = refused.passing


class _Worker:
    def __init__(self, index: int, pid: int, writer: asyncio.StreamWriter) -> None:
        self.index = index
        self.pid = pid
        self.writer = writer
        self.version: str | None = None
        """Of the bundle that it runs."""
        self.prepared: str | None = None
        """Of the bundle that it could switch to."""
        self.guests = 0
        """Bytes that its guests may have."""
        self.facts: dict[str, PluginFacts] = {}
        self.alone: dict[str, str] = {}
        """Of what it prepared last: the plugins that have no version before them, and why."""
        self.answer: asyncio.Future[Prepared | LoadRefused | None] | None = None
        self.gone = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """What workers are given."""

    bundle: Bundle
    numbers: dict[str, int]
    """The rows of the statistics of each plugin in it."""
    before: tuple[BundlePlugin, ...]
    """The versions before those plugins that are on probation."""
    modules: dict[str, str]
    """As in ``Prepare``."""

    @property
    def behind(self) -> dict[str, str]:
        """The revisions of these, by plugin."""
        return {entry.name: entry.revision for entry in self.before}


def _missing(bundle: Bundle) -> dict[str, LoadFailure]:
    """Why plugins are not there for which placeholders stand."""
    return {each.name: each.failure for each in bundle.plugins if each.artifact is None and each.failure is not None}


class Workers:
    """All workers that are connected."""

    def __init__(
        self,
        *,
        size: int,
        plan: Callable[[Bundle], Plan | None],
        refused: Callable[[LoadRefusedError, Bundle], None],
        changed: Callable[[], None],
    ) -> None:
        """``plan`` says what the parts of the pod may have of its memory, with a bundle.

        ``refused`` is called where a worker that came later cannot load a bundle; ``changed`` when ``runs`` is.
        """
        self._plan = plan
        self.size = size
        self._refused = refused
        self._changed = changed
        self.connections = 0
        """Workers that have said hello, ever: more than ``size`` means that some were replaced."""
        self._workers: dict[int, _Worker] = {}
        self._current: _Given | None = None
        self._held: _Given | None = None
        self._deploying = asyncio.Lock()
        """Between two steps, so that a worker that comes misses neither; never while a bundle is only held."""
        self._server: asyncio.Server | None = None
        self._meetings: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Wait for workers on a unix socket."""
        listening = await asyncio.to_thread(sockets.listen_private, path)
        self._server = await asyncio.start_unix_server(self._welcome, sock=listening)

    @property
    def held(self) -> Bundle | None:
        """What all workers have prepared, and wait for ``commit`` with."""
        return self._held.bundle if self._held else None

    async def prepare(
        self,
        bundle: Bundle,
        numbers: dict[str, int],
        before: Iterable[BundlePlugin] = (),
        modules: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make all workers ready for a bundle, instead of any that is held.

        Raises LoadRefusedError; none holds it then.

        ``before`` are the versions before those of its plugins that are on probation, ``modules`` as in ``Prepare``.
        """
        given = _Given(bundle=bundle, numbers=numbers, before=tuple(before), modules=dict(modules))
        async with self._deploying:
            held = self._held
            same = held is not None and held.bundle.full_version == bundle.full_version and held.behind == given.behind
            if same and self.prepared(bundle.version):
                self._held = given
                return
            self._held = None
            workers = list(self._workers.values())
            answers = await asyncio.gather(*(self._prepare(worker, given) for worker in workers))
            refusals = [answer for answer in answers if isinstance(answer, LoadRefused)]
            if refusals:
                self._discard(bundle.version)
                raise LoadRefusedError(refusals[0])
            self._held = given
        self._changed()

    async def commit(self) -> None:
        """Make all workers switch to what is held."""
        async with self._deploying:
            assert self._held is not None  # noqa: S101 - whoever commits has prepared
            self._current, self._held = self._held, None
            version = self._current.bundle.version
            for worker in self._workers.values():
                if worker.prepared == version:
                    messages.send(worker.writer, Commit(version=version))
                else:  # it refused, and says so again when it comes again
                    worker.writer.close()

    async def discard(self) -> None:
        """Give up what is held."""
        async with self._deploying:
            if self._held is not None:
                self._discard(self._held.bundle.version)
                self._held = None

    def prove(self, proven: dict[str, str]) -> None:
        """Have all workers give up the versions before these plugins, which are of these revisions."""
        if self._current is not None:
            # What is held has them still, and is another revision, or is prepared with them all the same.
            before = tuple(each for each in self._current.before if each.name not in proven)
            self._current = dataclasses.replace(self._current, before=before)
        for worker in self._workers.values():
            messages.send(worker.writer, Proven(revisions=proven))

    def blame(self, bundle: Bundle) -> None:
        """Tell all workers why plugins of what runs are not there, where that is not what they were told.

        ``bundle`` is what runs, but for what failed.
        """
        if self._current is None or self._current.bundle.full_version != bundle.full_version:
            return
        told, known = _missing(bundle), _missing(self._current.bundle)
        self._current = dataclasses.replace(self._current, bundle=bundle)
        if told != known:
            for worker in self._workers.values():
                messages.send(worker.writer, Missing(version=bundle.version, failures=told))

    def alone(self) -> dict[str, str]:
        """The plugins of what was prepared last that have no version before them, somewhere, and why."""
        return {name: why for worker in self._workers.values() for name, why in worker.alone.items()}

    def prepared(self, version: str) -> bool:
        """Whether all workers could switch to that version, and there is any."""
        return {worker.prepared for worker in self._workers.values()} == {version}

    def runs(self, version: str) -> bool:
        """Whether all workers run that version, but for those that have only come."""
        return {worker.version for worker in self._workers.values()} - {None} == {version}

    def running(self, version: str) -> int:
        """How many workers run that version."""
        return sum(worker.version == version for worker in self._workers.values())

    def guests(self) -> int:
        """Bytes that the guests of one worker may have, with what it runs or could switch to."""
        return max((worker.guests for worker in self._workers.values()), default=0)

    def facts(self) -> tuple[dict[str, PluginFacts], ...]:
        """What each worker last reported of its plugins."""
        return tuple(worker.facts for worker in self._workers.values())

    async def close(self) -> None:
        """Let the workers go; they keep what they run."""
        if self._server is not None:
            self._server.close()
        for worker in self._workers.values():
            worker.writer.close()
        if self._meetings:
            await asyncio.wait(self._meetings, timeout=1)

    async def _prepare(self, worker: _Worker, given: _Given) -> Prepared | LoadRefused | None:
        bundle = given.bundle
        worker.prepared = None
        if worker.gone:
            return None
        worker.answer = asyncio.get_running_loop().create_future()
        messages.send(
            worker.writer,
            Prepare(
                version=bundle.version,
                bundle=bundle,
                before=given.before,
                numbers=given.numbers,
                memory=self._plan(bundle),
                modules=given.modules,
            ),
        )
        try:
            async with asyncio.timeout(_PREPARE_S):
                answer = await worker.answer
            if isinstance(answer, Prepared):
                worker.prepared = bundle.version
                worker.guests, worker.alone = answer.guests, answer.alone
            return answer
        except TimeoutError:
            log.warning("worker %d (process %d) did not prepare within %.0f s", worker.index, worker.pid, _PREPARE_S)
            worker.writer.close()  # stuck: a new connection begins from the start
            return None
        finally:
            worker.answer = None

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meeting = asyncio.get_running_loop().create_task(self._meet(reader, writer), name="meet a worker")
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await messages.receive(reader, messages.TO_SUPERVISOR)
        if not isinstance(hello, Hello) or hello.index >= self.size:
            writer.close()
            return
        worker = _Worker(hello.index, hello.pid, writer)
        listening = asyncio.create_task(self._listen_to(worker, reader))
        async with self._deploying:
            if worker.gone:
                return
            self._workers[worker.index] = worker
            self.connections += 1
            if self._current is not None and await self._hand_over(worker, self._current):
                messages.send(writer, Commit(version=self._current.bundle.version))
            if self._held is not None:
                await self._hand_over(worker, self._held)
        self._changed()
        await listening

    async def _hand_over(self, worker: _Worker, given: _Given) -> bool:
        """Make one worker that comes late prepare what the others have; whether it did."""
        bundle = given.bundle
        answer = await self._prepare(worker, given)
        if isinstance(answer, LoadRefused):
            # What others have, or what ran before a restart, does not load here: another is assembled.
            self._refused(LoadRefusedError(answer), bundle)
        return worker.prepared == bundle.version

    def _discard(self, version: str) -> None:
        for worker in self._workers.values():
            worker.prepared = None
            messages.send(worker.writer, Discard(version=version))

    async def _listen_to(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        while (message := await messages.receive(reader, messages.TO_SUPERVISOR)) is not None:
            match message:
                case Committed(version=version):
                    worker.version = version
                    self._changed()
                case Report(plugins=facts):
                    worker.facts = facts
                case Prepared() | LoadRefused() if worker.answer is not None and not worker.answer.done():
                    worker.answer.set_result(message)
        worker.gone = True
        if worker.answer is not None and not worker.answer.done():
            worker.answer.set_result(None)
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]
            self._changed()
        worker.writer.close()
