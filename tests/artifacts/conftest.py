"""Parts that the artifact tests share: modules, archives, a real registry, and one that misbehaves on demand.

The real registry is Debian's ``docker-registry``; the other is an aiohttp application of the test's own loop whose
answers a test replaces path by path. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gzip
import io
import json
import os
import re
import ssl
import subprocess
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.store import ArtifactStore
from own_authorities import new_authority
from registries import Registry, Server, sha256
from waiting import PATIENCE_S

USER, PASSWORD = "puller", "s3cret"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
# bcrypt of PASSWORD, by `htpasswd -Bbn -C 4`
HTPASSWD = "puller:$2y$04$b.HpOnOj7mg2uKk.aWu.3e70tViapEpl0dJG1S/6cI8rUwIZuDypa\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def leb128(number):
    """As WebAssembly writes numbers."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def make_module(name="a", size=0):
    """A valid core module that does nothing, with a custom section that makes it unique and as large as wanted."""
    body = leb128(len(name)) + name.encode() + bytes(size)
    return b"\0asm\x01\0\0\0" + b"\0" + leb128(len(body)) + body


def make_tar(files, *, links=(), gzipped=True):
    """A tar.gz of a mapping name → bytes, and of (name, target) symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return gzip.compress(buffer.getvalue(), 1) if gzipped else buffer.getvalue()


def descriptor(data, media_type="application/wasm", **more):
    """What a manifest says of a blob."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def make_manifest(*layers, config_type="application/vnd.oci.empty.v1+json", **more):
    """A manifest's bytes; ``layers`` are bytes (of application/wasm) or descriptors."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(b"{}", config_type),
            "layers": [layer if isinstance(layer, dict) else descriptor(layer) for layer in layers],
            **more,
        }
    ).encode()


def make_index(*entries):
    """An index's bytes; each entry is a manifest's bytes, or such bytes with the descriptor's other fields."""
    pairs = [entry if isinstance(entry, tuple) else (entry, {}) for entry in entries]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor(data, json.loads(data)["mediaType"], **more) for data, more in pairs],
        }
    ).encode()


@pytest.fixture
def oci():
    """Makers of everything that goes into a registry."""
    return SimpleNamespace(
        sha256=sha256,
        module=make_module,
        tar=make_tar,
        descriptor=descriptor,
        manifest=make_manifest,
        index=make_index,
        user=USER,
        password=PASSWORD,
    )


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
async def make_fetcher(store, tmp_path):
    """Makes fetchers on ``store`` that do not wait between attempts and see no docker configuration."""
    async with contextlib.AsyncExitStack() as stack:

        def make(*, docker_config=tmp_path / "no-config.json", **limits):
            fetcher = Fetcher(store, limits=FetchLimits(**{"backoff": 0.001, **limits}), docker_config=docker_config)
            stack.push_async_callback(fetcher.close)
            return fetcher

        yield make


@pytest.fixture
async def fetcher(make_fetcher):
    """A fetcher with the limits of production but for the pauses."""
    return make_fetcher()


# --- certificates


@pytest.fixture(scope="session")
def authority():
    """An own certificate authority."""
    return new_authority()


@pytest.fixture(params=["keyUsage", "critical", "subjectKeyIdentifier", "authorityKeyIdentifier"])
def lax_authority(request):
    """An authority that lacks something, or whose certificates do."""
    return new_authority(without={request.param})


# --- the real registry


@pytest.fixture(scope="session")
def run_registry(tmp_path_factory, need):
    """Starts docker-registries on free ports; ends them with the session."""
    with contextlib.ExitStack() as stack:

        def run(*, auth=None, tls=None):
            program = need("docker-registry", "docker-registry")
            folder = tmp_path_factory.mktemp("registry")
            config = {
                "version": 0.1,
                "log": {"level": "info", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {"addr": "127.0.0.1:0", "secret": "of the tests"},
            }
            if auth is not None:
                config["auth"] = auth
            if tls is not None:
                certificate, key = tls.issue(folder)
                config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
            (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
            process = subprocess.Popen(
                [program, "serve", str(folder / "config.json")], stderr=subprocess.PIPE, text=True
            )
            stack.callback(_end, process)
            said = []
            for line in process.stderr:
                said.append(line)
                if match := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("docker-registry did not start:\n" + "".join(said))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Registry(
                host=match[1],
                scheme="https" if tls else "http",
                ca_pem=tls.pem if tls else None,
            )

        yield run


def _end(process):
    process.terminate()
    process.wait(PATIENCE_S)
    process.stderr.close()


@pytest.fixture(scope="session")
def registry(run_registry):
    """A registry that serves anybody."""
    return run_registry()


@pytest.fixture(scope="session")
def password_registry(run_registry, tmp_path_factory):
    """A registry that wants Basic credentials."""
    file = tmp_path_factory.mktemp("htpasswd") / "htpasswd"
    file.write_text(HTPASSWD)
    running = run_registry(auth={"htpasswd": {"realm": "test", "path": str(file)}})
    running.authorization = BASIC
    return running


@pytest.fixture(scope="session")
def tls_registry(run_registry, authority):
    """A registry whose certificate is of the own authority."""
    return run_registry(tls=authority)


@pytest.fixture
async def token_registry(run_registry, serve, authority, tmp_path):
    """A registry that wants tokens, and its token server; ``extra.asked`` is what that was asked for."""
    server = await serve()
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(authority.pem)
    running = run_registry(
        auth={
            "token": {
                "realm": f"http://{server.host}/token",
                "service": "test-registry",
                "issuer": "test-issuer",
                "rootcertbundle": str(bundle),
            }
        }
    )
    running.authorization = "Bearer " + _token(authority, "pushed", ["pull", "push"])
    running.extra.asked = []

    async def answer(request):
        running.extra.asked.append(request)
        form = await request.post() if request.method == "POST" else {}
        known = BASIC
        if request.headers.get("Authorization") != known and form.get("refresh_token") != "refresh-me":
            return web.json_response({}, status=401)
        scope = (form or request.query)["scope"]
        name = re.fullmatch("repository:(.*):pull", scope)[1]
        return web.json_response({"token": _token(authority, name, ["pull"]), "expires_in": 300})

    server.on("/token", answer)
    return running


def _token(authority, repository, actions):
    """A token as https://distribution.github.io/distribution/spec/auth/jwt/ has it, ES256."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    now = int(dt.datetime.now(dt.UTC).timestamp())
    der = authority.certificate.public_bytes(serialization.Encoding.DER)
    header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
    claims = {
        "iss": "test-issuer",
        "sub": USER,
        "aud": "test-registry",
        "exp": now + 300,
        "nbf": now - 60,
        "iat": now,
        "jti": "1",
        "access": [{"type": "repository", "name": repository, "actions": actions}],
    }
    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    r, s = decode_dss_signature(authority.key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return (signed + b"." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


# --- the registry that misbehaves on demand


@pytest.fixture
async def serve(tmp_path):
    """Starts ``Server``s, with TLS of ``authority`` where one is given."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, authority=None):
            server = Server()
            context = None
            if authority is not None:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(*map(str, authority.issue(tmp_path)))
                server.scheme = "https"
            runner = web.ServerRunner(web.Server(server.handle, handler_cancellation=True), shutdown_timeout=0.01)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            server.host = f"127.0.0.1:{runner.addresses[0][1]}"
            return server

        yield start


@pytest.fixture
async def server(serve):
    """One ``Server`` without TLS."""
    return await serve()


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Installs a credential helper: a shell script as ``docker-credential-<name>`` on the PATH."""

    def install(name, script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return Path(program)

    return install
