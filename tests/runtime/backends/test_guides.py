"""docs/operate/sources.md and keys.md: users of a server that may do what a plugin needs, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cache_calls import BOTH, WaitingGuest
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.host.kv_cluster import ClusterKv
from valkey import PACKAGE, PROGRAM, redis_server

_DOCS = Path(__file__).parents[3] / "docs" / "operate"
_PASSWORD = "CHANGE-ME"


@pytest.fixture
def server(need, tmp_path):
    """One of the test's own: users stay on it."""
    with redis_server(need(PROGRAM, PACKAGE), tmp_path / "redis") as started:
        yield started


def _settings(port: int) -> dict[str, Any]:
    refs = {f"{name}From": {"name": "user", "key": name} for name in ("username", "password")}
    return {"url": f"redis://127.0.0.1:{port}/0", "timeout": "10s", **refs}


async def test_the_user_of_a_cache_can_do_all_that_a_cache_does(server):
    """And reads no key of another plugin."""
    (line,) = re.findall(r"^ACL SETUSER .*$", (_DOCS / "sources.md").read_text(), re.MULTILINE)
    words = line.split()
    server.ask(*words)
    settings = {
        "namespace": "shop", "permissions": BOTH, "caches": [{"name": "roles", "valkey": _settings(server.port)}],
        "credentials": {"user/username": words[2], "user/password": _PASSWORD},
    }  # fmt: skip
    own, other = (PluginHost(BundlePlugin.model_validate({"name": name, **settings}), HostContext())
                  for name in ("grants", "another"))  # fmt: skip
    try:
        asking = WaitingGuest(own)
        assert await asking.set(b"k", b"value") == 0
        assert (await asking.get(b"k"), await asking.exists(b"k"), await asking.delete(b"k")) == (b"value", 1, 1)
        assert own.caches["roles"]["away"] == 0
        await WaitingGuest(other).get(b"k")
        assert other.caches["roles"]["away"] == 1
    finally:
        own.close()
        other.close()


async def test_the_user_of_shared_keys_can_do_all_that_scripts_do(server):
    """Each operation, as keys.md grants it."""
    text = re.sub(r"\s+", " ", (_DOCS / "keys.md").read_text()).split("A user of its own needs")[1]
    rights = [word for quoted in re.findall(r"`([^`]*)`", text)[:2] for word in quoted.split()]
    assert rights[0] == "~hookline:*"
    server.ask("ACL", "SETUSER", "keys", "on", f">{_PASSWORD}", *rights)
    plugin = BundlePlugin.model_validate({
        "name": "rates", "namespace": "shop", "permissions": ["kv.read", "kv.write"],
        "kv": {"scope": "Cluster", "valkey": _settings(server.port), "initial": {"first": "1"}},
        "credentials": {"user/username": "keys", "user/password": _PASSWORD},
    })  # fmt: skip
    assert plugin.kv.valkey is not None
    unavailable: dict[str, str] = {}
    keys = ClusterKv(plugin, plugin.kv.valkey, unavailable)
    try:
        assert await keys.get(b"first") == b"1"
        await keys.put(b"k", b"value")
        assert await keys.compare_and_set(b"k", b"value", b"2")
        assert await keys.increment(b"k", 5) == 7
        assert await keys.set_ttl(b"k", 60_000)
        assert await keys.list_keys(b"") == [b"first", b"k"]
        await keys.delete(b"k")
        assert await keys.get(b"k") is None
        assert unavailable == {}
    finally:
        keys.close()
