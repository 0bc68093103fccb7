"""``hookline new`` and ``hookline build``: from nothing to a module."""

from __future__ import annotations

import json

import pytest

from hookline_artifacts.module.annotate import custom_sections
from hookline_cli.authoring import templates
from hookline_cli.authoring.describing import ignored
from hookline_cli.authoring.project import read_project
from hookline_cli.authoring.texts import cases_of
from hookline_cli.bounded import read_file
from hookline_cli.reading import read


def test_a_project_needs_nothing_outside_of_its_folder(hookline, sdk, tmp_path):
    """It has the SDK with it, the plugin's name wherever the template says one, and it is told what comes next."""
    done = hookline("new", "--lang", "c", "plugins/sql-guard")
    assert done.code == 0
    assert "hookline build plugins/sql-guard" in done.out
    folder = tmp_path / "plugins" / "sql-guard"
    assert (folder / "hookline-sdk" / "hookline.h").is_file()
    assert json.loads((folder / "plugin.json").read_text())["name"] == "sql-guard"
    assert "sql_guard lets it through" in (folder / "sql-guard.c").read_text()
    own = [each for each in folder.rglob("*") if each.is_file() and "hookline-sdk" not in each.parts]
    assert not [each for each in own if "my-plugin" in each.name + each.read_text()]


def test_a_project_becomes_a_module_whose_cases_hold(hookline, project):
    """With the compiler of a Python package, and the description and the cases in it."""
    built = hookline("build", "guard", "--json")
    assert built.code == 0, built.out + built.err
    assert built.json["hooks"] == ["pre_query"]
    sections = custom_sections((project / "guard.wasm").read_bytes())
    assert json.loads(sections["hookline.plugin"])["name"] == "guard"
    assert len(json.loads(sections["hookline.cases"])) == built.json["cases"] == 2
    assert hookline("test", "guard").code == 0
    assert "DROP is not allowed" in hookline("call", "guard", "pre_query", "drop table t").out


def test_nothing_is_ever_overwritten(hookline, project):
    """A folder that is not empty, or a file, stays as it is."""
    before = {each: each.read_bytes() for each in project.rglob("*") if each.is_file()}
    done = hookline("new", "--lang", "c", "guard")
    assert (done.code, "nothing is ever overwritten" in done.sentence) == (2, True)
    assert {each: each.read_bytes() for each in project.rglob("*") if each.is_file()} == before
    (project / "file").touch()
    assert "is a file" in hookline("new", "--lang", "c", "guard/file").sentence


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--lang", "zz", "a"], 2, "no template for the language 'zz'; there are c"),
        (["--lang", "c", "a", "--name", "A_b"], 2, "lower-case letters, digits and '-'"),
        (["--lang", "c", "a", "--name", "-a"], 2, "cannot be a plugin's name"),
        (["--lang", "c"], 2, "give a language and a folder"),
        (["a"], 2, "--list names the languages"),
    ],
)
def test_what_cannot_be_made_is_told(hookline, sdk, tmp_path, arguments, code, told):
    """And nothing is written."""
    done = hookline("new", *arguments)
    assert (done.code, told in done.sentence) == (code, True)
    assert not (tmp_path / "a").exists()


def test_the_languages_are_listed(hookline, sdk):
    """Those that this installation has a template for."""
    assert hookline("new", "--list").out == "c\n"


def test_every_template_keeps_its_promises(tmp_path):
    """A description of which nothing is ignored, cases, a manifest that is right, and its own name nowhere."""
    for each in templates.templates():
        folder = tmp_path / each.language
        templates.make(each, folder, "sql-guard")
        project = read_project(folder)
        assert (project.language, project.name) == (each.language, "sql-guard")
        assert ignored(json.loads((folder / "plugin.json").read_text())) == []
        cases = cases_of(read_file(folder / "cases.json", most=2**20, what="cases"), what="cases")
        assert len(cases) >= 3, each.language
        assert read([folder / "wasmplugin.yaml"]).problems == []
        own = [path for path in folder.rglob("*") if path.is_file() and templates.SDK not in path.parts]
        assert not [path for path in own if "my-plugin" in path.name + path.read_text(errors="replace")]


def test_what_a_compiler_says_is_shown(hookline, project):
    """With exit code 1; the module that was built before stays."""
    assert hookline("build", "guard").code == 0
    before = (project / "guard.wasm").read_bytes()
    with (project / "guard.c").open("a") as source:
        source.write("nonsense\n")
    done = hookline("build", "guard")
    assert done.code == 1
    assert "unknown type name 'nonsense'" in done.out
    assert "ended with the code 1" in done.out
    assert "unknown type name" in hookline("build", "guard", "--json").json["output"]
    assert (project / "guard.wasm").read_bytes() == before


TOML = 'language = "c"\nbuild = ["true"]\nmodule = "built.wasm"\n'


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (None, 2, "it has no hookline.toml; 'hookline new"),
        ("language = ", 2, "is not TOML: Invalid value"),
        ('language = "c"\nmodule = "a.wasm"\n', 2, "build is missing"),
        (TOML.replace("build", "biuld"), 2, "there is no field 'biuld'; did you mean 'build'?"),
        (TOML.replace('["true"]', '"true"'), 2, "build has to be the words of a command"),
        (TOML.replace('["true"]', "[[]]"), 2, "build has to be the words of a command"),
        (TOML.replace("built.wasm", "../built.wasm"), 2, "is outside of the project"),
        (TOML.replace("built.wasm", "/etc/passwd"), 2, "is outside of the project"),
        (TOML + 'name = "A B"\n', 2, "lower-case letters"),
        (TOML + "env = 1\n", 2, "env has to be a table"),
        ("#" * 70_000, 2, "has more than 65536 bytes"),
        (TOML, 1, "built.wasm is not there: say in hookline.toml's 'module' where 'true' writes it"),
        (TOML.replace("true", "no-such-compiler"), 3, "there is no program 'no-such-compiler' on this machine"),
    ],
)
def test_a_project_that_is_wrong_is_told(hookline, tmp_path, text, code, told):
    """Which field, and what to write."""
    (tmp_path / "guard").mkdir()
    if text is not None:
        (tmp_path / "guard" / "hookline.toml").write_text(text)
    done = hookline("build", "guard")
    assert (done.code, told in done.sentence) == (code, True), done.err


def test_a_folder_that_is_not_there_is_told(hookline, tmp_path):
    """And a file in its place."""
    assert "the folder guard is not there" in hookline("build", "guard").sentence
    (tmp_path / "guard").touch()
    assert "a project is a folder" in hookline("build", "guard").sentence


def test_a_project_that_is_not_built_says_how(hookline, project):
    """Whatever is asked of it."""
    for arguments in (["test", "guard"], ["call", "guard", "pre_query", "x"], ["bench", "guard"], ["inspect", "guard"]):
        done = hookline(*arguments)
        assert (done.code, "build it with 'hookline build guard'" in done.sentence) == (3, True)


@pytest.mark.parametrize(("language", "tool"), [("rust", "cargo"), ("go", "go"), ("javascript", "npm")])
def test_a_toolchain_that_is_missing_says_what_to_install(hookline, tmp_path, monkeypatch, language, tool):
    """Before anything is run."""
    from hookline_cli.authoring import toolchains

    for each in (toolchains.rustc, toolchains.go, toolchains.node):
        each.cache_clear()
    monkeypatch.setattr(toolchains, "rust_candidates", list)
    monkeypatch.setattr(toolchains, "executables", lambda _: [])
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "hookline.toml").write_text(
        TOML.replace('"c"', f'"{language}"').replace('["true"]', f'["{tool}", "build"]')
    )
    done = hookline("build", "guard")
    assert done.code == 3
    assert f"{tool} cannot be run here: there is no" in done.sentence
    assert "install" in done.sentence.lower()
    for each in (toolchains.rustc, toolchains.go, toolchains.node):
        each.cache_clear()


def test_a_description_that_is_wrong_is_told_before_anything_is_compiled(hookline, project):
    """Line and column; nobody waits for a compiler to learn of a comma."""
    (project / "hookline.toml").write_text(TOML.replace('["true"]', '["touch", "was-built"]'))
    (project / "plugin.json").write_text('{"name": "guard",\n "hooks": [}')
    done = hookline("build", "guard")
    assert (done.code, "plugin.json is not JSON: line 2, column 12" in done.sentence) == (2, True)
    assert not (project / "was-built").exists()


def test_a_build_of_several_commands_runs_them_in_turn(hookline, project, guests):
    """In the project's folder, with its environment; each has to go through."""
    (project / "other.wasm").write_bytes(guests.answering(pre_query={"action": "continue"}))
    (project / "hookline.toml").write_text(
        'language = "c"\nmodule = "built.wasm"\nbuild = [["cp", "other.wasm", "first.wasm"], '
        '["sh", "-c", "cp first.wasm $WHERE"]]\nenv = {WHERE = "built.wasm"}\n'
    )
    assert hookline("build", "guard").code == 0
    assert hookline("build", "guard", "--json").json["module"] == "guard/guard.wasm"
