"""Mistakes about registries: a real one, one with a password, and ports where none is."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from deliberate import SECRET, Mistake, plugin, rows
from guests import Guests
from local_registry import MANIFEST, LocalRegistry, digest

GOOD = Guests().module({"pre_query": "(i64.const 0)"})
NOBODY = "sha256:" + "0" * 64


def manifest(*layers, kind="application/vnd.wasm.config.v0+json"):
    """A manifest of layers: media type, digest and size."""
    return json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": kind, "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": media, "digest": it, "size": size} for media, it, size in layers],
    }).encode()  # fmt: skip


@pytest.fixture(scope="module")
def open_registry(need, tmp_path_factory):
    """One for anybody, with what is asked for and what is broken."""
    made = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path_factory.mktemp("registry"))
    made.start()
    made.push("p/guard:1", GOOD)
    image = manifest(
        ("application/vnd.oci.image.layer.v1.tar+gzip", digest(b"tar"), 3),
        kind="application/vnd.oci.image.config.v1+json",
    )
    made.put("p/guard", "image", image, b"{}", b"tar")
    made.put("p/guard", "none", manifest(), b"{}")
    made.put("p/guard", "text", manifest(("application/wasm", digest(b"#!/bin/sh"), 9)), b"{}", b"#!/bin/sh")
    two = [("application/wasm", digest(GOOD), len(GOOD))] * 2
    made.put("p/guard", "two", manifest(*two), b"{}", GOOD)
    made.put("p/guard", "size", manifest(("application/wasm", digest(GOOD), len(GOOD) + 1)), b"{}", GOOD)
    made.put("p/guard", "large", manifest(("application/wasm", digest(GOOD), 2**40)), b"{}", GOOD)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def closed_registry(need, tmp_path_factory):
    """One that wants a password."""
    program = need("docker-registry", "docker-registry")
    made = LocalRegistry(program, tmp_path_factory.mktemp("closed"), password=True)
    made.start()
    made.push("p/guard:1", GOOD)
    yield made
    made.stop()


@pytest.fixture
def nobody():
    """An address at which nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def pull(name, reference, cause, step, *more, code=3, **files):
    """A row about a reference."""
    return Mistake(
        name=name, done=["pull", reference, "-o", "out.wasm", *more], cause=cause, step=step, code=code, **files
    )


def login(auth):
    """A config.json of docker."""
    return {"auths": {"{closed}": auth}}


REGISTRIES = [
    pull(
        "no such tag",
        "{open}/p/guard:2",
        ["answered 404"],
        ["check the reference, and that the artifact was pushed"],
        "--insecure",
    ),
    pull(
        "no such repository",
        "{open}/p/gaurd:1",
        ["answered 404"],
        ["check the reference, and that the artifact was pushed"],
        "--insecure",
    ),
    pull(
        "no such digest",
        "{open}/p/guard@" + NOBODY,
        ["answered 404"],
        ["check the reference, and that the artifact was pushed"],
        "--insecure",
    ),
    pull(
        "HTTPS to a registry of HTTP",
        "{open}/p/guard:1",
        ["does not speak TLS"],
        ["give --insecure where it speaks plain HTTP only"],
    ),
    pull(
        "nobody there",
        "{nobody}/p/guard:1",
        ["Connection refused"],
        ["check the address, and whether it runs there"],
        "--insecure",
    ),
    pull("no such host", "registry.invalid/p/guard:1", ["its host's name is not known"], ["check the address"]),
    pull("no login", "{closed}/p/guard:1", ["answered 401"], ["log in with 'docker login'"], "--insecure"),
    pull(
        "a wrong password",
        "{closed}/p/guard:1",
        ["refuses the credentials that were found"],
        ["check that one of them may pull it"],
        "--insecure",
        "--docker-config",
        "config.json",
        files={"config.json": login({"username": "puller", "password": SECRET})},
    ),
    pull(
        "logins that are no JSON",
        "{closed}/p/guard:1",
        ["config.json is not JSON"],
        ["docker login writes what is expected there"],
        "--insecure",
        "--docker-config",
        "config.json",
        files={"config.json": "{auths: }"},
        code=3,
    ),
    pull(
        "logins that are not there",
        "{closed}/p/guard:1",
        ["config.json is not a file"],
        ["'docker login' writes one"],
        "--insecure",
        "--docker-config",
        "config.json",
        code=2,
    ),
    pull(
        "an image",
        "{open}/p/guard:image",
        ["this is not WebAssembly"],
        ["push, the .wasm that was built"],
        "--insecure",
        code=1,
    ),
    pull(
        "no layer",
        "{open}/p/guard:none",
        ["has 0 layers and none that holds a module;"],
        ["push the module as a layer of type application/wasm"],
        "--insecure",
        code=1,
    ),
    pull(
        "two layers",
        "{open}/p/guard:two",
        ["holds 2 modules and one is expected"],
        ["push them one by one"],
        "--insecure",
        code=1,
    ),
    pull(
        "a layer that is no module",
        "{open}/p/guard:text",
        ["this is not WebAssembly"],
        ["push, the .wasm that was built"],
        "--insecure",
        code=1,
    ),
    pull(
        "a layer of another size",
        "{open}/p/guard:size",
        ["was cut off after"],
        ["push it again where that stays so"],
        "--insecure",
        code=3,
    ),
    pull(
        "a layer that is too large",
        "{open}/p/guard:large",
        ["is too large"],
        ["make it smaller or raise the limit"],
        "--insecure",
        code=3,
    ),
    pull(
        "a reference with https in front",
        "https://{open}/p/guard:1",
        ["a reference has no https:// in front"],
        ["write registry/repository:tag"],
        code=3,
    ),
    pull(
        "a reference in capitals",
        "{open}/P/Guard:1",
        ["'P/Guard' is not a repository (lower case"],
        ["write registry/repository:tag"],
        code=3,
    ),
    Mistake(
        name="a push without a login",
        done=["push", "guard.wasm", "{closed}/p/guard:2", "--insecure"],
        files={"guard.wasm": GOOD},
        cause=["answered 401"],
        step=["log in with 'docker login'"],
        code=3,
    ),
    Mistake(
        name="a push of what is no module",
        done=["push", "guard.wasm", "{open}/p/guard:2", "--insecure"],
        files={"guard.wasm": "#!/bin/sh"},
        cause=["guard.wasm: this is not WebAssembly"],
        step=["push, the .wasm that was built"],
        code=1,
    ),
    Mistake(
        name="a push to a digest",
        done=["push", "guard.wasm", "{open}/p/guard@" + NOBODY, "--insecure"],
        files={"guard.wasm": GOOD},
        cause=["not a digest"],
        step=["REFERENCE needs a tag"],
        code=2,
    ),
    Mistake(
        name="a manifest with a tag that is not there",
        done=["check", "p.yaml", "--pull", "--insecure"],
        files={"p.yaml": plugin(source={"oci": {"reference": "{open}/p/guard:2"}})},
        cause=["answered 404"],
        step=["check the reference, and that the artifact was pushed"],
        code=3,
    ),
    Mistake(
        name="a web server that is no registry",
        done=["pull", "{web}/p/guard:1", "--insecure", "-o", "out.wasm"],
        cause=["answered with a web page"],
        step=["check that this is a registry"],
        code=3,
    ),
    Mistake(
        name="certificates that are none",
        done=["pull", "{open}/p/guard:1", "--ca", "ca.pem", "-o", "out.wasm"],
        files={"ca.pem": "no PEM"},
        cause=["ca.pem has no certificate in PEM"],
        step=["begins with -----BEGIN CERTIFICATE-----"],
        code=2,
    ),
    Mistake(
        name="it is not signed",
        done=["verify", "{open}/p/guard:1", "--insecure", "--key", "k.pub"],
        files={"k.pub": "no key"},
        cause=["k.pub is not a public key"],
        step=["give what `cosign public-key` prints"],
        code=2,
    ),
]


class _Page(BaseHTTPRequestHandler):
    """Answers anything with a page."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def web():
    """A web server with a page for each path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@rows(REGISTRIES)
def test_a_mistake_about_a_registry_is_told(make, mistake, open_registry, closed_registry, nobody, web):
    """With its cause and the next step."""
    make(mistake, open=open_registry.host, closed=closed_registry.host, nobody=nobody, web=web)
