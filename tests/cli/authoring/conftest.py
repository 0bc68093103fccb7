"""An author's desk: modules of few bytes, and a project in C that Python alone can build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import hookline_sdk
from guests import Guests
from hookline_artifacts.module.annotate import with_sections
from hookline_cli.authoring import templates

TEMPLATES = Path(__file__).parent / "templates"


@pytest.fixture(scope="session")
def _cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, _cache):
    """Compiled modules are kept for the run, and not among the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache))


@pytest.fixture
def guests():
    """A maker of modules."""
    return Guests()


@pytest.fixture
def write(tmp_path):
    """Writes a module with what it says of itself, or a document; its name."""

    def run(name, content, *, plugin=None, cases=None):
        if isinstance(content, bytes):
            sections = {"hookline.plugin": plugin, "hookline.cases": cases}
            told = {key: json.dumps(value).encode() for key, value in sections.items() if value is not None}
            (tmp_path / name).write_bytes(with_sections(content, told) if told else content)
        else:
            (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    return run


@pytest.fixture
def sdk(tmp_path, monkeypatch):
    """Templates: one, of few lines, with the SDK of its language."""
    folder = tmp_path / "sdk"
    shutil.copytree(hookline_sdk.FOLDER / "c", folder / "c")
    shutil.copytree(TEMPLATES / "c", folder / "templates" / "c")
    monkeypatch.setattr(templates, "FOLDER", folder)
    return folder


@pytest.fixture
def project(hookline, sdk, tmp_path):
    """A project, not built; its folder."""
    done = hookline("new", "--lang", "c", "guard")
    assert done.code == 0, done.err
    return tmp_path / "guard"
