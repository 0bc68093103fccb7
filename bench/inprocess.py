"""The runtime as a library, in the benchmark's own process: no sockets, no other process."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_runtime import engine
from hookline_runtime.artifacts.inspection import inspect_module
from hookline_runtime.runtime import Runtime


@contextlib.asynccontextmanager
async def runtime(*plugins: tuple[str, bytes, dict[str, Any]]) -> AsyncIterator[Runtime]:
    """A runtime that runs these plugins: name, module and what a ``WasmPlugin`` says of it."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        entries, paths = [], {}
        for name, wasm, settings in plugins:
            paths[name] = Path(folder) / f"{name}.cwasm"
            engine.compile_to(wasm, paths[name], fuel=False)
            sha256 = hashlib.sha256(wasm).hexdigest()
            artifact = BundleArtifact(
                digest=f"sha256:{sha256}", sha256=sha256, size=len(wasm), layout="raw", reference=name
            )
            hooks = list(inspect_module(wasm).hooks)
            entries.append(
                BundlePlugin.model_validate({"name": name, "artifact": artifact, "hooks": hooks, **settings})
            )
        ours = Runtime()
        try:
            await ours.load(Bundle.of(entries), lambda entry: paths[entry.name])
            yield ours
        finally:
            await ours.close()
