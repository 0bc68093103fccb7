"""The hook path: one process that answers hooks and does nothing else.

It gets bundles from the supervisor, prepares each on a thread beside the running one, and swaps when told to. It
begins to accept connections with its first bundle; until then they wait in the listening socket, so no call is
ever answered by a chain that is not there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from hookline_api.text import readable
from hookline_runtime.chain.pipeline import Chains, Link
from hookline_runtime.chain.watched import WatchedChains
from hookline_runtime.errors import CallError, OverloadError, load_sentence
from hookline_runtime.guest.compiler import Compiler
from hookline_runtime.host.cache_store import CacheStore
from hookline_runtime.host.kv import KvStore
from hookline_runtime.plugin.budget import TooLargeError
from hookline_runtime.runtime import PrepareError, Runtime
from hookline_sidecar import messages
from hookline_sidecar.hooks import endpoint
from hookline_sidecar.hooks.accepting import Acceptor
from hookline_sidecar.hooks.decision_log import DecisionLog
from hookline_sidecar.messages import (
    CallFailure,
    Commit,
    Committed,
    Discard,
    GuestMetric,
    Hello,
    HostCalls,
    LoadRefused,
    Missing,
    Paused,
    PluginFacts,
    Prepare,
    Prepared,
    Proven,
    Report,
    ToWorker,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hookline_api.bundle import Bundle
    from hookline_runtime import runtime
    from hookline_runtime.host.functions import PluginHost
    from hookline_runtime.plugin.permits import Member
    from hookline_runtime.plugin.plugin import LastFailure, Plugin
    from hookline_runtime.plugin.stats import StatsTable
    from hookline_sidecar.board import Board
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.state import StateFolder

_RECONNECT_S: Final = 0.05
_CLOSE_S: Final = 0.1
_ANSWER_S: Final = 0.5
"""How long before the end of ``--drain`` calls that wait for a host function are answered by policy."""
_REPORT_S: Final = 0.5
_MAX_SENTENCE: Final = 256
"""Characters of a failure's message, which goes on to the operator and into statuses."""
_MAX_WHOLE_SENTENCE: Final = 640
"""… and of the one that the admin page shows, which goes nowhere else: a guest's last words are whole there."""
_MAX_SOURCE: Final = 128
"""Characters of the name of what cannot be reached."""

log = logging.getLogger("hookline.worker")


class Worker:
    """One worker process."""

    def __init__(
        self,
        settings: Settings,
        state: StateFolder,
        *,
        index: int,
        hook_sockets: list[socket.socket],
        board: Board,
        stats: StatsTable,
        member: Member | None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._index = index
        self._sockets = hook_sockets
        self._board = board
        self._member = member
        # The supervisor writes initial keys, once for all workers.
        cache = CacheStore(state.cache, limit=settings.cache_memory)
        kv = KvStore(state.kv)
        make_chains: Callable[[str, list[Link]], Chains] = Chains
        if settings.log_decisions != "off":
            witness = DecisionLog(inputs=settings.log_decisions == "inputs")
            make_chains = functools.partial(WatchedChains, witness=witness)
        self._runtime = Runtime(
            kv=kv, cache=cache, stats=stats, member=member, initial_keys=False, make_chains=make_chains
        )
        self._compiler = Compiler(state.compiled, key=state.own_key)
        self._prepared: runtime.Prepared | None = None
        self._answering = endpoint.Answering(self._runtime)
        self._answering.count_unclear = functools.partial(board.count_unclear, index)
        self._service: _Service | None = None
        self._reported: dict[str, PluginFacts] = {}

    async def run(self) -> None:
        """Answer hooks until SIGTERM, then until the last call ends."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        if self._member is not None:
            self._member.listen()
        link = loop.create_task(self._follow_supervisor())
        waiting = loop.create_task(stop.wait())
        ended, _ = await asyncio.wait([link, waiting], return_when=asyncio.FIRST_COMPLETED)
        if link in ended:
            link.result()  # only a defect ends it: fail loudly, the parent starts another worker
        self._answering.draining = True
        end = loop.time() + self._settings.drain
        self._runtime.end_waits(end - min(_ANSWER_S, self._settings.drain / 2))
        if self._service is not None:
            await self._service.close(self._settings.drain)
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)  # what it is preparing is given back
        self._discard()  # what is held would hold its plugins, and so the end
        try:
            async with asyncio.timeout_at(max(end, loop.time() + _CLOSE_S)):
                await self._runtime.close()
        except TimeoutError:
            dropped = self._runtime.abandon()
            log.warning(
                "calls that did not end within %g s are cut; %d calls of observing hooks did not run",
                self._settings.drain, dropped,
            )  # fmt: skip

    async def _follow_supervisor(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._state.control)
            except OSError:
                await asyncio.sleep(_RECONNECT_S)  # it is not up yet, or again: what runs goes on
                continue
            self._reported = {}
            messages.send(writer, Hello(index=self._index, pid=os.getpid()))
            reporting = asyncio.create_task(self._report(writer))
            try:
                while (message := await messages.receive(reader, messages.TO_WORKER)) is not None:
                    await self._obey(message, writer)
            finally:
                reporting.cancel()
                writer.close()
            await asyncio.sleep(_RECONNECT_S)

    async def _obey(self, message: ToWorker, writer: asyncio.StreamWriter) -> None:
        match message:
            case Prepare():
                messages.send(writer, await self._prepare(message))
            case Commit(version=version):
                if self._prepared is not None and self._prepared.bundle.version == version:
                    self._runtime.commit(self._prepared)
                    self._prepared = None
                    self._open()
                    messages.send(writer, Committed(version=version))
            case Discard():
                self._discard()
            case Proven(revisions=revisions):
                for name, revision in revisions.items():
                    self._runtime.prove(name, revision)
            case Missing(version=version, failures=failures):
                self._runtime.blame(version, failures)

    async def _prepare(self, wanted: Prepare) -> Prepared | LoadRefused:
        """Load a bundle beside the running one."""
        self._discard()
        self._runtime.budget.follow(wanted.memory)
        try:
            self._prepared = await self._runtime.prepare(
                wanted.bundle,
                self._compiler.finder(wanted.modules),
                numbers=wanted.numbers,
                before=wanted.before,
            )
        except PrepareError as error:
            reason, origin = error.reason, error.reason.__cause__
            return LoadRefused(
                version=wanted.version,
                plugin=error.plugin,
                cause=reason.cause,
                message=load_sentence(reason, secrets=_has_secrets(wanted.bundle, error.plugin)),
                # Where the guest itself failed, its compiled form is as it should be.
                damaged=reason.cause == "verify" and not isinstance(origin, CallError),
                # There may be room another time.
                passing=isinstance(reason, TooLargeError) or isinstance(origin, OverloadError),
            )
        guests, alone = self._runtime.budget.total, dict(self._prepared.alone)
        return Prepared(version=wanted.version, guests=guests, alone=alone)

    def _discard(self) -> None:
        if self._prepared is not None:
            self._prepared.discard()
            self._prepared = None

    def _open(self) -> None:
        """Begin to accept connections, once."""
        if self._service is None:
            made = endpoint.Endpoint(self._answering, self._settings)
            self._service = _Service(made, self._sockets, self._board, self._index)

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        """Tell the supervisor what is not in the shared statistics, where it changed."""
        while True:
            if self._service is not None:
                self._board.write_closed(self._index, self._service.closed)
            report = {name: _facts(plugin) for name, plugin in self._runtime.plugins.items()}
            # What a supervisor that does not read has not taken yet must not pile up here.
            if report != self._reported and not writer.transport.get_write_buffer_size():
                self._reported = report
                messages.send(writer, Report(plugins=report))
            await asyncio.sleep(_REPORT_S)


class _Service:
    """Where connections are taken and given to the endpoint."""

    def __init__(self, made: endpoint.Endpoint, hook_sockets: list[socket.socket], board: Board, worker: int) -> None:
        self._server = made.server(self._ended)
        self.closed = self._server.closed
        """Connections that had to go, counted on from where the worker before this one was."""
        self.closed.update(board.closed_of(worker))
        self._acceptor = Acceptor(hook_sockets, board, worker, self._server)
        self._acceptor.open()

    def _ended(self) -> None:
        self._acceptor.ended()

    async def close(self, drain: float) -> None:
        """Take no more connections, and wait for the calls on those that are there, for so many seconds."""
        await self._acceptor.close()
        await asyncio.sleep(0)  # what was read already becomes a call
        self._server.pre_shutdown()
        await self._server.shutdown(drain)


def _has_secrets(bundle: Bundle, plugin: str) -> bool:
    return any(entry.name == plugin and entry.has_secrets for entry in bundle.plugins)


def _facts(plugin: Plugin) -> PluginFacts:
    failure, fault = plugin.last_failure, plugin.last_fault
    return PluginFacts(
        revision=plugin.revision,
        inline=plugin.on_loop,
        paused={
            name.value: Paused(failures=hook.breaker.failures, until=round(time.time() + hook.breaker.open_for, 1))
            for name, hook in plugin.hooks.items()
            if hook.breaker.open_for
        },
        last_failure=None if failure is None else _whole_failure(failure),
        last_fault=None if fault is None else _failure(fault),
        last_failures={hook.value: _failure(each) for hook, each in plugin.last_failures.items()},
        denied=dict(plugin.host.denied),
        refused=dict(plugin.host.refused),
        host_calls={
            name: HostCalls(buckets=list(times.buckets), seconds=round(times.seconds, 6))
            for name, times in plugin.host.times.items()
        },
        caches={name: dict(counts) for name, counts in plugin.host.caches.items()},
        metrics={
            name: GuestMetric(type=metric.kind, value=metric.value, count=metric.count)
            for name, metric in plugin.host.metrics.items()
        },
        unavailable=unavailable(plugin.host),
    )


def unavailable(host: PluginHost) -> dict[str, str]:
    """What host functions do not reach, as it goes on to the operator and into statuses."""
    return {
        readable(source, _MAX_SOURCE - 1): readable(message, _MAX_SENTENCE - 1)
        for source, message in host.told_unavailable().items()
    }


def _failure(failure: LastFailure) -> CallFailure:
    message = readable(failure.message, _MAX_SENTENCE - 1)
    return CallFailure(hook=failure.hook, cause=failure.cause, message=message, at=failure.at)


def _whole_failure(failure: LastFailure) -> CallFailure:
    message = readable(failure.message, _MAX_WHOLE_SENTENCE - 1)
    return dataclasses.replace(_failure(failure), message=message, line=failure.line, backtrace=failure.backtrace)
