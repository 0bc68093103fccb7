"""The example plugins, built from source and asked every question of their `cases.json` by the real runtime."""

from __future__ import annotations

import json

import pytest

from example_plugins import PLUGINS, holds, written_out
from hookline_api.hooks import OBSERVERS, Hook

FOLDERS = sorted(path.parent for path in PLUGINS.glob("*/cases.json"))
CASES = [
    pytest.param(folder, case, id=f"{folder.name}: {case['name']}")
    for folder in FOLDERS
    for case in json.loads((folder / "cases.json").read_text())
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_a_plugin_is_what_its_manifests_say(folder, examples, reached) -> None:
    """`plugin.json` is in the module, and names the hooks it exports and no permission that the manifest lacks."""
    case = json.loads((folder / "cases.json").read_text())[0]
    changes = {"config": case.get("config", {})} | reached.settings(folder.name, case)
    resolved = await examples.prepare(folder.name, changes)
    described = json.loads((folder / "plugin.json").read_text())
    assert resolved.description.name == folder.name == described["name"]
    assert {hook.value for hook in resolved.info.hooks} == set(described["hooks"])
    assert resolved.ungranted == []


@pytest.mark.parametrize(("folder", "case"), CASES)
async def test_a_plugin_answers_as_documented(folder, case, examples, reached) -> None:
    """The case's decision, from a fresh store, with the manifest's limits and isolation, and default policies."""
    changes = {"config": case.get("config", {}), "permissions": case.get("permissions", []), "failurePolicy": {}}
    changes["permissionsPolicy"] = "Lenient"  # some cases are about a call that is denied
    changes |= reached.settings(folder.name, case)
    async with examples.running(folder.name, changes, case.get("kv")) as plugin:
        for step in case.get("steps", [case]):
            if "steps" in case:
                reached.step(step)
            for _ in range(step.get("repeat", 1)):
                decision = await plugin.call(step["hook"], written_out(step["input"], reached.written))
                if Hook(step["hook"]) in OBSERVERS:
                    await plugin.runtime.drained()
                    assert plugin.last_failure is None, plugin.last_failure
            assert holds(written_out(step["expect"]), decision), decision
