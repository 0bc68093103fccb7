"""The example plugins, built from source and asked every question of their cases by the real runtime.

A plugin that reaches somebody has `cases.live.json` too: the same against real servers.
"""

from __future__ import annotations

import json

import pytest
import yaml

from example_plugins import PLUGINS, holds, written_out
from hookline_api.hooks import OBSERVERS, Hook
from hookline_api.resources import WasmPlugin
from hookline_runtime.trial.self_test import SelfTests

FOLDERS = sorted(path.parent for path in PLUGINS.glob("*/cases.json"))


def live(folder):
    """The cases of a plugin that are asked with real parts around it."""
    document = folder / "cases.live.json"
    return json.loads((document if document.exists() else folder / "cases.json").read_text())


CASES = [pytest.param(folder, case, id=f"{folder.name}: {case['name']}") for folder in FOLDERS for case in live(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_a_plugin_is_what_its_manifests_say(folder, examples, reached) -> None:
    """`plugin.json` is in the module, and names the hooks it exports and no permission that the manifest lacks."""
    case = live(folder)[0]
    changes = {"config": case.get("config", {})} | reached.settings(folder.name, case)
    resolved = await examples.prepare(folder.name, changes)
    described = json.loads((folder / "plugin.json").read_text())
    assert resolved.description.name == folder.name == described["name"]
    assert {hook.value for hook in resolved.info.hooks} == set(described["hooks"])
    assert resolved.ungranted == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_manifest_is_one_that_a_cluster_takes(folder) -> None:
    """As it stands there, with what the tests replace: source, servers, credentials."""
    document = next(yaml.safe_load_all((folder / "wasmplugin.yaml").read_text()))
    plugin = WasmPlugin.model_validate(document, extra="forbid", by_alias=True, by_name=False)
    assert plugin.metadata.name == folder.name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_a_plugin_carries_its_cases_and_holds_them(folder, examples) -> None:
    """As a sidecar asks them before it switches: in a child, with the manifest's limits, and reaching nobody."""
    cases = json.loads((folder / "cases.json").read_text())
    nobody = {"dataSources": [], "egress": [], "kv": {}, "config": cases[0].get("config", {})}
    resolved = await examples.prepare(folder.name, {**nobody, "selfTest": "Required"})
    assert resolved.entry.artifact.cases == len(cases)
    assert resolved.wants_self_test
    tests = SelfTests(examples.compiler, examples.state)
    await tests.hold(resolved.entry, resolved.artifact.path, hooks=resolved.info.hooks, asks=resolved.asks)


@pytest.mark.parametrize(("folder", "case"), CASES)
async def test_a_plugin_answers_as_documented(folder, case, examples, reached) -> None:
    """The case's decision, from a fresh store, with the manifest's limits and isolation, and default policies."""
    await answers(case, examples, reached, folder.name, reached.settings(folder.name, case))


@pytest.mark.parametrize(("folder", "case"), [each for each in CASES if each.values[0].name == "tenant-rate"])
async def test_a_plugin_with_keys_of_the_cluster_answers_alike_in_one_pod(folder, case, examples, reached) -> None:
    """`kv.scope` is a setting: the guest is the same."""
    await answers(case, examples, reached, folder.name, {"kv": {"scope": "Pod"}})


async def answers(case, examples, reached, name, settings) -> None:
    """Ask a plugin what a case asks, and compare."""
    changes = {"config": case.get("config", {}), "permissions": case.get("permissions", []), "failurePolicy": {}}
    changes["permissionsPolicy"] = "Lenient"  # some cases are about a call that is denied
    async with examples.running(name, changes | settings, case.get("kv")) as plugin:
        for step in case.get("steps", [case]):
            if "steps" in case:
                reached.step(step)
            for _ in range(step.get("repeat", 1)):
                decision = await plugin.call(step["hook"], written_out(step["input"], reached.written))
                if Hook(step["hook"]) in OBSERVERS:
                    await plugin.runtime.drained()
                    assert plugin.last_failure is None, plugin.last_failure
            assert holds(written_out(step["expect"]), decision), decision
