"""What a sidecar counts for its plugins' stores, before it gives memory to guests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_artifacts import memory
from hookline_runtime.host.cache_store import CacheKey, CacheStore
from hookline_runtime.plugin.budget import STORE
from hookline_sidecar.control.room import Room
from hookline_sidecar.settings import Settings
from hookline_sidecar.state import StateFolder

MIB = 2**20


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What is counted for the state folder, which is in memory, beside these plugins' files."""
    monkeypatch.setattr(memory, "in_memory", lambda _: True)
    settings = Settings(
        plugins=tmp_path, operator=None, state=tmp_path, listen=None, socket=None, socket_mode=0, socket_group=None,
        health=None, admin=None, admin_token=None, workers=1, max_body=1, body_timeout=1, drain=1, memory=2**30,
    )  # fmt: skip
    state = StateFolder(tmp_path / "state")
    state.root.mkdir()

    def plan(*plugins, limit=64 * MIB):
        entries = [BundlePlugin.model_validate(each) for each in plugins]
        room = Room(replace(settings, cache_memory=limit), state)
        return room.plan(Bundle.of(entries)).state

    plan.state = state
    return plan


def plugin(name, *sizes, permissions=("cache.write",)):
    """A plugin with caches of these sizes."""
    caches = [{"name": f"c{number}", "memory": {"size": size}} for number, size in enumerate(sizes)]
    return {"name": name, "permissions": list(permissions), "caches": caches}


def test_caches_count_as_what_their_file_may_come_to_have(planned):
    """Three times their sizes and a little, and no more than all caches of the pod may have."""
    assert planned() == planned(plugin("a", permissions=["cache.read"])) == 0
    assert planned(plugin("a", "1Mi", "2Mi")) == 3 * MIB * 16 // 5 + MIB
    assert planned(plugin("a")) == 16 * MIB * 16 // 5 + MIB
    assert planned(plugin("a"), plugin("b")) == 64 * MIB
    assert planned(plugin("a", "1Gi"), limit=8 * MIB) == 8 * MIB
    assert planned(plugin("a", "1Mi", permissions=["cache.write", "kv.write"])) == STORE + MIB * 16 // 5 + MIB


def test_a_file_that_has_grown_counts_until_the_sidecar_starts_again(planned):
    """It does not shrink with what is in it."""
    store = CacheStore(planned.state.cache)
    key = CacheKey("a", "c")
    store.allot({key: 16 * MIB})
    cache = store.cache(*key, 16 * MIB)
    for number in range(40):
        cache.set(b"%d" % number, bytes(MIB // 4), 60_000)
    store.tidy({})
    assert store.usage() == {}
    assert planned() > 10 * MIB
    store.close()
