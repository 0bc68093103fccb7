"""The supervisor's view of its workers: every bundle reaches all of them in two steps, or none.

All prepare, then all commit. A worker that comes later (or again) gets the bundle that the others run. A worker
that refuses a bundle stops it for all: what one cannot load, the next start could not either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_sidecar import wire

if TYPE_CHECKING:
    from hookline_api.bundle import Bundle, LoadCause

_PREPARE_S: Final = 60.0

log = logging.getLogger("hookline.fleet")

Report = dict[str, dict[str, Any]]


class RefusedError(Exception):
    """A worker cannot load one plugin of a bundle."""

    def __init__(self, plugin: str, cause: LoadCause, message: str, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.cause = cause
        self.damaged = damaged
        """Whether its compiled form may be what is wrong."""

    @classmethod
    def told(cls, answer: wire.Message) -> RefusedError:
        """What a worker answered."""
        return cls(answer["plugin"], answer["cause"], answer["message"], damaged=answer["damaged"])


class _Worker:
    def __init__(self, index: int, pid: int, writer: asyncio.StreamWriter) -> None:
        self.index = index
        self.pid = pid
        self.writer = writer
        self.version: str | None = None
        self.report: Report = {}
        self.answer: asyncio.Future[wire.Message | None] | None = None


class Fleet:
    """All workers that are connected."""

    def __init__(self, *, size: int, refused: Callable[[RefusedError], None]) -> None:
        self.size = size
        self._refused = refused
        self.connections = 0
        """Workers that have said hello, ever: more than ``size`` means that some were replaced."""
        self._workers: dict[int, _Worker] = {}
        self._current: tuple[Bundle, dict[str, int]] | None = None
        self._deploying = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._meetings: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Wait for workers on a unix socket."""
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._welcome, path)
        await asyncio.to_thread(path.chmod, 0o600)

    async def deploy(self, bundle: Bundle, numbers: dict[str, int]) -> None:
        """Make all workers run a bundle. Raises RefusedError, and then none of them does."""
        async with self._deploying:
            workers = list(self._workers.values())
            answers = await asyncio.gather(*(self._prepare(worker, bundle, numbers) for worker in workers))
            refusals = [answer for answer in answers if answer is not None and "refused" in answer]
            if refusals:
                for worker in workers:
                    wire.send(worker.writer, {"discard": bundle.version})
                raise RefusedError.told(refusals[0])
            self._current = (bundle, numbers)
            for worker, answer in zip(workers, answers, strict=True):
                if answer is not None:
                    wire.send(worker.writer, {"commit": bundle.version})
                else:  # gone, or stuck: a new connection begins from the start
                    worker.writer.close()

    def running(self, version: str) -> int:
        """How many workers run that version."""
        return sum(worker.version == version for worker in self._workers.values())

    def reports(self) -> list[Report]:
        """What the workers last said of their plugins."""
        return [worker.report for worker in self._workers.values()]

    async def close(self) -> None:
        """Let the workers go; they keep what they run."""
        if self._server is not None:
            self._server.close()
        for worker in self._workers.values():
            worker.writer.close()
        if self._meetings:
            await asyncio.wait(self._meetings, timeout=1)

    async def _prepare(self, worker: _Worker, bundle: Bundle, numbers: dict[str, int]) -> wire.Message | None:
        worker.answer = asyncio.get_running_loop().create_future()
        wire.send(
            worker.writer,
            {
                "prepare": bundle.version,
                "bundle": bundle.model_dump(mode="json", by_alias=True),
                "numbers": numbers,
            },
        )
        try:
            async with asyncio.timeout(_PREPARE_S):
                return await worker.answer
        except TimeoutError:
            log.warning("worker %d (process %d) did not prepare within %.0f s", worker.index, worker.pid, _PREPARE_S)
            return None
        finally:
            worker.answer = None

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meeting = asyncio.get_running_loop().create_task(self._meet(reader, writer), name="meet a worker")
        self._meetings.add(meeting)
        meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await wire.receive(reader)
        if hello is None or "hello" not in hello:
            writer.close()
            return
        worker = _Worker(hello["hello"], hello["pid"], writer)
        listening = asyncio.create_task(self._listen_to(worker, reader))
        async with self._deploying:  # between two bundles, so that it misses neither
            self._workers[worker.index] = worker
            self.connections += 1
            if self._current is not None:
                bundle, numbers = self._current
                answer = await self._prepare(worker, bundle, numbers)
                if answer is not None and "prepared" in answer:
                    wire.send(writer, {"commit": bundle.version})
                elif answer is None:
                    writer.close()  # gone, or stuck: a new connection begins from the start
                else:
                    # What runs elsewhere, or ran before a restart, does not load here: another is assembled.
                    self._refused(RefusedError.told(answer))
        await listening

    async def _listen_to(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        while (message := await wire.receive(reader)) is not None:
            if "committed" in message:
                worker.version = message["committed"]
            elif "report" in message:
                worker.report = message["report"]
            elif worker.answer is not None and not worker.answer.done():
                worker.answer.set_result(message)
        if worker.answer is not None and not worker.answer.done():
            worker.answer.set_result(None)
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]
        worker.writer.close()
