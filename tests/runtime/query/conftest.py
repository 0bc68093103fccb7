"""Data sources of a plugin, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import postgres
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.query import QueryFunctions
from host_calls import Memory
from waiting import until_true

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL with TLS and SCRAM, for all tests of a process."""
    if postgres.program("initdb") is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing (Debian: apt-get install postgresql)")
        pytest.skip("PostgreSQL is missing (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hookline-pg-"))  # short: a socket's path has 107 characters
    try:
        with postgres.Server(folder / "server") as started:
            yield started
    finally:
        shutil.rmtree(folder)


class Source:
    """One data source, named ``db``, as a guest sees it."""

    def __init__(self, plugin: BundlePlugin, context: HostContext) -> None:
        self.unavailable: dict[str, str] = {}
        self.counted: list[tuple[str, bool]] = []
        """Errors that were told: the function, and whether a permission was missing."""
        self.plugin = plugin
        self.family = QueryFunctions(
            plugin,
            context,
            unavailable=self.unavailable,
            count=lambda name, *, denied: self.counted.append((name, denied)),
        )
        self.functions = self.family.functions()

    @property
    def database(self) -> Any:
        """What the family has for ``db``."""
        return self.family._sources["db"]

    async def call(self, name: str, *texts: str | bytes) -> Any:
        """The JSON that a host function answers."""
        memory = Memory(sum(map(len, texts)) * 4 + 16)
        at, numbers = 0, []
        for text in texts:
            data = text.encode() if isinstance(text, str) else text
            numbers += memory.put(at, data)
            at += len(data)
        answer = await self.functions[name](memory, *numbers)
        return json.loads(answer)

    async def ask(self, sql: str, parameters: Any = None, *, source: str = "db") -> Any:
        """``query_execute``."""
        given = b"" if parameters is None else json.dumps(parameters)
        return await self.call("query_execute", source, sql, given)

    async def one(self, sql: str, parameters: Any = None) -> Any:
        """The one value of a result of one row and column."""
        answer = await self.ask(sql, parameters)
        assert "error" not in answer, answer
        [[value]] = answer["rows"]
        return value

    async def error(self, sql: str, parameters: Any = None) -> tuple[str, str | None]:
        """Cause and SQLSTATE."""
        answer = await self.ask(sql, parameters)
        assert set(answer) == {"error"}, answer
        assert set(answer["error"]) <= {"cause", "message", "sqlstate"}
        assert answer["error"]["message"]
        return answer["error"]["cause"], answer["error"].get("sqlstate")

    async def idle(self) -> None:
        """Wait until no connection is used: what calls left behind is done."""
        await until_true(lambda: self.database.used == 0, lambda: f"an idle source, {self.database.used} used")


@pytest.fixture
async def make(server: postgres.Server) -> AsyncIterator[Callable[..., Source]]:
    """Makes data sources; closed with the test, and nothing is left of them."""
    made: list[Source] = []

    def make(
        *, permissions: list[str] | None = None, context: HostContext | None = None, wait: str = "20s",
        credentials: dict[str, str] | None = None, **fields: Any,
    ) -> Source:  # fmt: skip
        source = {
            "host": server.host, "port": server.port, "database": postgres.DATABASE, "user": postgres.USER,
            "passwordFrom": {"name": "db", "key": "password"},
            "tls": {"caFrom": {"name": "db", "key": "ca"}}, "statementTimeout": "10s", **fields,
        }  # fmt: skip
        plugin = BundlePlugin.model_validate({
            "name": "guest",
            "permissions": permissions or ["query.execute"],
            "limits": {"wait": wait},
            "dataSources": [{"name": "db", "postgres": source}],
            "credentials": {
                "db/password": postgres.PASSWORD, "db/ca": server.authority.pem,
                "db/cert": server.client.certificate, "db/key": server.client.key, **(credentials or {}),
            },
        })  # fmt: skip
        made.append(Source(plugin, context or HostContext()))
        return made[-1]

    yield make
    from hookline_runtime.host.backends import postgres as backend

    for each in made:
        each.family.close()
    await until_true(lambda: not backend._closing, "the end of all pools")


@pytest.fixture
def source(make: Callable[..., Source]) -> Source:
    """A read-only one with the usual settings."""
    return make()
