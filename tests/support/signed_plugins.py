"""Plugins that are signed with Ed25519 keys, and what resolves them with what they ask of signatures."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json

import wasmtime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import heliosdb_packages
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.module.describe import described_by
from hookline_artifacts.resolve import resolve
from hookline_artifacts.trust import ed25519
from hookline_sidecar.control.sources.manifests import Scan


@functools.cache
def module(text="a", *, permissions=(), version=None, imports=""):
    """A plugin's bytes, other ones for another text, with what it says of itself."""
    alloc = '(memory (export "memory") 2) (func (export "alloc") (param i32) (result i32) (i32.const 65536))'
    hook = '(func (export "pre_query") (param i32 i32) (result i64) (i64.const 0))'
    wasm = bytes(wasmtime.wat2wasm(f"(module {imports} {alloc} {hook})"))
    said = {"description": text, "permissions": list(permissions), **({"version": version} if version else {})}
    raw = b"\x0fhookline.plugin" + json.dumps(said).encode()
    length = bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7 & 0x7F | 0x80, len(raw) >> 14])
    return wasm + b"\0" + length + raw


class Signer:
    """A key, and what it signs. Another number is another key."""

    def __init__(self, number=1):
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.public = heliosdb_packages.public_key(self.key)

    def sign(self, wasm, documents=None, annotations=None):
        """As Hookline does, over a module and what describes it."""
        parts = described_by(documents or {}, annotations or {})
        sha256 = hashlib.sha256(wasm).hexdigest()
        return ed25519.sign(self.key, module_sha256=sha256, manifest=ed25519.manifest_list(parts))

    def sign_as_heliosdb(self, wasm):
        """As HeliosDB does, over the module alone."""
        return heliosdb_packages.signature(self.key, wasm)

    def asked(self, **more):
        """``spec.verify`` that asks for this signer."""
        return {"anyOf": [{"name": "releases", "ed25519": {"key": self.public, **more}}]}


def plugin(source, verify=None, *, name="guard", **spec):
    """A resource with this source."""
    more = {} if verify is None else {"verify": verify}
    return LocalWasmPlugin.model_validate({"metadata": {"name": name}, "spec": {"source": source, **more, **spec}})


def objects(secrets=None, config_maps=None):
    """A namespace with these Secrets and ConfigMaps."""
    return Scan(manifests={}, problems=(), secrets=secrets or {}, config_maps=config_maps or {})


class Rig:
    """Resolves plugins: from a folder, and with a fetcher."""

    def __init__(self, folder, fetcher):
        self.folder = folder
        self.fetcher = fetcher

    async def resolve(self, source, verify=None, *, secrets=None, config_maps=None, given=None, **spec):
        """A plugin with this source; ``given`` are more arguments of ``resolve``."""
        return await resolve(
            plugin(source, verify, **spec),
            fetcher=self.fetcher,
            objects=objects(secrets, config_maps),
            base=self.folder,
            **(given or {}),
        )

    async def file(self, name, data, verify=None, **more):
        """The same of a file of these bytes."""
        self.put(name, data)
        return await self.resolve({"file": {"path": name}}, verify, **more)

    def put(self, name, data):
        """Write a file into the folder; None takes it away."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        else:
            path.write_bytes(data)
