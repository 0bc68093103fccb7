"""Work on hostile input in a child process of its own: niced, and bounded in processor time and memory.

The child runs ``python -c`` with one function, by ``child.serve_one``: a JSON object on standard input, one on standard
output. What takes too much of anything ends with the child, and not with this process. A child that starves at the
lowest priority is replaced by one with a better one.

All children of a process count in one account. How much they may have together is told by ``set_room``, or is what
the limit of the cgroup leaves; each gets what it asks for of that as its bound (RLIMIT_DATA, which counts what may be
written to, and not what is only reserved), and waits where others have it. Where the kernel has to end something all
the same, it is to be a child (``oom_score_adj``).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.quantities import format_size
from hookline_artifacts import memory
from hookline_artifacts.child import MEMORY
from hookline_artifacts.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

ENDED: Final = "ended"
"""The cause in an answer that the child did not give itself."""
_TIMEOUT_S: Final = 600.0
"""What ends a child that hangs. Its work is bounded by processor time, of which a busy machine gives it little."""
NICENESS: Final = (19, 10)
"""Of a child, and of the one in its place where that starves: hooks go first, and yet a change has to come to an end.
At 19 a child beside four busy processes on two cores takes minutes to begin."""
_LOOK_S: Final = 10.0
_BUSY_S: Final = 120.0
"""For so long after a child starved, those that come next do not begin at its niceness: ten of them would wait for
``_LOOK_S`` each."""
_STARVING: Final = 0.05
"""The share of one core below which a child starves."""
_MAX_ANSWER: Final = 64 * 1024
LEAST: Final = 64 * 2**20
"""Bytes for a child, at the least: the interpreter takes 20 MiB, with the engine 40."""
_MARGIN: Final = 64 * 2**20
"""Bytes of what the cgroup leaves that no child gets: this process works on meanwhile."""
_SHORT: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
"""How native code ends where an allocation fails: some of it says so, and some goes on with a null pointer."""
_AT_ONCE: Final = 2
"""Children of one process, where there is memory for more than one: each takes a core."""


# Nothing that is imported, or left at the end, has to be collected: looking for garbage takes a third of a small job.
_SCRIPT: Final = """
import gc, os, resource
gc.disable()
os.nice(max(0, {niceness} - os.nice(0)))
resource.setrlimit(resource.RLIMIT_DATA, ({memory}, {memory}))
try:
    open("/proc/self/oom_score_adj", "w").write("1000")
except OSError:
    pass
from {module} import child
gc.freeze()
gc.enable()
child()
gc.freeze()
"""


def set_room(room: Callable[[], int | None]) -> None:
    """Ask ``room`` from now on how many bytes the children of this process may have together; None for no bound."""
    _Account.room = staticmethod(room)


def room() -> int:
    """How many bytes a child of this process may have now, where it has no others beside it."""
    found = _Account.room()
    return MEMORY if found is None else min(found, MEMORY)


def _left() -> int | None:
    left = memory.left()
    return None if left is None else max(0, left - _MARGIN)


class _Account:
    """The account of the children of one event loop."""

    room: Callable[[], int | None] = staticmethod(_left)

    def __init__(self) -> None:
        self.starved: dict[int, float] = {}
        """When a child of this niceness starved last, on the monotonic clock."""
        self._running = 0
        self._taken = 0
        self._numbers = itertools.count()
        self._waiting: list[tuple[tuple[int, ...], int, int | None, asyncio.Future[int]]] = []

    @contextlib.asynccontextmanager
    async def permit(self, wanted: int | None, order: tuple[int, ...]) -> AsyncIterator[int]:
        """A permit for a child, with so many bytes; None wants all there are. Lower orders go first.

        Raises FetchError where there is too little for any.
        """
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        entry = (order, next(self._numbers), wanted, granted)
        heapq.heappush(self._waiting, entry)
        self._let_in()
        try:
            size = await granted
        except BaseException:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._leave(granted.result())
            elif entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
                self._let_in()  # it may have been what the others waited behind
            raise
        try:
            yield size
        finally:
            self._leave(size)

    def _leave(self, size: int) -> None:
        self._running -= 1
        self._taken -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._running < _AT_ONCE:
            *_, wanted, granted = self._waiting[0]
            most = room()
            size = min(wanted or most, most)
            if self._running and self._taken + size > most:
                return
            heapq.heappop(self._waiting)
            if granted.done():
                continue
            if size < LEAST:
                granted.set_exception(
                    FetchError(
                        f"a process that compiles or checks takes {format_size(LEAST)} of memory at the least, and "
                        f"{format_size(size >> 20 << 20)} are left: give this program {format_size(LEAST)} more"
                    )
                )
                continue
            self._running += 1
            self._taken += size
            granted.set_result(size)


_accounts: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Account]] = weakref.WeakKeyDictionary()


async def run_apart(
    module: str,
    request: bytes,
    *,
    wanted: int | None = None,
    order: tuple[int, ...] = (),
    descriptors: tuple[int, ...] = (),
    niceness: tuple[int, ...] = NICENESS,
) -> dict[str, Any]:
    """Have ``module.child`` do one job in a child process; its answer, or one with the cause ``ENDED``.

    ``wanted`` are the bytes of memory that it may have, None for all that children may have; where others have them,
    it waits, and lower ``order`` goes first. It inherits ``descriptors``. Beside ``ENDED`` stand ``signal``, what ended
    it, and ``memory``, what it had. Raises FetchError where no process can be started.
    """
    answer = None
    account = _accounts.setdefault(asyncio.get_running_loop(), _Account())
    async with account.permit(wanted, order) as size:
        for nice in niceness:
            last = nice == niceness[-1]
            if not last and time.monotonic() - account.starved.get(nice, -_BUSY_S) < _BUSY_S:
                continue
            answer = await _attempt(
                module, request, memory=size, niceness=nice, may_starve=last, descriptors=descriptors
            )
            if answer is not None:
                break
            account.starved[nice] = time.monotonic()
    assert answer is not None  # noqa: S101 - the last attempt has one
    return answer


async def _attempt(
    module: str, request: bytes, *, memory: int, niceness: int, may_starve: bool, descriptors: tuple[int, ...]
) -> dict[str, Any] | None:
    """One child; None where it got next to no processor, and may not starve."""
    try:
        child = await asyncio.create_subprocess_exec(
            # Niced before anything is imported: even that is felt by hooks.
            sys.executable, "-c", _SCRIPT.format(niceness=niceness, memory=memory, module=module),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
        )  # fmt: skip
    except OSError as error:
        raise FetchError(f"the compiler cannot be started: {error.strerror}") from error
    talk = asyncio.ensure_future(child.communicate(request))
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            used = 0.0
            while not (await asyncio.wait({talk}, timeout=_LOOK_S))[0]:
                before, used = used, _processor_s(child.pid)
                if used - before < _STARVING * _LOOK_S and not may_starve:
                    return None
            out, err = await talk
    except TimeoutError:
        return {"cause": ENDED, "message": f"it was not done within {_TIMEOUT_S:.0f} s"}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
    if child.returncode == 0 and len(out) <= _MAX_ANSWER:
        answer: dict[str, Any] = orjson.loads(out)
        return answer
    last = err.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
    code = child.returncode or 0
    ended = f"by signal {-code}" if code < 0 else f"with {code}"
    message = f"it ended {ended}: {last or 'it used too much time or memory'}"
    return {"cause": ENDED, "message": message, "signal": max(0, -code), "memory": memory}


def lacked_memory(answer: Mapping[str, Any]) -> bool:
    """Whether a child ended as one does that has too little memory: with more, it may come to its end."""
    return "memory" in answer and (answer["signal"] in _SHORT or "MemoryError" in answer["message"])


def took_too_long(answer: Mapping[str, Any]) -> bool:
    """Whether a child ended because it used more of a core than it may."""
    return bool(answer.get("signal") == signal.SIGXCPU)


def _processor_s(pid: int) -> float:
    """What a process has used of the processor, in seconds; proc(5), utime and stime. All there is where it is gone."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return float("inf")
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
