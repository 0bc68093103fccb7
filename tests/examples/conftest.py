"""The example plugins, built and run by the real runtime, and the real parts that some of them reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import postgres
import valkey
from example_plugins import Examples
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.store import ArtifactStore
from hookline_runtime.guest.compiler import Compiler
from http_guests import served
from own_authorities import new_authority
from reached import Issuer, Reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "plugins"


@pytest.fixture(scope="session")
def built() -> Path:
    """All plugins that can be built here; the builder says what it skipped."""
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--out", BUILT], check=True)
    return BUILT


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Compiler]:
    """A store and a compiler for the session: a Go plugin takes seconds to compile."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, Compiler(folder / "compiled")


@pytest.fixture
async def fetcher(tools: tuple[Path, Compiler]) -> AsyncIterator[Fetcher]:
    """Reads the built modules as a manifest folder's file sources."""
    fetcher = Fetcher(ArtifactStore(tools[0] / "artifacts"))
    yield fetcher
    await fetcher.close()


@pytest.fixture
def examples(built, tools, fetcher, reached, tmp_path) -> Examples:
    """Runs example plugins, with the Secrets of what they reach."""
    return Examples(built=built, fetcher=fetcher, compiler=tools[1], secrets=reached.folder, state=tmp_path / "pods")


@pytest.fixture(scope="session")
def authority():
    """Signs the issuer's certificate."""
    return new_authority()


@pytest.fixture(scope="session")
def database() -> Iterator[postgres.Server]:
    """A PostgreSQL with TLS and SCRAM, for all tests of a process."""
    if postgres.program("initdb") is None:
        message = "PostgreSQL is missing (Debian: apt-get install postgresql)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    folder = Path(tempfile.mkdtemp(prefix="hookline-pg-"))  # short: a socket's path has 107 characters
    try:
        with postgres.Server(folder / "server") as started:
            yield started
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis(need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[valkey.RedisServer]:
    """A server for keys, for all tests of a process."""
    with valkey.redis_server(need(valkey.PROGRAM, valkey.PACKAGE), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def site(authority, tmp_path):
    """An issuer's server, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = tmp_path / "tls"
    folder.mkdir()
    context.load_cert_chain(*authority.issue(folder))
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(served(context))


@pytest.fixture
def reached(request, site, authority, tmp_path, monkeypatch) -> Reached:
    """What the plugin of a test reaches; PostgreSQL and Redis are started where one does."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    issuer = Issuer(site)
    return Reached(
        folder=folder,
        monkeypatch=monkeypatch,
        issuer=lambda: issuer,
        authority=lambda: authority.pem,
        database=lambda: request.getfixturevalue("database"),
        redis=lambda: request.getfixturevalue("redis"),
    )
