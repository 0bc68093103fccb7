"""A call starts quickly: what reaches a network or a cluster is not imported, and no interpreter is started.

What a program imports is asserted, and never its time. A process of its own is asked, which has one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_ELSEWHERE = (
    "aiohttp", "cryptography", "http.client", "jsonschema", "kubernetes", "nacl", "prometheus_client",
    "psycopg", "sigstore", "uvloop", "yarl",
    "hookline_artifacts.fetch", "hookline_artifacts.registry", "hookline_artifacts.resolve", "hookline_artifacts.trust",
    "hookline_api.distribution", "hookline_api.policies", "hookline_cli.registries",
    "hookline_runtime.host.backends.http", "hookline_runtime.host.http_client", "wasmtime.component",
)  # fmt: skip
_CALL = """
import subprocess, sys
def none(*_, **__):
    raise AssertionError("an interpreter is started")
subprocess.Popen = none
sys.argv = ["hookline", *sys.argv[1:]]
from hookline_cli.main import main
try:
    main()
finally:
    print("\\nloaded:", *sorted(sys.modules), file=sys.stderr)
"""
_SCHEMA = {"type": "object", "required": ["tables"], "properties": {"tables": {"type": "array"}}}
_CHECK = """
import asyncio, json, os, sys, threading
from hookline_artifacts.errors import ConfigError
from hookline_cli.authoring import forked
async def apart(*_, **__):
    print("apart")
forked.check_apart = apart
config, schema, threads = json.loads(sys.stdin.read())
end = threading.Event()
if threads:
    threading.Thread(target=end.wait).start()
try:
    asyncio.run(forked.check(config, schema, seconds=1))
except ConfigError as error:
    print(error)
end.set()
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("none is left")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose settings are in its manifest, and are checked by a schema."""
    folder = tmp_path_factory.mktemp("starting") / "guard"
    for command in (["new", "--lang", "c", str(folder)], ["build", str(folder)]):
        subprocess.run([sys.executable, "-m", "hookline_cli", *command], check=True, capture_output=True)
    return folder


def _run(*words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    done = subprocess.run([sys.executable, "-c", _CALL, *words], capture_output=True, text=True, check=False)
    return done, set(done.stderr.rpartition("\nloaded:")[2].split())


@pytest.fixture
def compiled(project, _own_cache):
    """The project, whose module is among the compiled ones: to compile it, an interpreter is started."""
    subprocess.run(
        [sys.executable, "-m", "hookline_cli", "call", project, "pre_query", "x"], check=True, capture_output=True
    )
    return project


def test_a_call_imports_nothing_that_reaches_others(compiled):
    """Neither for the project's manifest, nor for its settings, nor for what a plugin may ask of its host."""
    done, loaded = _run("call", str(compiled), "pre_query", "SELECT 1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "continue" in done.stdout
    assert {"wasmtime", "pydantic", "hookline_cli.reading", "hookline_cli.authoring.forked"} <= loaded
    assert loaded.isdisjoint(_ELSEWHERE), sorted(loaded & {*_ELSEWHERE})


def test_cases_are_tried_without_these_too(compiled):
    """Also where there are several."""
    done, loaded = _run("test", str(compiled))
    assert done.returncode == 0, done.stderr[-2000:]
    assert loaded.isdisjoint(_ELSEWHERE), sorted(loaded & {*_ELSEWHERE})


def test_settings_are_refused_by_the_schema_all_the_same(project):
    """With the field, and what it has to be."""
    done, _ = _run("call", str(project), "pre_query", "SELECT 1", "--config", '{"tables": 3}')
    assert done.returncode == 2
    assert "config.tables: expected a list, found 3 (so the plugin's schema says)" in done.stderr


def test_help_imports_neither_models_nor_an_engine():
    """A list of commands needs none."""
    _, loaded = _run("--help")
    assert "click" in loaded
    assert loaded.isdisjoint({"pydantic", "wasmtime", "asyncio", "orjson", *_ELSEWHERE})


def _check(config, schema, *, threads=False) -> list[str]:
    given = json.dumps([config, schema, threads])
    done = subprocess.run([sys.executable, "-c", _CHECK], input=given, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_fork_says_what_a_process_of_its_own_would():
    """Nothing for what is right, one sentence for what is wrong; and it is gone then."""
    assert _check({"tables": []}, _SCHEMA) == ["none is left"]
    wrong, left = _check({}, _SCHEMA)
    assert wrong == "config: 'tables' is a required property (so the plugin's schema says)"
    assert left == "none is left"


def test_a_hostile_schema_ends_with_its_fork():
    """A regular expression that runs for ever does so for a second of the processor."""
    schema = {"properties": {"a": {"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}}
    refused, left = _check({"a": "a" * 200}, schema)
    assert "checking the settings against the plugin's schema failed: it ended by signal" in refused
    assert left == "none is left"


def test_a_process_with_threads_is_not_forked():
    """A fork has the locks of other threads, and nobody who lets go of them."""
    assert _check({}, _SCHEMA, threads=True) == ["apart", "none is left"]
