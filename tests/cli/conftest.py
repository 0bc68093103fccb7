"""A command line in a folder of its own, and registries of both kinds: with the referrers API, and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.binaries import binary
from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from hookline_artifacts.trust import private_keys
from hookline_cli.main import main
from local_registry import LocalRegistry, manifest_of
from registries import Registry
from waiting import PATIENCE_S

MODULE = b"\0asm\x01\0\0\0"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """What ``--json`` printed."""
        return json.loads(self.out)

    @property
    def sentence(self):
        """The one line of an error."""
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def hookline(capsys, monkeypatch, tmp_path):
    """Runs ``hookline`` in ``tmp_path``, with a password and without anybody's logins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-logins"))
    monkeypatch.setenv("HOOKLINE_PASSWORD", "secret")
    monkeypatch.delenv("COSIGN_PASSWORD", raising=False)

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hookline", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def keys(tmp_path):
    """Pairs of keys: ``release``, ``other``, and ``acme`` of ed25519.

    In PKCS#8 without a password, which openssl writes too: a password takes 64 MiB and a third of a second each time.
    """
    for name, kind in (("release", "ecdsa"), ("other", "ecdsa"), ("acme", "ed25519")):
        key = private_keys.generate(kind)
        private = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.key").write_bytes(private)
        (tmp_path / f"{name}.pub").write_text(key.raw_public if kind == "ed25519" else key.pem_public)


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory, need):
    """Debian's, which has no referrers API."""
    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path_factory.mktemp("registry"))
    registry.start()
    yield Registry(host=registry.host)
    registry.stop()


@pytest.fixture(scope="session")
def referrers_registry():
    """go-containerregistry's."""
    try:
        program = binary("registry")
    except NotPossibleHereError as error:
        missing(error)
    command = [program, "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.wait, PATIENCE_S)
        stack.callback(process.terminate)
        yield Registry(host=process.stdout.readline().strip())


@pytest.fixture(params=["fallback tag", "referrers API"])
def registry(request):
    """Each of them."""
    return request.getfixturevalue("docker_registry" if request.param == "fallback tag" else "referrers_registry")


@pytest.fixture
def push(registry):
    """Puts a module under ``repository:tag``; its reference."""

    def run(name, module=MODULE):
        asyncio.run(registry.push(name, manifest_of(module), module))
        return f"{registry.host}/{name}"

    return run
