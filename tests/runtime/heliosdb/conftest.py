"""What the functions of one plugin reach, real: a store, caches, PostgreSQL, an HTTPS server."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import postgres
from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.hooks import Hook
from hookline_runtime.host.cache_store import CacheStore
from http_guests import served
from own_authorities import new_authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from http_guests import Site

TEXT_TYPES = {"i": "i32", "I": "i64", "F": "f64"}
PLACE = 32_768
"""Where guests want what is written into their own memory."""
KEPT = b"kept by the test"
"""A key under which a guest keeps what was written there."""


@dataclass
class Guests:
    """Plugins that each call one host function, all of the same name and with the same parts behind them."""

    workshop: Any
    wat: Any
    cache: CacheStore
    site: Site
    log: pytest.LogCaptureFixture
    settings: dict[str, Any]

    async def call(self, function: str, *given: Any, size: int | None = None) -> Any:
        """What ``module.name`` answers: JSON, or a number.

        Texts are bytes; ``...`` is the place for what the function writes, of which the first ``size`` bytes come.
        """
        module, _, name = function.partition(".")
        types = HOST_FUNCTIONS[module, name]
        at, data, numbers = 1024, {1000: KEPT}, []
        for each in given:
            if isinstance(each, bytes):
                numbers += [at, len(each)]
                data[at] = each
                at += len(each) + 8
            else:
                numbers.append(PLACE if each is ... else each)
        letters = [TEXT_TYPES[letter] for letter in types.params]
        stack = " ".join(f"({kind}.const {number})" for kind, number in zip(letters, numbers, strict=True))
        call, result = f"(call $asked {stack})", TEXT_TYPES[types.results]
        params = f"(param {' '.join(letters)})" if letters else ""
        imports = f'(import "{module}" "{name}" (func $asked {params} (result {result})))'
        if size is not None:
            imports += '(import "env" "kv_set" (func $keep (param i32 i32 i32 i32) (result i32)))'
            kept = (
                f"(drop (call $keep (i32.const 1000) (i32.const {len(KEPT)}) (i32.const {PLACE}) (i32.const {size})))"
            )
            body = f"(local.set $i {call}) {kept} (call $number (i64.extend_i32_s (local.get $i)))"
        elif name == "get_time":
            body = f"(call $number {call})"
        else:
            body = call if result == "i64" else f"(call $number (i64.extend_i32_s {call}))"
        text = self.wat.module(imports=imports, hooks={"custom_hook": body}, data=data)
        entry = await self.workshop.plugin(text, **self.settings)
        self.runtime = await self.workshop.run(entry, cache=self.cache)
        decision = await self.runtime.call(Hook.CUSTOM, b"0")
        assert "failure" not in decision, decision
        return decision.get("value")

    @property
    def written(self) -> bytes | None:
        """What was written into the guest's memory."""
        found: bytes | None = self.workshop.kv.get("guest", KEPT)
        return found


@pytest.fixture(scope="session")
def database() -> Iterator[postgres.Server]:
    """A PostgreSQL with TLS and SCRAM."""
    if postgres.program("initdb") is None:
        message = "PostgreSQL is missing (Debian: apt-get install postgresql)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    folder = Path(tempfile.mkdtemp(prefix="hookline-pg-"))  # short: a socket's path has 107 characters
    try:
        with postgres.Server(folder / "server") as started:
            yield started
    finally:
        shutil.rmtree(folder)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Site, str]]:
    """An HTTPS server, and the authority of its certificate."""
    authority, folder = new_authority(), tmp_path / "tls"
    folder.mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(folder))
    async with served(context) as running:
        yield running, authority.pem


@pytest.fixture
async def guests(workshop, wat, database, site, caplog, tmp_path) -> AsyncIterator[Guests]:
    """Plugins with every permission, whose sources are there."""
    server, authority = site
    source = {
        "host": database.host, "port": database.port, "database": postgres.DATABASE, "user": postgres.USER,
        "passwordFrom": {"name": "db", "key": "password"}, "tls": {"caFrom": {"name": "db", "key": "ca"}},
        "statementTimeout": "10s",
    }  # fmt: skip
    cache = CacheStore(tmp_path / "cache")
    yield Guests(
        workshop=workshop,
        wat=wat,
        cache=cache,
        site=server,
        log=caplog,
        settings={
            "permissions": [
                "kv.read", "kv.write", "cache.read", "cache.write", "crypto", "metrics", "config.read", "http.fetch",
                "query.execute",
            ],
            "config": {"limits": {"per_minute": 7}},
            "dataSources": [{"name": "db", "postgres": source}],
            "egress": [server.rule(methods=["GET", "POST"])],
            "limits": {"wait": "30s"},
            "credentials": {
                "db/password": postgres.PASSWORD, "db/ca": database.authority.pem, "tls/ca": authority,
            },
        },
    )  # fmt: skip
    for runtime in workshop.started:
        await runtime.close()
    workshop.started.clear()
    cache.close()
