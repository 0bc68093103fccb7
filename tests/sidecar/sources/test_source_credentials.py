"""Secrets of the plugin folder that a plugin's sources name: taken, kept for a restart, rotated, and shown nowhere."""

from __future__ import annotations

import asyncio
import json

import pytest

from waiting import PATIENCE_S

SECRET = "hunter2-is-secret"
GRANTS = {"host": "127.0.0.1", "port": 1, "database": "d", "user": "u", "passwordFrom": {"name": "db", "key": "pw"}}
SPEC = {"permissions": ["query.execute"], "dataSources": [{"name": "grants", "postgres": GRANTS}]}


def secret(**values):
    """The Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": values}


@pytest.fixture
def sidecar(new_sidecar, guests):
    """A plugin with a data source, and the Secret that this names."""
    sidecar = new_sidecar(log_level="debug")
    sidecar.folder.write("s.yaml", secret(pw=SECRET))
    sidecar.folder.plugin("p", guests.saying("one"), **SPEC)
    return sidecar.start()


def kept(sidecar):
    """The values that are kept for a restart; None before anything is."""
    file = sidecar.state / "bundle.json"
    if not file.exists():
        return None
    (plugin,) = json.loads(file.read_text())["plugins"]
    return plugin["credentials"]


def test_a_value_is_kept_for_a_restart_and_shown_nowhere(sidecar, eventually):
    """In the bundle that is shown stands that there is one."""
    eventually(lambda: kept(sidecar) == {"db/pw": SECRET}, "the value")
    everything = json.dumps([sidecar.get(path) for path in ("/v1/bundle", "/v1/plugins", "/metrics", "/readyz")])
    assert SECRET not in everything + sidecar.log
    (shown,) = sidecar.get("/v1/bundle")[1]["plugins"]
    assert shown["credentials"] == {"db/pw": "<redacted>"}
    assert sidecar.stop() == 0
    sidecar.folder.remove("s.yaml")
    sidecar.start()
    found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
    assert found["failure"]["cause"] == "config"
    says = "dataSources.grants.postgres.passwordFrom: there is no Secret 'db' with the key 'pw'"
    assert found["failure"]["message"] == says
    assert kept(sidecar) == {"db/pw": SECRET}


async def test_a_changed_value_is_a_new_revision_and_no_call_is_lost(sidecar, eventually):
    """The plugin is loaded anew beside the one that runs."""
    before = sidecar.plugin("p")["revision"]
    sidecar.folder.write("s.yaml", secret(pw="rotated"))
    answers = set()
    async with asyncio.timeout(PATIENCE_S):
        while sidecar.plugin("p")["revision"] == before:
            answers.add(await sidecar.says())
    answers.add(await sidecar.says())
    assert answers == {"one"}
    eventually(lambda: kept(sidecar) == {"db/pw": "rotated"}, "the new value")
    sidecar.wait_plugin("p", state="Running", failure=None)
