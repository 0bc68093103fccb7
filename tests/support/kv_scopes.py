"""A plugin's keys in the pod and on a server: asked in the same way, by plain calls and with a clock to put on."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_runtime.guest.border import Waiting
from hookline_runtime.host import kv as kv_module
from hookline_runtime.host import kv_initial
from hookline_runtime.host.kv_cluster import ClusterKv

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from hookline_runtime.host.functions import PluginHost
    from hookline_runtime.host.kv import KvStore
    from host_calls import Memory
    from valkey import RedisServer

_namespaces = itertools.count()
_SHIFT = """for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('ZINCRBY', KEYS[1], -tonumber(ARGV[1]), key)
end"""


def new_namespace() -> str:
    """One that no other test of this process has on the server."""
    return f"test-{next(_namespaces)}"


def on_server(server: RedisServer, **fields: Any) -> dict[str, Any]:
    """Settings of a plugin with its keys there, in a namespace of its own."""
    return {"namespace": new_namespace(), "kv": {"scope": "Cluster", "valkey": server.settings()}, **fields}


class Background:
    """An event loop on a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, wanted: Awaitable[Any]) -> Any:
        """What it comes to."""

        async def waited() -> Any:
            return await wanted

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result()

    def do(self, action: Callable[[], object]) -> None:
        """Do something there."""

        async def done() -> None:
            action()

        self.run(done())

    def close(self) -> None:
        """End it, once what was closed there has ended."""
        tasks = asyncio.run_coroutine_threadsafe(_others(), self._loop).result()
        assert tasks == []
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def calls(self, host: PluginHost) -> dict[str, Callable[..., int]]:
        """The host functions by name; one that waits is waited for, and what it gives is put into the memory."""

        def settled(function: Callable[..., Any]) -> Callable[..., int]:
            def call(memory: Memory, *numbers: int) -> int:
                waits = isinstance(function, Waiting)
                answer = self.run(function.run(memory, *numbers)) if waits else function(memory, *numbers)
                return memory.give(answer) if isinstance(answer, bytes) else answer

            return call

        return {name: settled(function) for (_, name), function in host.functions().items()}


async def _others() -> list[asyncio.Task[Any]]:
    own = asyncio.current_task()
    for _ in range(100):
        tasks = [each for each in asyncio.all_tasks() if each is not own]
        if not tasks:
            break
        await asyncio.sleep(0.01)
    return tasks


class InPod:
    """The pod's store."""

    def __init__(self, store: KvStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        now = kv_module._now()
        self._at = now
        monkeypatch.setattr(kv_module, "_now", lambda: self._at)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def advance(self, ms: int) -> None:
        """Let so much time pass."""
        self._at += ms

    def begin(self, *plugins: dict[str, Any]) -> None:
        """What is done before a plugin's first call."""
        artifact = BundleArtifact(digest="sha256:" + "0" * 64, sha256="0" * 64, size=8, layout="file", reference="p")
        entries = [BundlePlugin.model_validate({"artifact": artifact, **each}) for each in plugins]
        kv_initial.write(self._store, entries)

    def forget(self, name: str) -> None:
        """The test has done with this plugin."""
        for key in self._store.list_keys(name, b""):
            self._store.delete(name, key)


class OnServer:
    """The same on a server."""

    def __init__(self, background: Background, server: RedisServer) -> None:
        self._background = background
        self._server = server
        self._namespace = new_namespace()
        self._made: dict[str, ClusterKv] = {}

    def close(self) -> None:
        """End the connections."""
        self._background.do(lambda: [each.close() for each in self._made.values()])

    def begin(self, *plugins: dict[str, Any]) -> None:
        """What is done before a plugin's first call: on a new connection, and by that call."""
        for each in plugins:
            self.forget(each["name"])
            plugin = BundlePlugin.model_validate({**each, "namespace": self._namespace})
            self._made[plugin.name] = ClusterKv(plugin, self._server.settings(), {})
            self.get(plugin.name, b"")

    def of(self, name: str) -> ClusterKv:
        """One plugin's."""
        if name not in self._made:
            plugin = BundlePlugin.model_validate({"name": name, "namespace": self._namespace})
            self._made[name] = ClusterKv(plugin, self._server.settings(), {})
        return self._made[name]

    def __getattr__(self, operation: str) -> Any:
        return lambda name, *arguments: self._background.run(getattr(self.of(name), operation)(*arguments))

    def usage(self) -> dict[str, tuple[int, int]]:
        """Keys and bytes of each plugin, with what is over and not cleared; checks that both indexes agree."""
        found = {}
        for name, each in self._made.items():
            entries, ends, names, _ = each._keys
            pairs = self._ask(each, b"HGETALL", entries)
            assert self._ask(each, b"ZRANGE", names, b"0", b"-1") == sorted(pairs[::2])
            assert {*self._ask(each, b"ZRANGE", ends, b"0", b"-1")} <= {*pairs[::2]}
            if pairs:
                found[name] = (len(pairs) // 2, sum(map(len, pairs)))
        return found

    def advance(self, ms: int) -> None:
        """Let so much time pass: all ends are as much nearer."""
        for each in self._made.values():
            self._ask(each, b"EVAL", _SHIFT.encode(), b"1", each._keys[1], b"%d" % ms)

    def forget(self, name: str) -> None:
        """The test has done with this plugin."""
        if name in self._made:
            self._background.do(self._made.pop(name).close)

    def _ask(self, keys: ClusterKv, *parts: bytes) -> Any:
        return self._background.run(keys._valkey.command(*parts))
