"""docs/first-plugin.md: each language's commands, run in an empty folder with nothing added."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from desks import Desk

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "first-plugin.md").read_text()
TEMPLATES = ROOT / "sdk" / "hookline_sdk" / "templates"
SOURCES = {
    "Rust": ("rust", "src/lib.rs"),
    "Go": ("go", "main.go"),
    "Zig": ("zig", "main.zig"),
    "C": ("c", "my_guard.c"),
    "AssemblyScript": ("assemblyscript", "assembly/index.ts"),
    "JavaScript": ("javascript", "plugin.js"),
    "Python": ("python", "my_guard.py"),
}
"""The heading of each language: its template, and the file that is the plugin."""
QUESTION = {"query": "SELECT 1", "tables": ["salaries"]}
MOST_COMMANDS = 10


def section(heading: str) -> str:
    """The text under a heading."""
    return re.split(rf"^## {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]


def commands(heading: str) -> list[str]:
    """The commands under a heading, one a line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Runs commands of the page in an empty folder, and remembers where ``cd`` went; what they print."""
    caches = ROOT / ".cache" / "examples" / "assemblyscript" / "npm"
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "npm_config_cache": str(caches),
        "HOME": os.environ["HOME"],
    }
    place = [tmp_path]

    def run(line: str) -> str:
        if line.startswith("cd "):
            place[0] = place[0] / line.removeprefix("cd ")
            return ""
        done = subprocess.run(
            ["sh", "-c", line], cwd=place[0], env=os.environ | own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    run.place = place
    return run


@pytest.fixture
def compilers(request):
    """Whether the language can be built here; it has to be where all is tested."""
    template = SOURCES[request.getfixturevalue("language")][0]
    needed = {"rust": ["cargo"], "go": ["go"], "assemblyscript": ["node", "npm"], "javascript": ["node", "npm"]}
    for program in needed.get(template, []):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is missing")


@pytest.mark.parametrize("language", SOURCES)
def test_the_page_shows_the_plugin_that_is_made(language):
    """Whole, as the template has it."""
    template, file = SOURCES[language]
    (shown,) = re.findall(r"^```(?!sh)\w+\n(.*?)^```", section(language), re.MULTILINE | re.DOTALL)
    source = (TEMPLATES / template / file.replace("my_guard", "my_plugin")).read_text()
    assert shown in source
    assert file in section(language)


@pytest.mark.parametrize("language", SOURCES)
def test_it_takes_no_more_than_ten_commands(language):
    """With the installation, the sidecar, and the question from another terminal."""
    assert len(commands(language)) + 3 <= MOST_COMMANDS


@pytest.mark.parametrize("language", SOURCES)
@pytest.mark.usefixtures("compilers")
def test_the_commands_make_a_plugin_that_answers_behind_a_sidecar(language, terminal, docker_registry):
    """Made, tested, built, called, run, changed and pushed; what fails its own cases never answers."""
    for line in commands(language):
        shown = terminal(line)
    assert '"salaries is not for you"' in shown  # by hookline call, the last of them
    folder = terminal.place[0]
    desk = Desk(folder)
    try:
        desk.until("watching")
        (expected,) = re.findall(r"^(\{.*?),…$", section("Run it"), re.MULTILINE)
        answer = desk.asks(QUESTION)
        assert {**answer, **json.loads(f"{expected}}}")} == answer
        change_source, change_cases = commands("Change it")
        terminal(change_source.replace("SOURCE", SOURCES[language][1]))
        desk.until("runs")
        assert desk.until("cases")["failed"] >= 1
        assert desk.asks(QUESTION)["value"] == "salaries is for others"
        terminal(change_cases)
        desk.until("runs")
        assert desk.until("cases")["failed"] == 0
    finally:
        assert desk.end() == 0
    for line in commands("Push it"):
        shown = terminal(line.replace("registry.example.com", docker_registry.host) + " --insecure")
    assert "pre_query" in shown
    assert "config.read" in shown


def test_the_commands_for_a_cluster_are_known():
    """``hookline check`` is tried here; the others need a cluster (``tests/e2e/test_first_plugin.py``)."""
    checked, applied, explained = commands("Apply it")
    assert checked == "hookline check wasmplugin.yaml"
    assert applied == "kubectl apply -f wasmplugin.yaml"
    assert explained == "kubectl hookline why my-guard"


@pytest.mark.parametrize("language", [template for template, _ in SOURCES.values()])
def test_a_new_projects_manifest_is_one_that_a_cluster_takes(language, terminal):
    """As the page has it judged."""
    terminal(f"hookline new --lang {language} my-guard")
    terminal("cd my-guard")
    terminal(commands("Apply it")[0])
