"""What Hookline is measured against: a sidecar in C, bare servers in Python, other ways to call a guest.

Peers that Hookline does not depend on (``httptools``, ``extism``) have an environment of their own, ``.venv-peers``;
their programs are run in it, and import nothing of ours.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import wasmtime

from bench.machine import ROOT, SERVER_CORE, BrokenError, compiled, open_folder, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HERE: Final = Path(__file__).parent
_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
_WASMTIME: Final = "50."


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A running peer."""

    socket: str
    pids: tuple[int, ...]


def python() -> Path:
    """The interpreter of the peers' environment. Raises BrokenError where it was not made."""
    if not _PYTHON.exists():
        raise BrokenError("the peers have no environment: make .venv-peers/.made")
    return _PYTHON


def program(name: str) -> Path:
    """The path of one of the peers' programs."""
    return _HERE / name


def versions() -> dict[str, str]:
    """Name → version of what is in the peers' environment."""
    places = [str(path) for path in (_PYTHON.parents[1] / "lib").glob("python*/site-packages")]
    found = {each.metadata["name"]: each.version for each in importlib.metadata.distributions(path=places)}
    return {name: found[name] for name in ("httptools", "extism") if name in found}


@contextlib.asynccontextmanager
async def hello(kind: Literal["aiohttp", "httptools"], *, core: int | None = SERVER_CORE) -> AsyncIterator[Peer]:
    """A server on uvloop that reads a body and answers a constant, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        path = Path(folder) / "hello.sock"
        async with server(python(), program(f"hello_{kind}.py"), path, ready=path, core=core) as process:
            yield Peer(socket=str(path), pids=(process.pid,))


@contextlib.asynccontextmanager
async def native(
    wasm: bytes, *, plugin: str, bundle: str, per_call: bool = False, core: int | None = SERVER_CORE
) -> AsyncIterator[Peer]:
    """The sidecar in C, with the library that our own runtime loads."""
    found = importlib.metadata.version("wasmtime")
    if not found.startswith(_WASMTIME):
        raise BrokenError(f"native.c has the prototypes of wasmtime {_WASMTIME}x, and {found} is installed")
    library = Path(wasmtime.__file__).parent / f"linux-{platform.machine()}" / "_libwasmtime.so"
    binary = compiled(_HERE / "native.c", library)
    with open_folder() as folder:
        path, guest = folder / "native.sock", folder / "guest.wasm"
        guest.write_bytes(wasm)
        options = ["-f"] if per_call else []
        async with server(
            binary, "-w", guest, "-u", path, "-p", plugin, "-b", bundle, *options, ready=path, core=core
        ) as process:
            yield Peer(socket=str(path), pids=(process.pid,))
