"""``hookline.pyz``: one file that needs a Python and nothing else, made of what this environment has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest
import yaml

import pyz
from guests import Guests
from hookline_artifacts.module.annotate import with_sections

pytestmark = pytest.mark.slow
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}}}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The file, as ``make cli`` builds it."""
    out = tmp_path_factory.mktemp("pyz") / "hookline.pyz"
    pyz.build(out)
    return out


@pytest.fixture
def run(built, tmp_path):
    """Runs it with the interpreter alone: no environment, no packages, and a cache of its own."""

    def started(*arguments, file=built):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CACHE_HOME": str(built.parent)}
        interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        return subprocess.run(
            [interpreter, file, *map(str, arguments)],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip

    return started


def test_it_runs_without_any_package(run, tmp_path):
    """``--help``, ``check`` with a module and its schema, which starts a process of its own, and ``verify``."""
    assert run("--help").stdout.startswith("Usage: hookline ")
    body = Guests().module({"pre_query": "(i64.const 0)"})
    described = {"hookline.plugin": orjson.dumps({"config_schema": SCHEMA})}
    (tmp_path / "guard.wasm").write_bytes(with_sections(body, described))
    spec = {"source": {"file": {"path": "guard.wasm"}}, "config": {"limit": "many"}}
    kind = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin"}
    document = {**kind, "metadata": {"name": "guard"}, "spec": spec}
    (tmp_path / "guard.yaml").write_text(yaml.safe_dump(document))
    done = run("check", "guard.yaml")
    assert done.returncode == 1, done
    assert 'spec.config.limit: expected a whole number, found "many"' in done.stdout
    done = run("verify", "guard.wasm", "--key", "none.pub")
    assert done.returncode == 2
    assert done.stderr == f"hookline: {tmp_path}/none.pub cannot be read: No such file or directory\n"


def test_it_says_for_whom_it_is(run, built, tmp_path):
    """Its packages have compiled parts, so another Python or another machine is told so, in one sentence."""
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(built) as file:
        found = json.loads(file.read("built.json"))
        main = file.read("__main__.py")
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("__main__.py", main)
        file.writestr("built.json", json.dumps(found | {"for": ["3.99", "plan9", "pdp11"]}))
    done = run("--help", file=other)
    assert done.returncode == 1
    assert done.stderr.startswith("hookline: this file is for CPython 3.99 on plan9 pdp11, and this is cpython 3.")
    assert len(done.stderr.splitlines()) == 1


def test_it_holds_no_program_and_no_test_of_ours(built):
    """But what the command line needs."""
    with zipfile.ZipFile(built) as file:
        parts = {name.split("/")[1] for name in file.namelist() if name.startswith("site/")}
    assert {"hookline_api", "hookline_artifacts", "hookline_cli", "hookline_runtime", "hookline_sdk", "click"} <= parts
    assert parts.isdisjoint({"hookline_operator", "hookline_sidecar", "pytest", "mypy", "kopf"})
