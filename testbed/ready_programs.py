"""Programs in Python that start with their imports done, as tests start them by the hundred.

Of a program's start, nine tenths are imports. Here one process does them and then waits; each start is a fork of it,
which runs the program's ``main`` with arguments, environment and files of its own, as a new interpreter would. Use
``subprocess`` instead to measure memory, or to run what depends on the environment while it is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

_MOST: Final = 1 << 20
"""Bytes of a request: arguments and environment."""
_NUMBER: Final = struct.Struct("!i")


class Started:
    """A process, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, pid: int, answers: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answers = answers

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, as ``Popen`` says it.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            (self.returncode,) = _NUMBER.unpack(self._answers.recv(_NUMBER.size))
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it where it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Ready:
    """One process that has imported these modules."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )

    def start(self, code: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: IO[bytes]) -> Started:
        """Run this Python as a program of its own, which writes all it prints to ``log``."""
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = {"code": code, "arguments": arguments, "environment": dict(environment), "folder": str(Path.cwd())}
        with theirs:
            socket.send_fds(self._requests, [json.dumps(asked).encode()], [log.fileno(), theirs.fileno()])
        (pid,) = _NUMBER.unpack(answers.recv(_NUMBER.size))
        return Started(pid, answers)

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._requests.close()
        self._process.wait()


@functools.cache
def ready(*modules: str) -> Ready:
    """The one of this test process for these modules, without what the project's programs read of the environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}
    made = Ready(modules, clean)
    atexit.register(made.close)
    return made


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. The request, in the new process; None, in the old one when nobody asks any more."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: for who runs the tests
    answers: dict[int, socket.socket] = {}
    while True:
        asked = select.select([requests.fileno(), woken], [], [])[0]
        if woken in asked:
            os.read(woken, 4096)
            _reap(answers)
        if requests.fileno() not in asked:
            continue
        raw, files, _, _ = socket.recv_fds(requests, _MOST, 2)
        if not raw:
            return None
        log, answer = files[0], socket.socket(fileno=files[1])
        pid = os.fork()
        if pid == 0:
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
            signal.set_wakeup_fd(-1)
            for each in (requests, answer, *answers.values()):
                each.close()
            for file in (woken, wakes):
                os.close(file)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            request: dict[str, Any] = json.loads(raw)
            return request
        os.close(log)
        answer.send(_NUMBER.pack(pid))
        answers[pid] = answer


def _reap(answers: dict[int, socket.socket]) -> None:
    """Tell of each that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with answers.pop(pid) as answer, contextlib.suppress(OSError):  # who asked may be gone
                answer.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _main() -> None:
    sys.path[0] = ""  # as with `python -c`
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return
    sys.argv[:] = ["-c", *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    exec(request["code"], {"__name__": "__main__"})


if __name__ == "__main__":
    _main()
