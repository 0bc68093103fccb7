"""A real redis-server for tests and benchmarks, on a port of its own.

Debian has Redis 7.0 and no Valkey; what Hookline asks is the same in both.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hookline_api.outbound import ValkeyServer
from local_ports import reserve_port
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "redis-server"
PACKAGE = "redis-server"


@dataclass(kw_only=True)
class RedisServer:
    """One server with a folder of its own. ``start`` after ``kill`` is the same server again."""

    program: str
    folder: Path
    options: tuple[str, ...] = ()
    """More of its configuration, as on its command line."""
    tls: tuple[Path, Path, Path] | None = None
    """Certificate, key and authority: TLS alone, and clients show a certificate only where an option says so."""
    durable: bool = False
    """What was acknowledged is on disk, so that it is there after ``kill`` and ``start``."""
    port: int = field(default_factory=reserve_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = ["--port", str(self.port)]
        if self.tls is not None:
            certificate, key, authority = map(str, self.tls)
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", certificate, "--tls-key-file", key]
            ports += ["--tls-ca-cert-file", authority, "--tls-auth-clients", "optional"]
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if self.durable else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *ports, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *kept,
                 *self.options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until(self._listens, lambda: f"a server: {(self.folder / 'log').read_text()[-2000:]}")

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program} has ended: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False

    def kill(self) -> None:
        """SIGKILL: whatever it had not written is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def settings(self, **fields: Any) -> ValkeyServer:
        """As a resource names it. A time-out that no busy machine takes, unless said otherwise."""
        scheme = "redis" if self.tls is None else "rediss"
        given = {"url": f"{scheme}://127.0.0.1:{self.port}", "timeout": "10s", **fields}
        return ValkeyServer.model_validate(given)

    def ask(self, *words: str | bytes) -> bytes:
        """One command past Hookline, by ``redis-cli``: its answer as it prints it. Without TLS and a login alone."""
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True).stdout


@contextlib.contextmanager
def redis_server(program: str, folder: Path, *options: str, **fields: Any) -> Iterator[RedisServer]:
    """A server that runs for as long as the block."""
    server = RedisServer(program=program, folder=folder, options=options, **fields)
    server.start()
    try:
        yield server
    finally:
        server.kill()
