"""What the sidecar's tests share beside the sidecars of tests/support: load on them, a guard, an operator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest

import sidecars
from cluster.binaries import cache
from local_ports import reserve_port
from operator_double import OperatorDouble
from sidecars import decide, manifest, process
from waiting import until_true

_GUARD = Path(__file__).parent / "heliosdb" / "guard"
_PACKAGES = Path("/usr/share/cargo/registry")
"""Where Debian's packages put the sources of crates."""

guests, eventually, ports, new_sidecar = sidecars.guests, sidecars.eventually, sidecars.ports, sidecars.new_sidecar
"""Fixtures."""


class Load:
    """Client loops that ask some hundred times a second; what they got."""

    def __init__(self):
        self.answers = []
        self.failures = []
        self._going = True
        self._tasks = []

    async def loop(self, sidecar, hook, body, *, reconnect):
        """One client; with ``reconnect`` it asks again where its connection broke."""
        async with sidecar.client() as session:
            while self._going:
                try:
                    self.answers.append(await decide(session, hook, body))
                    await asyncio.sleep(0.002)  # the pace: a full processor would starve the compiler
                except (aiohttp.ClientError, AssertionError) as error:
                    self.failures.append(repr(error))
                    if not reconnect:
                        return

    async def reaches(self, count):
        """Return when so many more answers have come."""
        goal = len(self.answers) + count
        await until_true(
            lambda: len(self.answers) >= goal,
            lambda: f"{count} more answers; {len(self.answers)} of {goal}, and {self.failures[-3:]}",
        )


@pytest.fixture(scope="session")
def heliosdb_guard(tmp_path_factory, need):
    """A guard that reads its input as HeliosDB's SDK does; Debian's cargo builds it once, from crates of Debian's."""
    for program, package in ("/usr/bin/cargo", "cargo"), ("/usr/bin/rustc", "rustc"), ("/usr/bin/rust-lld", "lld"):
        need(program, package)
    if not list(_PACKAGES.glob("serde_json-*")):
        need("serde", "librust-serde-json-dev librust-serde-derive-dev")
    work, target = tmp_path_factory.mktemp("guard"), cache() / "heliosdb-guard"
    shutil.copytree(_GUARD, work, dirs_exist_ok=True)  # cargo writes a lock beside the manifest
    command = [
        "/usr/bin/cargo", "build", "--quiet", "--release", "--offline", "--target", "wasm32-unknown-unknown",
        "--target-dir", target, "--config", 'source.crates-io.replace-with="packages"',
        "--config", f'source.packages.directory="{_PACKAGES}"',
    ]  # fmt: skip
    path = {"PATH": f"/usr/bin:/bin:{os.environ['PATH']}", "RUSTC": "/usr/bin/rustc"}
    subprocess.run(command, cwd=work, env=os.environ | path, check=True)
    return (target / "wasm32-unknown-unknown" / "release" / "guard.wasm").read_bytes()


@pytest.fixture(scope="session")
def make_manifest():
    """``manifest``."""
    return manifest


@pytest.fixture(scope="session")
def all_gone():
    """Whether none of these processes runs."""
    return lambda pids: all(facts is None or facts[0] == "Z" for facts in map(process, pids))


@pytest.fixture
def sidecar(new_sidecar):
    """A sidecar that is not started yet, where a file has no other."""
    sidecar = new_sidecar()
    yield sidecar
    sidecar.end()


@pytest.fixture
def load():
    """Runs client loops while the body of an ``async with`` goes on."""

    @contextlib.asynccontextmanager
    async def run(sidecar, *, clients=4, hook="custom_hook", body=0, reconnect=False):
        made = Load()
        tasks = [asyncio.create_task(made.loop(sidecar, hook, body, reconnect=reconnect)) for _ in range(clients)]
        try:
            yield made
        finally:
            made._going = False
            await asyncio.gather(*tasks)

    return run


@pytest.fixture
def operator(tmp_path):
    """An operator that does what it is told; see tests/support/operator_double.py."""
    made = OperatorDouble(tmp_path, reserve_port()).start()
    yield made
    made.end()
