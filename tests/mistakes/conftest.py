"""A terminal in a folder of its own, where mistakes are made."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import deliberate
from hookline_cli.main import main


@pytest.fixture(scope="session")
def _cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hookline(capsys, monkeypatch, tmp_path, _cache):
    """Runs ``hookline`` in ``tmp_path``, without anybody's logins, clusters and compiled modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-logins"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-cluster"))
    monkeypatch.delenv("HOOKLINE_TRACEBACK", raising=False)

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hookline", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return SimpleNamespace(code=code, out=printed.out, err=printed.err)

    return run


@pytest.fixture
def make(hookline, tmp_path):
    """Makes a mistake, and holds the answer against its row; what it ended with."""

    def run(mistake, **words):
        for name, content in mistake.files.items():
            deliberate.write(tmp_path, name, content, words)
        ended = hookline(*(deliberate.filled(each, words) for each in mistake.done))
        print(f"{mistake.name}: {deliberate.answer(ended)}")  # noqa: T201 - with -s, the table
        deliberate.check(mistake, ended, tmp_path)
        return ended

    return run
