"""Cores, processor time and C compilers of this machine: what every measurement shares with its peers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / "build" / "bench"

_START_S: Final = 30.0


class BrokenError(Exception):
    """A benchmark could not be carried out; there is no figure."""


_CORES: Final = sorted(os.sched_getaffinity(0))
LOAD_CORE: Final = _CORES[0]
"""Where the load generator runs."""
SERVER_CORE: Final = _CORES[1 % len(_CORES)]
"""Where what is measured runs, and its peers after it: one core for each."""


@contextlib.contextmanager
def on(core: int | None) -> Iterator[None]:
    """What is started in here may use this core alone; None: all of them."""
    mine = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def processor_seconds(pids: Iterable[int]) -> float:
    """The processor time that the threads of these processes have used so far."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                # https://docs.kernel.org/scheduler/sched-stats.html: nanoseconds on a processor come first. The clock
                # ticks of /proc/PID/stat are too coarse for a second's work of a quick server.
                total += int(thread.read_text().split()[0])
    return total / 1e9


def more_files() -> int:
    """Let this process, and what it starts, open as many files as it may; how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def compiled(source: Path, *libraries: Path) -> Path:
    """A C program, compiled where it was not yet; its path. Raises BrokenError without a compiler."""
    cc = shutil.which("cc") or shutil.which("gcc")
    command = [cc] if cc else [sys.executable, "-m", "ziglang", "cc"]
    options = ["-O2", "-Wall", "-Wextra", "-pthread"]
    key = hashlib.sha256(repr((command, options, libraries, source.read_bytes())).encode()).hexdigest()[:16]
    target = CACHE / f"{source.stem}-{key}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run([*command, *options, "-o", partial, source, *libraries],
                           check=True, capture_output=True, text=True)  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise BrokenError(f"{source.name} could not be compiled:\n{error.stderr[-2000:]}") from error
        partial.replace(target)
    return target


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for a while, which others may enter: nginx's workers are another user's."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@contextlib.asynccontextmanager
async def server(
    *command: str | Path, ready: Path, core: int | None = None, cwd: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A peer in a process of its own, from when it listens on the socket ``ready``; ended by its id."""
    with on(core):
        process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(_START_S):
            while not os.path.exists(ready):  # noqa: ASYNC240, PTH110 - another process makes it
                if process.returncode is not None:
                    raise BrokenError(f"{command[0]} ended with {process.returncode}")
                await asyncio.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_START_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
