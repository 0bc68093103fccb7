"""Secrets and ConfigMaps of the plugin folder: they reach the guest, and secret values show nowhere else."""

from __future__ import annotations

import base64
import json
import stat

import pytest

from hookline_api.bundle import BundlePlugin

SECRET = "hunter2-is-secret"
BINARY = b"\xff\xfe-secret"


def secret(**values):
    """A Secret named ``s``."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": values}


def config_map(**values):
    """A ConfigMap named ``c``."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": values}


def taken(kind, name, key, path):
    """One entry of configFrom."""
    return {f"{kind}Ref": {"name": name}, "key": key, "path": path}


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """A plugin that answers its settings: two of Secrets, one of a ConfigMap, one of its own."""
    sidecar = new_sidecar(log_level="debug")
    whole = guests.module(
        {"custom_hook": "(call $get_config (i32.const 0) (i32.const 0))"},
        imports='(import "hookline" "get_config" (func $get_config (param i32 i32) (result i64)))',
    )
    sidecar.folder.write("s.yaml", secret(password=SECRET) | {"data": {"raw": base64.b64encode(BINARY).decode()}})
    sidecar.folder.write("c.yaml", config_map(region="eu"))
    sidecar.folder.plugin(
        "p", whole, config={"own": 1, "upstream": {"url": "http://x"}},
        configFrom=[
            taken("secret", "s", "password", "upstream.token"),
            taken("secret", "s", "raw", "raw"),
            taken("configMap", "c", "region", "region"),
        ],
    )  # fmt: skip
    return sidecar.start()


async def test_settings_reach_the_guest(sidecar):
    """Laid over the plugin's own config at their paths; bytes that are not text come as base64."""
    assert await sidecar.says() == {
        "own": 1,
        "upstream": {"url": "http://x", "token": SECRET},
        "raw": base64.b64encode(BINARY).decode(),
        "region": "eu",
    }


def test_values_of_secrets_are_shown_nowhere(sidecar):
    """The bundle says that there is something; values of ConfigMaps are not secret."""
    everything = [sidecar.get(path) for path in ("/v1/bundle", "/v1/plugins", "/metrics", "/readyz")]
    text = json.dumps(everything) + sidecar.log
    for value in (SECRET, base64.b64encode(BINARY).decode()):
        assert value not in text
    config = everything[0][1]["plugins"][0]["config"]
    assert config["upstream"] == {"url": "http://x", "token": "<redacted>"}
    assert config["region"] == "eu"


def test_the_state_on_disk_is_for_its_owner_only(sidecar):
    """It has the values, because a restart needs them."""
    path = sidecar.state / "bundle.json"
    assert SECRET in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_changed_secret_is_a_new_revision(sidecar):
    """The plugin itself was not touched."""
    before = sidecar.plugin("p")["revision"]
    sidecar.folder.write("s.yaml", secret(password="rotated", raw="text"))
    sidecar.wait_plugin("p", revision=lambda now: now != before, state="Running")
    assert (await sidecar.says())["upstream"]["token"] == "rotated"


async def write_good(sidecar, eventually):
    """Return when the plugin has a good Secret's value, and that is kept."""
    sidecar.folder.write("s.yaml", [secret(password="good", raw="text")])
    eventually(lambda: '"token":"good"' in (sidecar.state / "bundle.json").read_text(), "the Secret's value")
    sidecar.wait_plugin("p", state="Running", failure=None)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([], "no Secret 's'"),
        ([secret(other="x")], "'password'"),
        ([secret(password="a"), secret(password="b")], "no Secret 's'"),
    ],
    ids=["gone", "another key", "twice"],
)
async def test_a_secret_that_is_missing_keeps_the_last_good_settings(sidecar, eventually, documents, words):
    """Also where two have its name: which one is meant, nobody knows."""
    await write_good(sidecar, eventually)
    sidecar.folder.write("s.yaml", documents or "{}")
    found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
    assert found["failure"]["cause"] == "config"
    assert words in found["failure"]["message"]
    assert (await sidecar.says())["upstream"]["token"] == "good"


async def test_settings_are_kept_for_a_restart_without_their_secret(sidecar, eventually):
    """The last good bundle has them."""
    await write_good(sidecar, eventually)
    assert sidecar.stop() == 0
    sidecar.folder.remove("s.yaml")
    sidecar.start()
    assert (await sidecar.says())["upstream"]["token"] == "good"
    sidecar.wait_plugin("p", state="LastGood", failure=bool)


def test_a_revision_says_nothing_of_a_secret(sidecar):
    """It is shown by metrics and log: with all else known, a right guess is no other than a wrong one."""
    (shown,) = sidecar.get("/v1/bundle")[1]["plugins"]
    revision = shown.pop("revision")
    assert revision in sidecar.get("/metrics")[1]
    assert "seal" not in {name for name, value in shown.items() if value is not None}
    (kept,) = json.loads((sidecar.state / "bundle.json").read_text())["plugins"]
    right = BundlePlugin.model_validate({**shown, "config": kept["config"]})
    assert right.revision != revision
    key = sidecar.state / "seal.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert right.sealed(key.read_bytes()).revision == revision


def test_a_bundle_that_is_kept_and_cannot_be_read_is_told_without_its_values(new_sidecar, guests):
    """A disk may have lost half of it; the log is read by more people than the folder."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("p", guests.saying("a"))
    sidecar.state.mkdir(exist_ok=True)
    (sidecar.state / "bundle.json").write_text(json.dumps({"plugins": [{"name": "p", "config": SECRET}]}))
    sidecar.start()
    sidecar.logs("the last good bundle")
    sidecar.logs("plugins[0].config")
    assert SECRET not in sidecar.log
