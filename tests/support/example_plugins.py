"""The plugins of ``examples/plugins``: built, with the settings of their own manifests, in a real runtime."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml

from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.resolve import Resolved, resolve
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.host.cache_store import CacheStore
from hookline_runtime.host.kv import KvStore
from hookline_runtime.runtime import Runtime
from hookline_sidecar.control.sources.manifests import scan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hookline_artifacts.fetch import Fetcher

PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"

_PREPARED: list[Job] = []
"""What was compiled, and whose settings were checked, in a process of its own each."""


def written_out(value: Any, special: Callable[[dict[str, Any]], str | None] = lambda _: None) -> Any:
    """A part of a case: long texts are written with `$concat` and `$repeat`, and what `special` makes is its text."""
    if isinstance(value, list):
        return [written_out(each, special) for each in value]
    if not isinstance(value, dict):
        return value
    if "$concat" in value:
        return "".join(written_out(part, special) for part in value["$concat"])
    if "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    made = special(value)
    return {key: written_out(each, special) for key, each in value.items()} if made is None else made


def holds(expected: Any, found: Any) -> bool:
    """Whether everything expected is there; more may be."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            key in found and holds(value, found[key]) for key, value in expected.items()
        )
    return bool(expected == found)


@dataclass(kw_only=True)
class Examples:
    """Runs example plugins."""

    built: Path
    fetcher: Fetcher
    compiler: Compiler
    secrets: Path
    """A manifest folder with the Secrets that settings name."""
    state: Path
    """For what runtimes keep; a folder for each."""
    runtimes: list[Runtime] = field(default_factory=list)

    async def prepare(self, name: str, changes: dict[str, Any]) -> Resolved:
        """The plugin as its own manifest describes it but for these changes, from the built file."""
        module = self.built / f"{name}.wasm"
        if not module.exists():
            message = f"the toolchain of {name} is missing, see what examples/build.py says"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        document = yaml.safe_load((PLUGINS / name / "wasmplugin.yaml").read_text().split("\n---")[0])
        document["spec"] |= {"source": {"file": {"path": module.name}}, "match": {}, "configFrom": []} | changes
        plugin = LocalWasmPlugin.model_validate(document, extra="forbid", by_alias=True, by_name=False)
        resolved = await resolve(plugin, fetcher=self.fetcher, objects=scan(self.secrets), base=self.built)
        job = Job(
            wasm=resolved.artifact.path,
            sha256=resolved.artifact.sha256,
            fuel=plugin.spec.limits.fuel is not None,
            schema=resolved.description.config_schema,
            config=resolved.entry.config,
        )
        if job not in _PREPARED:  # most cases of a plugin have the same settings
            await self.compiler.prepare(job)
            _PREPARED.append(job)
        return resolved

    @contextlib.asynccontextmanager
    async def running(
        self, name: str, changes: dict[str, Any], keys: dict[str, str] | None = None
    ) -> AsyncIterator[Running]:
        """One pod with this plugin, and these keys in the store before."""
        resolved = await self.prepare(name, changes)
        folder = self.state / f"pod-{len(self.runtimes)}"
        kv, cache = KvStore(folder / "kv"), CacheStore(folder / "cache")
        for key, value in (keys or {}).items():
            kv.put(name, key.encode(), value.encode())
        runtime = Runtime(kv=kv, cache=cache)
        self.runtimes.append(runtime)
        await runtime.load(Bundle.of([resolved.entry]), self.compiler.find)
        try:
            yield Running(runtime, name)
        finally:
            await runtime.close()
            kv.close()
            cache.close()


@dataclass
class Running:
    """One plugin in a runtime."""

    runtime: Runtime
    name: str

    async def call(self, hook: str, given: Any) -> Any:
        """Its decision, as the proxy gets it."""
        return await self.runtime.call(Hook(hook), orjson.dumps(given))

    @property
    def last_failure(self) -> str | None:
        """Why its last call that failed did."""
        return self.runtime.plugins[self.name].last_failure
