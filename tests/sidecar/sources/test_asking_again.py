"""Whoever says "try again" has the source asked, and a failure stays known until the source said otherwise."""

from __future__ import annotations

import base64
import json
import signal

import pytest

from local_registry import FickleRegistry


@pytest.fixture
def registry():
    """One of our own, whose requests are counted."""
    with FickleRegistry() as made:
        yield made


def hang_up(sidecar):
    """SIGHUP."""
    sidecar.process.send_signal(signal.SIGHUP)


async def test_a_hangup_asks_the_registry_for_what_failed(sidecar, registry, guests, eventually):
    """A tag that could not be asked for again: each time one request, and the failure stays what it is."""
    registry.push("a:v1", guests.saying("old"))
    sidecar.folder.plugin("p", source=registry.source("a:v1", trackInterval="720h"))
    sidecar.start()
    assert await sidecar.says() == "old"
    registry.push("a:v1", guests.saying("new"))
    registry.away = True
    hang_up(sidecar)
    sidecar.wait_plugin("p", failure=bool)
    for _ in range(2):
        before = registry.asked
        hang_up(sidecar)
        eventually(lambda before=before: registry.asked > before, "a request")
        found = sidecar.plugin("p")
        assert found["state"] == "LastGood"
        assert "429" in found["failure"]["message"]
        assert await sidecar.says() == "old"
    registry.away = False
    hang_up(sidecar)
    await sidecar.wait_says("new")
    assert sidecar.wait_plugin("p", state="Running")["failure"] is None


async def test_a_hangup_asks_for_what_was_never_there(sidecar, registry, guests, eventually):
    """A first tag that failed, whatever its pull policy."""
    registry.away = True
    sidecar.folder.plugin("p", source=registry.source("b:v1", pullPolicy="IfNotPresent"))
    sidecar.start(wait=False)
    eventually(lambda: (sidecar.plugin("p") or {}).get("failure"), "a failure")
    before = registry.asked
    hang_up(sidecar)
    eventually(lambda: registry.asked > before, "a request")
    assert sidecar.plugin("p")["failure"]
    registry.push("b:v1", guests.saying("there"))
    registry.away = False
    hang_up(sidecar)
    await sidecar.wait_says("there")


async def test_a_hangup_asks_nobody_for_what_is_well(sidecar, registry, guests):
    """A tag that stays what it was stays it."""
    registry.push("c:v1", guests.saying("pinned"))
    sidecar.folder.plugin("p", source=registry.source("c:v1", pullPolicy="IfNotPresent"))
    sidecar.folder.plugin("q", source=registry.source("d:v1", trackInterval="720h"))
    registry.push("d:v1", guests.saying("tracked"))
    sidecar.start()
    before = registry.asked
    registry.push("c:v1", guests.saying("not asked for"))
    registry.push("d:v1", guests.saying("asked for"))
    known = sidecar.plugin("q")["artifact"]["digest"]
    hang_up(sidecar)
    sidecar.wait_plugin("q", state="Running", artifact=lambda artifact: artifact["digest"] != known)
    assert registry.asked == before + 1


async def test_a_change_after_a_failure_is_taken_and_the_registry_asked(sidecar, registry, guests, eventually):
    """New settings do not wait for a registry that is away; a new pull secret is tried at once."""
    registry.push("e:v1", guests.saying("old"))
    source = registry.source("e:v1", trackInterval="720h", pullSecrets=[{"name": "pull"}])
    sidecar.folder.plugin("p", source=source)
    sidecar.start()
    registry.away = True
    hang_up(sidecar)
    sidecar.wait_plugin("p", failure=bool)
    before = registry.asked
    sidecar.folder.plugin("p", source=source, priority=7)
    eventually(lambda: registry.asked > before, "a request")
    found = sidecar.wait_plugin("p", priority=7, failure=bool)
    assert "429" in found["failure"]["message"]
    registry.push("e:v1", guests.saying("new"))
    registry.away = False
    config = json.dumps({registry.host: {"auth": base64.b64encode(b"me:pw").decode().rstrip("=")}})
    sidecar.folder.write("pull.yaml", {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull"}, "type": "kubernetes.io/dockercfg",
        "stringData": {".dockercfg": config},
    })  # fmt: skip
    await sidecar.wait_says("new")
