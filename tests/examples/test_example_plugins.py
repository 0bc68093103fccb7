"""The example plugins, built from source and asked every question of their `cases.json` by the real runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml

from hookline_api.bundle import Bundle
from hookline_api.hooks import OBSERVERS, Hook
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.resolve import Resolved, resolve
from hookline_artifacts.store import ArtifactStore
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.host.kv import KvStore
from hookline_runtime.runtime import Runtime
from hookline_sidecar.control.sources.manifests import scan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent.parent
BUILT = ROOT / "build" / "plugins"
FOLDERS = sorted(path.parent for path in (ROOT / "examples" / "plugins").glob("*/cases.json"))
CASES = [
    pytest.param(folder, case, id=f"{folder.name}: {case['name']}")
    for folder in FOLDERS
    for case in json.loads((folder / "cases.json").read_text())
]


_PREPARED: list[Job] = []
"""What was compiled, and whose settings were checked, in a process of its own each."""


@pytest.fixture(scope="session")
def built() -> Path:
    """All plugins that can be built here; the builder says what it skipped."""
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--out", BUILT], check=True)
    return BUILT


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Compiler]:
    """A store and a compiler for the session: a Go plugin takes seconds to compile."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, Compiler(folder / "compiled")


@pytest.fixture
async def fetcher(tools: tuple[Path, Compiler]) -> AsyncIterator[Fetcher]:
    """Reads the built modules as a manifest folder's file sources."""
    fetcher = Fetcher(ArtifactStore(tools[0] / "artifacts"))
    yield fetcher
    await fetcher.close()


async def prepare(
    folder: Path, changes: dict[str, Any], *, built: Path, fetcher: Fetcher, compiler: Compiler
) -> Resolved:
    """The plugin as its own manifest describes it, from the built file."""
    module = built / f"{folder.name}.wasm"
    if not module.exists():
        message = f"the toolchain of {folder.name} is missing, see what examples/build.py says"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    document = yaml.safe_load((folder / "wasmplugin.yaml").read_text().split("\n---")[0])
    document["spec"] |= {"source": {"file": {"path": module.name}}, "match": {}, "configFrom": []} | changes
    plugin = LocalWasmPlugin.model_validate(document, extra="forbid", by_alias=True, by_name=False)
    resolved = await resolve(plugin, fetcher=fetcher, objects=scan(folder), base=built)
    job = Job(
        wasm=resolved.artifact.path,
        sha256=resolved.artifact.sha256,
        fuel=plugin.spec.limits.fuel is not None,
        schema=resolved.description.config_schema,
        config=resolved.entry.config,
    )
    if job not in _PREPARED:  # most cases of a plugin have the same settings
        await compiler.prepare(job)
        _PREPARED.append(job)
    return resolved


def written_out(value: Any) -> Any:
    """A part of a case: long texts are written with `$concat` and `$repeat`."""
    if isinstance(value, list):
        return [written_out(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "$concat" in value:
        return "".join(written_out(part) for part in value["$concat"])
    if "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    return {key: written_out(each) for key, each in value.items()}


def holds(expected: Any, found: Any) -> bool:
    """Whether everything expected is there; more may be."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            key in found and holds(value, found[key]) for key, value in expected.items()
        )
    return bool(expected == found)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_a_plugin_is_what_its_manifests_say(folder, built, tools, fetcher) -> None:
    """`plugin.json` is in the module, and names the hooks it exports and no permission that the manifest lacks."""
    config = json.loads((folder / "cases.json").read_text())[0].get("config", {})
    resolved = await prepare(folder, {"config": config}, built=built, fetcher=fetcher, compiler=tools[1])
    described = json.loads((folder / "plugin.json").read_text())
    assert resolved.description.name == folder.name == described["name"]
    assert {hook.value for hook in resolved.info.hooks} == set(described["hooks"])
    assert resolved.ungranted == []


@pytest.mark.parametrize(("folder", "case"), CASES)
async def test_a_plugin_answers_as_documented(folder, case, built, tools, fetcher, tmp_path) -> None:
    """The case's decision, from a fresh store, with the manifest's limits and isolation, and default policies."""
    changes = {"config": case.get("config", {}), "permissions": case.get("permissions", []), "failurePolicy": {}}
    changes["permissionsPolicy"] = "Lenient"  # some cases are about a call that is denied
    resolved = await prepare(folder, changes, built=built, fetcher=fetcher, compiler=tools[1])
    kv = KvStore(tmp_path / "kv")
    for key, value in case.get("kv", {}).items():
        kv.put(folder.name, key.encode(), value.encode())
    runtime = Runtime(kv=kv)
    bundle = Bundle.of([resolved.entry])
    await runtime.load(bundle, tools[1].find)
    try:
        for step in case.get("steps", [case]):
            hook = Hook(step["hook"])
            for _ in range(step.get("repeat", 1)):
                decision = await runtime.call(hook, orjson.dumps(written_out(step["input"])))
                if hook in OBSERVERS:
                    await runtime.drained()
                    failure = runtime.plugins[folder.name].last_failure
                    assert failure is None, failure
            assert holds(written_out(step["expect"]), decision), decision
    finally:
        await runtime.close()
        kv.close()
