"""The runtime as a library, in the benchmark's own process: no sockets, no other process."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

from bench.machine import open_folder
from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_artifacts.module.inspection import inspect_module
from hookline_runtime.guest import engine
from hookline_runtime.guest.calls import Guest
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def runtime(*plugins: tuple[str, bytes, dict[str, Any]], **stores: Any) -> AsyncIterator[Runtime]:
    """A runtime that runs these plugins: name, module and what a ``WasmPlugin`` says of it. ``stores`` as its own."""
    with open_folder() as folder:
        entries, paths = [], {}
        for name, wasm, settings in plugins:
            entries.append(_entry(name, wasm, settings))
            paths[name] = _compiled(folder, name, wasm)
        ours = Runtime(**stores)
        try:
            await ours.load(Bundle.of(entries), lambda entry: paths[entry.name])
            yield ours
        finally:
            await ours.close()


def guest(wasm: bytes, **settings: Any) -> Guest:
    """A module linked to its host functions, without a runtime around it. Somebody else has to keep the clock going."""
    entry = _entry("quick", wasm, settings)
    with open_folder() as folder:
        module = engine.load_compiled(_compiled(folder, "quick", wasm), fuel=entry.limits.fuel is not None)
    assert isinstance(module, engine.CompiledModule)
    return Guest(module, limits=entry.limits, host=PluginHost(entry, HostContext()).functions())


def _entry(name: str, wasm: bytes, settings: dict[str, Any]) -> BundlePlugin:
    sha256 = hashlib.sha256(wasm).hexdigest()
    artifact = BundleArtifact(digest=f"sha256:{sha256}", sha256=sha256, size=len(wasm), layout="raw", reference=name)
    hooks = list(inspect_module(wasm).hooks)
    return BundlePlugin.model_validate({"name": name, "artifact": artifact, "hooks": hooks, **settings})


def _compiled(folder: Path, name: str, wasm: bytes) -> Path:
    path = folder / f"{name}.cwasm"
    engine.compile_to(wasm, path, fuel=False)
    return path
