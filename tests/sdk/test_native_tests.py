"""Tests that a language runs itself: of the packages, of an example, and of the projects that ``hookline new`` makes.

A project is its template beside a copy of the SDK. It is built by its own tools, its own tests run against the SDK's
host in memory, and the runtime asks its module the questions of its ``cases.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_api.cases import read_cases
from hookline_runtime.trial.cases import try_case
from hookline_runtime.trial.trial import compiled

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk" / "hookline_sdk"
TARGET = "wasm32-unknown-unknown"
CARGO_TEST = ("cargo", "test", "--offline")
LARGEST = {"rust": 80_000, "assemblyscript": 30_000}
"""Bytes of a template's module, with the names of its functions."""


def missing(what: str) -> None:
    """Skip, but not under CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is missing")


def run(*command: str | Path, cwd: Path, **env: str | Path) -> str:
    """What a tool said; a failure shows all of it."""
    environment = {**os.environ, **{name: str(value) for name, value in env.items()}}
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def rust() -> dict[str, str]:
    """An environment whose cargo builds modules: the compiler of PATH may lack the target, and Debian's have it."""
    for folder in dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"]):
        compiler = Path(folder) / "rustc"
        if not compiler.exists() or not compiler.with_name("cargo").exists():
            continue
        said = subprocess.run([compiler, "--print", "sysroot"], capture_output=True, text=True, check=False).stdout
        if (Path(said.strip()) / "lib" / "rustlib" / TARGET / "lib").is_dir():
            return {"RUSTC": str(compiler), "RUSTDOC": str(compiler.with_name("rustdoc")), "PATH": path_with(folder)}
    missing(f"a Rust with the target {TARGET}")
    raise AssertionError


def node() -> dict[str, str]:
    """An environment with Node.js and npm."""
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        missing("Node.js with npm")
    cache = ROOT / ".cache" / "examples" / "assemblyscript" / "npm"
    return {"npm_config_cache": str(cache), "npm_config_update_notifier": "false"}


def path_with(folder: str | Path) -> str:
    """PATH with this folder first."""
    return f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


@pytest.mark.parametrize(
    "package", [SDK / "rust", ROOT / "examples" / "plugins" / "salary-guard"], ids=lambda p: p.name
)
def test_a_crate_passes_its_own_tests(package, tmp_path) -> None:
    """Natively, without WebAssembly and without a registry."""
    copy = tmp_path / "root" / package.relative_to(ROOT)
    for each in {package, SDK / "rust"}:
        shutil.copytree(each, tmp_path / "root" / each.relative_to(ROOT), ignore=shutil.ignore_patterns("target"))
    assert "test result: ok" in run(*CARGO_TEST, cwd=copy, CARGO_TARGET_DIR=tmp_path / "target", **rust())


def test_the_host_for_assemblyscript_does_what_the_contract_says(tmp_path) -> None:
    """``testing.mjs``, asked by guests that do what they are told."""
    node()
    for folder, name in (("tests/sdk", "hooks-assemblyscript"), ("tests/examples/sdk", "probe-assemblyscript")):
        builder = (sys.executable, ROOT / "examples" / "build.py")
        run(*builder, "--plugins", ROOT / folder / "guests", "--out", tmp_path, "--only", name, cwd=ROOT)
    said = run("node", "--test", "tests/sdk/stub_host.test.mjs", cwd=ROOT, MODULES=tmp_path)
    assert "fail 0" in said


@pytest.mark.parametrize("language", ["rust", "assemblyscript"])
async def test_a_new_project_builds_and_passes_its_tests_and_cases(language, tmp_path) -> None:
    """With nothing outside of its folder but the language's own tools and registry."""
    environment = rust() if language == "rust" else node()
    project = tmp_path / "pay-guard"
    shutil.copytree(SDK / "templates" / language, project)
    shutil.copytree(SDK / language, project / "hookline-sdk", ignore=shutil.ignore_patterns("target", "node_modules"))
    for path in project.rglob("*"):
        if path.is_file() and "hookline-sdk" not in path.relative_to(project).parts:
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("my-plugin", "pay-guard").replace("my_plugin", "pay_guard"), encoding="utf-8")
    settings = tomllib.loads((project / "hookline.toml").read_text())
    steps = settings["build"] if isinstance(settings["build"][0], list) else [settings["build"]]
    for step in [*steps, settings["test"]]:
        run(*step, cwd=project, **environment)
    wasm = (project / settings["module"]).read_bytes()
    assert len(wasm) < LARGEST[language]
    described = json.loads((project / "plugin.json").read_text())
    entry = BundlePlugin(name=described["name"], hooks=described["hooks"], permissions=described["permissions"])
    module = compiled(wasm, tmp_path / "compiled")
    cases = read_cases((project / "cases.json").read_bytes())
    assert len(cases) >= 3
    for case in cases:
        result = await try_case(case, entry, wasm, module)
        assert result.holds, f"{case.name}: {result.problem}"


@pytest.mark.parametrize("language", ["rust", "assemblyscript"])
def test_a_template_names_no_registry_and_holds_its_manifest(language) -> None:
    """Locks are good with any mirror, and the files that a project has to have are there."""
    template = SDK / "templates" / language
    texts = {path.name: path.read_text(encoding="utf-8") for path in template.rglob("*") if path.is_file()}
    assert {"plugin.json", "cases.json", "wasmplugin.yaml", ".gitignore", "README.md", "hookline.toml"} <= set(texts)
    for name in ("package-lock.json", "Cargo.toml"):
        assert "resolved" not in texts.get(name, "")
        assert "registry" not in texts.get(name, "")
    assert texts["wasmplugin.yaml"].startswith("# yaml-language-server: $schema=")
