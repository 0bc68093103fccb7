"""What the child processes of ``apart`` run: one job, within bounds.

A child begins for each module and each check, behind everything else on its machine, so nothing is imported here that
it can do without: no event loop, and no models.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.errors import HooklineError

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED: Final = "the compiler failed: "
"""How a message begins that is about the machine, and not about what the child was given."""
CPU_S: Final = 110
MEMORY: Final = 4 * 2**30
"""Bytes that a child may have at the most."""
_STACK: Final = 2 * 2**20
"""Bytes of stack of each further thread of a child. The bound on memory counts it all, touched or not, and the
system's own default is 8 MiB."""


def bound_processor(seconds: int) -> None:
    """In a child: let what it does from here on take so many seconds of a core, and end it then with SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (min(allowed, CPU_S), CPU_S + 1))


def serve_one(work: Callable[[dict[str, Any]], dict[str, str]], *, reserves: bool = False) -> None:
    """What a child process runs: one job from standard input, one answer to standard output.

    With ``reserves``, address space that nobody writes to has no bound: instances of guests take gigabytes of it.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))  # the first is told by its own signal
    if not reserves:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(_STACK)
    answer: dict[str, str]
    try:
        answer = work(json.load(sys.stdin.buffer))
    except (HooklineError, OSError, MemoryError) as error:
        answer = {"cause": "verify", "message": f"{FAILED}{error or type(error).__name__}"}
    sys.stdout.buffer.write(json.dumps(answer).encode())
