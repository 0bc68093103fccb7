"""The parent process: binds the sockets, forks the supervisor and the workers, and replaces whichever dies.

What workers need is imported, and nothing is started, before the forks: no thread, no event loop, no engine. So the
workers share the parent's memory, and a new one is there in milliseconds. The supervisor imports its own part when it
starts: the workers do without it. The parent itself only waits for
signals; there is nothing in it that could fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import mmap
import os
import resource
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import uvloop

from hookline_api.base import build_models
from hookline_runtime.plugin.permits import SharedPermits
from hookline_runtime.plugin.stats import TABLE_BYTES, StatsTable
from hookline_sidecar import sockets
from hookline_sidecar.board import Board
from hookline_sidecar.hooks.worker import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hookline_sidecar.settings import Settings
    from hookline_sidecar.state import StateFolder

_HEALTHY_S: Final = 5.0
_PAUSE_LAST_S: Final = 5.0
_KILL_AFTER_S: Final = 5.0
_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_SUPERVISOR_NICENESS: Final = 10  # hooks go first, whatever a reload takes
_GC_THRESHOLD: Final = 50_000  # nothing in a call makes cycles; do not look for them because of a large body
_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that loads a bundle may keep the event loop from answering."""
_SUPERVISOR: Final = -1
"""The supervisor's index among the children; workers are numbered from 0."""

log = logging.getLogger("hookline.parent")


class _Child:
    def __init__(self, index: int, name: str, main: Callable[[], None]) -> None:
        self.index = index
        self.name = name
        self.main = main
        self.pid = 0
        self.started = 0.0
        self.pause = 0.0
        self.due = 0.0


def run(settings: Settings, state: StateFolder) -> int:
    """Run a sidecar until SIGTERM or SIGINT; the exit code. Raises OSError where a socket cannot be bound."""
    with contextlib.suppress(OSError, ValueError):
        # A proxy keeps many connections; the soft limit of most shells is 1024.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    admin_sockets = sockets.AdminSockets(
        health=None if settings.health is None else sockets.listen_tcp(settings.health, "--health"),
        admin=None if settings.admin is None else sockets.listen_tcp(settings.admin, "--admin"),
    )
    hook_sockets = _bind(settings)
    ours = settings.socket.stat() if settings.socket is not None else None
    _ = state.own_key  # before the forks: all of them have the same
    build_models()
    shutil.rmtree(state.cache, ignore_errors=True)  # what earlier workers kept; those of this run share it
    memories = [mmap.mmap(-1, TABLE_BYTES) for _ in range(settings.workers)]
    tables = [StatsTable(memoryview(memory)) for memory in memories]
    board = Board(settings.workers)
    shared = SharedPermits(state.permits, settings.workers) if settings.workers > 1 else None

    def supervise() -> None:
        for each in hook_sockets:
            each.close()  # only workers answer hooks; a stopped sidecar must not accept into nowhere
        uvloop.run(_supervise(settings, state, tables, board, admin_sockets))

    def work(index: int) -> Callable[[], None]:
        def main() -> None:
            admin_sockets.close()
            uvloop.run(_work(settings, state, index, hook_sockets, board, tables[index], shared))

        return main

    children = {_SUPERVISOR: _Child(_SUPERVISOR, "the supervisor", supervise)}
    children |= {index: _Child(index, f"worker {index}", work(index)) for index in range(settings.workers)}
    # The last one waits in a supervisor that is still starting, until that can heed it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGUSR1})
    gc.collect()
    gc.freeze()  # what is here now is never garbage; untouched, its pages stay shared
    gc.enable()
    try:
        for child in children.values():
            _start(child)
        _attend(children, board)
        sockets.unlink(settings.socket, ours)
        admin_sockets.close()
        for each in hook_sockets:
            each.close()  # so that a new connection is refused, and not kept waiting for nobody
        return _stop(children, settings.drain)
    finally:
        sockets.unlink(settings.socket, ours)


async def _supervise(
    settings: Settings, state: StateFolder, tables: list[StatsTable], board: Board, admin: sockets.AdminSockets
) -> None:
    os.nice(_SUPERVISOR_NICENESS)
    # Here and not above: what the supervisor needs is not for the workers to carry along.
    from hookline_sidecar.control.supervisor import Supervisor  # noqa: PLC0415

    build_models()
    await Supervisor(settings, state, tables=tables, board=board, admin_sockets=admin).run()


async def _work(
    settings: Settings,
    state: StateFolder,
    index: int,
    hook_sockets: list[socket.socket],
    board: Board,
    stats: StatsTable,
    shared: SharedPermits | None,
) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
    member = None if shared is None else shared.join(index)
    await Worker(settings, state, index=index, hook_sockets=hook_sockets, board=board, stats=stats, member=member).run()


def _attend(children: dict[int, _Child], board: Board) -> None:
    """Replace children that die, until told to stop."""
    while True:
        due = [child.due for child in children.values() if not child.pid]
        wait = max(0.0, min(due) - time.monotonic()) if due else 3600.0
        received = signal.sigtimedwait(_SIGNALS, wait)
        if received is not None and received.si_signo in {signal.SIGTERM, signal.SIGINT}:
            log.info("stopping")
            return
        if received is not None and received.si_signo == signal.SIGHUP and children[_SUPERVISOR].pid:
            os.kill(children[_SUPERVISOR].pid, signal.SIGHUP)
        for child in _reap(children):
            if child.index != _SUPERVISOR:
                board.clear(child.index)
            lived = time.monotonic() - child.started
            # At once, unless it keeps dying: then a little later each time.
            child.pause = 0.0 if lived > _HEALTHY_S else min(max(child.pause * 2, 0.1), _PAUSE_LAST_S)
            child.due = time.monotonic() + child.pause
        for child in children.values():
            if not child.pid and time.monotonic() >= child.due:
                _start(child)


def _stop(children: dict[int, _Child], drain: float) -> int:
    """Workers first, so that the admin port answers until the last call ended; then the supervisor."""
    supervisor = children[_SUPERVISOR]
    _signal([supervisor], signal.SIGUSR1)
    workers = [child for index, child in children.items() if index != _SUPERVISOR]
    _signal(workers, signal.SIGTERM)
    clean = _wait(children, workers, drain + _KILL_AFTER_S)
    _signal([supervisor], signal.SIGTERM)
    return 0 if _wait(children, [supervisor], _KILL_AFTER_S) and clean else 1


def _wait(children: dict[int, _Child], these: list[_Child], seconds: float) -> bool:
    """Wait for children to end, and end them if they do not; whether they did."""
    until = time.monotonic() + seconds
    while any(child.pid for child in these):
        left = until - time.monotonic()
        if left <= 0:
            for child in these:
                if child.pid:
                    log.error("%s (process %d) did not end in time, and is killed", child.name, child.pid)
            _signal(these, signal.SIGKILL)
            for child in these:
                if child.pid:
                    os.waitpid(child.pid, 0)
                    child.pid = 0
            return False
        signal.sigtimedwait(_SIGNALS, left)
        for _ in _reap(children):
            pass
    return True


def _signal(these: list[_Child], what: signal.Signals) -> None:
    for child in these:
        if child.pid:
            os.kill(child.pid, what)


def _reap(children: dict[int, _Child]) -> list[_Child]:
    """The children that ended since last asked. As process 1 of a container, strangers are reaped too."""
    gone: list[_Child] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return gone
        if pid == 0:
            return gone
        for child in children.values():
            if child.pid == pid:
                child.pid = 0
                gone.append(child)
                code = os.waitstatus_to_exitcode(status)
                if code:
                    how = f"by signal {-code}" if code < 0 else f"with code {code}"
                    log.warning("%s (process %d) ended %s", child.name, pid, how)


def _start(child: _Child) -> None:
    parent = os.getpid()
    child.started = time.monotonic()
    try:
        child.pid = os.fork()
    except OSError as error:  # no memory, or no process left: the others go on
        log.warning("%s cannot be started (%s); next attempt in %.0f s", child.name, error.strerror, _PAUSE_LAST_S)
        child.due = child.started + _PAUSE_LAST_S
        return
    if child.pid:
        return
    code = 1
    try:
        # A parent that is killed takes its children along: half a sidecar would hold the sockets of the next.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        # A terminal's Ctrl-C, or its end, reaches all; the parent decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        child.main()
        code = 0
    except BaseException:
        logging.getLogger("hookline").exception("%s failed", child.name)
    finally:
        logging.shutdown()
        os._exit(code)


def _bind(settings: Settings) -> list[socket.socket]:
    """What hooks come in by. Not blocking: who finds that another worker was quicker must not wait."""
    found = []
    if settings.listen is not None:
        found.append(sockets.listen_tcp(settings.listen, "--listen"))
    if settings.socket is not None:
        found.append(sockets.listen_unix(settings.socket, mode=settings.socket_mode, group=settings.socket_group))
    for each in found:
        each.settimeout(0)
    return found
