"""Where modules come from: every source, from a real registry to a ConfigMap, and what happens when it is away."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from local_registry import MANIFEST, PASSWORD, LocalRegistry, digest, manifest_of
from signed_plugins import Signer


@pytest.fixture(scope="module")
def registry(need, tmp_path_factory):
    """A running one."""
    program = need("docker-registry", "docker-registry")
    made = LocalRegistry(program, tmp_path_factory.mktemp("registry"), password=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def sidecar(new_sidecar):
    """An empty folder."""
    return new_sidecar().start()


@pytest.fixture
def pull_secret(registry, sidecar):
    """The registry's password, as a Secret named ``pull``."""
    sidecar.folder.write("pull.yaml", registry.pull_secret("pull"))
    return [{"name": "pull"}]


def oci(registry, name, **more):
    """A source in that registry."""
    return {"oci": {"reference": f"{registry.host}/{name}", "insecure": True, **more}}


async def test_a_module_is_pulled_from_a_registry_with_a_password(sidecar, registry, guests, pull_secret):
    """By tag; what runs is pinned to the digest, and the password shows nowhere."""
    pushed = registry.push("a:v1", guests.saying("pulled"))
    sidecar.folder.plugin("p", source=oci(registry, "a:v1", pullSecrets=pull_secret))
    found = sidecar.wait_plugin("p", state="Running")
    assert await sidecar.says() == "pulled"
    assert found["artifact"]["digest"] == pushed
    assert PASSWORD not in json.dumps([sidecar.get("/v1/bundle"), sidecar.get("/v1/plugins")]) + sidecar.log


async def test_a_pull_without_its_secret_is_a_failure_that_says_so(sidecar, registry, guests):
    """And the plugin of the same name goes on as it was."""
    registry.push("b:v1", guests.saying("locked"))
    sidecar.folder.plugin("locked", source=oci(registry, "b:v1"))
    found = sidecar.wait_plugin("locked", state="LeftOut", failure=bool)
    assert found["failure"]["cause"] == "fetch"
    assert "401" in found["failure"]["message"] or "credentials" in found["failure"]["message"]
    sidecar.folder.remove("locked.yaml")


async def test_a_moved_tag_is_taken_when_it_is_asked_for(sidecar, registry, guests, pull_secret):
    """``pullPolicy: Always`` asks with each touch of the manifest and each SIGHUP, IfNotPresent with neither."""
    registry.push("c:v1", guests.saying("old"))
    source = oci(registry, "c:v1", pullSecrets=pull_secret, pullPolicy="Always")
    sidecar.folder.plugin("p", source=source)
    await sidecar.wait_says("old")
    registry.push("c:v1", guests.saying("new"))
    (sidecar.folder.path / "p.yaml").touch()
    await sidecar.wait_says("new")
    registry.push("c:v1", guests.saying("newest"))
    sidecar.process.send_signal(signal.SIGHUP)
    await sidecar.wait_says("newest")

    pinned = oci(registry, "c:v1", pullSecrets=pull_secret, pullPolicy="IfNotPresent")
    sidecar.folder.plugin("p", source=pinned)
    sidecar.wait_plugin("p", state="Running")
    registry.push("c:v1", guests.saying("not asked for"))
    sidecar.folder.plugin("p", source=pinned, priority=3)
    sidecar.wait_plugin("p", state="Running", priority=3)
    assert await sidecar.says() == "newest"


async def test_a_registry_that_is_away_is_waited_for(sidecar, registry, guests, pull_secret):
    """What runs goes on; the failure is shown, logged once, and mends itself when the registry is back."""
    registry.push("d:v1", guests.saying("one"))
    sidecar.folder.plugin("p", source=oci(registry, "d:v1", pullSecrets=pull_secret))
    await sidecar.wait_says("one")
    registry.push("d:v2", guests.saying("two"))
    registry.stop()
    try:
        sidecar.folder.plugin("p", source=oci(registry, "d:v2", pullSecrets=pull_secret))
        found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
        assert found["failure"]["cause"] == "fetch"
        assert await sidecar.says() == "one"
        assert sidecar.get("/readyz")[0] == 200
    finally:
        registry.start()
    await sidecar.wait_says("two")
    assert sidecar.plugin("p")["failure"] is None
    assert sidecar.log.count("plugin 'p' cannot be loaded (fetch)") == 1


async def test_a_restart_without_the_registry_serves_what_it_had(sidecar, registry, guests, pull_secret):
    """Pulled once, it is not asked for again."""
    registry.push("e:v1", guests.saying("had"))
    sidecar.folder.plugin("p", source=oci(registry, "e:v1", pullSecrets=pull_secret))
    await sidecar.wait_says("had")
    registry.stop()
    try:
        assert sidecar.stop() == 0
        sidecar.start()
        assert await sidecar.says() == "had"
        assert sidecar.wait_plugin("p", state="Running")["failure"] is None
    finally:
        registry.start()


async def test_a_module_comes_from_an_oci_layout_folder(sidecar, guests):
    """The registry that is a folder, beside the manifests."""
    module = guests.saying("from a folder")
    manifest, root = manifest_of(module), sidecar.folder.path / "layout"
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (b"{}", module, manifest):
        (blobs / digest(blob).removeprefix("sha256:")).write_bytes(blob)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {
        "mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }  # fmt: skip
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    sidecar.folder.plugin("p", source={"oci": {"reference": "oci-layout:layout:v1"}})
    await sidecar.wait_says("from a folder")


async def test_a_module_comes_from_a_url_with_its_digest(sidecar, guests):
    """And not without the right one."""
    module = guests.saying("from a server")

    class Files(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(module)))
            self.end_headers()
            self.wfile.write(module)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/plugin.wasm?token=secret"
            sidecar.folder.plugin("p", source={"http": {"url": url, "sha256": hashlib.sha256(module).hexdigest()}})
            await sidecar.wait_says("from a server")
            assert "token=secret" not in json.dumps(sidecar.get("/v1/plugins"))
            sidecar.folder.plugin("p", source={"http": {"url": url, "sha256": "0" * 64}})
            found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
            assert "sha256" in found["failure"]["message"]
        finally:
            server.shutdown()
            thread.join()
    assert await sidecar.says() == "from a server"


async def test_a_module_comes_from_a_config_map(sidecar, guests):
    """Small ones, in development; a change of the ConfigMap is a change of the plugin."""
    for value in ("mapped", "mapped again"):
        encoded = base64.encodebytes(guests.saying(value)).decode()  # with line ends, as people paste it
        sidecar.folder.write("map.yaml", {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
            "binaryData": {"plugin.wasm": encoded},
        })  # fmt: skip
        sidecar.folder.plugin("p", source={"configMap": {"name": "m"}})
        await sidecar.wait_says(value)


async def test_a_pinned_module_is_held_to_its_sha256(sidecar, guests):
    """``spec.sha256`` is of the module's bytes, whatever the source."""
    module = guests.saying("pinned")
    sidecar.folder.plugin("p", module, sha256=hashlib.sha256(module).hexdigest())
    await sidecar.wait_says("pinned")
    sidecar.folder.write("p.wasm", guests.saying("swapped"))
    found = sidecar.wait_plugin("p", state="LastGood", failure=bool)
    assert found["failure"]["cause"] == "verify"
    assert await sidecar.says() == "pinned"


async def test_a_module_runs_once_it_is_signed_where_that_is_asked_for(sidecar, guests):
    """It never runs unverified: what ran goes on until its signature lies beside it."""
    sidecar.folder.plugin("p", guests.saying("good"))
    await sidecar.wait_says("good")
    signer, other, module = Signer(1), Signer(2), guests.saying("signed")
    sidecar.folder.plugin("p", module, verify={"ed25519": [signer.public]})
    assert sidecar.wait_plugin("p", state="LastGood", failure=bool)["failure"]["cause"] == "verify"
    sidecar.folder.write("p.sig", other.sign(module))
    found = sidecar.wait_plugin("p", failure=lambda failure: failure and "by another key" in failure["message"])
    assert found["state"] == "LastGood"
    assert await sidecar.says() == "good"
    sidecar.folder.write("p.sig", signer.sign(module))
    await sidecar.wait_says("signed")
