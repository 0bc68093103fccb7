"""Settings checked by a plugin's schema in a fork of this process: a new interpreter would take longer than a call.

A schema is an artifact's, and so hostile: what takes too much time or memory ends with the fork. A process that has
threads, or an engine's, is not forked: then the check is ``check_apart``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.schema import MEMORY, check_bounded
from hookline_artifacts.schema_check import CHECK_S, check_apart, too_long

_TIMEOUT_S: Final = 600.0
"""What ends a fork that hangs: its work is bounded by processor time, of which a busy machine gives it little."""
_MAX_ANSWER: Final = 64 * 1024


async def check(config: dict[str, Any], schema: dict[str, Any], *, seconds: int = CHECK_S) -> None:
    """Raises ConfigError where the settings do not satisfy the schema."""
    if not _may_fork():
        await check_apart(config, schema, secret_paths=[], seconds=seconds)
        return
    reader, writer = os.pipe()
    request = {"schema": schema, "config": config, "secret_paths": [], "check_s": seconds}
    child = os.fork()
    if child == 0:
        _in_the_fork(writer, request)
    os.close(writer)
    status = None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await _read(reader)
        status = os.waitpid(child, 0)[1]  # noqa: ASYNC222 - its end of the pipe is closed: it has ended
    except TimeoutError:
        raise too_long(f"it was not done within {_TIMEOUT_S:.0f} s") from None
    finally:
        os.close(reader)
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 - it is killed
    code = os.waitstatus_to_exitcode(status)
    if code != 0 or not answer:
        raise too_long(f"it ended by signal {-code}" if code < 0 else f"it ended with {code}")
    message = orjson.loads(answer)
    if message is not None:
        raise ConfigError(message)


def _may_fork() -> bool:
    """Whether this process has one thread: of others a fork has the locks, and nobody who lets go of them."""
    if sys.platform != "linux":
        return False
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return False


async def _read(pipe: int) -> bytes:
    """All that comes, up to what an answer may have."""
    os.set_blocking(pipe, False)
    loop = asyncio.get_running_loop()
    found = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def more() -> None:
        with contextlib.suppress(BlockingIOError):
            part = os.read(pipe, _MAX_ANSWER)
            found.extend(part)
            if (not part or len(found) > _MAX_ANSWER) and not done.done():
                done.set_result(None)

    loop.add_reader(pipe, more)
    try:
        await done
    finally:
        loop.remove_reader(pipe)
    return bytes(found[:_MAX_ANSWER])


def _in_the_fork(pipe: int, request: dict[str, Any]) -> None:
    """Answer a message, or null, and end. DANGER: nothing of this process's may run on in the fork."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        bound = _data() + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        message = None
        try:
            check_bounded(request)
        except ConfigError as error:
            message = str(error)
        answer = orjson.dumps(message)
        code = 0 if len(answer) <= _MAX_ANSWER and os.write(pipe, answer) == len(answer) else 1
    except BaseException:  # noqa: BLE001, S110 - its words may quote the settings; the exit code says enough
        pass
    finally:
        os._exit(code)


def _data() -> int:
    """Bytes of this process that count in RLIMIT_DATA; proc(5), statm."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
