"""What a contributor uses: the verbs, the hooks of git, the workflows and the forms of the forge."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "scripts"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"))
VERBS = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def is_a_verb_or_ci(command):
    """Whether a command is ``make VERB`` or ``.ci/run``, which exist; as root or not."""
    words = [word for word in shlex.split(command) if word != "sudo" and not word.startswith("--preserve-env")]
    if words == [".ci/run"]:
        return os.access(ROOT / ".ci" / "run", os.X_OK)
    program, verb, *settings = words
    return program == "make" and verb in VERBS and all(re.match(r"[A-Z]+=", word) for word in settings)


# ---- fast tests


def chosen(tmp_path, text, *, support=""):
    """Which tests of a file ``make check`` runs."""
    folder = ROOT / "tests" / "packaging"  # what is read is read within the repository
    assert folder.is_dir()
    (tmp_path / "conftest.py").write_text(support)
    (tmp_path / "test_some.py").write_text(text)
    code = (
        "import sys, fast_tests, pytest; fast_tests._READ = (sys.argv[1] + '/',);"
        "sys.exit(pytest.main(['-p', 'fast_tests', '-q', '--collect-only', '-m', 'fast', '-c', '/dev/null',"
        " '--rootdir', sys.argv[1], sys.argv[1]]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "testbed")}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    return set(re.findall(r"::(\w+)", done.stdout))


def test_a_test_is_fast_where_nothing_that_it_uses_starts_a_program(tmp_path):
    """Neither it, nor what it calls, nor a fixture, nor what that one calls, nor a method of a class."""
    support = (
        "import subprocess\nimport pytest\n"
        "def helper():\n    return subprocess.run(['true'])\n"
        "class Rig:\n    def start(self):\n        return helper()\n"
        "@pytest.fixture\ndef rig():\n    return Rig()\n"
        "@pytest.fixture\ndef behind(rig):\n    return 1\n"
        "@pytest.fixture\ndef harmless():\n    return 1\n"
    )
    text = (
        "import asyncio, os, pytest, shutil, subprocess\n"
        "def even(n):\n    return n == 0 or odd(n - 1)\n"
        "def odd(n):\n    return n != 0 and even(n - 1)\n"
        "def first():\n    return second()\n"
        "def second():\n    return first() or subprocess.Popen(['true'])\n"
        "def test_pure():\n    assert even(2)\n"
        "def test_with_a_fixture(harmless, tmp_path):\n    pass\n"
        "def test_direct():\n    subprocess.run(['true'])\n"
        "def test_in_a_lambda():\n    (lambda: os.fork())()\n"
        "async def test_asyncio():\n    await asyncio.create_subprocess_exec('true')\n"
        "def test_looks_for_one():\n    shutil.which('nginx')\n"
        "def test_in_a_circle():\n    first()\n"
        "def test_in_the_same_circle():\n    second()\n"
        "@pytest.mark.slow\ndef test_that_computes_for_long():\n    pass\n"
        "def test_rig(rig):\n    pass\n"
        "def test_behind(behind):\n    pass\n"
    )
    assert chosen(tmp_path, text, support=support) == {"test_pure", "test_with_a_fixture"}


# ---- what was found is believed


@pytest.fixture
def scripts(tmp_path):
    """A script that looks for something, as those of the verbs do; how often it looked is in ``looked``."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "unchanged.sh").write_text((SCRIPTS / "unchanged.sh").read_text())
    (folder / "look.sh").write_text(
        '. "$(dirname "$0")/unchanged.sh"\nunchanged it "$1" && exit 0\necho . >>"$2"\nnote it "$1"\n'
    )
    (tmp_path / "file").write_text("a")

    def look(**environment):
        subprocess.run(
            ["sh", folder / "look.sh", tmp_path / "file", tmp_path / "looked"], env=os.environ | environment, check=True
        )
        return (tmp_path / "looked").read_text().count(".")

    return look


def test_what_was_found_is_believed_until_something_changes(scripts, tmp_path):
    """A second run looks for nothing; another PATH, another interpreter or a changed file makes it look again."""
    assert [scripts(), scripts()] == [1, 1]
    elsewhere = {"PATH": f"/nowhere:{os.environ['PATH']}"}
    assert [scripts(**elsewhere), scripts(**elsewhere)] == [2, 2]
    assert scripts(**elsewhere, PYTHON="python3.99") == 3
    (tmp_path / "file").write_text("more")
    assert scripts(**elsewhere, PYTHON="python3.99") == 4


# ---- hooks of git


def test_the_hooks_are_verbs_and_nothing_is_fetched():
    """Of the repository alone, so that no second version of a tool is pinned; pre-commit itself accepts the file."""
    config = ROOT / ".pre-commit-config.yaml"
    said = yaml.safe_load(config.read_text())
    assert [each["repo"] for each in said["repos"]] == ["local"]
    hooks = said["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(is_a_verb_or_ci(hook["entry"]) for hook in hooks)
    validate = [sys.executable, "-m", "pre_commit", "validate-config", config]
    subprocess.run(validate, check=True, capture_output=True)


def test_a_hook_runs_before_a_commit(tmp_path):
    """As `make hooks` installs it, by the locked pre-commit: a verb that fails keeps the commit from being made."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables |= {"HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "cache"), "GIT_CONFIG_NOSYSTEM": "1"}
    root = tmp_path / "checkout"

    def run(*words):
        return subprocess.run(words, cwd=root, env=variables, capture_output=True, text=True, check=False)

    root.mkdir()
    (root / ".pre-commit-config.yaml").write_text((ROOT / ".pre-commit-config.yaml").read_text())
    (root / "Makefile").write_text("lint:\n\t@test ! -e bad.py\n")
    commit = ("git", "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--message", "All")
    for words in (
        ("git", "init", "--quiet"), (sys.executable, "-m", "pre_commit", "install"), ("git", "add", "."), commit,
    ):  # fmt: skip
        done = run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (root / ".git" / "hooks" / "pre-push").exists()
    (root / "bad.py").touch()
    run("git", "add", ".")
    assert run(*commit).returncode != 0
    assert run("git", "status", "--porcelain").stdout == "A  bad.py\n"


# ---- the forge


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_verbs_alone(path):
    """Whatever CI does, everybody can do: each step is a verb of make or .ci/run. Rights are named, time is bounded."""
    said = yaml.safe_load(path.read_text())
    assert said["permissions"] == {"contents": "read"}
    for job in said["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "run" in step:
                assert is_a_verb_or_ci(step["run"]), step["run"]
            else:
                assert re.fullmatch(r"(actions|docker)/[\w-]+@v\d+", step["uses"])


def test_the_workflows_call_ci_and_the_release():
    """CI is .ci/run, and a tag becomes what `make dist` builds, attested."""
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]
    ci, release = (path.read_text() for path in WORKFLOWS)
    assert ".ci/run" in ci
    for part in ("make dist VERSION=", "actions/attest-build-provenance@", "make push", "make publish"):
        assert part in release


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_one_that_the_forge_reads(path):
    """With a name, a description, and fields that have an id of their own and a label."""
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= {*form} <= {"name", "description", "title", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(re.fullmatch(r"[\w-]+", field["id"]) and field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_there_is_a_form_for_bugs_for_wishes_and_for_authors_of_plugins():
    """And weaknesses in security have a way of their own."""
    assert [path.stem for path in FORMS] == ["bug", "feature", "plugin"]
    (contact,) = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text())["contact_links"]
    assert "SECURITY.md" in contact["about"]
    security = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in security
    assert (ROOT / "docs" / "limits.md").exists()
    assert list((ROOT / "docs").rglob("security.md"))


def test_a_pull_request_says_what_why_and_how_it_was_tested():
    """And names the changelog."""
    text = (ROOT / ".github" / "pull_request_template.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What", "Why", "How it was tested"]
    assert "CHANGELOG.md" in text


# ---- a machine of one's own


def test_the_dev_container_is_debian_and_a_verb():
    """The image has a tag, and gets what `make bare` proves to be enough, with git for its user; make does the rest."""
    said = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert re.fullmatch(r"debian:\w+", said["image"])
    assert is_a_verb_or_ci(said["postCreateCommand"])
    installed = said["onCreateCommand"].rpartition("--no-install-recommends ")[2].split()
    bare = re.search(r"^PACKAGES: Final = \((.*)\)$", (SCRIPTS / "bare_machine.py").read_text(), re.MULTILINE)[1]
    assert {*installed} == {*re.findall(r'"([\w-]+)"', bare), "git"}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", ".github/pull_request_template.md"])
def test_the_pages_for_contributors_name_verbs_that_exist(name):
    """And files that do."""
    text = (ROOT / name).read_text()
    assert {*re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE)} <= VERBS
    for path in re.findall(r"`((?:\.?[\w-]+/)+[\w.-]*)`", text):
        assert path.startswith("build/") or (ROOT / path).exists() or [*ROOT.glob(f"*/{path}")], path
