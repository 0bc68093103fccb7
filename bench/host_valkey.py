"""What a plugin asks of a Valkey server, against a bare client; and whether a count is ever lost.

A bare client is some lines of the protocol on one connection, 16 commands in flight, without a time-out, a bound or a
check. Both ask the same redis-server for the same value, in turn, in this process: what is compared is its processor
time for one command. The counts are those of six processes, as of three pods with two workers, while the server is
killed and started again: what it has acknowledged is on its disk.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from bench.machine import BrokenError, open_folder
from bench.report import Figure, Options, Result, at_most, say, spread
from counting import count_over
from hookline_api.bundle import BundlePlugin
from hookline_runtime.guest.border import Waiting
from hookline_runtime.host.backends.valkey import Valkey
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from valkey import PACKAGE, PROGRAM, RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_IN_FLIGHT: Final = 16
_KEY: Final = b"token:0123456789abcdef0123456789abcdef"
_VALUE: Final = b"v" * 256
_WORKERS: Final = 6
_RESTARTS: Final = 2


async def measure(options: Options) -> Result:
    """Commands, then counts."""
    result = Result(name="host-valkey", idea="What a plugin asks of a Valkey server, against a bare pipelined client.")
    program = shutil.which(PROGRAM)
    if program is None:
        raise BrokenError(f"{PROGRAM} is missing: sh scripts/debian-packages.sh {PACKAGE}")
    with open_folder() as folder, redis_server(program, folder / "commands") as server:
        await _commands(server, options, result)
    times = options.pick(1_000, 10_000)
    with open_folder() as folder, redis_server(program, folder / "counts", durable=True) as server:
        say(f"host-valkey: {_WORKERS} processes count {times:,} times each")
        settled = await asyncio.to_thread(
            count_over, server, "bench", workers=_WORKERS, times=times, restarts=_RESTARTS
        )
    lost = settled.acknowledged - settled.held + settled.twice
    result.figures.append(
        Figure(
            what=f"counts lost of {_WORKERS} x {times:,} while the server is killed {_RESTARTS} times",
            asked="0",
            measured=f"{max(0, lost)}",
            reached=lost <= 0 and settled.acknowledged == _WORKERS * times,
        )
    )
    result.notes.append(f"{settled.unknown} counts had no answer, and may have been done: the sum is {settled.held:,}")
    result.failures.update(settled.failed)
    return result


async def _commands(server: RedisServer, options: Options, result: Result) -> None:
    bare = await _Bare.connect(server.port)
    ours = Valkey(server.settings(), {}, {}, "bench")
    await ours.command(b"SET", _KEY, _VALUE)
    plugin = _plugin(server)
    kv_get, cache_get, memory = _run(plugin, "env", "kv_get"), _run(plugin, "hookline", "cache_get"), _Memory()
    await _run(plugin, "env", "kv_set")(memory, 0, len(_KEY), 0, len(_VALUE))
    await _run(plugin, "hookline", "cache_set")(memory, 0, 0, 0, len(_KEY), 0, len(_VALUE), 0)
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "bare": lambda: bare.get(_KEY),
        "ours": lambda: ours.command(b"GET", _KEY),
        "cache_get": lambda: cache_get(memory, 0, 0, 0, len(_KEY)),
        "kv_get": lambda: kv_get(memory, 0, len(_KEY), 0, len(_VALUE)),
    }
    used: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(options.rounds):
        say(f"host-valkey: commands, round {number + 1} of {options.rounds}")
        for name, ask in asked.items():
            used[name].append(await _microseconds(ask, options.pick(5_000, 30_000)))
    bare.close()
    ours.close()
    plugin.close()
    result.figures += [
        at_most(
            1.5,
            "processor time of cache_get from Valkey, against a bare pipelined client",
            [mine / theirs for mine, theirs in zip(used["cache_get"], used["bare"], strict=True)],
        ),
        *(
            Figure(what=what, measured=spread(used[name], unit=" µs"))
            for name, what in (
                ("bare", "a GET by the bare client"),
                ("ours", "a GET by ours"),
                ("cache_get", "cache_get, as a guest calls it"),
                ("kv_get", "kv_get of keys that all pods share, which is a script"),
            )
        ),
    ]


async def _microseconds(ask: Callable[[], Awaitable[Any]], times: int) -> float:
    """Of processor time, for one of so many with ``_IN_FLIGHT`` at once."""
    left = times

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask()

    await ask()
    begin = time.process_time()
    await asyncio.gather(*(some() for _ in range(_IN_FLIGHT)))
    return (time.process_time() - begin) / times * 1e6


class _Bare(asyncio.Protocol):
    """As few lines as it takes."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._rest = b""
        self._transport: Any = None

    @classmethod
    async def connect(cls, port: int) -> _Bare:
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get(self, key: bytes) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
        return future

    def data_received(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while (end := data.find(b"\r\n", at)) > 0:
            begin, size = end + 2, int(data[at + 1 : end])
            if len(data) < begin + size + 2:
                break
            self._waiting.popleft().set_result(data[begin : begin + size])
            at = begin + size + 2
        self._rest = data[at:]

    def close(self) -> None:
        self._transport.close()


class _Memory:
    """A guest's, without a guest."""

    def read(self, _: int, length: int) -> bytes:
        return (_KEY + _VALUE)[:length]

    def write(self, _: int, data: bytes) -> bool:
        return len(data) > 0


def _plugin(server: RedisServer) -> PluginHost:
    kv = {"scope": "Cluster", "valkey": server.settings()}
    permissions = ["kv.read", "kv.write", "cache.read", "cache.write"]
    caches = [{"name": "shared", "valkey": server.settings()}]
    settings = {"name": "bench", "permissions": permissions, "kv": kv, "caches": caches}
    return PluginHost(BundlePlugin.model_validate(settings), HostContext())


def _run(plugin: PluginHost, module: str, name: str) -> Callable[..., Awaitable[int | bytes]]:
    function = plugin.functions()[module, name]
    if not isinstance(function, Waiting):
        raise BrokenError(f"{name} does not wait")
    return function.run
