"""The projects that an author of Go, C or Zig starts from: built, tested and asked in a folder of their own.

Each is copied as ``hookline new`` does it: with another name, and with the SDK beside it. Nothing outside of the
folder is needed but the compiler.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hookline_api.bundle import BundlePlugin
from hookline_api.cases import read_cases
from hookline_api.hooks import Hook
from hookline_api.resources import WasmPlugin
from hookline_runtime.trial import cases, trial
from hookline_sdk import FOLDER

ROOT = Path(__file__).parents[2]
GUESTS = ROOT / "tests" / "examples" / "sdk" / "guests"
LANGUAGES = ["c", "go", "zig"]
NAME = "our-guard"


def copy(language: str, to: Path) -> Path:
    """A project of that language, under another name."""
    shutil.copytree(FOLDER / "templates" / language, to)
    for path in sorted(to.rglob("*")):
        if path.is_file():
            text = path.read_text().replace("my-plugin", NAME).replace("my_plugin", NAME.replace("-", "_"))
            path.write_text(text)
            path.rename(path.with_name(path.name.replace("my_plugin", NAME.replace("-", "_"))))
    shutil.copytree(FOLDER / language, to / "hookline-sdk")
    return to


def run(folder: Path, command: list[str], **environment: str) -> str:
    """What a command of hookline.toml says; it has to succeed."""
    words = [sys.executable if word == "${python}" else word for word in command]
    go = {"GOFLAGS": "", "GOWORK": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    zig = {"ZIG_GLOBAL_CACHE_DIR": str(ROOT / ".cache" / "zig")}
    env = os.environ | go | zig | environment
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@functools.cache
def missing(language: str) -> str:
    """What of its compiler is missing here; empty where nothing is."""
    builder = [sys.executable, ROOT / "examples" / "build.py", "--plugins", GUESTS, "--only", language, "--check"]
    done = subprocess.run(builder, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""


@pytest.fixture(params=LANGUAGES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a template whose compiler is here."""
    if missing(request.param):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing(request.param))
    return copy(request.param, tmp_path / NAME)


def of(project: Path) -> dict[str, Any]:
    """Its hookline.toml."""
    return tomllib.loads((project / "hookline.toml").read_text())


async def test_a_new_project_holds_its_own_cases(project, tmp_path) -> None:
    """It is built as it says, and the module answers all of its cases as it should."""
    says = of(project)
    run(project, says["build"], **says.get("env", {}))
    wasm = (project / says["module"]).read_bytes()
    document = yaml.safe_load((project / "wasmplugin.yaml").read_text())
    plugin = WasmPlugin.model_validate(document, extra="forbid", by_alias=True, by_name=False)
    described = json.loads((project / "plugin.json").read_text())
    assert plugin.metadata.name == described["name"] == NAME
    entry = BundlePlugin(
        name=NAME,
        hooks=[Hook(each) for each in described["hooks"]],
        limits=plugin.spec.limits,
        isolation=plugin.spec.isolation,
        permissions=plugin.spec.permissions,
        failurePolicy=plugin.spec.failure_policy,
    )
    module = trial.compiled(wasm, tmp_path / "compiled")
    asked = read_cases((project / "cases.json").read_bytes())
    assert len(asked) >= 3
    for case in asked:
        result = await cases.try_case(case, entry, wasm, module)
        assert result.holds, f"{case.name}: {result.problem}"


def test_a_new_project_passes_its_own_tests(project) -> None:
    """Natively, without wasm."""
    run(project, of(project)["test"])


def test_a_test_that_is_wrong_fails(project) -> None:
    """So the tests do test."""
    [source] = [path for path in project.iterdir() if path.suffix in {".c", ".go", ".zig"} and "test" not in path.name]
    source.write_text(source.read_text().replace("is not for you", "is for all"))
    test = next((path for path in project.iterdir() if "test" in path.name), None)
    if test is None:  # in the same file
        source.write_text(source.read_text().replace('salaries is for all\\"}";', 'salaries is not for you\\"}";'))
    with pytest.raises(AssertionError, match=r"it is false that|--- FAIL|expected this output"):
        run(project, of(project)["test"])
