"""The parent process: binds the sockets, forks the supervisor and the workers, and replaces whichever dies.

Everything is imported and nothing is started before the forks: no thread, no event loop, no engine. So the
children share the parent's memory, and a new one is there in milliseconds. The parent itself only waits for
signals; there is nothing in it that could fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import mmap
import os
import resource
import signal
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING, Final

import uvloop

from hookline_runtime.stats import TABLE_BYTES, StatsTable
from hookline_sidecar.supervisor import Supervisor
from hookline_sidecar.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hookline_runtime.commands import Address
    from hookline_sidecar.settings import Settings
    from hookline_sidecar.state import StateFolder

_BACKLOG: Final = 1024
_HEALTHY_S: Final = 5.0
_PAUSE_LAST_S: Final = 5.0
_KILL_AFTER_S: Final = 5.0
_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_SUPERVISOR_NICENESS: Final = 10  # hooks go first, whatever a reload takes
_GC_THRESHOLD: Final = 50_000  # nothing on the hook road makes cycles; a large body is no reason to look for them
_SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that loads a bundle may keep the event loop from answering."""
_SUPERVISOR: Final = -1
"""The supervisor's place among the children; workers are numbered from 0."""

log = logging.getLogger("hookline.parent")


class _Child:
    def __init__(self, name: str, main: Callable[[], None]) -> None:
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
    door = _bind_tcp(settings.admin, "--admin")
    sockets = _bind(settings)
    ours = settings.socket.stat() if settings.socket is not None else None
    memories = [mmap.mmap(-1, TABLE_BYTES) for _ in range(settings.workers)]
    tables = [StatsTable(memoryview(memory)) for memory in memories]

    def supervise() -> None:
        for each in sockets:
            each.close()  # only workers answer hooks; a stopped sidecar must not accept into nowhere
        uvloop.run(_supervise(settings, state, tables, door))

    def work(index: int) -> Callable[[], None]:
        def main() -> None:
            door.close()
            uvloop.run(_work(settings, state, index, sockets, tables[index]))

        return main

    children = {_SUPERVISOR: _Child("the supervisor", supervise)}
    children |= {index: _Child(f"worker {index}", work(index)) for index in range(settings.workers)}
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    gc.collect()
    gc.freeze()  # what is here now is never garbage; untouched, its pages stay shared
    try:
        for child in children.values():
            _start(child)
        _attend(children)
        _unlink(settings.socket, ours)
        for each in (door, *sockets):
            each.close()  # so that a new connection is refused, and not kept waiting for nobody
        return _stop(children, settings.drain)
    finally:
        _unlink(settings.socket, ours)


async def _supervise(settings: Settings, state: StateFolder, tables: list[StatsTable], door: socket.socket) -> None:
    os.nice(_SUPERVISOR_NICENESS)
    await Supervisor(settings, state, tables, door).run()


async def _work(
    settings: Settings, state: StateFolder, index: int, sockets: list[socket.socket], stats: StatsTable
) -> None:
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(_GC_THRESHOLD, 50, 50)
    await Worker(settings, state, index=index, sockets=sockets, stats=stats).run()


def _attend(children: dict[int, _Child]) -> None:
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
                    log.error("%s (process %d) does not end, and is killed", child.name, child.pid)
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
        log.warning("%s cannot be started (%s); tried again in %.0f s", child.name, error.strerror, _PAUSE_LAST_S)
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
    sockets = []
    if settings.listen is not None:
        sockets.append(_bind_tcp(settings.listen, "--listen"))
    if settings.socket is not None:
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _clear_stale(settings.socket)
        _bind_one(unix, str(settings.socket), f"--socket {settings.socket}")
        settings.socket.chmod(settings.socket_mode)
        sockets.append(unix)
    return sockets


def _bind_tcp(address: Address, flag: str) -> socket.socket:
    host, port = address
    tcp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind_one(tcp, address, f"{flag} {host}:{port}")
    return tcp


def _bind_one(bound: socket.socket, address: object, flag: str) -> None:
    try:
        bound.bind(address)  # type: ignore[arg-type]
        bound.listen(_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"{flag}: {error.strerror or error}") from None


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; never a file, never a socket in use."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, f"--socket {path}: there is something else of that name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _unlink(path: Path | None, ours: os.stat_result | None) -> None:
    """Remove our socket's name, unless somebody else's socket has it by now."""
    if path is not None and ours is not None:
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), ours):
                path.unlink()
