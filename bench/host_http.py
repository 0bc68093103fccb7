"""``http_fetch`` against aiohttp alone: the same server, the same settings of the client, connections kept alive.

Both send a GET and read the body. Ours also reads the request's JSON, judges its URL by 20 rules, looks into what it
has kept, waits for its turn, and writes the response's JSON. No two requests at the same time are for the same URL, so
none is shared; and what the server answers may not be kept. They are measured in many short turns, because what else
runs on the machine changes within seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from bench import peers
from bench.machine import LOAD_CORE, SERVER_CORE, BrokenError, on, open_folder, server
from bench.report import Options, Result, at_most, say
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_ASKED: Final = 1.5
_IN_FLIGHT: Final = (1, 16)
_OTHER_RULES: Final = 19
_URLS: Final = 64


class _Memory:
    """A guest's memory, which holds its request and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, pointer: int, length: int) -> bytes:
        """A copy of a part of it."""
        return self._data[pointer : pointer + length]


class _Guest:
    """What the host does for a guest that asks; the guest's own cost is another benchmark's."""

    def __init__(self, port: int) -> None:
        rules: list[dict[str, Any]] = [
            {"host": f"h{number}.example.com", "paths": ["/v1"]} for number in range(_OTHER_RULES)
        ]
        rules.append({"scheme": "http", "host": "127.0.0.1", "port": port, "paths": ["/v1", "/v2"]})
        entry = {"name": "guest", "permissions": ["http.fetch"], "egress": rules, "limits": {"wait": "60s"}}
        self.host = PluginHost(BundlePlugin.model_validate(entry), HostContext())
        self._fetch: Any = self.host.functions()["hookline", "http_fetch"]

    async def fetch(self, url: str) -> None:
        """One request. Raises BrokenError where it is not answered."""
        request = b'{"url":"%s","headers":{"accept":"application/json"}}' % url.encode()
        answer = await self._fetch.run(_Memory(request), 0, len(request))
        if not answer.startswith(b'{"status":200'):
            raise BrokenError(f"http_fetch answered {answer[:200]!r}")


async def measure(options: Options) -> Result:
    """In turn, one at a time and sixteen at once."""
    result = Result(name="host-http", idea="One GET of a kibibyte over a connection that is kept, in one process.")
    with open_folder() as folder, on(LOAD_CORE):
        ready = folder / "port"
        command = (sys.executable, Path(peers.__file__).with_name("hello_tcp.py"), ready)
        async with server(*command, ready=ready, core=SERVER_CORE):
            port = int(ready.read_text())
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
            guest = _Guest(port)
            try:
                await _compare(options, result, port, guest, session)
            finally:
                guest.host.close()
                await session.close()
    return result


async def _compare(options: Options, result: Result, port: int, guest: _Guest, session: aiohttp.ClientSession) -> None:
    async def alone(url: str) -> None:
        async with session.get(url, headers={"accept": "application/json"}, allow_redirects=False) as response:
            await response.read()
            if response.status != 200:
                raise BrokenError(f"aiohttp got {response.status}")

    urls = (f"http://127.0.0.1:{port}/v1/keys?n={number}" for number in itertools.cycle(range(_URLS)))
    count, rounds = 480, options.pick(15, 75)
    for in_flight in _IN_FLIGHT:
        ratios, ours, theirs = [], [], []
        say(f"host-http: {in_flight} in flight, {rounds} turns")
        for _ in range(rounds):
            theirs.append(await _timed(alone, urls, count, in_flight))
            ours.append(await _timed(guest.fetch, urls, count, in_flight))
            ratios.append(ours[-1] / theirs[-1])
        result.figures.append(at_most(_ASKED, f"http_fetch against aiohttp alone, {in_flight} in flight", ratios))
        mine, alones = statistics.median(ours), statistics.median(theirs)
        result.notes.append(f"{in_flight} in flight: {mine:,.0f} µs a request, aiohttp alone {alones:,.0f}")


async def _timed(ask: Callable[[str], Awaitable[None]], urls: Iterator[str], count: int, in_flight: int) -> float:
    """Microseconds a request, of so many, by so many at a time."""

    async def some() -> None:
        for _ in range(count // in_flight):
            await ask(next(urls))

    await asyncio.gather(*(ask(next(urls)) for _ in range(in_flight)))  # opens the connections
    begin = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(in_flight)))
    return (time.perf_counter() - begin) * 1e6 / (count // in_flight * in_flight)
