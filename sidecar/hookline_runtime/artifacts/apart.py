"""Work on hostile input in a child process of its own: niced, and bounded in processor time and memory.

The child runs ``python -c`` with one function: a JSON object on standard input, one on standard output. What takes
too much of anything ends with the child, and not with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
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
_MEMORY: Final = 4 * 2**30
_MAX_ANSWER: Final = 64 * 1024


async def run_apart(module: str, request: bytes) -> dict[str, Any]:
    """Have ``module.child`` do one job in a child process; its answer, or one with the cause ``ENDED``.

    Raises FetchError where no process can be started.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            # Niced before anything is imported: even that is felt by hooks.
            sys.executable, "-c", f"import os; os.nice(19); from {module} import child; child()",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise FetchError(f"the compiler cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, err = await child.communicate(request)
    except TimeoutError:
        return {"cause": ENDED, "message": f"it was not done within {_TIMEOUT_S:.0f} s"}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode == 0 and len(out) <= _MAX_ANSWER:
        answer: dict[str, Any] = orjson.loads(out)
        return answer
    last = err.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
    code = child.returncode or 0
    ended = f"by signal {-code}" if code < 0 else f"with {code}"
    return {"cause": ENDED, "message": f"it ended {ended}: {last or 'it used too much time or memory'}"}


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
