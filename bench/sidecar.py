"""A real sidecar on free ports, with a folder of its own: started, changed, asked, weighed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.machine import BrokenError, on, open_folder, processor_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bench.load import Address

__all__ = ["BrokenError", "Sidecar", "Weight", "sidecar"]

_PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """What a process, or several, take of the machine. Memory in MiB."""

    pss: float
    """Proportional set size: shared pages are counted once over all processes that share them."""
    own: float
    """PSS without pages of files, which depend on what else this machine runs from the same files."""
    rss: float
    threads: int
    files: int
    mappings: int


class Sidecar:
    """One running sidecar, all of it on one core or on any."""

    def __init__(self, folder: Path, *, workers: int, core: int | None, environment: dict[str, str]) -> None:
        self._folder = folder
        self._workers = workers
        self._core = core
        self._environment = os.environ | environment
        self._plugins = folder / "plugins"
        self._plugins.mkdir()
        self._log = folder / "log"
        self._process: asyncio.subprocess.Process | None = None
        self.socket = str(folder / "hooks.sock")
        first, second = _free_ports()
        self.tcp: Address = ("127.0.0.1", first)
        self._admin: Address = ("127.0.0.1", second)

    def plugin(self, name: str, wasm: bytes, **spec: Any) -> None:
        """Put a plugin into the folder, or change it."""
        self.swap(name, wasm)
        manifest = {
            "apiVersion": "hookline.dev/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": name},
            "spec": {"source": {"file": {"path": f"{name}.wasm"}}, **spec},
        }
        self._write(f"{name}.json", json.dumps(manifest).encode())

    def swap(self, name: str, wasm: bytes) -> None:
        """Give a plugin a new module."""
        self._write(f"{name}.wasm", wasm)

    def reread(self) -> None:
        """Have the folder read now, and not when its watcher has waited for further changes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def start(self) -> None:
        """Start, and return when it is ready."""
        with self._log.open("wb") as log, on(self._core):
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hookline_sidecar",
                "--plugins", self._plugins, "--state", self._folder / "state", "--socket", self.socket,
                "--socket-mode", "0666",
                "--listen", f"127.0.0.1:{self.tcp[1]}", "--admin", f"127.0.0.1:{self._admin[1]}",
                "--workers", str(self._workers),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip

        async def ready() -> bool:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                return bool((await _http(self._admin, "GET", "/readyz"))["ready"])
            return False

        await self.until(ready, "the sidecar is ready")

    async def stop(self) -> None:
        """Stop it, and everything that it started."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def ask(self, hook: str, body: str) -> dict[str, Any]:
        """One hook call, on a connection of its own."""
        return await _http(self.socket, "POST", f"/v1/hooks/{hook}", body.encode())

    async def state(self, name: str) -> dict[str, Any]:
        """What the admin port says of a plugin."""
        everything = await _http(self._admin, "GET", "/v1/plugins")
        return next(plugin for plugin in everything["plugins"] if plugin["name"] == name)

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> float:
        """Poll until that is true; the seconds it took. Raises BrokenError where it never is."""
        begin = time.monotonic()
        while not await true():
            if self._process is None or self._process.returncode is not None:
                raise BrokenError(f"the sidecar ended before this was true: {what}\n{self._tail()}")
            if time.monotonic() - begin > _PATIENCE_S:
                raise BrokenError(f"not true within {_PATIENCE_S:.0f} s: {what}\n{self._tail()}")
            await asyncio.sleep(_POLL_S)
        return time.monotonic() - begin

    def processor_seconds(self) -> float:
        """The processor time of all its processes so far."""
        assert self._process is not None
        parent = self._process.pid
        return processor_seconds([parent, *(pid for pid, above in _parents().items() if above == parent)])

    def weigh(self) -> dict[str, Weight]:
        """The weight of each process: parent, supervisor, worker, and ``compiler`` while there is one."""
        assert self._process is not None
        parent = self._process.pid
        children = sorted(pid for pid, above in _parents().items() if above == parent)
        workers = ["worker"] if self._workers == 1 else [f"worker {number + 1}" for number in range(self._workers)]
        names = {parent: "parent"} | dict(zip(children, ["supervisor", *workers], strict=False))
        names |= {pid: "compiler" for pid, above in _parents().items() if above in children}
        weights = {}
        for pid, name in names.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                weights[name] = _weigh(pid)
        return weights

    def _write(self, name: str, data: bytes) -> None:
        partial = self._folder / f"{name}.partial"  # outside the watched folder, on the same disk
        partial.write_bytes(data)
        partial.replace(self._plugins / name)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])


@contextlib.asynccontextmanager
async def sidecar(
    *plugins: tuple[str, bytes, dict[str, Any]],
    workers: int = 1,
    core: int | None = None,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[Sidecar]:
    """A sidecar that runs these plugins: name, module and what the manifest's ``spec`` says beside its source."""
    with open_folder() as folder:
        ours = Sidecar(folder, workers=workers, core=core, environment=environment or {})
        for name, wasm, spec in plugins:
            ours.plugin(name, wasm, **spec)
        try:
            await ours.start()
            yield ours
        finally:
            await ours.stop()


async def _http(address: Address, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    _, separator, content = answer.partition(b"\r\n\r\n")
    if not separator:
        raise asyncio.IncompleteReadError(answer, None)
    found: dict[str, Any] = json.loads(content)
    return found


def _free_ports() -> tuple[int, int]:
    """Two different ones: both are held until both are known."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _parents() -> dict[int, int]:
    """Every process of this machine, with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: the name in field 2 may hold anything
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _weigh(pid: int) -> Weight:
    folder = Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
    mib = {name: int(value.split()[0]) / 1024 for name, value in fields.items()}
    return Weight(
        pss=mib["Pss"],
        own=mib["Pss"] - mib["Pss_File"],
        rss=mib["Rss"],
        threads=sum(1 for _ in (folder / "task").iterdir()),
        files=sum(1 for _ in (folder / "fd").iterdir()),
        mappings=len((folder / "maps").read_text().splitlines()),
    )
