"""Work on hostile input in a child process of its own: niced, and bounded in processor time and memory.

The child runs ``python -c`` with one function: a JSON object on standard input, one on standard output. What takes
too much of anything ends with the child, and not with this process. A child that starves at the lowest priority is
replaced by one with a better one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_runtime.errors import FetchError, HooklineError

if TYPE_CHECKING:
    from collections.abc import Callable

ENDED: Final = "ended"
"""The cause in an answer that the child did not give itself."""
CPU_S: Final = 110
_TIMEOUT_S: Final = 600.0
"""What ends a child that hangs. Its work is bounded by processor time, of which a busy machine gives it little."""
_NICENESS: Final = (19, 10)
"""Of a child, and of the one in its place where that starves: hooks go first, and yet a change has to come to an end.
At 19 a child beside four busy processes on two cores takes minutes to begin."""
_LOOK_S: Final = 10.0
_STARVING: Final = 0.05
"""The share of one core below which a child starves."""
_MEMORY: Final = 4 * 2**30
_MAX_ANSWER: Final = 64 * 1024


async def run_apart(module: str, request: bytes) -> dict[str, Any]:
    """Have ``module.child`` do one job in a child process; its answer, or one with the cause ``ENDED``.

    Raises FetchError where no process can be started.
    """
    answer = None
    for niceness in _NICENESS:
        if answer is None:
            answer = await _attempt(module, request, niceness=niceness, may_starve=niceness == _NICENESS[-1])
    assert answer is not None  # noqa: S101 - the last attempt has one
    return answer


async def _attempt(module: str, request: bytes, *, niceness: int, may_starve: bool) -> dict[str, Any] | None:
    """One child; None where it got next to no processor, and may not starve."""
    try:
        child = await asyncio.create_subprocess_exec(
            # Niced before anything is imported: even that is felt by hooks.
            sys.executable, "-c",
            f"import os; os.nice(max(0, {niceness} - os.nice(0))); from {module} import child; child()",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
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
    return {"cause": ENDED, "message": f"it ended {ended}: {last or 'it used too much time or memory'}"}


def _processor_s(pid: int) -> float:
    """What a process has used of the processor, in seconds; proc(5), utime and stime. All there is where it is gone."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return float("inf")
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def serve_one(work: Callable[[dict[str, Any]], dict[str, str]]) -> None:
    """What a child process runs: one job from standard input, one answer to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: dict[str, str]
    try:
        answer = work(orjson.loads(sys.stdin.buffer.read()))
    except (HooklineError, OSError, MemoryError) as error:
        answer = {"cause": "verify", "message": f"the compiler failed: {error}"}
    sys.stdout.buffer.write(orjson.dumps(answer))
